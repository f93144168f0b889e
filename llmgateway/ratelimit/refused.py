"""Remembers which keys were refused by a limit a short time ago."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ..clock import Clock

REMEMBERED_SECONDS = 60.0


class RecentlyRefused:
    """The keys that this process has refused within :data:`REMEMBERED_SECONDS`. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._refused_at: OrderedDict[str, float] = OrderedDict()  # the oldest first

    def add(self, key_id: str) -> None:
        now = self._clock()
        with self._lock:
            self._refused_at[key_id] = now
            self._refused_at.move_to_end(key_id)
            while not 0 <= now - next(iter(self._refused_at.values())) < REMEMBERED_SECONDS:
                self._refused_at.popitem(last=False)

    def __contains__(self, key_id: str) -> bool:
        # Without the lock: one access to a dict is atomic.
        at = self._refused_at.get(key_id)
        return at is not None and 0 <= self._clock() - at < REMEMBERED_SECONDS

    def __len__(self) -> int:
        return len(self._refused_at)
