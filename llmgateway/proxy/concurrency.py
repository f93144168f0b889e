"""The limit on requests in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import Overloaded


class ConcurrencyLimit:
    """A fixed number of slots, one for each request in flight. Thread-safe.

    :meth:`take` never waits. In a queue, a request could wait for a thread for minutes. A client that
    gets an error at once can retry, or use another server.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self.taken = 0
        self.refused = 0
        """How many requests were refused because no slot was free."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after a slot was taken or freed, from any thread. It must not raise."""

    def take(self) -> None:
        """Take a slot. Call :meth:`free` once to give it back.

        Raises:
            Overloaded: all slots are taken.
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
