"""Places for requests in flight: as many as the threads can bear, and not one more."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import Overloaded


class ConcurrencyLimit:
    """A fixed number of places. Thread-safe; taking one never waits.

    A server's queue would keep a request waiting for a thread for minutes; a client that is told
    at once can go elsewhere or come back.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._taken = 0
        self.refused = 0
        """How often there was no place."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after a place was taken or given back, from any thread."""

    @property
    def taken(self) -> int:
        return self._taken

    def take(self) -> Place:
        """Raises Overloaded if every place is taken."""
        with self._lock:
            if self._taken >= self.capacity:
                self.refused += 1
                raise Overloaded("The gateway is working at its full capacity. Try again in a moment.", retry_after=1)
            self._taken += 1
        self.on_change()
        return Place(self)

    def _give_back(self) -> None:
        with self._lock:
            self._taken -= 1
        self.on_change()


class Place:
    """One place taken. :meth:`free` may be called again and from anywhere; the first call counts."""

    def __init__(self, slots: ConcurrencyLimit) -> None:
        self._slots: ConcurrencyLimit | None = slots
        self._lock = threading.Lock()

    def free(self) -> None:
        with self._lock:
            slots, self._slots = self._slots, None
        if slots is not None:
            slots._give_back()
