"""Settlements for which nobody waits, done together."""

from __future__ import annotations

import logging
import threading

from ..background import Background
from ..interfaces import CounterStore
from .reservations import Commit

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.05
"""How long they gather; at twenty or more at once each costs a fifth of one alone, or less (2026)."""


class Commits:
    """Settles at once what somebody may wait for, and the rest together, in the background. Thread-safe.

    What a process that is killed had not settled comes back with its lease, as if it had used nothing; the
    usage log knows better, and budgets ask it as soon as the dead process' journal is found.
    """

    def __init__(self, counters: CounterStore, *, gather_seconds: float = GATHER_SECONDS) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._waiting: list[Commit] = []
        self._background = Background("settlements", self.flush, seconds=gather_seconds)

    def at_once(self, commit: Commit) -> None:
        self._counters.commit([commit])

    def soon(self, commit: Commit) -> None:
        with self._lock:
            self._waiting.append(commit)
        self._background.need()

    def flush(self) -> bool:
        """Settle what waits; False if nothing does."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if waiting:
            self._commit(waiting)
        return bool(waiting)

    def _commit(self, waiting: list[Commit]) -> None:
        try:
            self._counters.commit(waiting)
        except Exception:
            # A bug; it must not take those along that have nothing to do with it.
            if len(waiting) == 1:
                log.exception("The request %s could not be settled.", waiting[0].reservation)
                return
            for commit in waiting:
                self._commit([commit])
