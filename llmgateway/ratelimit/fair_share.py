"""Sharing one window fairly among those who ask.

Every one who asks has a window of its own beside the shared one. A key that has used less than an equal share of the
limit (among all who asked within the last minute, or wait) and does not get what it asked for waits: what becomes free
is kept for it, and those who have used their equal share are refused meanwhile. Without anybody who waits everything
may be used by anybody.
"""

from __future__ import annotations

from typing import Protocol

from .reservations import WINDOW_SECONDS, CounterRequest, Reading

PATIENCE = 5
"""Seconds for which what has become free is kept for the one who was told to come back for it."""


class Window(Protocol):
    """What is asked of a sliding window."""

    used: int

    def leaves_at(self, surplus: int) -> int: ...


class Askers(Protocol):
    """Those who asked lately."""

    def add(self, own: str, *, until: int) -> None:
        """Count *own* up to second *until*, or longer if that is known already."""
        ...

    def number(self, second: int) -> int:
        """How many are counted in *second*."""
        ...

    def forget(self, second: int) -> bool:
        """Forget those who are not counted in *second* any more; return whether nobody is left."""
        ...


class FairShare:
    """Who shares one window, and who waits for what becomes free in it. Not thread-safe.

    Args:
        waiting: By own window: the amount, and until when it is kept.
    """

    __slots__ = ("askers", "waiting")

    def __init__(self, askers: Askers, waiting: dict[str, tuple[int, int]]) -> None:
        self.askers = askers
        self.waiting = waiting

    def judge(
        self,
        request: CounterRequest,
        reading: Reading,
        *,
        shared: Window,
        own: Window,
        now: float,
        fits_elsewhere: bool,
    ) -> Reading:
        """The answer to *request*, which would be *reading* if nobody else had asked."""
        name, second = request.own or "", int(now)
        self.askers.add(name, until=second + WINDOW_SECONDS + 1)
        others = self._others(name, second) if self.waiting else []
        if reading.fits and not others:
            return reading  # nearly always
        limit = request.limit or 0
        is_below = own.used * self.askers.number(second) < limit
        surplus = shared.used + request.amount - limit
        if not reading.fits:
            if is_below and fits_elsewhere:
                until = max(shared.leaves_at(surplus), second) + PATIENCE
                self.waiting[name] = (request.amount, until)
                self.askers.add(name, until=until)
            return reading
        surplus += sum(amount for amount, _ in others)
        if is_below or surplus <= 0:
            return reading
        free_at = min(shared.leaves_at(surplus), max(until for _, until in others))
        return reading._replace(fits=False, wait=max(0.0, free_at - now))

    def admit(self, request: CounterRequest) -> None:
        """The one who asked got it and waits no more."""
        self.waiting.pop(request.own or "", None)

    def forget(self, second: int) -> bool:
        """Forget who has not asked lately or has waited for too long; return whether nobody is left."""
        self._forget_waiting(second)
        return self.askers.forget(second) and not self.waiting

    def _forget_waiting(self, second: int) -> None:
        for expired in [own for own, (_, until) in self.waiting.items() if until <= second]:
            del self.waiting[expired]

    def _others(self, name: str, second: int) -> list[tuple[int, int]]:
        self._forget_waiting(second)
        return [entry for own, entry in self.waiting.items() if own != name]


class MemoryAskers:
    """Those who asked lately, in memory, by the second until which they are counted: few, however many ask."""

    __slots__ = ("_by_end", "_ends")

    def __init__(self) -> None:
        self._ends: dict[str, int] = {}
        self._by_end: dict[int, set[str]] = {}

    def add(self, own: str, *, until: int) -> None:
        before = self._ends.get(own, 0)
        if before >= until:
            return
        if before:
            self._by_end[before].discard(own)
        self._ends[own] = until
        self._by_end.setdefault(until, set()).add(own)

    def number(self, second: int) -> int:
        return sum(len(owns) for end, owns in self._by_end.items() if end > second)

    def forget(self, second: int) -> bool:
        for end in [end for end in self._by_end if end <= second]:
            for own in self._by_end.pop(end):
                del self._ends[own]
        return not self._ends

    def items(self) -> list[tuple[str, int]]:
        """Each with the second until which it is counted."""
        return list(self._ends.items())
