"""Places for requests in flight: as many as the threads can bear, and not one more."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import Overloaded


class ConcurrencyLimit:
    """A fixed number of places. Thread-safe; to take one never waits.

    A server's queue would keep a request waiting for a thread for minutes; a client that is told
    at once can go elsewhere or come back.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self.taken = 0
        self.refused = 0
        """How often there was no place."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after a place was taken or given back, from any thread; raises nothing."""

    def take(self) -> None:
        """Take a place; whoever has taken it calls :meth:`free` once.

        Raises:
            Overloaded: every place is taken.
        """
        with self._lock:
            if self.taken >= self.capacity:
                self.refused += 1
                raise Overloaded("The gateway is working at its full capacity. Try again in a moment.", retry_after=1)
            self.taken += 1
        self.on_change()

    def free(self) -> None:
        with self._lock:
            self.taken -= 1
        self.on_change()
