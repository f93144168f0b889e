"""A worker process: it runs the application with waitress.

The main thread accepts connections and reads requests. Its :class:`~llmgateway.server.loop.Loop` says which connections
are ready. Each request runs in a thread of the :class:`~llmgateway.server.threads.ThreadPool`, which also writes the
answer. The main thread writes only what the client did not accept at once.

A request keeps its thread until it ends. The limit on completions in flight is lower than the number of threads, so
health and admin requests always find a free one (:data:`~llmgateway.app.RESERVED_THREADS`).

At SIGTERM, SIGINT or SIGQUIT a worker stops accepting connections and closes idle ones. It waits for running answers,
as long as the settings allow. Then it ships the journal, and exits with status 0. At a second signal it does not wait
any longer. At SIGHUP it reads the settings again.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from types import FrameType

from flask import Flask

from ..app import create_app, put_into_force
from ..errors import ConfigurationError, StoreUnavailable
from ..services import Services
from ..settings import Settings
from ..web.context import EXTENSION
from .capacity import SharedCapacity, WorkerCapacity
from .loop import Loop
from .reload import CurrentSettings
from .server import Server
from .threads import ThreadPool

log = logging.getLogger(__name__)

BAD_CONFIGURATION = 2
"""The exit status of a process that cannot start with its settings."""

CANNOT_START = 3
"""The exit status of a process that cannot start because of an unexpected error."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def run_worker(
    settings: Settings,
    listener: socket.socket,
    *,
    capacity: SharedCapacity | None = None,
    number: int = 0,
    parent: int | None = None,
    current: CurrentSettings | None = None,
) -> int:
    """Serve with this process; return its exit status.

    Args:
        capacity, number, parent, current: See :class:`Worker`.
    """
    try:
        app = create_app(settings, serves_alone=settings.processes == 1)
    except ConfigurationError as error:
        for problem in error.problems:
            log.critical("%s", problem)
        return BAD_CONFIGURATION
    except StoreUnavailable as error:  # which has logged the file
        log.critical("The embedded database cannot be opened: %s", error)
        return BAD_CONFIGURATION
    except Exception:
        log.exception("The application cannot be created.")
        return CANNOT_START
    return Worker(app, settings, listener, capacity=capacity, number=number, parent=parent, current=current).run()


class Worker:
    """A process that serves the application.

    Args:
        capacity: The memory that the workers of this socket share; None if this is the only worker.
        number: The number of this worker.
        parent: The process that supervises this one, which stops when that has ended. None if there is none: whoever
            has started the gateway, such as a shell, may go.
        current: Where the settings are read again at SIGHUP; None to ignore that signal.
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
        current: CurrentSettings | None = None,
    ) -> None:
        self._app = app
        self._services: Services = app.extensions[EXTENSION]
        self._current = current
        # The first process of several reports for all of them.
        self._reports = capacity is None
        self._parent = parent
        self._number = number
        self._signals = 0
        self._hangups = 0
        self._loop = Loop()
        self._threads = ThreadPool(settings.threads)
        limit = self._services.gateway.concurrency
        self._capacity = WorkerCapacity(capacity or SharedCapacity(1), number, limit)
        self._server = Server(app, settings, listener, loop=self._loop, threads=self._threads, capacity=self._capacity)
        limit.on_change = self._server.slots_changed

    def run(self) -> int:
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        if self._current is not None:
            signal.signal(signal.SIGHUP, self._on_hangup)
            # Blocked until now, so that a signal during the start is not lost.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
        self._services.journal.start()
        if self._services.settings.identity_kind:
            self._services.gateway.credentials.problem()  # starts the thread that fetches tokens
        if self._number == 0:
            # Not here, because a store that is away must not keep others waiting.
            threading.Thread(target=self._report_azure_key, name="azure-key", daemon=True).start()
        while not self._signals and self._parent in (None, os.getppid()):
            self._run_once(1.0)
            if self._hangups:
                self._read_settings_again()
        if self._reports:
            log.info("Stopping: running answers get %g s to end.", self._services.settings.drain_seconds)
        self._finish_answers()
        self._threads.shutdown(timeout=1)
        self._services.alerts.close()
        self._services.limiter.close()
        self._services.journal.close()
        self._services.refusals.close()
        return 0

    def _report_azure_key(self) -> None:
        """Log whether there is a key for Azure: in the settings, or one that an admin has stored."""
        credentials = self._services.gateway.credentials
        if not credentials.is_needed():
            log.info("Azure's key: not needed yet, because there is no address to which it is sent.")
            return
        problem = credentials.problem()
        right = "not needed, because LLM_IDENTITY is set" if self._services.settings.identity_kind else "present"
        log.log(logging.WARNING if problem else logging.INFO, "Azure's key: %s.", problem or right)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._server.pull_trigger()

    def _on_hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._hangups += 1
        self._server.pull_trigger()

    def _read_settings_again(self) -> None:
        self._hangups = 0
        if self._current is not None and self._current.read_again(quiet=not self._reports):
            put_into_force(self._app, self._current.settings)
            self._server.client_timeout = self._current.settings.client_timeout

    def _run_once(self, seconds: float) -> None:
        self._loop.run_once(seconds)
        self._server.close_slow_connections(time.time())

    def _finish_answers(self) -> None:
        """Stop accepting, and wait until all answers are sent, the time is over, or a second signal arrives."""
        deadline = time.monotonic() + self._services.settings.drain_seconds
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
