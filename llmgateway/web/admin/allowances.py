"""Adds what is used and left to the objects that admins look at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

from ...ratelimit.allowances import Allowance
from ...ratelimit.scopes import Scope
from ...records import LIMIT_PARTS, KeyRecord, KeyState, moment
from ..context import services
from .lists import NOTHING, spent_this_month, trends


def remaining_of(scopes: Sequence[Scope]) -> list[dict[str, Any]]:
    """Return the field ``remaining`` of each of *scopes*; for all of them with few questions to the stores."""
    return [
        {part: _shown(allowances[part]) if part in allowances else None for part in LIMIT_PARTS}
        for allowances in services().limiter.allowances.of(scopes)
    ]


def with_usage(keys: Sequence[KeyRecord], include: Collection[str]) -> list[dict[str, Any]]:
    """Return the fields of *keys*, and those that *include* names; for all keys with few questions to the stores."""
    shown, ids, now = [asdict(key) for key in keys], [key.id for key in keys], moment(services().clock())
    if "state" in include:
        for key, one in zip(keys, shown, strict=True):
            one["state"] = KeyState.of(key, now).value
    if "remaining" in include:
        for one, remaining in zip(shown, remaining_of([Scope.of_key(key, now) for key in keys]), strict=True):
            one["remaining"] = remaining
    if "spent" in include:
        spent = spent_this_month("key", ids)
        for one in shown:
            one["spent"] = spent.get(one["id"], NOTHING)
    if "trend" in include:
        trend = trends("key", ids)
        for one in shown:
            one["trend"] = trend(one["id"])
    if "last_used" in include:
        last_used = services().usage_log.last_used(ids)
        for one in shown:
            one["last_used"] = last_used.get(one["id"])
    return shown


def _shown(allowance: Allowance) -> dict[str, Any]:
    shown = allowance._asdict()
    budget = shown.pop("budget")
    return shown if budget is None else shown | {"unit": budget.unit, "period": budget.period}
