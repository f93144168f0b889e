"""What one counter remembers. Each is a few whole numbers, which the embedded store keeps in one row."""

from __future__ import annotations

import secrets
from array import array
from typing import TypeAlias

from llmgateway.ratelimit.reservations import (
    RETOLD_AT_LAST_SECONDS,
    RETOLD_SECONDS,
    WINDOW_SECONDS,
    CounterRequest,
    Kind,
    Reading,
)

_DAY = 24 * 3600
_IDLE_TOTAL = 40 * _DAY
"""How long a total without an end is kept unused."""
_RANDOM_BITS = 20
"""Of an epoch, below the second in which the total was told: together less than the 53 that Lua counts exactly."""


class Window:
    """``second, amount, second, amount, …``, oldest first: what was claimed in each of the latest seconds.

    A claim's mark is its second.
    """

    __slots__ = ("_second", "numbers", "used")

    is_known = True

    def __init__(self, numbers: array[int], second: int) -> None:
        self._second = second
        self.numbers = numbers
        # Those from further ahead than a window is long were claimed before the clock was put back.
        if numbers and (numbers[0] < second - WINDOW_SECONDS or numbers[-2] > second + WINDOW_SECONDS):
            self.numbers = self._current()
        self.used = sum(self.numbers[1::2])

    def counter_request(self, counter_request: CounterRequest) -> int:
        self._change(self._second, counter_request.amount)
        return self._second

    def commit(self, claimed: int, mark: int, amount: int) -> None:
        if mark >= self._second - WINDOW_SECONDS:
            self._change(mark, amount - claimed)
        else:
            # What was claimed has left. An answer that takes longer than a minute used the rest all the same,
            # and would never be counted.
            self.add(max(0, amount - claimed))

    def add(self, amount: int) -> None:
        self._change(self._second, amount)

    def read(self, counter_request: CounterRequest, now: float) -> Reading:
        surplus = -1 if counter_request.limit is None else self.used + counter_request.amount - counter_request.limit
        wait = max(0.0, self.leaves_at(surplus) - now) if surplus > 0 else 0.0
        empties_in = self.numbers[-2] + WINDOW_SECONDS + 1 - now if self.numbers else 0.0
        return Reading(self.used, 0, surplus <= 0, wait, empties_in)

    def leaves_at(self, surplus: int) -> int:
        """The second in which as much as *surplus* has left, or all there is."""
        leaves_at = 0
        for position in range(0, len(self.numbers), 2):
            leaves_at = self.numbers[position] + WINDOW_SECONDS + 1
            surplus -= self.numbers[position + 1]
            if surplus <= 0:
                break
        return leaves_at

    def expires_at(self) -> int:
        return self._second + WINDOW_SECONDS + 1

    def _current(self) -> array[int]:
        pairs = zip(self.numbers[::2], self.numbers[1::2], strict=True)
        return array(
            "q", [number for pair in pairs if abs(self._second - pair[0]) <= WINDOW_SECONDS for number in pair]
        )

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
        known = position < len(numbers) and numbers[position] == second
        before = numbers[position + 1] if known else 0
        amount = max(0, before + difference)
        numbers[position : position + 2 * known] = array("q", [second, amount] if amount else [])
        self.used += amount - before


class _Held:
    """What levels and totals share: running requests hold a part, which comes back."""

    __slots__ = ("_second", "numbers")

    def __init__(self, numbers: array[int], second: int) -> None:
        self._second = second
        self.numbers = numbers

    def read(self, counter_request: CounterRequest, _now: float) -> Reading:
        held = self.held
        used = self.spent + held
        return Reading(
            used,
            held,
            counter_request.limit is None or used + counter_request.amount <= counter_request.limit,
            0.0,
            0.0,
        )

    @property
    def spent(self) -> int:
        return 0

    @property
    def held(self) -> int:
        raise NotImplementedError


class Level(_Held):
    """``held``: what running requests hold. A claim needs no mark."""

    __slots__ = ()

    is_known = True

    @property
    def held(self) -> int:
        return self.numbers[0] if self.numbers else 0

    def counter_request(self, counter_request: CounterRequest) -> int:
        self.numbers = array("q", [self.held + counter_request.amount])
        return 0

    def commit(self, claimed: int, _mark: int, _amount: int) -> None:
        self.numbers = array("q", [max(0, self.held - claimed)])

    def add(self, _amount: int) -> None:
        """Nothing: what it was has come back with the lease."""

    def expires_at(self) -> int:
        # Leases are renewed without a word to the levels that they hold.
        return self._second + _DAY


class Total(_Held):
    """``spent, held, epoch, until``; empty while nobody has told what was spent.

    A claim's mark is the epoch: the second in which the total was told or confirmed, and chance, which is another
    whenever it was told anew. Then it does not hold what was claimed before.
    """

    __slots__ = ()

    def seed(self, used: int, *, until: int | None) -> None:
        epoch = (self._second << _RANDOM_BITS) + secrets.randbits(_RANDOM_BITS)
        self.numbers = array("q", [used, 0, epoch, until or 0])

    def confirm(self) -> None:
        """Let what was told long ago be believed for longer."""
        self.numbers[2] = (self._second << _RANDOM_BITS) + self.numbers[2] % (1 << _RANDOM_BITS)

    @property
    def is_known(self) -> bool:
        """Whether somebody has told what was spent, and that is not too long ago to be believed."""
        if not self.numbers:
            return False
        # One from far ahead was told before the clock was put back.
        age = abs(self._second - (self.numbers[2] >> _RANDOM_BITS))
        return age <= (RETOLD_AT_LAST_SECONDS if self.held else RETOLD_SECONDS)

    @property
    def spent(self) -> int:
        return self.numbers[0] if self.numbers else 0

    @property
    def held(self) -> int:
        return self.numbers[1] if self.numbers else 0

    def counter_request(self, counter_request: CounterRequest) -> int:
        self.numbers[1] += counter_request.amount
        return self.numbers[2]

    def commit(self, claimed: int, mark: int, amount: int) -> None:
        if self.numbers and (self.numbers[2] - mark) % (1 << _RANDOM_BITS) == 0:
            self.numbers[1] -= claimed
        self.add(amount)

    def add(self, amount: int) -> None:
        if self.numbers:
            self.numbers[0] += amount

    def expires_at(self) -> int:
        until = self.numbers[3]
        # A request that began within the period may end after it, and is then added.
        return max(until, self._second) + _DAY if until else self._second + _IDLE_TOTAL


Tally: TypeAlias = Window | Level | Total

TALLIES: dict[str, type[Window] | type[Level] | type[Total]] = {
    Kind.WINDOW: Window,
    Kind.LEVEL: Level,
    Kind.TOTAL: Total,
}
