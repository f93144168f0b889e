"""Counters in memory: of a process that serves alone, and of any process while the shared counters are away."""

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
"""Counters that are looked at once a second, for whether anybody still uses them."""


class StoredCounters(Protocol):
    """Where counters are while no process has them in memory."""

    def take(self) -> Counters:
        """Return all there are and store them no more: if the process dies, minutes begin anew and budgets are
        counted from the usage log again."""
        ...

    def add(self, counters: Counters) -> None:
        """Store *counters*, added to what is there."""
        ...


class MemoryCounters:
    """A :class:`~llmgateway.interfaces.CounterStore` of one process. Thread-safe; a child of a fork begins with none.

    Counters that nobody uses any more disappear: once a second some are looked at, and for each new counter two more.
    So there are never many more than are in use, and no request pays for a look at all of them.

    Args:
        stored: Where the counters come from, and go to when the process stops; None to begin and end with none.

    Raises:
        StoreUnavailable: *stored* does not serve.
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
            log.warning("What was counted for limits is not kept: %s Minutes begin anew.", error)

    def _memory(self) -> _Memory:
        # By process: another thread may have held the lock when this process was forked.
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _Memory(Counters()))


class _Memory:
    """What one process counts."""

    __slots__ = ("counters", "lock", "second", "size")

    def __init__(self, counters: Counters) -> None:
        self.lock = ShortLock()
        self.counters = counters
        self.size = len(counters.counters)
        self.second = 0

    def tidy(self, second: int) -> None:
        """Forget some of what nobody uses any more, if it is time to."""
        counters = self.counters
        if second == self.second and len(counters.counters) == self.size:
            return  # nearly always
        at_most = 2 * max(0, len(counters.counters) - self.size)
        if second != self.second:
            self.second = second
            counters.forget_askers(second)
            at_most += SWEPT_AT_ONCE
        counters.sweep(second, at_most=at_most)
        self.size = len(counters.counters)
