"""Keeps what running requests have claimed from running out."""

from __future__ import annotations

import os
import threading

from ..background import Background
from ..interfaces import CounterStore

LEASE_SECONDS = 30.0
"""How long a process that died holds what its requests had claimed; a living one renews in time."""

RENEW_SECONDS = LEASE_SECONDS / 3
"""So that two renewals may fail before anything runs out."""


class Leases:
    """Renews the reservations of this process in the background. Thread-safe."""

    def __init__(self, counters: CounterStore, *, renew_seconds: float = RENEW_SECONDS) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._pid = 0
        self._background = Background("leases", self.renew, seconds=renew_seconds)

    def add(self, reservation: str) -> None:
        """Keep *reservation* until it is removed."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._running.clear()  # those that the parent runs
            self._running.add(reservation)
        self._background.need()

    def remove(self, reservation: str) -> None:
        """Harmless if it is not kept."""
        with self._lock:
            self._running.discard(reservation)

    def renew(self) -> bool:
        """Renew all of them now; False if there is none."""
        with self._lock:
            running = list(self._running)
        if running:
            self._counters.renew(running, lease=LEASE_SECONDS)
        return bool(running)
