"""Adds up usage records to daily sums. All stores save usage in this form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple, TypeVar

from llmgateway.local_time import TimeZones
from llmgateway.records import Attempt, Outcome, UsageRecord, UsageSource

Key = TypeVar("Key")

Zones = Callable[[], TimeZones]
"""Returns the time zones of the organisation that are in force now."""

SUMS = (
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_usd",
    "errors",
    "unpriced_requests",
    "estimated_tokens",
    "bound_tokens",
)
"""The fields of a :class:`~llmgateway.records.UsageRow` that are added up."""


class Cell(NamedTuple):
    """Identifies one daily sum.

    Sums are kept by day of UTC and by day of the organisation's time zone. Nearly all records are on the same day in
    both, so a sum has both days, and a report chooses one of them.
    """

    day: date
    """In UTC."""
    local_day: date
    """In the organisation's time zone."""
    key_id: str
    user: str
    group: str | None
    model: str
    deployment: str

    @property
    def series(self) -> tuple[str, str, str | None, str, str]:
        """The fields without the days."""
        return self.key_id, self.user, self.group, self.model, self.deployment


def daily_sums(records: Iterable[UsageRecord], zones: TimeZones) -> dict[Cell, tuple[float, ...]]:
    """Add up *records* by cell. The sums are in the order of ``SUMS``."""
    sums: dict[Cell, tuple[float, ...]] = {}
    days = Days(zones)
    for record in records:
        day, local_day = days.of(record.timestamp)
        series = record.key_id, record.user, record.group, record.counted_model
        for deployment, counted in _counted(record):
            add_sums(sums, Cell(day, local_day, *series, deployment), counted)
    return sums


def add_sums(sums: dict[Key, tuple[float, ...]], cell: Key, amounts: Sequence[float]) -> None:
    """Add *amounts* to the sum of *cell*."""
    before = sums.get(cell)
    sums[cell] = tuple(amounts) if before is None else tuple(a + b for a, b in zip(before, amounts, strict=True))


class Days:
    """Finds the days of many instants that are close together."""

    def __init__(self, zones: TimeZones) -> None:
        self._zones = zones
        self._parts: dict[date, list[tuple[datetime, date]]] = {}  # of each UTC day: their ends and local days

    def of(self, timestamp: datetime) -> tuple[date, date]:
        """Return the day in UTC and that of the organisation."""
        day = timestamp.date()
        parts = self._parts.get(day)
        if parts is None:
            start = datetime.combine(day, time(), UTC)
            parts = [(end, local_day) for _, end, local_day in self._zones.days(start, start + timedelta(days=1))]
            self._parts[day] = parts
        return day, next(local_day for end, local_day in parts if timestamp < end)

    def with_hour(self, timestamp: datetime) -> tuple[date, date, int]:
        """Return the two days, and the hour of the clock of the organisation."""
        return *self.of(timestamp), timestamp.astimezone(self._zones.at(timestamp)).hour


def _counted(record: UsageRecord) -> list[tuple[str, tuple[float, ...]]]:
    """Return the deployments that were asked for *record*, with what is counted of each.

    Tokens and cost are counted at the deployment that was asked, because Azure bills them there. All else is counted
    once, at the deployment that was asked last.
    """
    prompt, completion, total = record.prompt_tokens, record.completion_tokens, record.total_tokens
    cost = record.cost_usd or 0.0
    deployments = []
    if elsewhere := record.attempts_elsewhere:
        for each in elsewhere:
            deployments.append((each.azure_deployment or "", _of_attempt(record, each)))
            prompt -= each.prompt_tokens
            completion -= each.completion_tokens
            total -= each.prompt_tokens + each.completion_tokens
        if record.cost_usd is not None:
            # Not the difference, which would have an error in its last digits.
            cost = sum(each.cost_usd or 0.0 for each in record.attempts if each not in elsewhere)
    counted = (
        1,
        prompt,
        completion,
        total,
        record.cached_tokens,
        record.reasoning_tokens,
        cost,
        int(record.outcome is not Outcome.OK),
        int(record.cost_usd is None and record.total_tokens > 0),
        total if record.usage_source is UsageSource.ESTIMATED else 0,
        total if record.usage_source is UsageSource.BOUND else 0,
    )
    return [*deployments, (record.counted_deployment, counted)]


def _of_attempt(record: UsageRecord, attempt: Attempt) -> tuple[float, ...]:
    total = attempt.prompt_tokens + attempt.completion_tokens
    return (
        0,
        attempt.prompt_tokens,
        attempt.completion_tokens,
        total,
        0,
        0,
        # Without a price of one attempt the cost of the record is not known, and nothing of it is counted.
        0.0 if record.cost_usd is None else attempt.cost_usd or 0.0,
        0,
        0,
        total if record.usage_source is UsageSource.ESTIMATED else 0,
        total if record.usage_source is UsageSource.BOUND else 0,
    )
