"""Shares one window fairly among keys.

Each key has a window of its own besides the shared one. The equal share is the limit divided by the number of keys that
asked within the last minute or wait. A key that has used less than its equal share goes first: if its request does not
fit, the key waits, and the amount that becomes free is kept for it. Until then, keys that have used their equal share
are refused. If no key waits, every key may use the whole window.
"""

from __future__ import annotations

from typing import Protocol

from .reservations import WINDOW_SECONDS, CounterRequest, Reading

PATIENCE = 5
"""Seconds for which a free amount is kept for a waiting key, after the time at which the key should ask again."""


class Window(Protocol):
    """The part of a sliding window that is needed here."""

    used: int

    def leaves_at(self, surplus: int) -> int: ...


class Askers(Protocol):
    """The keys that asked for a shared window recently. A key is identified by the name of its own window."""

    def add(self, own: str, *, until: int) -> None:
        """Count *own* until second *until*, unless it is already counted for longer."""
        ...

    def number(self, second: int) -> int:
        """Return how many keys are counted in *second*."""
        ...

    def forget(self, second: int) -> bool:
        """Delete the keys that are no longer counted in *second*; return whether no key is left."""
        ...


class FairShare:
    """The keys that share one window, and the keys that wait for a free amount. Not thread-safe.

    Args:
        waiting: By name of the key's own window: the amount, and the second until which it is kept.
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
        """Return the reading for *request* with regard to other keys. *reading* is the one without regard to them."""
        name, second = request.own or "", int(now)
        self.askers.add(name, until=second + WINDOW_SECONDS + 1)
        others = self._others(name, second) if self.waiting else []
        if reading.fits and not others:
            return reading  # the usual case
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
        """Note that *request* was admitted, so its key no longer waits."""
        self.waiting.pop(request.own or "", None)

    def forget(self, second: int) -> bool:
        """Delete keys that have not asked recently or have waited for too long; return whether no key is left."""
        self._forget_waiting(second)
        return self.askers.forget(second) and not self.waiting

    def _forget_waiting(self, second: int) -> None:
        for expired in [own for own, (_, until) in self.waiting.items() if until <= second]:
            del self.waiting[expired]

    def _others(self, name: str, second: int) -> list[tuple[int, int]]:
        self._forget_waiting(second)
        return [entry for own, entry in self.waiting.items() if own != name]


class MemoryAskers:
    """:class:`Askers` in memory, grouped by the second until which they are counted. So counting them is cheap."""

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
        """Return each key with the second until which it is counted."""
        return list(self._ends.items())
