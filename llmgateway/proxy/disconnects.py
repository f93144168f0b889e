"""Notices clients that disconnect while Azure works on their request, and cancels the request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ..azure.cancellation import CancellationToken
from ..background import Background
from ..clock import Timer
from ..errors import GatewayStopping

LOOK_SECONDS = 0.25
"""The time between two checks. A request goes on at Azure, and costs money, until a check finds that its client
has disconnected."""


class _Watched(NamedTuple):
    gone: Callable[[], bool]
    goes_on: Callable[[], bool]


class DisconnectWatcher:
    """Checks in a background thread whether the clients of all requests in flight are still connected. Thread-safe.

    The thread of a request cannot check this while it waits for Azure. A stream notices a disconnected
    client only when it writes. The watcher also ends requests that go on without their client, when their time is over.
    """

    def __init__(self, *, timer: Timer = time.monotonic) -> None:
        self._timer = timer
        self._lock = threading.Lock()
        self._watched: dict[CancellationToken, _Watched] = {}
        self._deadlines: dict[CancellationToken, float] = {}
        self._background = Background("watch", self.look, seconds=LOOK_SECONDS)

    @property
    def watched(self) -> int:
        """The number of requests that are watched or have a deadline."""
        return len(self._watched) + len(self._deadlines)

    def add(self, cancellation: CancellationToken, gone: Callable[[], bool], goes_on: Callable[[], bool]) -> None:
        """Watch the client of a request.

        Args:
            gone: Returns whether the client has disconnected.
            goes_on: Called when it has. If it returns False, the request is cut. If it returns True, it has called
                :meth:`cut_after`.
        """
        cancellation.abandoned = gone
        with self._lock:
            self._watched[cancellation] = _Watched(gone, goes_on)
        self._background.need()

    def cut_after(self, cancellation: CancellationToken, seconds: float) -> None:
        """Cut the request of *cancellation* in *seconds*, unless :meth:`remove` is called before."""
        with self._lock:
            self._watched.pop(cancellation, None)
            self._deadlines[cancellation] = self._timer() + seconds
        self._background.need()

    def remove(self, cancellation: CancellationToken) -> None:
        """Forget a request; no effect if it is not known."""
        with self._lock:
            self._watched.pop(cancellation, None)
            self._deadlines.pop(cancellation, None)

    def stop_all(self) -> None:
        """Cut every request now, because the process stops."""
        with self._lock:
            known = [*self._watched, *self._deadlines]
        for cancellation in known:
            cancellation.cut(GatewayStopping("The gateway is being stopped. Send the request again.", retry_after=1))

    def look(self) -> bool:
        """Check all clients and deadlines once; return whether anything is left to check. The thread calls this."""
        with self._lock:
            watched = [*self._watched.items()]
        for cancellation, (gone, goes_on) in watched:
            if gone() and not goes_on():
                self._cut(cancellation)
        now = self._timer()
        with self._lock:
            over = [cancellation for cancellation, deadline in self._deadlines.items() if deadline <= now]
        for cancellation in over:
            self._cut(cancellation)
        return bool(self._watched or self._deadlines)

    def _cut(self, cancellation: CancellationToken) -> None:
        self.remove(cancellation)
        cancellation.cut()
