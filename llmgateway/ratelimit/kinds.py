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
"""A budget total without an end is kept for this time after its last initialisation."""
_RANDOM_BITS = 20
"""Number of random bits in an epoch; the higher bits are the second of the initialisation. An epoch has fewer than 53
bits, so that numbers in Lua represent it exactly."""

_reading = tuple.__new__
"""Creates a :class:`Reading` in half the time of its constructor. Each request needs about a dozen."""


class Counter(Protocol):
    """One counter. Its state is a short list of whole numbers, and is stored as such."""

    numbers: list[int]

    @property
    def kind(self) -> Kind: ...

    def read(self, amount: int, limit: int | None, at_least: int | None, now: float, second: int, /) -> Reading | None:
        """Return the state, and whether *amount* fits; None if the counter must be initialised first.

        The arguments are those of a :class:`~llmgateway.ratelimit.reservations.CounterRequest`.
        """
        ...

    def reserve(self, amount: int, second: int, /) -> int:
        """Count *amount*; return a mark that :meth:`commit` needs."""
        ...

    def commit(self, reserved: int, mark: int, amount: int, second: int, /) -> None:
        """Replace the *reserved* amount by the true *amount*."""
        ...

    def add(self, amount: int, second: int, /) -> None:
        """Count *amount*, which was not reserved before."""
        ...

    def merge(self, other: list[int], /) -> None:
        """Add the state of a counter with the same name in another process."""
        ...

    def expires_at(self, second: int, /) -> int:
        """Return the second from which on the counter may be deleted without any effect."""
        ...


class SlidingWindow:
    """Counts the amounts that were reserved in the last minute.

    ``numbers`` is ``second, amount, second, amount, …``, oldest first. The mark of a reservation is its second.
    """

    __slots__ = ("numbers", "used")

    kind = Kind.WINDOW

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.used = sum(numbers[1::2])

    def read(self, amount: int, limit: int | None, _at_least: int | None, now: float, second: int) -> Reading:
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
            # The reserved amount has left the window, because the answer took longer than a minute. The amount beyond
            # it has not been counted yet.
            self._change(second, amount - reserved)

    def add(self, amount: int, second: int) -> None:
        self._change(second, amount)

    def merge(self, other: list[int]) -> None:
        for position in range(0, len(other), 2):
            self._change(other[position], other[position + 1])

    def expires_at(self, second: int) -> int:
        return self.numbers[-2] + WINDOW_SECONDS + 1 if self.numbers else second

    def leaves_at(self, surplus: int) -> int:
        """Return the second in which *surplus* has left the window, or the whole content if that is less."""
        leaves_at = 0
        for position in range(0, len(self.numbers), 2):
            leaves_at = self.numbers[position] + WINDOW_SECONDS + 1
            surplus -= self.numbers[position + 1]
            if surplus <= 0:
                break
        return leaves_at

    def _slide(self, second: int) -> None:
        # Seconds more than a window in the future come from before the clock was set back.
        pairs = zip(self.numbers[::2], self.numbers[1::2], strict=True)
        self.numbers = [number for pair in pairs if abs(second - pair[0]) <= WINDOW_SECONDS for number in pair]
        self.used = sum(self.numbers[1::2])

    def _change(self, second: int, difference: int) -> None:
        if not difference:
            return
        numbers = self.numbers
        if numbers and numbers[-2] == second and numbers[-1] + difference > 0:  # the usual case
            numbers[-1] += difference
            self.used += difference
            return
        position = len(numbers)
        while position and numbers[position - 2] >= second:  # usually no step, or one
            position -= 2
        is_there = position < len(numbers) and numbers[position] == second
        before = numbers[position + 1] if is_there else 0
        amount = max(0, before + difference)
        numbers[position : position + 2 * is_there] = [second, amount] if amount else []
        self.used += amount - before


class Gauge:
    """Counts what running requests hold. ``numbers`` is ``held``. A reservation needs no mark."""

    __slots__ = ("numbers",)

    kind = Kind.GAUGE

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers or [0]

    def read(self, amount: int, limit: int | None, _at_least: int | None, _now: float, _second: int) -> Reading:
        held = self.numbers[0]
        return _reading(Reading, (held, held, limit is None or held + amount <= limit, 0.0, 0.0))

    def reserve(self, amount: int, _second: int) -> int:
        self.numbers[0] += amount
        return 0

    def commit(self, reserved: int, _mark: int, _amount: int, _second: int) -> None:
        self.numbers[0] = max(0, self.numbers[0] - reserved)

    def add(self, _amount: int, _second: int) -> None:
        """Do nothing: the amount was given back when the lease ended."""

    def merge(self, other: list[int]) -> None:
        self.numbers[0] += sum(other)

    def expires_at(self, second: int) -> int:
        # Renewing a lease does not change the gauges that it holds.
        return second + DAY_SECONDS if self.numbers[0] else second


class BudgetTotal:
    """Counts what was used of a budget in its period.

    ``numbers`` is ``spent, held, epoch, until``, or empty while the total is not initialised. The epoch consists of the
    second of the initialisation or confirmation, and of random bits that change with every initialisation. The mark of
    a reservation is the epoch: after a new initialisation, ``held`` does not contain earlier reservations.
    """

    __slots__ = ("numbers",)

    kind = Kind.TOTAL

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def initialise(self, used: int, second: int, *, until: int | None) -> None:
        epoch = (second << _RANDOM_BITS) + secrets.randbits(_RANDOM_BITS)
        self.numbers = [used, 0, epoch, until or 0]

    def confirm(self, second: int) -> None:
        """Treat an old initialisation as recent."""
        self.numbers[2] = (second << _RANDOM_BITS) + self.numbers[2] % (1 << _RANDOM_BITS)

    def is_initialised(self, second: int) -> bool:
        """Whether the total was initialised recently enough to be trusted."""
        if not self.numbers:
            return False
        # An initialisation in the future happened before the clock was set back.
        age = abs(second - (self.numbers[2] >> _RANDOM_BITS))
        return age <= TRUSTED_SECONDS or (self.numbers[1] != 0 and age <= TRUSTED_AT_MOST_SECONDS)

    def read(self, amount: int, limit: int | None, at_least: int | None, _now: float, second: int) -> Reading | None:
        if not self.is_initialised(second):
            return None
        spent, held, _, _ = self.numbers
        fits = limit is None or spent + held + amount <= limit
        if not fits and at_least is not None and limit is not None:
            fits = held == 0 and spent + at_least <= limit
        return _reading(Reading, (spent + held, held, fits, 0.0, 0.0))

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
        # Both totals include the sum from the usage log, so they cannot be added: initialise again from the log.
        self.numbers = [] if self.numbers and other else self.numbers or other

    def expires_at(self, second: int) -> int:
        if not self.numbers:
            return second
        until, initialised_at = self.numbers[3], self.numbers[2] >> _RANDOM_BITS
        # A request that began in the period may end and be counted after it.
        return max(until, initialised_at) + DAY_SECONDS if until else initialised_at + IDLE_TOTAL_SECONDS


_CLASSES: dict[str, type[SlidingWindow] | type[Gauge] | type[BudgetTotal]] = {
    each.kind: each for each in (SlidingWindow, Gauge, BudgetTotal)
}


def counter(kind: str, numbers: Sequence[int] = ()) -> Counter:
    """Return a counter of *kind* with the state *numbers*."""
    return _CLASSES[kind]([*numbers])
