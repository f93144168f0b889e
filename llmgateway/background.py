"""A background thread that runs a function again and again while there is work."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Background:
    """Calls *turn* in a thread, and repeats it while it returns True. Thread-safe.

    The thread starts at the first call of :meth:`need`, and sleeps while there is no work. So an instance
    may be created before a fork. A child process starts a thread of its own.

    Args:
        name: The name of the thread.
        turn: Does the work; returns whether more is left.
        seconds: The pause before each call of *turn*. Work that arrives in the pause is done in the same call.
    """

    def __init__(self, name: str, turn: Callable[[], bool], *, seconds: float) -> None:
        self._name = name
        self._turn = turn
        self._seconds = seconds
        self._lock = threading.Lock()
        self._needed = threading.Event()
        self._pid = 0

    def need(self) -> None:
        """Make the thread call *turn* after the pause."""
        if self._pid != os.getpid():
            self._start()
        if not self._needed.is_set():
            self._needed.set()

    def _start(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._needed.wait()
            pause.wait(self._seconds)
            # Clear the event before the call. If need() is called during it, another call follows.
            self._needed.clear()
            try:
                more = self._turn()
            except Exception:
                # A bug must not end the thread.
                log.exception("The background thread %s failed; it tries again.", self._name)
                more = True
            if more:
                self._needed.set()
