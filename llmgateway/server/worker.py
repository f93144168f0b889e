"""One serving process: waitress, our application in it, and how both begin and end.

waitress' main thread accepts connections, reads requests, and writes what their threads could not; which connections
have something for it to do it learns from our :class:`~llmgateway.server.loop.Loop`. Each request runs in a thread of
our :class:`~llmgateway.server.threads.ThreadPool`, which writes its answer itself for as long as the client takes it.

A request keeps its thread until its end. So fewer requests are relayed at once than there are threads, and health and
admin requests always find one (:data:`~llmgateway.app.RESERVED_THREADS`).

At SIGTERM or SIGINT a worker stops accepting, closes the connections that are idle, lets running answers end for as
long as the settings allow, ships the journal, and exits with status 0. At a second signal it does not wait for the
answers.
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
"""Exit status of a process that cannot start with these settings."""

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
        capacity: See :class:`Worker`, as for *number* and *parent*.
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
    """One serving process.

    Args:
        capacity: What the workers of this socket tell each other; without it, there are no others.
        number: Which of them this one is.
        parent: The worker stops when it is no longer a child of this process; default: its parent now.
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
        places = self._services.gateway.concurrency
        self._capacity = WorkerCapacity(capacity or SharedCapacity(1), number, places)
        self._server = Server(app, settings, listener, loop=self._loop, threads=self._threads, capacity=self._capacity)
        places.on_change = self._server.places_changed

    def run(self) -> int:
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        self._services.journal.start()
        while not self._signals and os.getppid() == self._parent:
            self._run_once(1.0)
        self._drain()
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

    def _drain(self) -> None:
        deadline = time.monotonic() + self._drain_seconds
        self._capacity.close()
        self._server.stop_accepting()
        while time.monotonic() < deadline and self._signals < 2:
            self._server.close_idle_connections()
            if not self._server.connections():
                return
            self._run_once(0.1)
        if connections := self._server.connections():
            log.warning("%d connections were cut at the end of the time to stop.", len(connections))
            self._services.gateway.stop()
