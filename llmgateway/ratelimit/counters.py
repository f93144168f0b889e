"""How limits are counted: sliding windows, gauges and budget totals. No storage, no locks, and the time is passed in.

``memory.py`` keeps one :class:`Counters` for as long as the process lives; the embedded store fills one from its tables
for each transaction and writes back what has changed; the scripts in ``stores/redis`` do the same in Lua.
"""

from __future__ import annotations

import math
import secrets
from array import array
from collections import deque
from collections.abc import Collection, Sequence
from typing import Protocol, TypeAlias, cast

from .fair_share import FairShare, MemoryAskers
from .reservations import (
    TRUSTED_AT_MOST_SECONDS,
    TRUSTED_SECONDS,
    WINDOW_SECONDS,
    Commit,
    CounterRequest,
    Decision,
    Kind,
    Reading,
)

DAY_SECONDS = 24 * 3600
IDLE_TOTAL_SECONDS = 40 * DAY_SECONDS
"""How long a budget total without an end is kept after it was initialised last."""
_RANDOM_BITS = 20
"""Of an epoch, below the second of the initialisation. Together less than the 53 bits that Lua counts exactly."""

_reading = tuple.__new__
"""Makes a :class:`Reading` in half the time of its constructor; each request needs about a dozen."""

Held: TypeAlias = tuple[str, str, int, int]
"""What a lease holds of one counter: the counter, its kind, the amount, the mark that :meth:`Counter.reserve` gave."""


class Counter(Protocol):
    """One counter. Its state is a short list of whole numbers, which is also how it is stored."""

    numbers: list[int]

    @property
    def kind(self) -> Kind: ...

    def read(self, amount: int, limit: int | None, now: float, second: int) -> Reading | None:
        """Its state, and whether *amount* fits; None if it has to be initialised first."""
        ...

    def reserve(self, amount: int, second: int) -> int:
        """Count *amount*; return a mark that :meth:`commit` needs."""
        ...

    def commit(self, reserved: int, mark: int, amount: int, second: int) -> None:
        """Replace what was reserved by the true *amount*."""
        ...

    def add(self, amount: int, second: int) -> None:
        """Count *amount*, for which nothing was reserved."""
        ...

    def merge(self, other: list[int], second: int) -> None:
        """Add what another process has counted under the same name."""
        ...

    def expires_at(self, second: int) -> int:
        """The second from which on it makes no difference whether it is kept."""
        ...


class SlidingWindow:
    """``second, amount, second, amount, …``, oldest first: what was reserved in each of the latest seconds.

    The mark of a reservation is its second.
    """

    __slots__ = ("numbers", "used")

    kind = Kind.WINDOW

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.used = sum(numbers[1::2])

    def read(self, amount: int, limit: int | None, now: float, second: int) -> Reading:
        numbers = self.numbers
        if numbers and (numbers[0] < second - WINDOW_SECONDS or numbers[-2] > second + WINDOW_SECONDS):
            self._slide(second)
            numbers = self.numbers
        used = self.used
        empties_in = numbers[-2] + WINDOW_SECONDS + 1 - now if numbers else 0.0
        if limit is None or used + amount <= limit:
            return _reading(Reading, (used, 0, True, 0.0, empties_in))
        return Reading(used, 0, False, max(0.0, self.leaves_at(used + amount - limit) - now), empties_in)

    def reserve(self, amount: int, second: int) -> int:
        self._change(second, amount)
        return second

    def commit(self, reserved: int, mark: int, amount: int, second: int) -> None:
        if mark >= second - WINDOW_SECONDS:
            self._change(mark, amount - reserved)
        elif amount > reserved:
            # What was reserved has left the window. An answer that takes longer than a minute used the rest all the
            # same, which would never be counted.
            self._change(second, amount - reserved)

    def add(self, amount: int, second: int) -> None:
        self._change(second, amount)

    def merge(self, other: list[int], second: int) -> None:  # noqa: ARG002
        for position in range(0, len(other), 2):
            self._change(other[position], other[position + 1])

    def expires_at(self, second: int) -> int:
        return self.numbers[-2] + WINDOW_SECONDS + 1 if self.numbers else second

    def leaves_at(self, surplus: int) -> int:
        """The second in which as much as *surplus* has left the window, or all there is."""
        leaves_at = 0
        for position in range(0, len(self.numbers), 2):
            leaves_at = self.numbers[position] + WINDOW_SECONDS + 1
            surplus -= self.numbers[position + 1]
            if surplus <= 0:
                break
        return leaves_at

    def _slide(self, second: int) -> None:
        # What lies further ahead than a window is long was counted before the clock was put back.
        pairs = zip(self.numbers[::2], self.numbers[1::2], strict=True)
        self.numbers = [number for pair in pairs if abs(second - pair[0]) <= WINDOW_SECONDS for number in pair]
        self.used = sum(self.numbers[1::2])

    def _change(self, second: int, difference: int) -> None:
        if not difference:
            return
        numbers = self.numbers
        if numbers and numbers[-2] == second and numbers[-1] + difference > 0:  # nearly always
            numbers[-1] += difference
            self.used += difference
            return
        position = len(numbers)
        while position and numbers[position - 2] >= second:  # nearly always none or one
            position -= 2
        is_there = position < len(numbers) and numbers[position] == second
        before = numbers[position + 1] if is_there else 0
        amount = max(0, before + difference)
        numbers[position : position + 2 * is_there] = [second, amount] if amount else []
        self.used += amount - before


