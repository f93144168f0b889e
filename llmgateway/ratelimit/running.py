"""The reservations of running requests: renewed while they run, committed when they have ended."""

from __future__ import annotations

import logging
import os
import threading

from ..background import Background
from ..interfaces import CounterStore
from .reservations import Commit

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
"""How long a process that died holds what its requests had reserved; a living one renews in time."""

RENEW_SECONDS = LEASE_SECONDS / 3
"""So that two renewals may fail before anything runs out."""

GATHER_SECONDS = 0.05
"""How long commits gather that nobody waits for; with twenty or more at once each costs a fifth of one alone, or less
(2026)."""


class RunningReservations:
    """Renews the reservations of this process in the background, and commits them. Thread-safe.

    A commit that somebody may wait for is done at once, the rest together, soon. What a process that is killed had not
    committed is given back when its lease runs out, as if it had used nothing. The usage log knows better, and budgets
    ask it as soon as the dead process' journal is found.
    """

    def __init__(
        self,
        counters: CounterStore,
        *,
        renew_seconds: float = RENEW_SECONDS,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._running: set[str] = set()
        self._ended: list[Commit] = []
        self._pid = 0
        self._renewing = Background("leases", self.renew, seconds=renew_seconds)
        self._committing = Background("commits", self.flush, seconds=gather_seconds)

    def add(self, reservation: str) -> None:
        """Renew *reservation* until it is committed."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._running.clear()  # those that the parent runs
            self._running.add(reservation)
        self._renewing.need()

    def renew(self) -> bool:
        """Renew all of them now; False if there is none."""
        with self._lock:
            running = list(self._running)
        if running:
            self._counters.renew(running, lease=LEASE_SECONDS)
        return bool(running)

    def commit_at_once(self, commit: Commit) -> None:
        """Commit before it returns."""
        self._remove(commit)
        self._counters.commit([commit])

    def commit_soon(self, commit: Commit) -> None:
        """Commit in the background."""
        self._remove(commit)
        with self._lock:
            self._ended.append(commit)
        self._committing.need()

    def flush(self) -> bool:
        """Commit what has gathered; False if nothing has."""
        with self._lock:
            ended, self._ended = self._ended, []
        if ended:
            self._commit(ended)
        return bool(ended)

    def _remove(self, commit: Commit) -> None:
        with self._lock:
            self._running.discard(commit.reservation)

    def _commit(self, commits: list[Commit]) -> None:
        try:
            self._counters.commit(commits)
        except Exception:
            # A bug. It must not affect the commits that have nothing to do with it.
            if len(commits) == 1:
                log.exception("The request %s could not be committed.", commits[0].reservation)
                return
            for commit in commits:
                self._commit([commit])
