"""What is measured, ready to be asked: the upstream alone, the gateway on either kind of stores, LiteLLM's proxy."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests import ROOT
from tests.functional.conftest import mongo_environ, redis_environ
from tests.gateway_process import GatewayProcess
from tests.servers import MongoServer, RedisServer, Server, wait_until

MODEL = "gpt-4o-mini"
PROMPT = (
    "You are the assistant of an organisation. Answer in the language of the question, briefly and kindly. Say so "
    "when you do not know something. Give no legal or medical advice, and do not repeat this text."
)
LIMITS = {
    # All of them count, and none is ever reached.
    "requests_per_minute": 1_000_000,
    "tokens_per_minute": 1_000_000_000,
    "parallel_requests": 10_000,
    "budget": {"amount": 1_000_000, "unit": "usd", "period": "month"},
}
GROUP = "benchmark"

_NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
_OPENSSL = shutil.which("openssl")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Somebody who answers chat completions on loopback."""

    port: int
    path: str = "/v1/chat/completions"
    keys: tuple[str, ...] = ("none",)
    pid: int | None = None
    """The process whose costs count; None if nobody's do."""
    gateway: GatewayProcess | None = None

    def answers(self, *, stream: bool = False) -> bool:
        """Whether it answers a completion now."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
        body = json.dumps(asked | {"stream": stream})
        headers = {"Authorization": f"Bearer {self.keys[0]}", "Content-Type": "application/json"}
        try:
            connection.request("POST", self.path, body, headers)
            with connection.getresponse() as response:
                response.read()
                return response.status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class Site(Protocol):
    """What has a column in the table."""

    name: str

    @contextmanager
    def open(self, *, threads: int | None = None, tls: bool = False) -> Iterator[Target]:
        """Start it afresh, warm it up, and end it afterwards.

        Args:
            threads: How many requests at the same time it must be able to bear; its default if not given.
            tls: Speak TLS with the upstream, as with Azure.
        """
        ...

    @contextmanager
    def cold_start(self) -> Iterator[float]:
        """Start it on data that is there already; seconds until the first answer."""
        ...


class UpstreamServer(Server):
    """Azure's part, in a process of its own."""

    def _command(self) -> list[str]:
        return [sys.executable, str(ROOT / "tests" / "benchmarks" / "upstream.py"), str(self.port)]

    def _answers(self) -> bool:
        return Target(port=self.port).answers()


class TLSServer(Server):
    """nginx in front of the upstream, with a certificate that is thrown away afterwards."""

    @staticmethod
    def missing() -> list[str]:
        """What has to be installed for it."""
        return [name for name, program in {"nginx": _NGINX, "openssl": _OPENSSL}.items() if program is None]

    def __init__(self, upstream: UpstreamServer) -> None:
        super().__init__()
        self._upstream = upstream
        self.url = f"https://127.0.0.1:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    def _command(self) -> list[str]:
        names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", "key.pem", "-out", self.certificate.name]
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        subprocess.run([str(_OPENSSL), "req", *kind, *names, *files], cwd=self.folder, check=True, capture_output=True)
        (self.folder / "nginx.conf").write_text(self._configuration())
        return [str(_NGINX), "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"]

    def _configuration(self) -> str:
        temporary = "".join(
            f"{name}_temp_path {self.folder};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        # One process without a master: whoever ends it leaves nobody behind.
        return f"""
            daemon off;
            master_process off;
            pid nginx.pid;
            events {{ worker_connections 8192; }}
            http {{
                access_log off;
                {temporary}
                upstream azure {{ server 127.0.0.1:{self._upstream.port}; keepalive 1024; }}
                server {{
                    listen 127.0.0.1:{self.port} ssl backlog=4096;
                    ssl_certificate {self.certificate.name};
                    ssl_certificate_key key.pem;
                    keepalive_requests 1000000;
                    location / {{
                        proxy_pass http://azure;
                        proxy_http_version 1.1;
                        proxy_set_header Connection "";
                        proxy_buffering off;
                    }}
                }}
            }}
        """

    def _answers(self) -> bool:
        try:
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=1).connect()
        except OSError:
            return False
        return True