class Gauge:
    """``held``: what running requests hold. A reservation needs no mark."""

    __slots__ = ("numbers",)

    kind = Kind.GAUGE

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers or [0]

    def read(self, amount: int, limit: int | None, now: float, second: int) -> Reading:  # noqa: ARG002
        held = self.numbers[0]
        return _reading(Reading, (held, held, limit is None or held + amount <= limit, 0.0, 0.0))

    def reserve(self, amount: int, second: int) -> int:  # noqa: ARG002
        self.numbers[0] += amount
        return 0

    def commit(self, reserved: int, mark: int, amount: int, second: int) -> None:  # noqa: ARG002
        self.numbers[0] = max(0, self.numbers[0] - reserved)

    def add(self, amount: int, second: int) -> None:
        """Nothing: what was held has come back with the lease."""

    def merge(self, other: list[int], second: int) -> None:  # noqa: ARG002
        self.numbers[0] += sum(other)

    def expires_at(self, second: int) -> int:
        # Leases are renewed without touching the gauges that they hold.
        return second + DAY_SECONDS if self.numbers[0] else second


class BudgetTotal:
    """``spent, held, epoch, until``; nothing while it is not initialised.

    The mark of a reservation is the epoch: the second of the initialisation or confirmation, and random bits that
    change with every initialisation. After another one the total does not hold what was reserved before.
    """

    __slots__ = ("numbers",)

    kind = Kind.TOTAL

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def initialise(self, used: int, second: int, *, until: int | None) -> None:
        epoch = (second << _RANDOM_BITS) + secrets.randbits(_RANDOM_BITS)
        self.numbers = [used, 0, epoch, until or 0]

    def confirm(self, second: int) -> None:
        """Trust an old initialisation for longer."""
        self.numbers[2] = (second << _RANDOM_BITS) + self.numbers[2] % (1 << _RANDOM_BITS)

    def is_initialised(self, second: int) -> bool:
        """Whether it was initialised, and not too long ago to be trusted."""
        if not self.numbers:
            return False
        # An initialisation from far ahead happened before the clock was put back.
        age = abs(second - (self.numbers[2] >> _RANDOM_BITS))
        return age <= TRUSTED_SECONDS or (self.numbers[1] != 0 and age <= TRUSTED_AT_MOST_SECONDS)

    def read(self, amount: int, limit: int | None, now: float, second: int) -> Reading | None:  # noqa: ARG002
        if not self.is_initialised(second):
            return None
        spent, held, _, _ = self.numbers
        return _reading(Reading, (spent + held, held, limit is None or spent + held + amount <= limit, 0.0, 0.0))

    def reserve(self, amount: int, second: int) -> int:  # noqa: ARG002
        self.numbers[1] += amount
        return self.numbers[2]

    def commit(self, reserved: int, mark: int, amount: int, second: int) -> None:
        if self.numbers and (self.numbers[2] - mark) % (1 << _RANDOM_BITS) == 0:
            self.numbers[1] -= reserved
        self.add(amount, second)

    def add(self, amount: int, second: int) -> None:  # noqa: ARG002
        if self.numbers:
            self.numbers[0] += amount

    def merge(self, other: list[int], second: int) -> None:  # noqa: ARG002
        # Each of the two began with what the usage log said: only the log knows the sum.
        self.numbers = [] if self.numbers and other else self.numbers or other

    def expires_at(self, second: int) -> int:
        if not self.numbers:
            return second
        until, initialised_at = self.numbers[3], self.numbers[2] >> _RANDOM_BITS
        # A request that began within the period may end after it, and is then added.
        return max(until, initialised_at) + DAY_SECONDS if until else initialised_at + IDLE_TOTAL_SECONDS


