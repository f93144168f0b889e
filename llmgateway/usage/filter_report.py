"""Adds up what content filters have found: by key, group, category and severity. There is no text to show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..records import FilterCount


def filter_rows(counts: Iterable[FilterCount], by: Sequence[str]) -> list[dict[str, Any]]:
    """Return the sums of *counts*, ascending by the groupings *by* (of ``FILTER_GROUPINGS``).

    Each has ``requests``, in which the filter found something, and ``fired``: those of them that it blocked, or in
    which it detected what it looks for. Without ``category`` and ``severity`` in *by*, a request counts once in a row.
    """
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for count in counts:
        for finding, fired in _findings(count, by):
            named = {name: finding[name] for name in by}
            row = rows.setdefault(
                tuple(_sorted(value) for value in named.values()), {**named, "requests": 0, "fired": 0}
            )
            row["requests"] += count.requests
            row["fired"] += count.requests if fired else 0
    return [rows[place] for place in sorted(rows)]


def _findings(count: FilterCount, by: Sequence[str]) -> list[tuple[dict[str, str | None], bool]]:
    """Return the values of all groupings, once for each finding that makes a difference, and whether it fired."""
    common = {
        "day": count.day,
        "month": count.day[:7],
        "user": count.user,
        "key": count.key_id,
        "group": count.group,
        "model": count.model,
    }
    if "category" not in by and "severity" not in by:
        return [(common, bool(count.fired))]
    found = [finding.rpartition(":")[::2] for finding in count.severities]
    if "category" in by:
        return [
            ({**common, "category": category, "severity": severity}, category in count.fired)
            for category, severity in found
        ]
    severities = sorted({severity for _, severity in found})
    return [
        (
            {**common, "severity": severity},
            any(each == severity and category in count.fired for category, each in found),
        )
        for severity in severities
    ]


def _sorted(value: str | None) -> str:
    """Return what puts a missing value first."""
    return "" if value is None else f"_{value}"
