"""Settlements for which nobody waits, done together."""

from __future__ import annotations

import threading

from .background import Background
from .interfaces import CounterStore
from .reservations import Settlement

GATHER_SECONDS = 0.05
"""How long they gather; at twenty or more at once each costs a fifth of one alone, or less (2026)."""


class Settlements:
    """Settles at once what somebody may wait for, and the rest together, in the background. Thread-safe.

    What a process that is killed had not settled comes back with its lease, as if it had used nothing; the
    usage log knows better, and who asks it next.
    """

    def __init__(self, counters: CounterStore, *, gather_seconds: float = GATHER_SECONDS) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._waiting: list[Settlement] = []
        self._background = Background("settlements", self.flush, seconds=gather_seconds)

    def at_once(self, settlement: Settlement) -> None:
        self._counters.settle([settlement])

    def soon(self, settlement: Settlement) -> None:
        with self._lock:
            self._waiting.append(settlement)
        self._background.need()

    def flush(self) -> bool:
        """Settle what waits; False if nothing does."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if waiting:
            self._counters.settle(waiting)
        return bool(waiting)
