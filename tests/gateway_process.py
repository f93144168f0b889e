"""``llmgateway serve`` as an operator runs it: a process of its own, with an environment of its own."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from tests.servers import _die_with_parent, free_port, wait_until
from tests.warm_start import WarmProcess

ADMIN_KEY = "functional-tests-admin-key"

_END_SECONDS = 20
_NOTHING = object()  # None is a body, too


@dataclass(frozen=True)
class HTTPAnswer:
    """What came back, exactly as it came."""

    status: int
    headers: list[tuple[str, str]]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name.lower())

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object; fails if the answer is none."""
        assert self.status >= 400, f"no error: {self.status} {self.body[:200]!r}"
        assert self.header("x-request-id"), "an error without x-request-id"
        assert {"error"} == self.json().keys()
        error: dict[str, Any] = self.json()["error"]
        assert {"message", "type", "param", "code"} <= error.keys()
        assert error["message"]
        return error


class GatewayProcess:
    """A gateway on a free port of loopback, on the same port again when it is restarted.

    Args:
        environ: The whole environment but ``PATH`` and ``PYTHONPATH``; nothing else is inherited.
        folder: Where its output is written, and its instance folder is unless *environ* names one.
        python: The interpreter of another environment, for another build of the gateway.
        launcher: A program, with arguments, that is given the command and runs it in its own place.
        warm: Whether it may be forked from a process that has imported the program (:mod:`tests.warm_start`); not
            where a test is about the start itself, or measures memory.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        folder: Path,
        python: str = sys.executable,
        launcher: Sequence[str] = (),
        warm: bool = True,
    ) -> None:
        self.folder = folder
        self._warm = sys.platform == "linux" and warm and python == sys.executable and not launcher
        self._python = python
        self._launcher = launcher
        self.environ = {
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            "ADMIN_KEY": ADMIN_KEY,
            "LLMGATEWAY_INSTANCE": str(folder / "instance"),
            "LLMGATEWAY_PROCESSES": "1",
            **environ,
        }
        self.port = 0
        self._process: subprocess.Popen[bytes] | WarmProcess | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> GatewayProcess:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_key(self) -> str:
        return self.environ["ADMIN_KEY"]

    @property
    def instance(self) -> Path:
        return Path(self.environ["LLMGATEWAY_INSTANCE"])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """Everything that it has written to standard output and standard error, restarts included."""
        return self._output_file.read_text(errors="replace")

    def start(self) -> None:
        """Start it, and return when it answers."""
        self.port = self.port or free_port()
        self.launch()
        wait_until(self._answers, seconds=20, what="an answer of /livez")

    def launch(self) -> None:
        """Start it, and do not wait."""
        assert not self.running
        arguments = ["serve", "--port", str(self.port)]
        with open(self._output_file, "ab") as output:
            if self._warm:
                self._process = WarmProcess(arguments, environ=self.environ, folder=self.folder, output=output)
            else:
                self._process = self._cold_process(arguments, output)

    def _cold_process(self, arguments: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._launcher, self._python, "-m", "llmgateway", *arguments],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # A group of its own, as a terminal gives to a command.
            process_group=0,
            preexec_fn=_die_with_parent,
        )

    def stop(self) -> None:
        """Ask it to end, as an operator would; it must do so with status 0."""
        self.signal(signal.SIGTERM)
        status = self.wait()
        assert 0 == status, f"exit status {status}:\n{self.output}"

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = _END_SECONDS) -> int:
        """Return its exit status when it has ended."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill(self) -> None:
        """End it, and every worker of it, as a crash of the machine would."""
        if self._process is None:
            return
        workers = self.workers()
        if self.running:
            self._process.kill()
        self._process.wait(_END_SECONDS)
        for worker in workers:
            _kill(worker)

    def restart(self) -> None:
        """Stop it, and start it on its port with its instance folder."""
        self.stop()
        self.start()

    def workers(self) -> list[int]:
        """The processes that serve beside the first one; none if that one serves itself."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def connect(self, *, timeout: float = 20) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def connect_to(self, worker: int) -> http.client.HTTPConnection:
        """Open a connection that this one of the workers has accepted, and goes on to serve."""
        others = [pid for pid in self.workers() if pid != worker]
        connection = self.connect()
        try:
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            assert 200 == self.request("GET", "/livez", connection=connection).status
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)
        return connection

    def request(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        json: Any = _NOTHING,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> HTTPAnswer:
        """Send one request, over a connection of its own unless one is given, and read its whole answer."""
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        if json is not _NOTHING:
            body = dump(json)
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        own = connection or self.connect()
        try:
            own.request(method, path, body=body, headers=sent)
            with own.getresponse() as response:
                answered = [(name.lower(), value) for name, value in response.getheaders()]
                return HTTPAnswer(response.status, answered, response.read())
        finally:
            if connection is None:
                own.close()

    def chat(
        self,
        key: str,
        text: str = "Hello",
        *,
        connection: http.client.HTTPConnection | None = None,
        **fields: Any,
    ) -> HTTPAnswer:
        """Ask for one completion."""
        document = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **fields}
        return self.request("POST", "/v1/chat/completions", key=key, json=document, connection=connection)

    def admin(self, method: str, path: str, **arguments: Any) -> HTTPAnswer:
        """Call the admin API."""
        headers = {"AdminKey": self.admin_key, **arguments.pop("headers", {})}
        return self.request(method, path, headers=headers, **arguments)

    def key(self, **fields: Any) -> str:
        """Hand out a key."""
        return str(self.new_key(**fields)["key"])

    def new_key(self, **fields: Any) -> dict[str, Any]:
        """Hand out a key, and return all that the admin is told about it; its group is made if there is none."""
        group = f"/admin/groups/{quote(str(fields.get('group')))}"
        if fields.get("group") and 404 == self.admin("GET", group).status:
            assert 200 == self.admin("PUT", group, json={}).status
        answer = self.admin("POST", "/admin/keys", json={"user": "ada", **fields})
        assert 201 == answer.status, answer.body
        told: dict[str, Any] = answer.json()
        return told

    @property
    def _output_file(self) -> Path:
        return self.folder / "output"

    def _answers(self) -> bool:
        assert self.running, f"it ended:\n{self.output}"
        try:
            return self.request("GET", "/livez").status == 200
        except OSError:
            return False


def dump(document: Any) -> bytes:
    return json.dumps(document).encode()


def _kill(pid: int) -> None:
    """Return when it has ended, and nobody listens on its port any more."""
    # Only what is still ours: the first process' death makes it an orphan, but does not change its name.
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"llmgateway\0serve" in command:
            ended = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            poll = select.poll()  # for any number of open files
            poll.register(ended, select.POLLIN)
            poll.poll(_END_SECONDS * 1000)
            os.close(ended)
    except (FileNotFoundError, ProcessLookupError):
        pass
