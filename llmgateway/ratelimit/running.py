"""Renews the reservations of running requests, and commits them when the requests have ended."""

from __future__ import annotations

import logging
import os
import threading

from ..background import Background
from ..interfaces import CounterStore
from .reservations import Commit

log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
"""After this time, the reservations of a process that died are given back. A running process renews them in time."""

RENEW_SECONDS = LEASE_SECONDS / 3
"""A lease runs out only after two renewals have failed."""

GATHER_SECONDS = 0.05
"""Commits that are not urgent are collected for this time. In a batch of twenty or more, a commit costs at most a
fifth of a single one (2026)."""


class RunningReservations:
    """Renews the reservations of this process in the background, and commits them. Thread-safe.

    Urgent commits are done at once, the others soon, in batches. If a process is killed before it commits, its
    reservations are given back when their leases run out, as if nothing had been used. Budgets are then corrected from
    the usage log, as soon as another process finds the abandoned journal.
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
                self._running.clear()  # after a fork: these requests run in the parent process
            self._running.add(reservation)
        self._renewing.need()

    def renew(self) -> bool:
        """Renew all reservations now; False if there are none."""
        with self._lock:
            running = list(self._running)
        if running:
            self._counters.renew(running, lease=LEASE_SECONDS)
        return bool(running)

    def commit_at_once(self, commit: Commit) -> None:
        """Commit before this method returns."""
        self._remove(commit)
        self._counters.commit([commit])

    def commit_soon(self, commit: Commit) -> None:
        """Commit in the background."""
        self._remove(commit)
        with self._lock:
            self._ended.append(commit)
        self._committing.need()

    def flush(self) -> bool:
        """Commit the collected commits now; False if there are none."""
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
            # This is a bug in one of the commits. The other commits must not be lost.
            if len(commits) == 1:
                log.exception("The request %s could not be committed.", commits[0].reservation)
                return
            for commit in commits:
                self._commit([commit])
