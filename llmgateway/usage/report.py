"""Usage reports by what the usage log does not know itself: cost centres, and a second currency."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Any

from ..records import GROUPINGS, Group, ReportQuery, UsageRow
from .currency import Currency

COST_CENTRE = "cost_centre"
REPORT_GROUPINGS = (*GROUPINGS, COST_CENTRE)
"""Possible groupings of a report. A cost centre is that which the group has now."""

SUMS = tuple(field.name for field in fields(UsageRow) if field.name != "by")
_sums_of = attrgetter(*SUMS)


@dataclass(slots=True)
class ReportRow:
    """Sums, and their cost in the second currency."""

    usage: UsageRow
    cost: float = 0.0
    """Of the months that have a rate."""
    months_without_rate: frozenset[str] = frozenset()
    """Those that have a cost."""

    def as_json(self, currency: Currency | None) -> dict[str, Any]:
        """Return the groupings and sums by name; with *currency* also the cost in it, which is None if it is not known.

        The row has the field ``currency``, too, because rows are also lines of a CSV file.
        """
        shown: dict[str, Any] = {**self.usage.by, **dict(zip(SUMS, _sums_of(self.usage), strict=True))}
        if currency is not None:
            shown["currency"] = currency.code
            shown["cost"] = None if self.months_without_rate else round(self.cost, 9)
            shown["months_without_rate"] = sorted(self.months_without_rate)
        return shown


def report(
    read: Callable[[ReportQuery], Iterable[UsageRow]],
    query: ReportQuery,
    *,
    groups: Mapping[str, Group],
    currency: Currency | None = None,
) -> tuple[list[ReportRow], ReportRow]:
    """Return the rows of a report, sorted by its groupings, and the total of all of them, also with ``query.top``.

    Args:
        read: :meth:`~llmgateway.interfaces.UsageLog.report`.
        query: ``by`` may also name :data:`COST_CENTRE`.
        groups: By name. The cost centre of a group that is not there is not known.
        currency: Costs are also in this currency, at the rate of each month.
    """
    by = query.by
    needed = [name for name in by if name != COST_CENTRE]
    for name, is_needed in (("group", COST_CENTRE in by), ("month", currency is not None and "day" not in by)):
        if is_needed and name not in needed:
            needed.append(name)
    if query.top is not None and list(by) == needed:
        total, _ = _read(read, replace(query, by=["month"] if currency else [], top=None), currency)
        return [_priced(row, currency) for row in read(query)], total
    total, rows = _read(read, replace(query, by=needed, top=None), currency)
    if COST_CENTRE in by:
        for row in rows:
            group = groups.get(row.usage.by["group"] or "")
            row.usage.by[COST_CENTRE] = None if group is None else group.cost_centre
    found = rows if list(by) == needed else _by(rows, by)
    return (found if query.top is None else _highest(found, query.top)), total


def _read(
    read: Callable[[ReportQuery], Iterable[UsageRow]], query: ReportQuery, currency: Currency | None
) -> tuple[ReportRow, list[ReportRow]]:
    rows = [_priced(row, currency) for row in read(query)]
    return _added(rows, by={}), rows


def _highest(rows: Sequence[ReportRow], number: int) -> list[ReportRow]:
    return heapq.nlargest(number, rows, key=lambda row: row.usage.cost_usd)


def _priced(row: UsageRow, currency: Currency | None) -> ReportRow:
    if currency is None or not row.cost_usd:
        return ReportRow(row)
    month = (row.by.get("month") or row.by["day"] or "")[:7]
    rate = currency.rate(month)
    if rate is None:
        return ReportRow(row, months_without_rate=frozenset([month]))
    return ReportRow(row, cost=row.cost_usd * float(rate))


def _by(rows: Sequence[ReportRow], by: Sequence[str]) -> list[ReportRow]:
    """Add up *rows* that have the same values of the groupings *by*."""
    together: dict[tuple[str | None, ...], list[ReportRow]] = {}
    for row in rows:
        together.setdefault(tuple(row.usage.by[name] for name in by), []).append(row)
    order = sorted(together, key=lambda values: [(value is not None, value or "") for value in values])
    if not by:
        return [_added(rows, by={})]
    return [_added(together[values], by=dict(zip(by, values, strict=True))) for values in order]


def _added(rows: Sequence[ReportRow], by: dict[str, str | None]) -> ReportRow:
    columns = zip(*(_sums_of(row.usage) for row in rows), strict=True) if rows else [()] * len(SUMS)
    sums: dict[str, Any] = dict(zip(SUMS, map(sum, columns), strict=True))
    sums["cost_usd"] = float(sums["cost_usd"])
    missing = frozenset[str]().union(*(row.months_without_rate for row in rows))
    return ReportRow(UsageRow(by=by, **sums), sum(row.cost for row in rows), missing)
