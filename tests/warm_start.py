"""Processes of the command ``llmgateway`` that are forked from one which has imported the program already.

To import everything takes a process half a second of CPU, and the tests start hundreds. A forked process runs the
same command with an environment, a folder and an output of its own, and ends like any other. Nothing of the
application is made before the fork.

This file is also the program that is forked, and then imports neither pytest nor tests.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tests import ROOT
from tests.shortcuts import leave_out_what_takes_long

_MOST_BYTES = 100_000
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_DONE = b"done"


class WarmProcess:
    """A process of the command ``llmgateway`` in a process group of its own; used like one of :mod:`subprocess`.

    Args:
        environ: Its whole environment.
        folder: Its working directory.
        output: Where standard output and standard error go.
    """

    def __init__(
        self, arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path, output: IO[bytes]
    ) -> None:
        asked = {"arguments": list(arguments), "environ": dict(environ), "folder": str(folder)}
        self._report, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            _warm_program().fork(json.dumps(asked).encode(), [output.fileno(), theirs.fileno()])
        self._status: int | None = None
        self.pid = self._next()

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        if self._status is None:
            # Not select(), which knows no descriptors from 1024 on: those that tests hold open are many.
            poll = select.poll()
            poll.register(self._report, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(f"the process {self.pid}", timeout or 0)
            self._status = self._next()
            # Until now its number was not free for another process.
            self._report.send(_DONE)
            self._report.recv(1)
            self._report.close()
        return self._status

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def _next(self) -> int:
        told = self._report.recv(100)
        assert told, "the program that is forked has ended"
        return int(told)


class _WarmProgram:
    """The process that is forked, as the tests see it. It ends with theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._remembered = tempfile.TemporaryDirectory(prefix="llmgateway-test-")
        with theirs:
            self._process = subprocess.Popen(
                # What a gateway's own command line says.
                [sys.executable, "-m", __name__, str(theirs.fileno()), self._remembered.name, "llmgateway", "serve"],
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._control.close()
        self._process.wait(20)
        self._remembered.cleanup()

    def fork(self, asked: bytes, descriptors: list[int]) -> None:
        assert len(asked) < _MOST_BYTES
        with self._lock:
            socket.send_fds(self._control, [asked], descriptors)


_warm_program = functools.cache(_WarmProgram)


class _Forker:
    """What the program that is forked does."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: dict[int, socket.socket] = {}
        self._ended: dict[Any, int] = {}
        self._woken, self._wake = os.pipe()

    def run(self) -> dict[str, Any] | None:
        """Return in each process that is asked for what it was asked for; in the first one None, at the end."""
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([self._control, self._woken, *self._ended], [], [])
            for report in self._ended.keys() & ready:
                self._forget(report)
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._tell_of_ends()
            if self._control in ready:
                message, descriptors, _, _ = socket.recv_fds(self._control, _MOST_BYTES, 2)
                if not message:
                    return None
                if self._fork(*descriptors):
                    return dict(json.loads(message))

    def _fork(self, output: int, report: int) -> bool:
        """Return whether this is the new process."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(report)
            self._be_another(output, parent)
            return True
        os.close(output)
        with suppress(OSError):  # it does so itself, too, and may have ended
            os.setpgid(pid, pid)
        self._running[pid] = socket.socket(fileno=report)
        self._running[pid].send(str(pid).encode())
        return False

    def _be_another(self, output: int, parent: int) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (self._woken, self._wake):
            os.close(descriptor)
        for other in (self._control, *self._running.values(), *self._ended):
            other.close()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)

    def _tell_of_ends(self) -> None:
        # They stay zombies until the tests have asked, as the tests' own children would.
        for pid, report in [*self._running.items()]:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                del self._running[pid]
                self._ended[report] = pid
                status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                assert status is not None
                code = status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
                with suppress(OSError):  # nobody may want to know any more
                    report.send(str(code).encode())

    def _forget(self, report: socket.socket) -> None:
        os.waitpid(self._ended.pop(report), 0)
        report.recv(100)
        report.close()


def _import_everything() -> None:
    for name in ("cli", "app", "server.supervisor", "server.reload"):
        importlib.import_module(f"llmgateway.{name}")
    stores = importlib.import_module("llmgateway.stores")
    for module in pkgutil.walk_packages(stores.__path__, "llmgateway.stores."):
        importlib.import_module(module.name)
    _choose_late()


def _choose_late() -> None:
    # prometheus_client chooses when it is imported whether processes add up their metrics. It has been imported before
    # anybody knows, and chooses now when the first metric is made.
    values: Any = importlib.import_module("prometheus_client.values")

    def make(*arguments: Any, **named: Any) -> Any:
        values.ValueClass = values.get_value_class()
        return values.ValueClass(*arguments, **named)

    values.ValueClass = make


def _main() -> None:
    _, control, remembered, *_ = sys.argv
    _import_everything()
    leave_out_what_takes_long(Path(remembered))
    del sys.path[0]  # the checkout
    # No collection of garbage copies the pages that all have in common.
    gc.collect()
    gc.freeze()
    # Under a small number, as select() needs it.
    with socket.socket(fileno=int(control)) as received:
        asked = _Forker(received.dup()).run()
    if asked is not None:
        os.environ.clear()
        os.environ.update(asked["environ"])
        time.tzset()
        os.chdir(asked["folder"])
        sys.path.insert(0, "")
        sys.argv = ["llmgateway", *asked["arguments"]]
        runpy.run_module("llmgateway", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
