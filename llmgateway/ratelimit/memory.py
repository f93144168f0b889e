"""Counters in memory: for a single serving process, and for any process while the shared counters are unavailable."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Protocol

from ..clock import Clock
from ..errors import StoreUnavailable
from ..usage.locks import ShortLock
from .counters import Counters
from .reservations import Commit, CounterRequest, Decision

log = logging.getLogger(__name__)

SWEPT_AT_ONCE = 100
"""Number of counters that are checked each second, to delete those that are no longer used."""


class StoredCounters(Protocol):
    """Stores counters while no process has them in memory."""

    def take(self) -> Counters:
        """Return all stored counters and delete them from the store.

        If the process dies, sliding windows begin at zero, and budgets are initialised again from the usage log.
        """
        ...

    def add(self, counters: Counters) -> None:
        """Add *counters* to the stored ones."""
        ...


class MemoryCounters:
    """A :class:`~llmgateway.interfaces.CounterStore` of one process. Thread-safe. A child process begins without any.

    Counters that are no longer used are deleted. Some counters are checked each second, and two more for each new
    counter. So there are never many unused ones, and no single request has to check all of them.

    Args:
        stored: The counters are loaded from it, and saved to it when the process stops. None: they are not saved.

    Raises:
        StoreUnavailable: *stored* fails.
    """

    def __init__(self, *, clock: Clock, stored: StoredCounters | None = None) -> None:
        self._clock = clock
        self._stored = stored
        self._by_process = {os.getpid(): _Memory(Counters() if stored is None else stored.take())}

    def reserve(self, reservation: str, counter_requests: Sequence[CounterRequest], *, lease: float) -> Decision:
        memory = self._memory()
        with memory.lock:
            now = self._clock()
            decision = memory.counters.reserve(reservation, counter_requests, lease=lease, now=now)
            memory.tidy(int(now))
        return decision

    def commit(self, commits: Sequence[Commit]) -> None:
        memory = self._memory()
        with memory.lock:
            now = self._clock()
            memory.counters.commit(commits, now=now)
            memory.tidy(int(now))

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        memory = self._memory()
        with memory.lock:
            memory.counters.renew(reservations, lease=lease, now=self._clock())

    def look(self, counter_requests: Sequence[CounterRequest]) -> Decision:
        memory = self._memory()
        with memory.lock:
            return memory.counters.look(counter_requests, now=self._clock())

    def initialise(self, counter: str, used: int, *, until: int | None) -> None:
        memory = self._memory()
        with memory.lock:
            memory.counters.initialise(counter, used, until=until, now=self._clock())

    def confirm(self, counter: str) -> bool:
        memory = self._memory()
        with memory.lock:
            return memory.counters.confirm(counter, now=self._clock())

    def forget(self, counters: Sequence[str]) -> None:
        memory = self._memory()
        with memory.lock:
            memory.counters.forget(counters)

    def flush(self) -> None:
        if self._stored is None:
            return
        memory = self._memory()
        with memory.lock:
            counters, memory.counters = memory.counters, Counters()
            memory.size = 0
        try:
            self._stored.add(counters)
        except StoreUnavailable as error:
            log.warning("The counters of limits cannot be saved: %s Limits per minute begin at zero.", error)

    def _memory(self) -> _Memory:
        # One for each process, because another thread may have held the lock when this process was forked.
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _Memory(Counters()))


class _Memory:
    """The counters of one process, with their lock."""

    __slots__ = ("counters", "lock", "second", "size")

    def __init__(self, counters: Counters) -> None:
        self.lock = ShortLock()
        self.counters = counters
        self.size = len(counters.counters)
        self.second = 0

    def tidy(self, second: int) -> None:
        """Delete some counters that are no longer used, if it is time for that."""
        counters = self.counters
        if second == self.second and len(counters.counters) == self.size:
            return  # the usual case
        at_most = 2 * max(0, len(counters.counters) - self.size)
        if second != self.second:
            self.second = second
            counters.forget_askers(second)
            at_most += SWEPT_AT_ONCE
        counters.sweep(second, at_most=at_most)
        self.size = len(counters.counters)
