"""Keeps the requests that this process has refused: in memory for a moment, then in the store.

This is best effort. A request never waits for the store, and none fails because of it: if more kinds of refusals wait
than :data:`MOST_WAITING`, further ones are dropped and counted. Nothing is lost when the process stops gently, unless
the store is away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from ..background import Background
from ..clock import Clock
from ..errors import StoreUnavailable
from ..interfaces import RefusalLog
from ..records import Refusal, RefusedAgain, moment

log = logging.getLogger(__name__)

WRITE_SECONDS = 1.0
"""The pause before each writing, in which refusals collect."""

AT_ONCE = 200
"""The most refusals that one call of the store writes."""

MOST_WAITING = 2000
"""The most refusals that wait for the store, each about 1 KB."""

REPEATED_SECONDS = 60.0
"""Equal refusals within this time after the first one are kept as one, with their number."""

MOST_RECENT = 5000
"""The most refusals whose repetitions are recognised. An older one is kept a second time when it is repeated."""

NAMED_REPEATS = 20
"""How many of the repetitions can be found by their own id."""

PURGE_SECONDS = 3600.0
"""How often old refusals are deleted. This is also done after each tenth of the most that are kept."""

PURGED_AT_ONCE = 5000


class Refusals:
    """The refusals of one process. Thread-safe. No thread starts before the first refusal.

    Args:
        days: How many days they are kept; 0 keeps none.
        most: How many are kept.
        on_dropped: Called with the number of refusals that were dropped.
    """

    def __init__(
        self,
        store: RefusalLog,
        *,
        clock: Clock,
        days: int,
        most: int,
        on_dropped: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.stored = store
        self._clock = clock
        self._days = days
        self._most = most
        self._on_dropped = on_dropped
        self._lock = threading.Lock()  # protects the three below; never held while the store is asked
        self._waiting: dict[str, _Entry] = {}  # by id
        self._recent: dict[tuple[object, ...], _Entry] = {}  # the oldest first
        self._ids: dict[str, _Entry] = {}  # of those that are not stored yet, with the ids of their repetitions
        self._writing = threading.Lock()
        self._written = 0  # since the last purge
        self._next_purge = 0.0
        self._problem = False
        self._background = Background("refusals", self._turn, seconds=WRITE_SECONDS)

    def add(self, refusal: Refusal, *, source: str) -> None:
        """Keep *refusal*. Takes microseconds, and raises nothing.

        Args:
            source: What has sent the request, if no key is known.
        """
        if not self._days:
            return
        # With the person and the group, so that no refusal is shown as one of those that a key has left.
        whose = (refusal.key_id or source, refusal.user, refusal.group)
        kind = (*whose, refusal.status, refusal.code, refusal.limit)
        with self._lock:
            entry = self._recent.get(kind)
            if entry is not None and entry.is_recent(refusal):
                entry.repeat(refusal)
            elif len(self._waiting) >= MOST_WAITING:
                entry = None
            else:
                self._recent.pop(kind, None)
                entry = self._recent[kind] = _Entry(refusal)
                if len(self._recent) > MOST_RECENT:
                    del self._recent[next(iter(self._recent))]
            if entry is not None:
                self._wait(entry)
        if entry is None:
            self._on_dropped(1)
        self._background.need()

    def find(self, request_id: str) -> Refusal | None:
        """Return the refusal with this identifier, or None.

        Raises:
            StoreUnavailable: it is not in memory, and the store does not answer.
        """
        return self.find_waiting(request_id) or self.stored.find(request_id)

    def find_waiting(self, request_id: str) -> Refusal | None:
        """Return the refusal with this identifier if it waits in the memory of this process."""
        with self._lock:
            entry = self._ids.get(request_id)
            return None if entry is None else entry.refusal()

    def look_after(self) -> None:
        """Delete what is too old, if it is time. Call this from time to time; the work is done by another thread."""
        if self._days and self._clock() >= self._next_purge:
            self._background.need()

    def close(self) -> None:
        """Write what waits, before the process ends."""
        self.flush()
        if self._waiting:
            with self._lock:
                lost = sum(entry.unwritten for entry in self._waiting.values())
            log.error("%d refused requests could not be kept: the store does not serve.", lost)

    def flush(self) -> None:
        """Write what waits, unless the store does not accept it."""
        while self._waiting and self._write():
            pass

    def _wait(self, entry: _Entry) -> None:
        self._waiting[entry.first.id] = entry
        for request_id in entry.ids():
            self._ids[request_id] = entry

    def _turn(self) -> bool:
        """Do the work of the background thread; return whether there is more of it."""
        if self._write() and self._is_purge_due() and self._purge():
            return True
        return bool(self._waiting)

    def _is_purge_due(self) -> bool:
        return self._clock() >= self._next_purge or self._written > self._most // 10

    def _write(self) -> bool:
        """Write some of what waits; return False if the store did not accept it."""
        with self._writing:
            with self._lock:
                some = [*self._waiting.values()][:AT_ONCE]
                for entry in some:
                    del self._waiting[entry.first.id]
                refusals = [entry.refusal() for entry in some]
                counts = [entry.count for entry in some]
            try:
                self.stored.append(refusals)
            except StoreUnavailable as error:
                with self._lock:
                    for entry in some:
                        self._wait(entry)
                if not self._problem:
                    log.warning("Refused requests wait for the store: %s", error)
                self._problem = True
                return False
            with self._lock:
                for entry, count in zip(some, counts, strict=True):
                    entry.written = count
                    if entry.first.id not in self._waiting:  # it was not repeated meanwhile
                        for request_id in entry.ids():
                            self._ids.pop(request_id, None)
            self._written += len(some)
            if self._problem:
                log.warning("The store keeps refused requests again.")
            self._problem = False
            return True

    def _purge(self) -> bool:
        """Delete what is too old or too much; return True if there is more to do."""
        now = self._clock()
        try:
            purged = self.stored.purge(moment(now) - timedelta(days=self._days), most=self._most, limit=PURGED_AT_ONCE)
        except StoreUnavailable:
            self._next_purge = now + REPEATED_SECONDS
            return False
        if purged < PURGED_AT_ONCE:
            self._next_purge, self._written = now + PURGE_SECONDS, 0
        return purged == PURGED_AT_ONCE


class _Entry:
    """A refusal, and those like it that followed."""

    __slots__ = ("count", "first", "last_at", "repeats", "written")

    def __init__(self, first: Refusal) -> None:
        self.first = first
        self.count = 1
        self.written = 0
        """The count when it was written last."""
        self.last_at = first.timestamp
        self.repeats: list[RefusedAgain] = []

    @property
    def unwritten(self) -> int:
        return self.count - self.written

    def is_recent(self, other: Refusal) -> bool:
        return abs((other.timestamp - self.first.timestamp).total_seconds()) < REPEATED_SECONDS

    def repeat(self, other: Refusal) -> None:
        self.count += 1
        self.last_at = other.timestamp
        if len(self.repeats) < NAMED_REPEATS:
            self.repeats.append(RefusedAgain(other.id, other.timestamp, other.message, other.endpoint, other.model))

    def ids(self) -> list[str]:
        return [self.first.id, *(again.id for again in self.repeats)]

    def refusal(self) -> Refusal:
        if self.count == 1:
            return self.first
        return replace(self.first, count=self.count, last_at=self.last_at, repeats=tuple(self.repeats))
