"""The course of usage over days, as a row of bars beside each row of a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from .tables import sparkline

if TYPE_CHECKING:
    from .remote import Remote

_MOST_DAYS = 31
MOST_ROWS = 200
"""Reports with more rows get no bars: the report by day would be many times as long."""


def with_trends(
    gateway: Remote, rows: Sequence[Mapping[str, Any]], names: Sequence[str], query: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return *rows* with a ``trend``: the tokens of each day, of the month of the row or of the last days there are.

    Args:
        names: What the rows are grouped by; not by day.
        query: That of the report.
    """
    by_day = gateway.call("GET", "/usage", query={**query, "by": ",".join([*names, "day"])})["rows"]
    tokens: dict[tuple[Any, ...], dict[date, int]] = defaultdict(dict)
    for row in by_day:
        tokens[_group(row, names)][date.fromisoformat(row["day"])] = row["total_tokens"]
    days = _last_days([day for group in tokens.values() for day in group])
    return [{**row, "trend": _trend(tokens[_group(row, names)], row.get("month"), days)} for row in rows]


def _trend(tokens: Mapping[date, int], month: str | None, days: Sequence[date]) -> str:
    if month is not None:
        first = date.fromisoformat(f"{month}-01")
        days = [day for number in range(_MOST_DAYS) if (day := first + timedelta(number)).month == first.month]
    return sparkline([tokens.get(day, 0) for day in days])


def _last_days(days: Sequence[date]) -> list[date]:
    if not days:
        return []
    first = max(min(days), max(days) - timedelta(_MOST_DAYS - 1))
    return [first + timedelta(number) for number in range((max(days) - first).days + 1)]


def _group(row: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)
