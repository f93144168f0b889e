"""Converts the limits of the scopes of a request to counter requests."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from ..accounts.principal import Principal
from ..local_time import TimeZones
from ..records import Budget, Organisation, Period, Unit, UsageRecord
from .periods import LocalDay
from .reservations import CounterRequest, Kind
from .scopes import Scope, raise_ends, scopes_of, scopes_of_record

ZonesOf: TypeAlias = Callable[[Organisation], TimeZones]
"""Returns the time zones of an organisation."""

NANODOLLARS = 10**9
"""Budgets in dollars are counted in nanodollars. Sums of whole numbers have no rounding errors, and a cached token of
a small model costs about 50 nanodollars."""


class Use(NamedTuple):
    """An amount of tokens, and its price."""

    tokens: int
    cost_usd: float


class Estimate(NamedTuple):
    """What a request may use, estimated before it is sent. All four are the same if the client limits the answer."""

    most: Use
    """The prompt and the longest answer that the model can write. This is reserved of a budget of the key alone, so
    that parallel requests cannot exceed it together by more than one answer."""
    likely: Use
    """The prompt and an answer that is rarely longer. This is reserved of a budget that several keys share. Otherwise
    one request would keep all the others waiting."""
    least: Use
    """The prompt and a short answer. If less than this is left of a budget, the budget is spent."""
    per_minute: int
    """Tokens that are reserved of limits per minute: the prompt and an answer of the length that is usual for the
    key."""
    choices: int | None = None
    """How many answers are written if the client does not limit their length; None if it does."""

    @classmethod
    def bounded(cls, tokens: int, cost_usd: float) -> Estimate:
        """Return the estimate for a request whose answer the client limits."""
        use = Use(tokens, cost_usd)
        return cls(use, use, use, tokens)


NOTHING = Estimate.bounded(0, 0.0)


class Limit(NamedTuple):
    """One limit of one scope, with the counter request for it."""

    scope: Scope
    part: str
    """Name of a field of :class:`~llmgateway.records.Limits`."""
    counter_request: CounterRequest
    unit: Unit | None
    """Unit of the counter; None for a gauge, which gets the amount back at the end of the request."""

    def for_estimate(self, estimate: Estimate, requests: int) -> Limit:
        """Return the same limit for a request with this estimate."""
        unit, counter_request = self.unit, self.counter_request
        at_least: int | None = None
        if unit is None or unit is Unit.REQUESTS:
            amount = requests
        elif counter_request.kind is Kind.WINDOW:
            amount = estimate.per_minute
        else:
            use = estimate.likely if self.scope.is_shared else estimate.most
            amount, at_least = _in(unit, use), _in(unit, estimate.least)
        if counter_request.limit is not None and counter_request.limit < amount:
            # A request whose estimate exceeds the whole limit may run when nothing else is used.
            amount = counter_request.limit
        if at_least is not None and at_least >= amount:
            at_least = None
        if amount == counter_request.amount and at_least is None:
            return self
        return Limit(self.scope, self.part, counter_request.with_amount(amount, at_least), unit)

    @property
    def name(self) -> str:
        """Value of the header ``x-llmgateway-limit``."""
        return f"{self.scope.kind}.{self.part}"


def limits_of(
    principal: Principal, estimate: Estimate, now: datetime, zones: ZonesOf, *, requests: int = 1
) -> list[Limit]:
    """Return every limit that applies to a request; empty if no limit is set.

    Args:
        zones: Returns the time zones of an organisation, in which the periods of budgets begin.
    """
    return [limit.for_estimate(estimate, requests) for limit in _limits_at(now, principal, zones)]


def has_budget_in_dollars(principal: Principal) -> bool:
    """Whether the price of a request matters to one of its limits."""
    return any(budget.unit is Unit.USD for budget in principal.budgets)


def totals_of(record: UsageRecord, zones: TimeZones) -> tuple[CounterRequest, ...]:
    """Return what the request of *record* used of every possible budget total, whether a budget is set or not."""
    used, day = used_by(record), LocalDay.at(record.timestamp, zones)
    budgets = [Budget(amount=0, unit=unit, period=period) for unit in Unit for period in Period]
    counters = [scope.counters for scope in scopes_of_record(record)]
    return tuple(_total(name, budget, used[budget.unit], None, day) for name in counters for budget in budgets)


def used_by(record: UsageRecord) -> dict[Unit, int]:
    """Return what the request of *record* really used, by unit of the counters."""
    return {
        Unit.USD: nanodollars(record.cost_usd or 0.0),
        Unit.TOKENS: record.total_tokens,
        # A request that Azure answered with an error counts, too: Azure counts it (quota documentation, 2026), and so
        # budgets in requests agree with reports.
        Unit.REQUESTS: 1,
    }


def nanodollars(dollars: float) -> int:
    return round(dollars * NANODOLLARS)


def _in(unit: Unit, use: Use) -> int:
    """Return the whole number that counters count for *use*."""
    return use.tokens if unit is Unit.TOKENS else math.ceil(use.cost_usd * NANODOLLARS)


class _Limits(NamedTuple):
    """The limits of a principal, and the time for which they hold: until the day ends, or a raise does."""

    begin: datetime
    end: datetime
    limits: tuple[Limit, ...]


# An entry is deleted together with its principal.
_cached_limits: WeakKeyDictionary[Principal, _Limits] = WeakKeyDictionary()


def _limits_at(now: datetime, principal: Principal, zones: ZonesOf) -> tuple[Limit, ...]:
    cached = _cached_limits.get(principal)
    if cached is None or not cached.begin <= now < cached.end:
        cached = _cached_limits[principal] = _new_limits(now, principal, zones(principal.organisation))
    return cached.limits


def _new_limits(now: datetime, principal: Principal, zones: TimeZones) -> _Limits:
    today = LocalDay.at(now, zones)
    ends = raise_ends(principal)
    begin = max([zones.start(today.day), *(end for end in ends if end <= now)])
    end = min([zones.start(today.day + timedelta(days=1)), *(end for end in ends if end > now)])
    # The counter request for the organisation's tokens names the key's own window, which measures the key's share.
    own = _tokens(Scope.of_key(principal.key, now))
    limits = [*_own_share(principal, now)]
    for scope in scopes_of(principal, now):
        limits += limits_of_scope(scope, today, own=own if scope.kind == "organisation" else None)
    return _Limits(begin, end, tuple(limits))


def _own_share(principal: Principal, now: datetime) -> Iterator[Limit]:
    """Yield a window for the key's tokens if the key has no token limit, but the organisation has one.

    It measures the key's share of the organisation's tokens.
    """
    if principal.organisation.limits.tokens_per_minute is not None and principal.key.limits.tokens_per_minute is None:
        key = Scope.of_key(principal.key, now)
        yield Limit(key, "tokens_per_minute", CounterRequest(_tokens(key), Kind.WINDOW, 0), Unit.TOKENS)


def limits_of_scope(scope: Scope, day: LocalDay, *, own: str | None = None) -> Iterator[Limit]:
    """Yield every limit of *scope* that is set.

    Args:
        own: As :attr:`CounterRequest.own`, for the tokens per minute.
    """
    limits, counters = scope.limits, scope.counters
    if limits.requests_per_minute is not None:
        counter_request = CounterRequest(f"{counters}:requests", Kind.WINDOW, 1, limits.requests_per_minute)
        yield Limit(scope, "requests_per_minute", counter_request, Unit.REQUESTS)
    if limits.tokens_per_minute is not None:
        counter_request = CounterRequest(_tokens(scope), Kind.WINDOW, 0, limits.tokens_per_minute, own=own)
        yield Limit(scope, "tokens_per_minute", counter_request, Unit.TOKENS)
    if limits.parallel_requests is not None:
        counter_request = CounterRequest(f"{counters}:parallel", Kind.GAUGE, 1, limits.parallel_requests)
        yield Limit(scope, "parallel_requests", counter_request, None)
    if limits.budget is not None:
        counter_request = _total(counters, limits.budget, 0, _most(limits.budget), day)
        yield Limit(scope, "budget", counter_request, limits.budget.unit)


def _tokens(scope: Scope) -> str:
    """Return the name of the window for the tokens of *scope*."""
    return f"{scope.counters}:tokens"


def _most(budget: Budget) -> int:
    return nanodollars(budget.amount) if budget.unit is Unit.USD else int(budget.amount)


def _total(counters: str, budget: Budget, amount: int, limit: int | None, day: LocalDay) -> CounterRequest:
    end = day.end(budget.period)
    return CounterRequest(
        counter=f"{counters}:{budget.unit}:{budget.period}:{day.first_day(budget.period) or ''}",
        kind=Kind.TOTAL,
        amount=amount,
        limit=limit,
        until=None if end is None else int(end.timestamp()),
    )
