"""From limits to counter requests: which counters a request has to ask, and for how much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ..accounts.principal import Principal
from ..records import UNLIMITED, Budget, Limits, Period, Unit, UsageRecord
from .reservations import CounterRequest, Kind

NANODOLLARS = 10**9
"""Budgets in dollars are counted in these: whole numbers add up without rounding, and a cached token of a
small model costs some 50 of them."""

_ORGANISATION = "organisation"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request may use, as far as is known before."""

    tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Scope:
    """A key, a group or the organisation, whose limits a request has to keep."""

    kind: str
    name: str
    limits: Limits

    @property
    def counters(self) -> str:
        """What the names of its counters begin with."""
        return f"{self.kind}:{self.name}" if self.name else self.kind

    def __str__(self) -> str:
        return {"key": "Your key", "group": f"Your group {self.name!r}"}.get(self.kind, "The organisation")


class Limit(NamedTuple):
    """One limit of one scope, and what a request wants of its counter."""

    scope: Scope
    part: str
    """Which of :class:`~llmgateway.records.Limits`."""
    counter_request: CounterRequest
    unit: Unit | None
    """What its counter counts; None for what comes back at the end of the request."""

    def with_amount(self, amount: int) -> Limit:
        """The same for a request that may need *amount* of it."""
        counter_request = self.counter_request
        if counter_request.limit is not None and counter_request.limit < amount:
            amount = counter_request.limit  # one that may need more than the whole limit can run on an unused window
        return (
            self
            if amount == counter_request.amount
            else Limit(self.scope, self.part, counter_request.with_amount(amount), self.unit)
        )

    @property
    def name(self) -> str:
        """As ``x-llmgateway-limit`` says it."""
        return f"{self.scope.kind}.{self.part}"


def scopes_of(principal: Principal) -> Iterator[Scope]:
    """Those of *principal* that have limits."""
    if principal.key.limits != UNLIMITED:
        yield _key_scope(principal)
    if principal.group is not None and principal.group.limits != UNLIMITED:
        yield Scope("group", principal.group.name, principal.group.limits)
    if principal.organisation.limits != UNLIMITED:
        yield Scope(_ORGANISATION, "", principal.organisation.limits)


def limits_of(principal: Principal, estimate: Estimate, now: datetime, *, requests: int = 1) -> list[Limit]:
    """Every limit that a request has to keep; none where none is set."""
    limits = _limits_on(now.date(), principal)
    if not limits:
        return []
    amounts = {
        Unit.USD: math.ceil(estimate.cost_usd * NANODOLLARS),
        Unit.TOKENS: estimate.tokens,
        Unit.REQUESTS: requests,
        None: requests,
    }
    return [limit.with_amount(amounts[limit.unit]) for limit in limits]


def totals_of(record: UsageRecord) -> tuple[CounterRequest, ...]:
    """What the request of *record* used of every total that there can be, whatever limits it was admitted under."""
    used, day = used_by(record), record.timestamp.date()
    scopes = [f"key:{record.key_id}", _ORGANISATION] + ([f"group:{record.group}"] if record.group else [])
    budgets = [Budget(amount=0, unit=unit, period=period) for unit in Unit for period in Period]
    return tuple(_total(counters, budget, used[budget.unit], None, day) for counters in scopes for budget in budgets)


def used_by(record: UsageRecord) -> dict[Unit, int]:
    """What the request of *record* really used, as the counters count it."""
    return {
        Unit.USD: nanodollars(record.cost_usd or 0.0),
        Unit.TOKENS: record.total_tokens,
        # One that Azure answered with an error counts, too: Azure counts it (quota documentation, 2026), and
        # budgets in requests agree with reports.
        Unit.REQUESTS: 1,
    }


def first_day(period: Period, day: date) -> date | None:
    """Of the period that *day* is in; None where it has no beginning."""
    if period is Period.TOTAL:
        return None
    return day if period is Period.DAY else day.replace(day=1)


def nanodollars(dollars: float) -> int:
    return round(dollars * NANODOLLARS)


# The limits of a principal on a day, with the amounts that are the same for every request; gone with the principal.
_known: WeakKeyDictionary[Principal, tuple[date, tuple[Limit, ...]]] = WeakKeyDictionary()


def _limits_on(day: date, principal: Principal) -> tuple[Limit, ...]:
    known = _known.get(principal)
    if known is None or known[0] != day:
        known = _known[principal] = day, (*_own_share(principal), *_all_limits(day, principal))
    return known[1]


def _own_share(principal: Principal) -> Iterator[Limit]:
    """The key's tokens, where they are counted for nothing but its share of the organisation's."""
    if principal.organisation.limits.tokens_per_minute is not None and principal.key.limits.tokens_per_minute is None:
        key = _key_scope(principal)
        yield Limit(key, "tokens_per_minute", CounterRequest(_tokens(key), Kind.WINDOW, 0), Unit.TOKENS)


def _all_limits(day: date, principal: Principal) -> Iterator[Limit]:
    # The organisation's tokens per minute know the key's own, by which an equal share of them is measured.
    own = _tokens(_key_scope(principal))
    for scope in scopes_of(principal):
        limits, counters = scope.limits, scope.counters
        if limits.requests_per_minute is not None:
            counter_request = CounterRequest(f"{counters}:requests", Kind.WINDOW, 1, limits.requests_per_minute)
            yield Limit(scope, "requests_per_minute", counter_request, Unit.REQUESTS)
        if limits.tokens_per_minute is not None:
            shared = own if scope.kind == _ORGANISATION else None
            counter_request = CounterRequest(_tokens(scope), Kind.WINDOW, 0, limits.tokens_per_minute, own=shared)
            yield Limit(scope, "tokens_per_minute", counter_request, Unit.TOKENS)
        if limits.parallel_requests is not None:
            counter_request = CounterRequest(f"{counters}:parallel", Kind.GAUGE, 1, limits.parallel_requests)
            yield Limit(scope, "parallel_requests", counter_request, None)
        if limits.budget is not None:
            counter_request = _total(counters, limits.budget, 0, _most(limits.budget), day)
            yield Limit(scope, "budget", counter_request, limits.budget.unit)


def _key_scope(principal: Principal) -> Scope:
    return Scope("key", principal.key.id, principal.key.limits)


def _tokens(scope: Scope) -> str:
    """The window of its tokens."""
    return f"{scope.counters}:tokens"


def _most(budget: Budget) -> int:
    return nanodollars(budget.amount) if budget.unit is Unit.USD else int(budget.amount)


def _total(counters: str, budget: Budget, amount: int, limit: int | None, day: date) -> CounterRequest:
    start = first_day(budget.period, day)
    return CounterRequest(
        counter=f"{counters}:{budget.unit}:{budget.period}:{start or ''}",
        kind=Kind.TOTAL,
        amount=amount,
        limit=limit,
        until=None if start is None else _end(budget.period, start),
    )


@lru_cache(maxsize=16)
def _end(period: Period, start: date) -> int:
    following = start + timedelta(days=1 if period is Period.DAY else 31)
    if period is Period.MONTH:
        following = following.replace(day=1)
    return int(datetime(following.year, following.month, following.day, tzinfo=UTC).timestamp())
