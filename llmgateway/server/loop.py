"""The event loop of a worker's main thread: it waits until a connection can be read or written.

In each round, waitress asks every connection for which events it waits (3.0.2, ``wasyncore.poll2``). With hundreds of
streams this took a third of the CPU time, and delayed the first token of new streams. Here the kernel keeps the list of
events (epoll, kqueue). A connection is asked again only if something has happened to it.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections import deque

from waitress import wasyncore

from ..clock import Timer

SWEEP_SECONDS = 1.0
"""How often all connections are asked again, because their answers may depend on the time or on other processes."""


class Loop(dict[int, wasyncore.dispatcher]):
    """The event loop. It is also what waitress calls the *map*, to which dispatchers add themselves by descriptor.

    Only one thread may call :meth:`run_once`. Any thread may call the other methods.
    """

    def __init__(self, *, timer: Timer = time.monotonic) -> None:
        super().__init__()
        self.ready = 0
        """The number of connections that can be read or written in this round."""
        self._timer = timer
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._new: deque[wasyncore.dispatcher] = deque()
        self._awaited: dict[int, int] = {}  # by descriptor: the events that are registered with the selector
        self._next_sweep = 0.0

    def __setitem__(self, descriptor: int, connection: wasyncore.dispatcher) -> None:
        super().__setitem__(descriptor, connection)
        # A dispatcher adds itself before it is fully initialised, so it cannot be asked yet.
        self._new.append(connection)

    def __delitem__(self, descriptor: int) -> None:
        with self._lock:
            super().__delitem__(descriptor)
            if self._awaited.pop(descriptor, None):
                self._selector.unregister(descriptor)

    def run_once(self, seconds: float) -> None:
        """Wait at most *seconds* until connections can be read or written, and make them read and write."""
        while self._new:
            self.update_interest(self._new.popleft())
        if self._timer() >= self._next_sweep:
            self._next_sweep = self._timer() + SWEEP_SECONDS
            for known in list(self.values()):
                self.update_interest(known)
        found = self._selector.select(min(seconds, SWEEP_SECONDS))
        self.ready = len(found)
        for key, events in found:
            connection = self.get(key.fd)
            if connection is not None:  # None if another connection has closed it in this round
                self._handle(connection, events)

    def _handle(self, connection: wasyncore.dispatcher, events: int) -> None:
        if events & selectors.EVENT_READ:
            wasyncore.read(connection)
        if events & selectors.EVENT_WRITE and connection.socket is not None:
            wasyncore.write(connection)
        self.update_interest(connection)

    def update_interest(self, connection: wasyncore.dispatcher) -> None:
        """Ask *connection* for which events it waits. This takes effect at once, even while :meth:`run_once` waits."""
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
