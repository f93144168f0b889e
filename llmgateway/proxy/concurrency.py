"""The limit on requests in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import Overloaded


class ConcurrencyLimit:
    """A fixed number of slots, one for each request in flight. Thread-safe.

    :meth:`take` never waits. In a queue, a request could wait for a thread for minutes. A client that
    gets an error at once can retry, or use another server.

    No key can take all slots. While there are more free slots than the last part, any key may take one. One of the
    last part goes only to a key that holds less than an equal share: the slots, divided by the keys that hold one now.
    If only one key holds any, there is still a share for another: it must not find all slots taken.

    Args:
        capacity: The number of slots.
        key_share: The part of the slots that any key may take. 1: every slot.
    """

    def __init__(self, capacity: int, *, key_share: float = 1.0) -> None:
        self.capacity = capacity
        self._for_any_key = int(capacity * key_share)
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self.taken = 0
        self.refused = 0
        """How many requests were refused because no slot was free, or none for their key."""
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

    def assign(self, key_id: str) -> None:
        """Count a slot that was taken for a key, as soon as the key is known.

        Raises:
            Overloaded: the key holds its share already. The slot must still be given back, without the key.
        """
        with self._lock:
            held = self._held.get(key_id, 0)
            if self.taken > self._for_any_key:
                keys = len(self._held) + (not held)
                if held * max(keys, 2) >= self.capacity:
                    self.refused += 1
                    raise Overloaded(
                        f"The gateway is nearly full, and your key holds {held} of {self.capacity} places. Try again "
                        "when one of its requests has ended.",
                        retry_after=1,
                    )
            self._held[key_id] = held + 1

    def free(self, key_id: str | None = None) -> None:
        """Give a slot back.

        Args:
            key_id: The key to which the slot was assigned; None if it was not.
        """
        with self._lock:
            self.taken -= 1
            if key_id is not None:
                held = self._held[key_id] - 1
                if held:
                    self._held[key_id] = held
                else:
                    del self._held[key_id]
        self.on_change()
