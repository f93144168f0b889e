"""Finds the budgets of which a threshold is passed. Reads the sums of the usage log, never on the way of a request."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from itertools import combinations

from ..interfaces import UsageLog
from ..local_time import TimeZones
from ..ratelimit.periods import LocalDay, shown
from ..ratelimit.scopes import Scope
from ..records import UNIT_NAMES, Alert, Budget, KeyRecord, Organisation, Period, ReportQuery, Unit, UsageRow
from .settings import Event

_KEPT_AFTERWARDS = timedelta(days=2)
"""An alert outlives its period, because records that were late still belong to it."""

_GROUPINGS = ("group", "key", "user")

Usage = frozenset[tuple[str, str | None]]
"""What selects the usage of a scope; see :attr:`Scope.usage`."""


def scopes_with_budgets(organisation: Organisation, keys: Collection[KeyRecord], now: datetime) -> Iterator[Scope]:
    """Yield everything that has a budget now, with the limits that are in force."""
    groups, persons = organisation.groups, organisation.persons
    members = sorted({(key.group, key.user) for key in keys if key.group is not None and key.group in groups})
    scopes = [
        Scope.of_organisation(organisation),
        *(Scope.of_group(group, now) for group in groups.values()),
        *(Scope.of_person(person, now) for person in persons.values()),
        *(Scope.of_member(groups[group], user, persons.get(user), now) for group, user in members),
        *(Scope.of_key(key, now) for key in keys),
    ]
    return (scope for scope in scopes if scope.limits.budget is not None)


class BudgetAlerts:
    """Compares budgets with what is used of them."""

    def __init__(self, usage_log: UsageLog) -> None:
        self._usage_log = usage_log

    def look(
        self,
        organisation: Organisation,
        keys: Collection[KeyRecord],
        zones: TimeZones,
        *,
        thresholds: Sequence[int],
        now: datetime,
    ) -> Iterator[Alert]:
        """Yield an alert for the highest threshold that each budget has passed. They have no deliveries yet.

        One report for each period answers for all budgets.

        Args:
            thresholds: Per cent, ascending.

        Raises:
            StoreUnavailable: the usage log does not answer.
        """
        today = LocalDay.at(now, zones)
        by_id = {key.id: key for key in keys}
        sums: dict[Period, Mapping[Usage, Mapping[Unit, float]]] = {}
        for scope in scopes_with_budgets(organisation, keys, now):
            budget = scope.limits.budget
            assert budget is not None  # noqa: S101 - for the type checker
            if budget.period not in sums:
                sums[budget.period] = self._used(today.first_day(budget.period))
            used = sums[budget.period].get(frozenset(scope.usage.items()), {}).get(budget.unit, 0.0)
            passed = [one for one in thresholds if used >= budget.amount * one / 100 * (1 - 1e-9)]
            if passed:
                yield _alert(scope, budget, passed[-1], used, today, now, key=by_id.get(scope.name))

    def _used(self, start: date | None) -> Mapping[Usage, Mapping[Unit, float]]:
        """Return what was used from the day *start* on, by what selects it and by unit."""
        sums: dict[Usage, dict[Unit, float]] = defaultdict(lambda: dict.fromkeys(Unit, 0.0))
        for row in self._usage_log.report(ReportQuery(by=_GROUPINGS, first_day=start)):
            for selected in _selections(row):
                used = sums[selected]
                used[Unit.USD] += row.cost_usd
                used[Unit.TOKENS] += row.total_tokens
                used[Unit.REQUESTS] += row.requests
        return sums


def _selections(row: UsageRow) -> Iterator[Usage]:
    """Yield everything that selects *row*: any of its groupings together, or none."""
    for number in range(len(_GROUPINGS) + 1):
        for names in combinations(_GROUPINGS, number):
            yield frozenset((name, row.by[name]) for name in names)


def _alert(
    scope: Scope,
    budget: Budget,
    threshold: int,
    used: float,
    today: LocalDay,
    now: datetime,
    *,
    key: KeyRecord | None,
) -> Alert:
    start, renewal = today.first_day(budget.period), today.end(budget.period)
    # A budget that was changed is another one: the admin wants to hear of it again.
    parts = (scope.counters, budget.unit, budget.period, f"{budget.amount:.15g}", str(start or ""), str(threshold))
    share = int(used / budget.amount * 100 + 1e-9)
    period = "in total" if budget.period is Period.TOTAL else f"per {budget.period}"
    text = f"{_whose(scope, key)} has used {share} % of a budget of {_amount(budget.amount, budget.unit)} {period}: "
    text += f"{_amount(used, budget.unit)}."
    if share >= 100:
        text += " Requests are refused now."
    text += " It does not renew." if renewal is None else f" It renews at {shown(renewal, today.zones)}."
    return Alert(
        id=alert_id(*parts),
        at=now,
        event=Event.BUDGET,
        scope=_name(scope),
        text=text,
        threshold=threshold,
        used=round(used, 6) if budget.unit is Unit.USD else int(used),
        limit=budget.amount,
        kept_until=None if renewal is None else renewal + _KEPT_AFTERWARDS,
        user=scope.name if scope.kind in ("member", "person") else None if key is None else key.user,
    )


def alert_id(*parts: str) -> str:
    """Return the identifier of an alert, which does not reveal the names in *parts*."""
    return f"alert_{hashlib.sha256(chr(0).join(parts).encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"


def _name(scope: Scope) -> str:
    """Return the name of *scope* in alerts. Names of groups have no ``/``."""
    name = f"{scope.group}/{scope.name}" if scope.kind == "member" else scope.name
    return f"{scope.kind}:{name}" if name else scope.kind


def _whose(scope: Scope, key: KeyRecord | None) -> str:
    """Return what people call *scope*."""
    if key is not None:
        return f"The key {key.name!r} of {key.user!r} ({key.id})"
    return {
        "key": f"The key {scope.name}",
        "member": f"The member {scope.name!r} of the group {scope.group!r}",
        "person": f"The person {scope.name!r}, with all keys,",
        "group": f"The group {scope.name!r}",
    }.get(scope.kind, "The organisation")


def _amount(amount: float, unit: Unit) -> str:
    if unit is Unit.USD:
        return f"{amount:,.2f} USD"
    return f"{amount:,.0f} {UNIT_NAMES[unit]}"
