"""Finds the budgets of which a threshold is passed. Reads the sums of the usage log, never on the way of a request."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from ..interfaces import UsageLog
from ..records import Alert, Budget, KeyRecord, Organisation, Period, ReportQuery, Unit, UsageRow
from .settings import Event

_UNITS = {Unit.USD: "USD", Unit.TOKENS: "tokens", Unit.REQUESTS: "requests"}
_KEPT_AFTERWARDS = timedelta(days=2)
"""An alert outlives its period, because records that were late still belong to it."""

ORGANISATION = "organisation"


class BudgetScope(NamedTuple):
    """A budget, and whose it is."""

    scope: str
    """As in :class:`~llmgateway.records.Alert`."""
    whose: str
    """For people."""
    budget: Budget


def budgets_of(organisation: Organisation, keys: Iterable[KeyRecord]) -> Iterator[BudgetScope]:
    """Yield every budget that is set."""
    if organisation.limits.budget is not None:
        yield BudgetScope(ORGANISATION, "The organisation", organisation.limits.budget)
    for group in organisation.groups.values():
        if group.limits.budget is not None:
            yield BudgetScope(f"group:{group.name}", f"The group {group.name!r}", group.limits.budget)
    for key in keys:
        if key.limits.budget is not None:
            yield BudgetScope(f"key:{key.id}", f"The key {key.name!r} of {key.user!r} ({key.id})", key.limits.budget)


class BudgetAlerts:
    """Compares budgets with what is used of them."""

    def __init__(self, usage_log: UsageLog) -> None:
        self._usage_log = usage_log

    def alerts(self, budgets: Sequence[BudgetScope], thresholds: Sequence[int], now: datetime) -> Iterator[Alert]:
        """Yield an alert for the highest threshold that each budget has passed. They have no deliveries yet.

        One report for each period answers for all budgets.

        Args:
            thresholds: Per cent, ascending.

        Raises:
            StoreUnavailable: the usage log does not answer.
        """
        sums: dict[Period, dict[str, dict[Unit, float]]] = {}
        for each in budgets:
            period = each.budget.period
            if period not in sums:
                sums[period] = self._used(_period(period, now)[0])
            used = sums[period].get(each.scope, {}).get(each.budget.unit, 0.0)
            passed = [one for one in thresholds if used >= each.budget.amount * one / 100 * (1 - 1e-9)]
            if passed:
                yield _alert(each, passed[-1], used, now)

    def _used(self, start: date | None) -> dict[str, dict[Unit, float]]:
        """Return what was used from the day *start* on, by scope and unit."""
        sums: dict[str, dict[Unit, float]] = defaultdict(lambda: dict.fromkeys(Unit, 0.0))
        for row in self._usage_log.report(ReportQuery(by=("key", "group", "user"), first_day=start)):
            for scope in _scopes_of(row):
                used = sums[scope]
                used[Unit.USD] += row.cost_usd
                used[Unit.TOKENS] += row.total_tokens
                used[Unit.REQUESTS] += row.requests
        return sums


def _scopes_of(row: UsageRow) -> list[str]:
    """Return every scope to which the usage of *row* belongs."""
    key, group, user = row.by["key"], row.by["group"], row.by["user"]
    scopes = [ORGANISATION, f"key:{key}", f"person:{user}"]
    return scopes if group is None else [*scopes, f"group:{group}", member_scope(group, user or "")]


def member_scope(group: str, user: str) -> str:
    """Return the scope of a person's keys in a group. Names of groups have no ``/``."""
    return f"member:{group}/{user}"


def _alert(each: BudgetScope, threshold: int, used: float, now: datetime) -> Alert:
    budget = each.budget
    start, renewal = _period(budget.period, now)
    # A budget that was changed is another one: the admin wants to hear of it again.
    parts = (each.scope, budget.unit, budget.period, f"{budget.amount:.15g}", str(start or ""), str(threshold))
    share = int(used / budget.amount * 100 + 1e-9)
    period = "in total" if budget.period is Period.TOTAL else f"per {budget.period}"
    text = f"{each.whose} has used {share} % of a budget of {_amount(budget.amount, budget.unit)} {period}: "
    text += f"{_amount(used, budget.unit)}."
    if share >= 100:
        text += " Requests are refused now."
    text += " It does not renew." if renewal is None else f" It renews at {renewal:%Y-%m-%d %H:%M} UTC."
    return Alert(
        id=alert_id(*parts),
        at=now,
        event=Event.BUDGET,
        scope=each.scope,
        text=text,
        threshold=threshold,
        used=round(used, 6) if budget.unit is Unit.USD else int(used),
        limit=budget.amount,
        kept_until=None if renewal is None else renewal + _KEPT_AFTERWARDS,
    )


def _period(period: Period, now: datetime) -> tuple[date | None, datetime | None]:
    """Return the first day of the period at *now*, and when it ends; None if there is no such thing."""
    if period is Period.TOTAL:
        return None, None
    today = now.date()
    start = today if period is Period.DAY else today.replace(day=1)
    following = start + timedelta(days=1) if period is Period.DAY else (start + timedelta(days=31)).replace(day=1)
    return start, datetime.combine(following, time(), UTC)


def alert_id(*parts: str) -> str:
    """Return the identifier of an alert, which does not reveal the names in *parts*."""
    return f"alert_{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}"


def _amount(amount: float, unit: Unit) -> str:
    if unit is Unit.USD:
        return f"{amount:,.2f} USD"
    return f"{amount:,.0f} {_UNITS[unit]}"