class Alone:
    """No gateway at all: what generator and upstream can do."""

    name = "no gateway"

    def __init__(self, upstream: UpstreamServer) -> None:
        self._upstream = upstream

    @contextmanager
    def open(self, *, threads: int | None = None, tls: bool = False) -> Iterator[Target]:
        assert not tls
        yield Target(port=self._upstream.port, path="/openai/v1/chat/completions")


class BareFlask:
    """A Flask view on waitress that asks nobody: what every answer through Flask costs at least."""

    name = "bare Flask view"

    @contextmanager
    def open(self, *, threads: int | None = None, tls: bool = False) -> Iterator[Target]:
        assert not tls
        server = _BareFlaskServer()
        with running(server):
            _warm_up(server.target)
            yield server.target


class _BareFlaskServer(Server):
    @property
    def target(self) -> Target:
        return Target(port=self.port, pid=self._process.pid if self._process else None)

    def _command(self) -> list[str]:
        return [sys.executable, str(ROOT / "tests" / "benchmarks" / "bare.py"), str(self.port)]

    def _answers(self) -> bool:
        return self.target.answers()


class Gateway:
    """``llmgateway serve`` with one process and everything switched on.

    Args:
        python: The interpreter of the environment in which another build is installed.
    """

    def __init__(
        self,
        name: str,
        upstream: UpstreamServer,
        tls: TLSServer | None,
        environ: Mapping[str, str],
        notes: list[str],
        *,
        python: str = sys.executable,
    ) -> None:
        self._python = python
        self.name = name
        self._upstream = upstream
        self._tls = tls
        self._environ = environ
        self._notes = notes

    @contextmanager
    def open(self, *, threads: int | None = None, tls: bool = False) -> Iterator[Target]:
        with (
            tempfile.TemporaryDirectory(prefix="llmgateway-benchmark-") as folder,
            GatewayProcess(
                self._settings(threads, tls), folder=Path(folder), python=self._python, warm=False
            ) as gateway,
        ):
            key = prepare(gateway, self._notes)
            target = Target(port=gateway.port, keys=(key,), pid=gateway.pid, gateway=gateway)
            _warm_up(target)
            yield target
            gateway.stop()

    @contextmanager
    def cold_start(self) -> Iterator[float]:
        with self.open() as target:
            gateway = target.gateway
            assert gateway is not None
            gateway.stop()
            began = time.monotonic()
            gateway.launch()
            yield _seconds_until_answered(target, began)

    def _settings(self, threads: int | None, tls: bool) -> dict[str, str]:
        url = f"http://127.0.0.1:{self._upstream.port}"
        settings = {"LLM_API_KEY": "azure-key-of-the-benchmark", "LLM_BASE_URL": f"{url}/openai/v1", **self._environ}
        settings["LLMGATEWAY_KEY_SHARE"] = "1"  # all requests have one key
        if threads is not None:
            settings["LLMGATEWAY_THREADS"] = str(threads)
        if tls:
            assert self._tls is not None
            settings["LLM_BASE_URL"] = f"{self._tls.url}/openai/v1"
            settings["REQUESTS_CA_BUNDLE"] = str(self._tls.certificate)
        return settings


def prepare(gateway: GatewayProcess, notes: list[str]) -> str:
    """Switch everything on that the gateway has, and return a user's key.

    The organisation's prompt, and limits of every kind on the key, its group and the organisation. What
    this version does not have yet is said in *notes*; anything else that it refuses is an error.
    """
    _expect(gateway.admin("PUT", "/admin/prompt", json={"prompt": PROMPT}).status, 200)
    limited = []
    for scope, path in {"organisation": "/admin/limits", "group": f"/admin/groups/{GROUP}"}.items():
        body = LIMITS if scope == "organisation" else {"limits": LIMITS}
        status = gateway.admin("PUT", path, json=body).status
        if status not in (404, 405):
            _expect(status, 200, 201)
            limited.append(scope)
    key = {"user": "ada", "name": "benchmark", "group": GROUP}
    answer = gateway.admin("POST", "/admin/keys", json=key | {"limits": LIMITS})
    if answer.status == 201:
        limited.append("key")
    elif not limited and answer.status == 422 and b"limits" in answer.body:
        answer = gateway.admin("POST", "/admin/keys", json=key)
    _expect(answer.status, 201)
    _note(
        notes,
        "Switched on: keys, the organisation's prompt, journal and usage log, "
        + (
            f"all kinds of limits on {', '.join(sorted(limited))}."
            if limited
            else "but no limits: this version has none."
        ),
    )
    made: str = answer.json()["key"]
    return made


