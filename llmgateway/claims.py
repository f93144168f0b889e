"""From limits to claims: which counters a request has to ask, and for how much."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from .caller import Caller
from .records import UNLIMITED, Budget, Limits, Period, Unit, UsageRecord
from .reservations import Claim, Kind

NANODOLLARS = 10**9
"""Budgets in dollars are counted in these: whole numbers add up without rounding, and a cached token of a
small model costs some 50 of them."""

_ORGANISATION = "organisation"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request may use, as far as can be told before."""

    tokens: int
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Scope:
    """One of those whose limits a request has to keep: its key, its group, the organisation."""

    kind: str
    name: str
    limits: Limits

    @property
    def counters(self) -> str:
        """What the names of its counters begin with."""
        return f"{self.kind}:{self.name}" if self.name else self.kind

    def __str__(self) -> str:
        return {"key": "Your key", "group": f"Your group {self.name!r}"}.get(self.kind, "The organisation")


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of one scope, and what a request claims of it."""

    scope: Scope
    part: str
    """Which of :class:`~llmgateway.records.Limits`."""
    claim: Claim
    unit: Unit | None
    """What its counter counts; None for what comes back at the end of the request."""

    @property
    def name(self) -> str:
        """As ``x-llmgateway-limit`` says it."""
        return f"{self.scope.kind}.{self.part}"


def scopes_of(caller: Caller) -> Iterator[Scope]:
    """Those of *caller* that have limits."""
    if caller.key.limits != UNLIMITED:
        yield _key_scope(caller)
    if caller.group is not None and caller.group.limits != UNLIMITED:
        yield Scope("group", caller.group.name, caller.group.limits)
    if caller.organisation.limits != UNLIMITED:
        yield Scope(_ORGANISATION, "", caller.organisation.limits)


def limits_of(caller: Caller, estimate: Estimate, now: datetime, *, requests: int = 1) -> list[Limit]:
    """Every limit that a request has to keep; none where none is set."""
    limits = [limit for scope in scopes_of(caller) for limit in _limits_of(scope, estimate, now, requests)]
    if caller.organisation.limits.tokens_per_minute is not None:
        return _share_fairly(limits, caller, estimate)
    return limits


def totals_of(record: UsageRecord) -> tuple[Claim, ...]:
    """What the request of *record* used of every total that there can be, whatever limits it was admitted under."""
    used = used_by(record)
    scopes = [f"key:{record.key_id}", _ORGANISATION] + ([f"group:{record.group}"] if record.group else [])
    budgets = [Budget(amount=0, unit=unit, period=period) for unit in Unit for period in Period]
    return tuple(
        _total(counters, budget, used[budget.unit], None, record.timestamp) for counters in scopes for budget in budgets
    )


def used_by(record: UsageRecord) -> dict[Unit, int]:
    """What the request of *record* really used, as the counters count it."""
    return {
        Unit.USD: nanodollars(record.cost_usd or 0.0),
        Unit.TOKENS: record.total_tokens,
        # One that Azure answered with an error counts, too: Azure counts it (quota documentation, 2026), and
        # budgets in requests agree with reports.
        Unit.REQUESTS: 1,
    }


def first_day(period: Period, now: datetime) -> date | None:
    """Of the period that *now* is in; None where it has no beginning."""
    if period is Period.TOTAL:
        return None
    return now.date() if period is Period.DAY else now.date().replace(day=1)


def nanodollars(dollars: float) -> int:
    return round(dollars * NANODOLLARS)


def _limits_of(scope: Scope, estimate: Estimate, now: datetime, requests: int) -> Iterator[Limit]:
    limits, counters = scope.limits, scope.counters
    if limits.requests_per_minute is not None:
        claim = _claim(f"{counters}:requests", Kind.WINDOW, requests, limits.requests_per_minute)
        yield Limit(scope, "requests_per_minute", claim, Unit.REQUESTS)
    if limits.tokens_per_minute is not None:
        claim = _claim(_tokens(scope), Kind.WINDOW, estimate.tokens, limits.tokens_per_minute)
        yield Limit(scope, "tokens_per_minute", claim, Unit.TOKENS)
    if limits.parallel_requests is not None:
        claim = _claim(f"{counters}:parallel", Kind.LEVEL, requests, limits.parallel_requests)
        yield Limit(scope, "parallel_requests", claim, None)
    if limits.budget is not None:
        wanted = {
            Unit.USD: math.ceil(estimate.cost_usd * NANODOLLARS),
            Unit.TOKENS: estimate.tokens,
            Unit.REQUESTS: requests,
        }[limits.budget.unit]
        yield Limit(scope, "budget", _budget(counters, limits.budget, wanted, now), limits.budget.unit)


def _share_fairly(limits: list[Limit], caller: Caller, estimate: Estimate) -> list[Limit]:
    """Let the organisation's tokens per minute know the key's own, by which an equal share of them is measured."""
    key = _key_scope(caller)
    own = _tokens(key)
    shared = [
        replace(limit, claim=limit.claim._replace(own=own))
        if limit.scope.kind == _ORGANISATION and limit.part == "tokens_per_minute"
        else limit
        for limit in limits
    ]
    if key.limits.tokens_per_minute is None:
        claim = Claim(counter=own, kind=Kind.WINDOW, amount=estimate.tokens)
        shared.insert(0, Limit(key, "tokens_per_minute", claim, Unit.TOKENS))
    return shared


def _key_scope(caller: Caller) -> Scope:
    return Scope("key", caller.key.id, caller.key.limits)


def _tokens(scope: Scope) -> str:
    """The window of its tokens."""
    return f"{scope.counters}:tokens"


def _claim(counter: str, kind: Kind, amount: int, limit: int) -> Claim:
    # A request that may need more than the whole limit can run on an unused window.
    return Claim(counter=counter, kind=kind, amount=min(amount, limit), limit=limit)


def _budget(counters: str, budget: Budget, wanted: int, now: datetime) -> Claim:
    limit = nanodollars(budget.amount) if budget.unit is Unit.USD else int(budget.amount)
    return _total(counters, budget, min(wanted, limit), limit, now)


def _total(counters: str, budget: Budget, amount: int, limit: int | None, now: datetime) -> Claim:
    start = first_day(budget.period, now)
    return Claim(
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
