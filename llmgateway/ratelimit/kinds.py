"""The three kinds of counters: sliding windows, gauges and budget totals. No storage, and the time is passed in."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Protocol

from .reservations import (
    TRUSTED_AT_MOST_SECONDS,
    TRUSTED_SECONDS,
    WINDOW_SECONDS,
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


class Counter(Protocol):
    """One counter. Its state is a short list of whole numbers, which is also how it is stored."""

    numbers: list[int]

    @property
    def kind(self) -> Kind: ...

    def read(self, amount: int, limit: int | None, now: float, second: int, /) -> Reading | None:
        """Its state, and whether *amount* fits; None if it has to be initialised first."""
        ...

    def reserve(self, amount: int, second: int, /) -> int:
        """Count *amount*; return a mark that :meth:`commit` needs."""
        ...

    def commit(self, reserved: int, mark: int, amount: int, second: int, /) -> None:
        """Replace what was reserved by the true *amount*."""
        ...

    def add(self, amount: int, second: int, /) -> None:
        """Count *amount*, for which nothing was reserved."""
        ...

    def merge(self, other: list[int], /) -> None:
        """Add what another process has counted under the same name."""
        ...

    def expires_at(self, second: int, /) -> int:
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

    def merge(self, other: list[int]) -> None:
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

    def read(self, amount: int, limit: int | None, _now: float, _second: int) -> Reading:
        held = self.numbers[0]
        return _reading(Reading, (held, held, limit is None or held + amount <= limit, 0.0, 0.0))

    def reserve(self, amount: int, _second: int) -> int:
        self.numbers[0] += amount
        return 0

    def commit(self, reserved: int, _mark: int, _amount: int, _second: int) -> None:
        self.numbers[0] = max(0, self.numbers[0] - reserved)

    def add(self, _amount: int, _second: int) -> None:
        """Nothing: what was held has come back with the lease."""

    def merge(self, other: list[int]) -> None:
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

    def read(self, amount: int, limit: int | None, _now: float, second: int) -> Reading | None:
        if not self.is_initialised(second):
            return None
        spent, held, _, _ = self.numbers
        return _reading(Reading, (spent + held, held, limit is None or spent + held + amount <= limit, 0.0, 0.0))

    def reserve(self, amount: int, _second: int) -> int:
        self.numbers[1] += amount
        return self.numbers[2]

    def commit(self, reserved: int, mark: int, amount: int, second: int) -> None:
        if self.numbers and (self.numbers[2] - mark) % (1 << _RANDOM_BITS) == 0:
            self.numbers[1] -= reserved
        self.add(amount, second)

    def add(self, amount: int, _second: int) -> None:
        if self.numbers:
            self.numbers[0] += amount

    def merge(self, other: list[int]) -> None:
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