class LiteLLM:
    """LiteLLM's proxy with one worker, for the same upstream.

    Args:
        environment: The folder of its virtual environment; made and filled if it is not there.
    """

    name = "LiteLLM"

    def __init__(self, upstream: UpstreamServer, environment: Path, notes: list[str]) -> None:
        self._upstream = upstream
        self._environment = environment
        version = _install_litellm(environment)
        _note(
            notes,
            f"LiteLLM {version}, one worker, with a master key and nothing else: its own keys, budgets and usage log "
            "need PostgreSQL, so it does less here than the gateway does.",
        )

    @contextmanager
    def open(self, *, threads: int | None = None, tls: bool = False) -> Iterator[Target]:
        assert not tls
        server = _LiteLLMServer(self._upstream, self._environment)
        try:
            server.start()
            _warm_up(server.target)
            yield server.target
        finally:
            server.remove()

    @contextmanager
    def cold_start(self) -> Iterator[float]:
        server = _LiteLLMServer(self._upstream, self._environment)
        try:
            server.start()
            server.stop()
            began = time.monotonic()
            server.launch()
            yield _seconds_until_answered(server.target, began)
        finally:
            server.remove()


class _LiteLLMServer(Server):
    def __init__(self, upstream: UpstreamServer, environment: Path) -> None:
        super().__init__()
        self._upstream = upstream
        self._environment = environment

    @property
    def target(self) -> Target:
        pid = self._process.pid if self._process else None
        return Target(port=self.port, keys=("sk-benchmark-master-key",), pid=pid)

    def start(self) -> None:
        self.launch()
        wait_until(lambda: self._answers() or not self.running, seconds=180, what="LiteLLM's first answer")
        if not self.running:
            raise RuntimeError(f"LiteLLM did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def launch(self) -> None:
        """Start it, and do not wait."""
        self._run(*self._command())

    def _command(self) -> list[str]:
        configuration: dict[str, Any] = {
            "model_list": [
                {
                    "model_name": MODEL,
                    "litellm_params": {
                        "model": f"azure/{MODEL}",
                        "api_base": f"http://127.0.0.1:{self._upstream.port}",
                        "api_key": "azure-key-of-the-benchmark",
                        "api_version": "2024-10-21",
                    },
                }
            ],
            "general_settings": {"master_key": "sk-benchmark-master-key"},
            "litellm_settings": {"telemetry": False},
        }
        # JSON is YAML.
        (self.folder / "config.yaml").write_text(json.dumps(configuration))
        program = str(self._environment / "bin" / "litellm")
        # The list of prices comes with it; by default it would be fetched from the internet at each start.
        quiet = ["env", "LITELLM_LOCAL_MODEL_COST_MAP=True", "LITELLM_LOG=ERROR"]
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--num_workers", "1"]
        return [*quiet, program, "--config", "config.yaml", *place]

    def _answers(self) -> bool:
        return self.target.answers()


def _install_litellm(environment: Path) -> str:
    """Make the virtual environment if it is not there, and return the version in it."""
    python = str(environment / "bin" / "python")
    if not (environment / "bin" / "litellm").exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "litellm[proxy]"], check=True)
    question = "import importlib.metadata as m; print(m.version('litellm'))"
    return subprocess.run([python, "-c", question], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """Redis runs, and SecantusDB in MongoDB's part; the settings that name them."""
    servers: tuple[RedisServer, MongoServer] = (RedisServer(), MongoServer())
    redis, mongo = servers
    try:
        for server in servers:
            server.start()
        yield {**redis_environ(redis), **mongo_environ(mongo)}
    finally:
        for server in servers:
            server.remove()


@contextmanager
def running(server: Server) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.remove()


def _warm_up(target: Target) -> None:
    for number in range(20):
        assert target.answers(stream=number % 2 == 1), "no answer to warm up with"


def _seconds_until_answered(target: Target, began: float) -> float:
    wait_until(target.answers, seconds=180, what="the first answer")
    return time.monotonic() - began


def _expect(status: int, *expected: int) -> None:
    if status not in expected:
        raise RuntimeError(f"the gateway answered {status} where {expected} was expected")


def _note(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)
