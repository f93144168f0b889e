"""The first process: it opens the listening socket, and keeps the worker processes running.

With one process, the first process is also the worker. With several, it forks the workers, which all accept from the
same socket. Then it only replaces workers that have died, and passes signals on. Each worker creates the application
after the fork. So the workers share only the socket, and the memory in which they say whether they have free slots
(:class:`~llmgateway.server.capacity.SharedCapacity`).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from ..errors import ConfigurationError
from ..usage.metrics import forget_process
from ..usage.shared_memory import SharedMetrics
from .capacity import SharedCapacity
from .reload import CurrentSettings
from .worker import BAD_CONFIGURATION, CANNOT_START, STOP_SIGNALS, run_worker

log = logging.getLogger(__name__)

RESTART_SECONDS = 1.0
"""A worker that dies earlier than this after its start is replaced after the rest of this time, to avoid a busy
loop."""

_AWAITED = (*STOP_SIGNALS, signal.SIGCHLD, signal.SIGHUP)


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket.

    Raises:
        ConfigurationError: the address is in use, or does not exist.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        problem = f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with LLMGATEWAY_HOST and _PORT."
        raise ConfigurationError([problem]) from error
    listener.listen(1024)
    return listener


def serve(current: CurrentSettings, listener: socket.socket, metrics: SharedMetrics | None = None) -> int:
    """Serve on *listener* until a signal stops the process; return the exit status.

    Args:
        metrics: Where several processes add up their metrics.
    """
    settings = current.settings
    if settings.processes == 1:
        return run_worker(settings, listener, current=current)
    supervisor = os.getpid()
    capacity = SharedCapacity(settings.processes)

    def work(number: int) -> int:
        if metrics is not None:
            metrics.adopt(number)
        settings = current.settings
        return run_worker(settings, listener, capacity=capacity, number=number, parent=supervisor, current=current)

    def stop() -> None:
        log.info("Stopping: running answers get %g s to end.", current.settings.drain_seconds)
        # Close the socket in this process, too. Otherwise clients could connect although no worker accepts.
        listener.close()

    return Supervisor(
        settings.processes,
        work,
        on_end=capacity.forget,
        on_stop=stop,
        on_hangup=current.read_again,
    ).run()


class _Started(NamedTuple):
    number: int
    at: float
    is_replacement: bool


class Supervisor:
    """Keeps a number of workers running.

    Args:
        processes: The number of workers.
        work: Runs in each worker, with the worker's number as argument; returns its exit status. A new worker gets
            the number of the one that it replaces.
        on_end: Called with the number of a worker that has ended for any reason.
        on_stop: Called in this process at the first signal.
        on_hangup: Called in this process at SIGHUP. If it returns True, the workers get the signal, too.
    """

    def __init__(
        self,
        processes: int,
        work: Callable[[int], int],
        *,
        on_end: Callable[[int], None],
        on_stop: Callable[[], None],
        on_hangup: Callable[[], bool] = lambda: False,
    ) -> None:
        self._processes = processes
        self._work = work
        self._on_end = on_end
        self._on_stop = on_stop
        self._on_hangup = on_hangup
        self._workers: dict[int, _Started] = {}  # by process id
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        # Signals are blocked, and sigwait() receives them. With signal handlers and waitpid(), a signal that
        # arrives just before the call of waitpid() would wait until a worker ends.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        for number in range(self._processes):
            self._start(number)
        while self._workers:
            signal_number = signal.sigwait(_AWAITED)
            if signal_number == signal.SIGCHLD:
                self._reap()
            elif signal_number == signal.SIGHUP:
                self._hang_up()
            else:
                self._stop(signal_number)
        return self._status

    def _start(self, number: int, *, is_replacement: bool = False) -> None:
        pid = os.fork()
        if pid == 0:
            self._be_worker(number)
        self._workers[pid] = _Started(number, time.monotonic(), is_replacement)

    def _be_worker(self, number: int) -> NoReturn:
        status = 1
        try:
            # Leave the foreground process group of the terminal. Otherwise Ctrl-C would arrive twice, from the
            # terminal and from the first process, and the second signal ends a worker without waiting.
            os.setpgid(0, 0)
            # A signal ends the worker until it has set its own handlers.
            for signal_number in STOP_SIGNALS:
                signal.signal(signal_number, signal.SIG_DFL)
            # The worker lets SIGHUP through when it can read its settings again; until then it would end the process.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_AWAITED} - {signal.SIGHUP})
            status = self._work(number)
        except BaseException:
            log.exception("The worker failed.")
        finally:
            logging.shutdown()
            os._exit(status)

    def _reap(self) -> None:
        """Replace the workers that have ended."""
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._replace(pid, os.waitstatus_to_exitcode(status))

    def _replace(self, pid: int, status: int) -> None:
        ended = self._workers.pop(pid)
        forget_process(pid)
        self._on_end(ended.number)
        if self._stopping:
            return
        # At the start, what fails once fails again. Later, other workers serve, and the reason may pass.
        if status in (BAD_CONFIGURATION, CANNOT_START) and not ended.is_replacement:
            self._status = status
            self._stop(signal.SIGTERM)
            return
        log.error("Worker %d ended with status %d and is replaced.", pid, status)
        lived = time.monotonic() - ended.at
        stop = signal.sigtimedwait(STOP_SIGNALS, max(0.0, RESTART_SECONDS - lived))
        if stop is None:
            self._start(ended.number, is_replacement=True)
        else:
            self._stop(stop.si_signo)

    def _hang_up(self) -> None:
        if not self._stopping and self._on_hangup():
            for pid in self._workers:
                os.kill(pid, signal.SIGHUP)

    def _stop(self, signal_number: int) -> None:
        """Pass the signal on; the first one stops this process, too."""
        if not self._stopping:
            self._stopping = True
            self._on_stop()
        for pid in self._workers:
            os.kill(pid, signal_number)
