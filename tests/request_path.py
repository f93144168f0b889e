"""``python -m tests.request_path``: which of our files and functions one streamed request passes through.

The gateway serves in this process, a simulated Azure behind it, and Python tells which functions run
(``sys.setprofile``). A first request warms up; the second one counts.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import llmgateway
from llmgateway.server.supervisor import listen
from llmgateway.server.worker import run_worker
from llmgateway.settings import Settings
from llmgateway.simulator import DEFAULT_KEY, Simulator

PACKAGE = Path(llmgateway.__file__).parent
ADMIN_KEY = "request-path-admin-key"


class Recorder:
    """Remembers our functions that run, in any thread, while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.codes: set[CodeType] = set()

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if self.on and event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            self.codes.add(frame.f_code)

    def functions(self) -> dict[str, set[str]]:
        """Names of functions by file; the simulator is Azure and does not count."""
        found: dict[str, set[str]] = {}
        for code in self.codes:
            path = Path(code.co_filename).relative_to(PACKAGE)
            if path.parts[0] != "simulator":
                found.setdefault(str(path), set()).add(code.co_qualname)
        return found


def record() -> dict[str, set[str]]:
    """Serve one streamed request, and return our functions that ran, by file."""
    recorder = Recorder()
    with Simulator() as azure, tempfile.TemporaryDirectory() as folder:
        settings = Settings.from_env(
            {
                "ADMIN_KEY": ADMIN_KEY,
                "LLM_BASE_URL": f"{azure.url}/openai/v1",
                "LLM_API_KEY": DEFAULT_KEY,
                "LLMGATEWAY_INSTANCE": folder,
                "LLMGATEWAY_PROCESSES": "1",
            }
        )
        listener = listen("127.0.0.1", 0)
        client = threading.Thread(target=_ask, args=(listener.getsockname()[1], recorder))
        client.start()
        threading.setprofile(recorder)
        sys.setprofile(recorder)
        try:
            run_worker(settings, listener)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type] # the documented way to end it
            client.join()
    return recorder.functions()


def _ask(port: int, recorder: Recorder) -> None:
    try:
        key = _post(port, "/admin/keys", {"user": "ada", "limits": {"requests_per_minute": 100}}, AdminKey=ADMIN_KEY)
        chat = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
        ask: Callable[[], object] = lambda: _post(  # noqa: E731
            port, "/v1/chat/completions", chat, Authorization=f"Bearer {json.loads(key)['key']}"
        )
        ask()
        recorder.on = True
        ask()
        recorder.on = False
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def _post(port: int, path: str, body: object, **headers: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
        with connection.getresponse() as response:
            answer = response.read()
            assert response.status in (200, 201), answer
            return answer
    finally:
        connection.close()


def main() -> None:
    functions = record()
    for file, names in sorted(functions.items()):
        print(f"{file}: {', '.join(sorted(names))}")  # noqa: T201
    print(f"{len(functions)} files, {sum(map(len, functions.values()))} functions")  # noqa: T201


if __name__ == "__main__":
    main()