_CLASSES: dict[str, type[SlidingWindow] | type[Gauge] | type[BudgetTotal]] = {
    each.kind: each for each in (SlidingWindow, Gauge, BudgetTotal)
}


def counter(kind: str, numbers: Sequence[int] = ()) -> Counter:
    """A counter of *kind* with the state *numbers*."""
    return _CLASSES[kind]([*numbers])


class Lease:
    """What a running request holds."""

    __slots__ = ("expires_at", "held")

    def __init__(self, expires_at: float, held: Sequence[Held]) -> None:
        self.expires_at = expires_at
        self.held = held


class Counters:
    """Counters, leases and fair shares, and everything that a :class:`~llmgateway.interfaces.CounterStore` does with
    them. Not thread-safe.

    Each method does all it has to do or raises before it has changed anything, but for what it gives back of leases
    that ran out. ``now`` is in seconds since the epoch.
    """

    def __init__(self) -> None:
        self.counters: dict[str, Counter] = {}
        self.leases: dict[str, Lease] = {}
        self.shares: dict[str, FairShare] = {}
        self._next_end = math.inf  # no lease runs out before
        self._names: deque[str] = deque()  # of the counters, in the order in which they are looked at

    def reserve(self, reservation: str, requests: Sequence[CounterRequest], *, lease: float, now: float) -> Decision:
        self.give_back(now)
        _check(requests)
        try:
            found = [self.counters[request.counter] for request in requests]  # nearly always
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
                (name, kind, amount, one.reserve(amount, second))
                for (name, kind, amount, _, _, _), one in zip(requests, found, strict=True)
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
        """Keep *lease* under the name of its reservation."""
        self.leases[reservation] = lease
        if lease.expires_at < self._next_end:
            self._next_end = lease.expires_at

    def put(self, name: str, state: Counter) -> None:
        """Keep a counter that is not there yet."""
        self.counters[name] = state
        self._names.append(name)

    def fair_share(self, name: str) -> FairShare:
        """Who shares the window *name*."""
        share = self.shares.get(name)
        if share is None:
            share = self.shares[name] = FairShare(MemoryAskers(), {})
        return share

    def give_back(self, now: float) -> None:
        """Give gauges and totals back what is held by leases that ran out; windows forget by themselves."""
        if now < self._next_end:
            return
        for reservation in [name for name, lease in self.leases.items() if lease.expires_at <= now]:
            for name, kind, reserved, mark in self.leases.pop(reservation).held:
                if kind != Kind.WINDOW:
                    self._counter(name, kind).commit(reserved, mark, 0, int(now))
        self._next_end = min((lease.expires_at for lease in self.leases.values()), default=math.inf)

    def sweep(self, second: int, *, at_most: int) -> None:
        """Forget counters that nobody uses any more: looks at some, and at the next ones when it is called again."""
        for _ in range(min(at_most, len(self._names))):
            name = self._names.popleft()
            if self.counters[name].expires_at(second) > second:
                self._names.append(name)
            else:
                del self.counters[name]

    def forget_askers(self, second: int) -> None:
        """Forget those who have not asked for a shared window lately."""
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
            raise TypeError(f"{name!r} is no budget total")
        return total

    def _share(
        self,
        places: Collection[int],
        requests: Sequence[CounterRequest],
        found: Sequence[Counter],
        readings: list[Reading],
        now: float,
    ) -> None:
        """Judge the requests at *places*, whose windows are shared, with regard to the others who share them."""
        fits_elsewhere = _all_fit(readings) or all(
            reading.fits for place, reading in enumerate(readings) if place not in places
        )
        windows = [(_window(found[place]), _window(self.counters.get(requests[place].own or ""))) for place in places]
        for place, (shared, own) in zip(places, windows, strict=True):
            readings[place] = self.fair_share(requests[place].counter).judge(
                requests[place], readings[place], shared=shared, own=own, now=now, fits_elsewhere=fits_elsewhere
            )


def _check(requests: Sequence[CounterRequest]) -> None:
    """Raise for amounts that cannot be stored before anything is changed."""
    array("q", [request.amount for request in requests])


def _read(
    requests: Sequence[CounterRequest], found: Sequence[Counter], now: float
) -> tuple[list[Reading], tuple[str, ...]]:
    """The readings, or the names of budget totals that have to be initialised first."""
    second = int(now)
    readings = [
        one.read(amount, limit, now, second) for (_, _, amount, limit, _, _), one in zip(requests, found, strict=True)
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
        raise TypeError("Only a sliding window can be shared, with those whose windows are among the counter requests.")
    return one
