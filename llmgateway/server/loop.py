"""The turns of a server's main thread: who of all the connections has something to do.

waitress asks every connection on every turn what it waits for (3.0.2, ``wasyncore.poll2``). With hundreds
of streams that was a third of all the work, and what the first token of a new one waited for. Here the
kernel keeps the list (epoll, kqueue), and a connection is asked again only when something has happened to it.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections import deque

from waitress import wasyncore

from ..clock import Timer

SWEEP_SECONDS = 1.0
"""How often all are asked all the same: for what depends on the time, and for what nobody reports."""


class Loop(dict[int, wasyncore.dispatcher]):
    """What waitress calls the map: its dispatchers enter themselves by descriptor, and leave when they close.

    :meth:`turn` belongs to one thread; everything else may be called from any.
    """

    def __init__(self, *, timer: Timer = time.monotonic) -> None:
        super().__init__()
        self._timer = timer
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._new: deque[wasyncore.dispatcher] = deque()
        self._awaited: dict[int, int] = {}  # which events of which descriptors the selector knows of
        self._next_sweep = 0.0

    def __setitem__(self, descriptor: int, connection: wasyncore.dispatcher) -> None:
        super().__setitem__(descriptor, connection)
        # It enters itself before it is complete, and cannot be asked yet.
        self._new.append(connection)

    def __delitem__(self, descriptor: int) -> None:
        with self._lock:
            super().__delitem__(descriptor)
            if self._awaited.pop(descriptor, None):
                self._selector.unregister(descriptor)

    def turn(self, seconds: float) -> None:
        """Wait for something to happen, no longer than *seconds*, and let those concerned deal with it."""
        while self._new:
            self.look_at(self._new.popleft())
        if self._timer() >= self._next_sweep:
            self._next_sweep = self._timer() + SWEEP_SECONDS
            for connection in list(self.values()):
                self.look_at(connection)
        for key, events in self._selector.select(min(seconds, SWEEP_SECONDS)):
            happened = self.get(key.fd)
            if happened is not None:  # unless one before it in this turn has closed it
                self._deal_with(happened, events)

    def _deal_with(self, connection: wasyncore.dispatcher, events: int) -> None:
        if events & selectors.EVENT_READ:
            wasyncore.read(connection)
        if events & selectors.EVENT_WRITE and connection.socket is not None:
            wasyncore.write(connection)
        self.look_at(connection)

    def look_at(self, connection: wasyncore.dispatcher) -> None:
        """Ask *connection* what it waits for now; counts at once, also for a turn that is waiting."""
        with self._lock:
            descriptor: int = connection._fileno  # type: ignore[attr-defined]
            if self.get(descriptor) is not connection:
                return  # it is closed
            wanted = selectors.EVENT_READ if connection.readable() else 0
            if connection.writable() and not connection.accepting:
                wanted |= selectors.EVENT_WRITE
            awaited = self._awaited.get(descriptor, 0)
            if wanted == awaited:
                return
            if not wanted:
                del self._awaited[descriptor]
                self._selector.unregister(descriptor)
                return
            (self._selector.modify if awaited else self._selector.register)(descriptor, wanted)
            self._awaited[descriptor] = wanted
