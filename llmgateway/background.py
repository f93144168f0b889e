"""One thread that does something every now and then, for as long as there is something to do."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Background:
    """Takes *turn* after *turn* while these return that there is more to do. Thread-safe.

    The thread starts when it is first needed and sleeps while it is not, so it may be made before
    a fork; a child has one of its own.

    Args:
        turn: Returns whether there is more to do.
        seconds: The pause before each turn, in which work gathers.
    """

    def __init__(self, name: str, turn: Callable[[], bool], *, seconds: float) -> None:
        self._name = name
        self._turn = turn
        self._seconds = seconds
        self._lock = threading.Lock()
        self._needed = threading.Event()
        self._pid = 0

    def need(self) -> None:
        """See to it that a turn begins after a pause."""
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
            # Before the turn: what is needed during it is looked at in the next.
            self._needed.clear()
            try:
                more = self._turn()
            except Exception:
                # A bug must not end it for good.
                log.exception("A turn of %s failed; it goes on with the next.", self._name)
                more = True
            if more:
                self._needed.set()
