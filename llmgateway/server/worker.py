"""A worker process: it runs the application with waitress.

The main thread accepts connections and reads requests. Its :class:`~llmgateway.server.loop.Loop` says which connections
are ready. Each request runs in a thread of the :class:`~llmgateway.server.threads.ThreadPool`, which also writes the
answer. The main thread writes only what the client did not accept at once.

A request keeps its thread until it ends. The limit on completions in flight is lower than the number of threads, so
health and admin requests always find a free one (:data:`~llmgateway.app.RESERVED_THREADS`).

At SIGTERM or SIGINT a worker stops accepting connections and closes idle ones. It waits for running answers, as long as
the settings allow. Then it ships the journal, and exits with status 0. At a second signal it does not wait any longer.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from types import FrameType

from flask import Flask

from ..app import create_app
from ..errors import ConfigurationError, StoreUnavailable
from ..services import Services
from ..settings import Settings
from ..web.context import EXTENSION
from .capacity import SharedCapacity, WorkerCapacity
from .channel import Server
from .loop import Loop
from .threads import ThreadPool

log = logging.getLogger(__name__)

BAD_CONFIGURATION = 2
"""The exit status of a process that cannot start with its settings."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run_worker(
    settings: Settings,
    listener: socket.socket,
    *,
    capacity: SharedCapacity | None = None,
    number: int = 0,
    parent: int | None = None,
) -> int:
    """Serve with this process; return its exit status.

    Args:
        capacity, number, parent: See :class:`Worker`.
    """
    try:
        app = create_app(settings, serves_alone=settings.processes == 1)
    except ConfigurationError as error:
        for problem in error.problems:
            log.critical("%s", problem)
        return BAD_CONFIGURATION
    except StoreUnavailable as error:
        log.critical("The embedded database cannot be opened: %s", error)
        return BAD_CONFIGURATION
    return Worker(app, settings, listener, capacity=capacity, number=number, parent=parent).run()


class Worker:
    """A process that serves the application.

    Args:
        capacity: The memory that the workers of this socket share; None if this is the only worker.
        number: The number of this worker.
        parent: A process id. The worker stops when its parent is another process. None means the present parent.
    """

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        listener: socket.socket,
        *,
        capacity: SharedCapacity | None = None,
        number: int = 0,
        parent: int | None = None,
    ) -> None:
        self._services: Services = app.extensions[EXTENSION]
        self._drain_seconds = settings.drain_seconds
        self._parent = os.getppid() if parent is None else parent
        self._signals = 0
        self._loop = Loop()
        self._threads = ThreadPool(settings.threads)
        limit = self._services.gateway.concurrency
        self._capacity = WorkerCapacity(capacity or SharedCapacity(1), number, limit)
        self._server = Server(app, settings, listener, loop=self._loop, threads=self._threads, capacity=self._capacity)
        limit.on_change = self._server.slots_changed

    def run(self) -> int:
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        self._services.journal.start()
        while not self._signals and os.getppid() == self._parent:
            self._run_once(1.0)
        self._finish_answers()
        self._threads.shutdown(timeout=1)
        self._services.limiter.close()
        self._services.journal.close()
        return 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._server.pull_trigger()

    def _run_once(self, seconds: float) -> None:
        self._loop.run_once(seconds)
        self._server.close_slow_connections(time.time())

    def _finish_answers(self) -> None:
        """Stop accepting, and wait until all answers are sent, the time is over, or a second signal arrives."""
        deadline = time.monotonic() + self._drain_seconds
        self._capacity.close()
        self._server.stop_accepting()
        while time.monotonic() < deadline and self._signals < 2:
            self._server.close_idle_connections()
            if not self._server.connections():
                return
            self._run_once(0.1)
        if connections := self._server.connections():
            log.warning("%d connections were closed before their answers were complete.", len(connections))
            self._services.gateway.stop()
