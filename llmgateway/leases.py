"""Keeps what running requests have claimed from running out."""

from __future__ import annotations

import os
import threading

from .interfaces import CounterStore

LEASE_SECONDS = 30.0
"""How long a process that died holds what its requests had claimed; a living one renews in time."""

RENEW_SECONDS = LEASE_SECONDS / 3
"""So that two renewals may fail before anything runs out."""


class Leases:
    """One thread that renews the reservations of this process. Thread-safe.

    The thread starts with the first request and sleeps while there is none, so leases may be made
    before a fork.
    """

    def __init__(self, counters: CounterStore, *, renew_seconds: float = RENEW_SECONDS) -> None:
        self._counters = counters
        self._renew_seconds = renew_seconds
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._some = threading.Event()
        self._pid = 0

    def add(self, reservation: str) -> None:
        """Keep *reservation* until it is removed."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._running.clear()
                threading.Thread(target=self._run, name="leases", daemon=True).start()
            self._running.add(reservation)
        self._some.set()

    def remove(self, reservation: str) -> None:
        """Harmless if it is not kept."""
        with self._lock:
            self._running.discard(reservation)

    def renew(self) -> None:
        """Renew all of them now."""
        with self._lock:
            running = list(self._running)
            if not running:
                self._some.clear()
        if running:
            self._counters.renew(running, lease=LEASE_SECONDS)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._some.wait()
            pause.wait(self._renew_seconds)
            self.renew()
