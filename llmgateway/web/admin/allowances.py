"""Adds what is used and left to the objects that admins look at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from ...ratelimit.allowances import Allowance
from ...ratelimit.periods import LocalDay
from ...ratelimit.scopes import Scope
from ...records import LIMIT_PARTS, KeyRecord, Period, ReportQuery, UsageRow, moment
from ..context import services


def remaining_of(scopes: Sequence[Scope]) -> list[dict[str, Any]]:
    """Return the field ``remaining`` of each of *scopes*; for all of them with few questions to the stores."""
    return [
        {part: _shown(allowances[part]) if part in allowances else None for part in LIMIT_PARTS}
        for allowances in services().limiter.allowances.of(scopes)
    ]


def with_usage(keys: Sequence[KeyRecord], include: Collection[str]) -> list[dict[str, Any]]:
    """Return the fields of *keys*, and those that *include* names; for all keys with few questions to the stores."""
    shown = [asdict(key) for key in keys]
    if "remaining" in include:
        now = moment(services().clock())
        for one, remaining in zip(shown, remaining_of([Scope.of_key(key, now) for key in keys]), strict=True):
            one["remaining"] = remaining
    if "spent" in include:
        spent = _spent_this_month(keys)
        for one in shown:
            one["spent"] = spent.get(one["id"], UsageRow(by={}))
    if "last_used" in include:
        last_used = services().usage_log.last_used([key.id for key in keys])
        for one in shown:
            one["last_used"] = last_used.get(one["id"])
    return shown


def _spent_this_month(keys: Sequence[KeyRecord]) -> dict[str | None, UsageRow]:
    services().journal.flush_soon()  # otherwise the last requests of this process would be missing
    today = LocalDay.at(moment(services().clock()), services().policy.time_zones())
    month = today.first_day(Period.MONTH)
    query = ReportQuery(by=("key",), among={"key": [key.id for key in keys]}, first_day=month)
    return {row.by["key"]: row for row in services().usage_log.report(query)}


def _shown(allowance: Allowance) -> dict[str, Any]:
    shown = allowance._asdict()
    budget = shown.pop("budget")
    return shown if budget is None else shown | {"unit": budget.unit, "period": budget.period}
