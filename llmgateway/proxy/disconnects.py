"""Notices clients that disconnect while Azure works on their request, and cancels the request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..azure.cancellation import CancellationToken
from ..background import Background
from ..clock import Timer

LOOK_SECONDS = 0.25
"""The time between two checks. A request goes on at Azure, and costs money, until a check finds that its client
has disconnected."""


class DisconnectWatcher:
    """Checks in a background thread whether the clients of all requests in flight are still connected. Thread-safe.

    The thread of a request cannot check this while it waits for Azure. A stream notices a disconnected
    client only when it writes.

    Args:
        grace: Seconds that a request may go on after its client has disconnected. If abandoned answers are read to
            their end, this also ends those that Azure sends nothing for.
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
        """The number of watched requests."""
        return len(self._watched)

    def add(self, cancellation: CancellationToken, gone: Callable[[], bool]) -> None:
        """Cancel the request of *cancellation* when *gone* has returned True for *grace* seconds."""
        cancellation.abandoned = gone
        with self._lock:
            self._watched[cancellation] = gone
        self._background.need()

    def remove(self, cancellation: CancellationToken) -> None:
        """Stop watching a request; no effect if it is not watched."""
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
