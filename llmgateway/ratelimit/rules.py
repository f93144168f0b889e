"""Converts the limits of a key, its group and the organisation to counter requests."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ..accounts.principal import Principal
from ..records import UNLIMITED, Budget, Group, KeyRecord, Limits, Organisation, Period, Unit, UsageRecord
from .reservations import CounterRequest, Kind

NANODOLLARS = 10**9
"""Budgets in dollars are counted in nanodollars. Sums of whole numbers have no rounding errors, and a cached token of
a small model costs about 50 nanodollars."""

_ORGANISATION = "organisation"


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


@dataclass(frozen=True, slots=True)
class Scope:
    """A key, a group or the organisation, whose limits apply to a request."""

    kind: str
    name: str
    limits: Limits
    is_shared: bool
    """Whether several people use its budget."""

    @classmethod
    def of_key(cls, key: KeyRecord) -> Scope:
        return cls("key", key.id, key.limits, is_shared=False)

    @classmethod
    def of_group(cls, group: Group) -> Scope:
        return cls("group", group.name, group.limits, is_shared=True)

    @classmethod
    def of_organisation(cls, organisation: Organisation) -> Scope:
        return cls(_ORGANISATION, "", organisation.limits, is_shared=True)

    @property
    def counters(self) -> str:
        """Prefix of the names of its counters."""
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def usage(self) -> Mapping[str, str]:
        """The value of each grouping of a report that selects its usage."""
        return {self.kind: self.name} if self.name else {}

    def __str__(self) -> str:
        return {"key": "Your key", "group": f"Your group {self.name!r}"}.get(self.kind, "The organisation")


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


def scopes_of(principal: Principal) -> Iterator[Scope]:
    """Yield the scopes of *principal* that have limits."""
    if principal.key.limits != UNLIMITED:
        yield Scope.of_key(principal.key)
    if principal.group is not None and principal.group.limits != UNLIMITED:
        yield Scope.of_group(principal.group)
    if principal.organisation.limits != UNLIMITED:
        yield Scope.of_organisation(principal.organisation)


def limits_of(principal: Principal, estimate: Estimate, now: datetime, *, requests: int = 1) -> list[Limit]:
    """Return every limit that applies to a request; empty if no limit is set."""
    return [limit.for_estimate(estimate, requests) for limit in _limits_on(now.date(), principal)]


def has_budget_in_dollars(principal: Principal) -> bool:
    """Whether the price of a request matters to one of its limits."""
    budgets = [principal.key.limits.budget, principal.organisation.limits.budget]
    if principal.group is not None:
        budgets.append(principal.group.limits.budget)
    return any(budget is not None and budget.unit is Unit.USD for budget in budgets)


def totals_of(record: UsageRecord) -> tuple[CounterRequest, ...]:
    """Return what the request of *record* used of every possible budget total, whether a budget is set or not."""
    used, day = used_by(record), record.timestamp.date()
    scopes = [f"key:{record.key_id}", _ORGANISATION] + ([f"group:{record.group}"] if record.group else [])
    budgets = [Budget(amount=0, unit=unit, period=period) for unit in Unit for period in Period]
    return tuple(_total(counters, budget, used[budget.unit], None, day) for counters in scopes for budget in budgets)


def used_by(record: UsageRecord) -> dict[Unit, int]:
    """Return what the request of *record* really used, by unit of the counters."""
    return {
        Unit.USD: nanodollars(record.cost_usd or 0.0),
        Unit.TOKENS: record.total_tokens,
        # A request that Azure answered with an error counts, too: Azure counts it (quota documentation, 2026), and so
        # budgets in requests agree with reports.
        Unit.REQUESTS: 1,
    }


def first_day(period: Period, day: date) -> date | None:
    """Return the first day of the period that contains *day*; None if the period has no beginning."""
    if period is Period.TOTAL:
        return None
    return day if period is Period.DAY else day.replace(day=1)


def nanodollars(dollars: float) -> int:
    return round(dollars * NANODOLLARS)


def _in(unit: Unit, use: Use) -> int:
    """Return the whole number that counters count for *use*."""
    return use.tokens if unit is Unit.TOKENS else math.ceil(use.cost_usd * NANODOLLARS)


# The limits of each principal on one day. An entry is deleted together with its principal.
_cached_limits: WeakKeyDictionary[Principal, tuple[date, tuple[Limit, ...]]] = WeakKeyDictionary()


def _limits_on(day: date, principal: Principal) -> tuple[Limit, ...]:
    cached = _cached_limits.get(principal)
    if cached is None or cached[0] != day:
        cached = _cached_limits[principal] = day, (*_own_share(principal), *_all_limits(day, principal))
    return cached[1]


def _own_share(principal: Principal) -> Iterator[Limit]:
    """Yield a window for the key's tokens if the key has no token limit, but the organisation has one.

    It measures the key's share of the organisation's tokens.
    """
    if principal.organisation.limits.tokens_per_minute is not None and principal.key.limits.tokens_per_minute is None:
        key = Scope.of_key(principal.key)
        yield Limit(key, "tokens_per_minute", CounterRequest(_tokens(key), Kind.WINDOW, 0), Unit.TOKENS)


def _all_limits(day: date, principal: Principal) -> Iterator[Limit]:
    # The counter request for the organisation's tokens names the key's own window, which measures the key's share.
    own = _tokens(Scope.of_key(principal.key))
    for scope in scopes_of(principal):
        yield from limits_of_scope(scope, day, own=own if scope.kind == _ORGANISATION else None)


def limits_of_scope(scope: Scope, day: date, *, own: str | None = None) -> Iterator[Limit]:
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
