"""The algorithm of counter stores: reserves, renews and commits amounts of many counters. No storage and no locks; the
time is passed in.

``memory.py`` keeps one :class:`Counters` for the whole life of a process. The SQLite store loads one from its tables
for each transaction, and writes the changes back. The scripts in ``stores/redis`` implement the same algorithm in Lua.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Collection, Sequence
from typing import TypeAlias, cast

from .fair_share import FairShare, MemoryAskers
from .kinds import BudgetTotal, Counter, SlidingWindow, counter
from .reservations import Commit, CounterRequest, Decision, Kind, Reading

Held: TypeAlias = tuple[str, str, int, int]
"""The amount that a lease holds of one counter: the counter, its kind, the amount, and the mark that
:meth:`Counter.reserve` returned."""


class Lease:
    """The amounts that a running request holds, and when they are given back."""

    __slots__ = ("expires_at", "held")

    def __init__(self, expires_at: float, held: Sequence[Held]) -> None:
        self.expires_at = expires_at
        self.held = held


class Counters:
    """Counters, leases and fair shares, with the operations of a :class:`~llmgateway.interfaces.CounterStore`.

    Not thread-safe. If a method raises an exception, it has changed nothing, except that expired leases may have been
    given back. ``now`` is in seconds since the epoch.
    """

    def __init__(self) -> None:
        self.counters: dict[str, Counter] = {}
        self.leases: dict[str, Lease] = {}
        self.shares: dict[str, FairShare] = {}
        self._next_end = math.inf  # no lease expires before this time
        self._names: deque[str] = deque()  # names of the counters, in the order in which sweep() checks them

    def reserve(self, reservation: str, requests: Sequence[CounterRequest], *, lease: float, now: float) -> Decision:
        self.give_back(now)
        _check(requests)
        try:
            found = [self.counters[request.counter] for request in requests]  # the usual case
        except KeyError:
            found = [self._counter(request.counter, request.kind) for request in requests]
        readings, uninitialised = _read(requests, found, now)
        if uninitialised:
            return Decision(admitted=False, readings=(), uninitialised=uninitialised)
        shared = [place for place, request in enumerate(requests) if request.own and request.limit is not None]
        if shared:
            self._share(shared, requests, found, readings, now)
        admitted = _all_fit(readings)
        if admitted and requests:
            second = int(now)
            held = [
                (request.counter, request.kind, amount, one.reserve(amount, second))
                for request, one, reading in zip(requests, found, readings, strict=True)
                for amount in (request.amount if request.at_least is None else request.granted(reading.used),)
            ]
            self.keep(reservation, Lease(now + lease, held))
            for place in shared:
                self.fair_share(requests[place].counter).admit(requests[place])
        return Decision(admitted=admitted, readings=tuple(readings))

    def look(self, requests: Sequence[CounterRequest], *, now: float) -> Decision:
        self.give_back(now)
        found = [self.counters.get(request.counter) or counter(request.kind) for request in requests]
        readings, uninitialised = _read(requests, found, now)
        if uninitialised:
            return Decision(admitted=False, readings=(), uninitialised=uninitialised)
        return Decision(admitted=_all_fit(readings), readings=tuple(readings))

    def commit(self, commits: Sequence[Commit], *, now: float) -> None:
        self.give_back(now)
        for commit in commits:
            _check(commit.counter_requests)
        second, counters = int(now), self.counters
        for reservation, requests in commits:
            amounts = {request.counter: request.amount for request in requests}
            lease = self.leases.pop(reservation, None)
            for name, kind, reserved, mark in lease.held if lease else ():
                one = counters.get(name) or self._counter(name, kind)
                one.commit(reserved, mark, amounts.pop(name, 0), second)
            if amounts:
                for request in requests:
                    if request.counter in amounts:
                        self._counter(request.counter, request.kind).add(request.amount, second)

    def renew(self, reservations: Sequence[str], *, lease: float, now: float) -> None:
        self.give_back(now)
        for reservation in reservations:
            if reservation in self.leases:
                self.keep(reservation, Lease(now + lease, self.leases[reservation].held))

    def initialise(self, name: str, used: int, *, until: int | None, now: float) -> None:
        self.give_back(now)
        total = self._total(name)
        if not total.is_initialised(int(now)):
            total.initialise(used, int(now), until=until)

    def confirm(self, name: str, *, now: float) -> bool:
        total = self._total(name)
        if total.numbers:
            total.confirm(int(now))
        return bool(total.numbers)

    def forget(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self.counters:
                self._total(name).numbers = []

    def keep(self, reservation: str, lease: Lease) -> None:
        """Store *lease* under the name of its reservation."""
        self.leases[reservation] = lease
        if lease.expires_at < self._next_end:
            self._next_end = lease.expires_at

    def put(self, name: str, state: Counter) -> None:
        """Add a new counter."""
        self.counters[name] = state
        self._names.append(name)

    def fair_share(self, name: str) -> FairShare:
        """Return the fair share of the window *name*."""
        share = self.shares.get(name)
        if share is None:
            share = self.shares[name] = FairShare(MemoryAskers(), {})
        return share

    def give_back(self, now: float) -> None:
        """Give the amounts of expired leases back to gauges and totals. Amounts in windows expire in any case."""
        if now < self._next_end:
            return
        for reservation in [name for name, lease in self.leases.items() if lease.expires_at <= now]:
            for name, kind, reserved, mark in self.leases.pop(reservation).held:
                if kind != Kind.WINDOW:
                    self._counter(name, kind).commit(reserved, mark, 0, int(now))
        self._next_end = min((lease.expires_at for lease in self.leases.values()), default=math.inf)

    def sweep(self, second: int, *, at_most: int) -> None:
        """Check the next *at_most* counters, and delete those that are no longer used."""
        for _ in range(min(at_most, len(self._names))):
            name = self._names.popleft()
            if self.counters[name].expires_at(second) > second:
                self._names.append(name)
            else:
                del self.counters[name]

    def forget_askers(self, second: int) -> None:
        """Delete the keys that have not used a shared window recently."""
        for name, share in list(self.shares.items()):
            if share.forget(second):
                del self.shares[name]

    def _counter(self, name: str, kind: str) -> Counter:
        found = self.counters.get(name)
        if found is None:
            found = counter(kind)
            self.put(name, found)
        return found

    def _total(self, name: str) -> BudgetTotal:
        total = self._counter(name, Kind.TOTAL)
        if not isinstance(total, BudgetTotal):
            raise TypeError(f"{name!r} is not a budget total")
        return total

    def _share(
        self,
        places: Collection[int],
        requests: Sequence[CounterRequest],
        found: Sequence[Counter],
        readings: list[Reading],
        now: float,
    ) -> None:
        """Apply fair shares to the requests at *places*, whose windows are shared."""
        fits_elsewhere = _all_fit(readings) or all(
            reading.fits for place, reading in enumerate(readings) if place not in places
        )
        windows = [(_window(found[place]), _window(self.counters.get(requests[place].own or ""))) for place in places]
        for place, (shared, own) in zip(places, windows, strict=True):
            readings[place] = self.fair_share(requests[place].counter).judge(
                requests[place], readings[place], shared=shared, own=own, now=now, fits_elsewhere=fits_elsewhere
            )


def _check(requests: Sequence[CounterRequest]) -> None:
    """Raise an exception for amounts that cannot be stored, before anything is changed."""
    array("q", [request.amount for request in requests])


def _read(
    requests: Sequence[CounterRequest], found: Sequence[Counter], now: float
) -> tuple[list[Reading], tuple[str, ...]]:
    """Return the readings, and the names of budget totals that must be initialised first."""
    second = int(now)
    readings = [
        one.read(amount, limit, at_least, now, second)
        for (_, _, amount, limit, _, _, at_least), one in zip(requests, found, strict=True)
    ]
    uninitialised: tuple[str, ...] = ()
    if None in readings:
        uninitialised = tuple(
            request.counter for request, reading in zip(requests, readings, strict=True) if reading is None
        )
    return cast("list[Reading]", readings), uninitialised


def _all_fit(readings: Sequence[Reading]) -> bool:
    return False not in [reading.fits for reading in readings]


def _window(one: Counter | None) -> SlidingWindow:
    if not isinstance(one, SlidingWindow):
        raise TypeError("Only a sliding window can be shared, and the own window must be among the counter requests.")
    return one
