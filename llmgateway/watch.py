"""Notices clients that have gone while their request is at Azure, and stops it there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .background import Background
from .clock import Timer
from .transmission import Transmission

LOOK_SECONDS = 0.25
"""How often it looks; nobody pays for a gone client for much longer."""


class Watch:
    """Asks, in the background, for every request in flight, whether its client is still there. Thread-safe.

    A thread that waits for Azure cannot ask itself, and a stream finds out only when it has
    something to write.

    Args:
        grace: Seconds that an answer may go on after its client has gone; where abandoned answers
            are read on, that ends the silent ones, too.
    """

    def __init__(self, *, grace: float = 0.0, timer: Timer = time.monotonic) -> None:
        self._grace = grace
        self._timer = timer
        self._lock = threading.Lock()
        self._watched: dict[Transmission, Callable[[], bool]] = {}
        self._noticed: dict[Transmission, float] = {}  # since when
        self._background = Background("watch", self._look, seconds=LOOK_SECONDS)

    def add(self, transmission: Transmission, gone: Callable[[], bool]) -> None:
        """Cut *transmission* once *gone* has said yes for the time of grace."""
        transmission.abandoned = gone
        with self._lock:
            self._watched[transmission] = gone
        self._background.need()

    def remove(self, transmission: Transmission) -> None:
        """Harmless if it is not watched."""
        with self._lock:
            self._watched.pop(transmission, None)

    def _look(self) -> bool:
        with self._lock:
            watched = list(self._watched.items())
        now = self._timer()
        noticed = self._noticed
        self._noticed = {transmission: noticed.get(transmission, now) for transmission, gone in watched if gone()}
        for transmission, since in self._noticed.items():
            if now - since >= self._grace:
                transmission.cut()
                self.remove(transmission)
        return bool(watched)
