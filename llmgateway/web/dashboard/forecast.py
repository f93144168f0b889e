"""What a month will have cost at its end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

WEEKS = 4
"""How many weeks before today a forecast looks at."""

_LEAST = 7
"""With fewer days than these, nothing is known of some weekdays."""


def forecast(cost: Mapping[date, float], today: date) -> float | None:
    """Return what the month of *today* is expected to cost; None if there is too little to go by.

    It is what was spent, and for each day that is left the mean of its weekday in the last :data:`WEEKS` weeks. Today
    counts as that mean if less has been spent so far.

    Args:
        cost: By day; a day without cost may be missing.
    """
    first_used = min((day for day in cost if cost[day]), default=today)
    begin = max(first_used, today - timedelta(days=7 * WEEKS))
    past = [begin + timedelta(days=number) for number in range((today - begin).days)]
    if len(past) < _LEAST:
        return None
    month = today.replace(day=1)
    end = (month + timedelta(days=31)).replace(day=1)
    spent = sum(amount for day, amount in cost.items() if month <= day < today)
    left = sum(_usual(cost, past, today + timedelta(days=number)) for number in range(1, (end - today).days))
    return spent + max(cost.get(today, 0.0), _usual(cost, past, today)) + left


def _usual(cost: Mapping[date, float], past: list[date], day: date) -> float:
    same = [cost.get(each, 0.0) for each in past if each.weekday() == day.weekday()]
    return sum(same) / len(same)
