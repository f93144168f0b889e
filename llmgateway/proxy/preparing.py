"""Bounds the memory for bodies that arrive or are being checked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Overloaded

SMALL_BYTES = 64 * 1024
"""Bodies up to this size are not counted: the number of places bounds them well enough."""


class PreparationLimit:
    """The most bytes of bodies that are in preparation at once: from before a body is read until it is checked.

    Thread-safe. A body that alone exceeds a limit may be prepared when no other one is.

    Args:
        most_bytes: For all keys together.
        most_bytes_per_key: For each key.
    """

    def __init__(self, *, most_bytes: int, most_bytes_per_key: int) -> None:
        self._most = most_bytes
        self._most_per_key = most_bytes_per_key
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self.held = 0
        """Bytes of all bodies that are in preparation."""

    @contextmanager
    def hold(self, key_id: str, size: int) -> Iterator[None]:
        """Count a body of *size* bytes until the end of the block.

        Raises:
            Overloaded: there are too many bytes already. This is no limit that an admin has set for the key, so the
                error is the one for a lack of places, also if it is the key's own bodies that take too much.
        """
        if size <= SMALL_BYTES:
            yield
            return
        self._take(key_id, size)
        try:
            yield
        finally:
            self._free(key_id, size)

    def _take(self, key_id: str, size: int) -> None:
        with self._lock:
            own = self._held.get(key_id, 0)
            if own and own + size > self._most_per_key:
                raise Overloaded(
                    f"Other large requests of your key, {own:,} bytes together, are still being received. Send fewer "
                    "at once, and try again in a moment.",
                    retry_after=1,
                )
            if self.held and self.held + size > self._most:
                raise Overloaded(
                    "The gateway is receiving as many large requests as it can. Try again in a moment.", retry_after=1
                )
            self._held[key_id] = own + size
            self.held += size

    def _free(self, key_id: str, size: int) -> None:
        with self._lock:
            self.held -= size
            left = self._held[key_id] - size
            if left:
                self._held[key_id] = left
            else:
                del self._held[key_id]
