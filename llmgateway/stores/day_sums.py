"""Sums by day of everything and of each group, without users and keys.

There are few of them, so reports that name neither a user nor a key are quick however many keys there are. They are
made from the sums of :mod:`~llmgateway.stores.sums`, in the same step, and also say how the requests are spread over
durations and hours (:class:`~llmgateway.records.Spread`).

A spread is stored as numbers with short names, which are simply added: ``t`` and ``d`` with the bucket of the first
token and of the duration, ``h`` and ``c`` with the hour, for requests and their cost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

from llmgateway.local_time import TimeZones
from llmgateway.records import Outcome, ReportQuery, Spread, UsageRecord, bucket_of

from .sums import Cell, Days, add_sums

DAY_GROUPINGS = frozenset({"day", "week", "month", "group", "model", "deployment"})
"""What can be reported from these sums."""

StoredSpread = dict[str, float]


class DayCell(NamedTuple):
    """Identifies one of these sums."""

    day: date
    """In UTC."""
    local_day: date
    """In the organisation's time zone."""
    whole: bool
    """Whether it has the usage of everybody; if not, that of one group, or of the keys without one."""
    group: str | None
    model: str
    deployment: str

    @property
    def series(self) -> tuple[bool, str | None, str, str]:
        """The fields without the days."""
        return self.whole, self.group, self.model, self.deployment

    def of_everybody(self) -> DayCell:
        return self._replace(whole=True, group=None)


class Timed(NamedTuple):
    """What is needed of a record to count when it came and how long it took."""

    timestamp: datetime
    group: str | None
    model: str
    deployment: str
    ttft_ms: float | None
    duration_ms: float | None
    """None if the request did not end well: such durations say little about the model."""
    cost_usd: float

    @classmethod
    def of(cls, record: UsageRecord) -> Timed:
        return cls(
            record.timestamp,
            record.group,
            record.counted_model,
            record.counted_deployment,
            record.ttft_ms,
            record.duration_ms if record.outcome is Outcome.OK else None,
            record.cost_usd or 0.0,
        )


def day_sums(sums: Mapping[Cell, Sequence[float]]) -> dict[DayCell, tuple[float, ...]]:
    """Add up *sums* of keys to those of each group, and of everything."""
    found: dict[DayCell, tuple[float, ...]] = {}
    for cell, amounts in sums.items():
        add_sums(found, DayCell(cell.day, cell.local_day, False, cell.group, cell.model, cell.deployment), amounts)
    for of_group, amounts in [*found.items()]:
        add_sums(found, of_group.of_everybody(), amounts)
    return found


def spreads(timed: Iterable[Timed], zones: TimeZones) -> dict[DayCell, StoredSpread]:
    """Count how requests are spread."""
    found: dict[DayCell, StoredSpread] = {}
    days = Days(zones)
    for one in timed:
        day, local_day, hour = days.with_hour(one.timestamp)
        counts = found.setdefault(DayCell(day, local_day, False, one.group, one.model, one.deployment), {})
        _add(counts, f"h{hour}", 1)
        _add(counts, f"c{hour}", one.cost_usd)
        if one.ttft_ms is not None:
            _add(counts, f"t{bucket_of(one.ttft_ms)}", 1)
        if one.duration_ms is not None:
            _add(counts, f"d{bucket_of(one.duration_ms)}", 1)
    for of_group, counts in [*found.items()]:
        add_counts(found.setdefault(of_group.of_everybody(), {}), counts)
    return found


def _add(counts: StoredSpread, name: str, number: float) -> None:
    counts[name] = counts.get(name, 0) + number


def add_counts(to: StoredSpread, others: Mapping[str, float]) -> None:
    """Add *others* to *to*, name by name."""
    for name, number in others.items():
        to[name] = to.get(name, 0) + number


def spread_of(counts: Mapping[str, float]) -> Spread:
    """Return what *counts* say."""
    spread = Spread()
    for name, number in counts.items():
        kind, at = name[0], int(name[1:])
        if kind == "t":
            spread.first_token[at] = int(number)
        elif kind == "d":
            spread.duration[at] = int(number)
        elif kind == "h":
            spread.hours[at] = int(number)
        else:
            spread.cost_usd[at] = number
    return spread


def answers(query: ReportQuery) -> bool:
    """Return whether *query* can be answered from these sums: it is about no user and no key."""
    named = {*query.by, *query.among}
    return query.user is None and query.key_id is None and named <= DAY_GROUPINGS


def is_about_everybody(query: ReportQuery) -> bool:
    """Return whether *query*, which :func:`answers`, does not need to tell groups apart."""
    named: Collection[str] = {*query.by, *query.among}
    return "group" not in named and query.group is None and query.groups is None
