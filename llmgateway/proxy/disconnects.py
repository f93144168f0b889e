"""Notices clients that have gone while their request is at Azure, and cancels it there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..azure.cancellation import CancellationToken
from ..background import Background
from ..clock import Timer

LOOK_SECONDS = 0.25
"""How often it looks; nobody pays for a gone client for much longer."""


class DisconnectWatcher:
    """Asks, in the background, for every request in flight, whether its client is still there. Thread-safe.

    A thread that waits for Azure cannot ask itself, and a stream finds out only when it has
    something to write.

    Args:
        grace: Seconds that an answer may go on after its client has gone; where abandoned answers
            are read to their end, that ends the silent ones, too.
    """

    def __init__(self, *, grace: float = 0.0, timer: Timer = time.monotonic) -> None:
        self._grace = grace
        self._timer = timer
        self._lock = threading.Lock()
        self._watched: dict[CancellationToken, Callable[[], bool]] = {}
        self._gone_since: dict[CancellationToken, float] = {}
        self._background = Background("watch", self._look, seconds=LOOK_SECONDS)

    @property
    def watched(self) -> int:
        """For how many requests it asks."""
        return len(self._watched)

    def add(self, cancellation: CancellationToken, gone: Callable[[], bool]) -> None:
        """Cut the request of *cancellation* once *gone* has said yes for the time of grace."""
        cancellation.abandoned = gone
        with self._lock:
            self._watched[cancellation] = gone
        self._background.need()

    def remove(self, cancellation: CancellationToken) -> None:
        """Harmless if it is not watched."""
        with self._lock:
            self._watched.pop(cancellation, None)

    def stop_all(self) -> None:
        """Cut every request now, because the process stops."""
        with self._lock:
            watched = list(self._watched)
        for cancellation in watched:
            cancellation.cut(stopping=True)

    def _look(self) -> bool:
        with self._lock:
            watched = list(self._watched.items())
        now = self._timer()
        before = self._gone_since
        self._gone_since = {cancellation: before.get(cancellation, now) for cancellation, gone in watched if gone()}
        for cancellation, since in self._gone_since.items():
            if now - since >= self._grace:
                cancellation.cut()
                self.remove(cancellation)
        return bool(watched)
