"""Reads what is used and left of limits, and when they renew: of keys, people, groups and the organisation, many at
once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

from ..clock import Clock
from ..errors import StoreUnavailable
from ..interfaces import CounterStore, Spending
from ..local_time import TimeZones
from ..records import Budget, Organisation, Unit, UsageRow, moment
from .periods import LocalDay
from .reservations import Kind, Reading
from .rules import NANODOLLARS, Limit, limits_of_scope, nanodollars
from .scopes import Scope

COUNTERS_AT_ONCE = 500
"""Number of counters in one question. Redis answers that many in a millisecond, and serves nobody else meanwhile."""

_ATTEMPTS = 3  # to read counters, in case budget totals are forgotten at the same time


class Allowance(NamedTuple):
    """What is used and left of one limit. Budgets are in their own unit."""

    limit: float
    used: float | None
    """``None`` if it is not known, because the usage log is unavailable. What running requests hold of a budget is not
    used: most of it is given back."""
    left: float | None
    renews_at: datetime | None
    """When all of it is free again, if no more is used. ``None``: it does not renew, or nothing is used."""
    budget: Budget | None = None
    """Of a budget: its unit and its period."""


Allowances = Mapping[str, Allowance]
"""What is used and left of the limits of one scope, by field of :class:`~llmgateway.records.Limits` that is set."""


class AllowanceReader:
    """Reads allowances. Thread-safe.

    Nothing is reserved or changed. Counters are read in steps of :data:`COUNTERS_AT_ONCE`, each in two round trips at
    most. Budgets whose totals are not initialised are read from the usage log, with one query for all names of a kind
    and a period.

    Args:
        settle: Commits the ended requests of this process.
        ship: Ships the records of ended requests of this process to the usage log, if that is possible at once.
        zones: As for :class:`~llmgateway.ratelimit.limiter.Limiter`.
    """

    def __init__(
        self,
        counters: CounterStore,
        spending: Spending,
        *,
        settle: Callable[[], object],
        ship: Callable[[], object],
        clock: Clock,
        zones: Callable[[Organisation | None], TimeZones] = lambda _: TimeZones(),
    ) -> None:
        self._counters = counters
        self._spending = spending
        self._settle = settle
        self._ship = ship
        self._clock = clock
        self._zones = zones

    def of(self, scopes: Sequence[Scope]) -> list[Allowances]:
        """Return the allowances of each of *scopes*, which are different from each other."""
        now = self._clock()
        today = LocalDay.at(moment(now), self._zones(None))
        self._settle()
        limits = [[*limits_of_scope(scope, today)] for scope in scopes]
        every = [limit for some in limits for limit in some]
        readings: dict[str, Reading] = {}
        for start in range(0, len(every), COUNTERS_AT_ONCE):
            readings |= self._look(every[start : start + COUNTERS_AT_ONCE])
        unknown = [limit for limit in every if limit.counter_request.counter not in readings]
        sums = self._sums(unknown, today)
        return [{limit.part: _allowance(limit, readings, sums, now) for limit in some} for some in limits]

    def _look(self, limits: Sequence[Limit]) -> dict[str, Reading]:
        """Return the readings of the counters of *limits*, without those that are not initialised."""
        requests = [limit.counter_request for limit in limits]
        for _ in range(_ATTEMPTS):
            decision = self._counters.look(requests)
            if not decision.uninitialised:
                break
            uninitialised = frozenset(decision.uninitialised)
            requests = [request for request in requests if request.counter not in uninitialised]
        else:
            requests = [request for request in requests if request.kind is not Kind.TOTAL]
            decision = self._counters.look(requests)
        return {request.counter: reading for request, reading in zip(requests, decision.readings, strict=True)}

    def _sums(self, limits: Sequence[Limit], today: LocalDay) -> dict[str, int]:
        """Return what the usage log says about the budgets of *limits*, by counter; without those it does not know."""
        together: dict[tuple[tuple[str, ...], date | None], list[Limit]] = defaultdict(list)
        for limit in limits:
            if limit.scope.limits.budget is not None:
                since = today.first_day(limit.scope.limits.budget.period)
                together[tuple(limit.scope.usage), since].append(limit)
        if together:
            self._ship()
        sums: dict[str, int] = {}
        for (groupings, since), some in together.items():
            names = [tuple(limit.scope.usage.values()) for limit in some]
            try:
                rows = self._spending.by_name(groupings, names, first_day=since)
            except StoreUnavailable:
                continue
            for limit, name in zip(some, names, strict=True):
                sums[limit.counter_request.counter] = used_of(rows.get(name, _NOTHING), limit.unit)
        return sums


_NOTHING = UsageRow(by={})


def used_of(row: UsageRow, unit: Unit | None) -> int:
    """Return what *row* says was used of a budget in *unit*, as counters count it."""
    return {Unit.USD: nanodollars(row.cost_usd), Unit.TOKENS: row.total_tokens, Unit.REQUESTS: row.requests}[
        unit or Unit.REQUESTS
    ]


def _allowance(limit: Limit, readings: Mapping[str, Reading], sums: Mapping[str, int], now: float) -> Allowance:
    request = limit.counter_request
    reading, most = readings.get(request.counter), request.limit or 0
    budget = limit.scope.limits.budget if request.kind is Kind.TOTAL else None
    if reading is None:
        used = sums.get(request.counter)
    else:
        used = reading.used - reading.held if request.kind is Kind.TOTAL else reading.used
    left = None if used is None else max(0, most - used)
    if request.kind is Kind.TOTAL:
        renews_at = None if request.until is None else moment(request.until)
    else:
        renews_at = moment(now + reading.empties_in) if reading is not None and reading.empties_in > 0 else None
    if budget is not None and budget.unit is Unit.USD:
        return Allowance(budget.amount, _dollars(used), _dollars(left), renews_at, budget)
    return Allowance(most, used, left, renews_at, budget)


def _dollars(nanodollars: int | None) -> float | None:
    return None if nanodollars is None else nanodollars / NANODOLLARS
