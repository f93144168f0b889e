"""Adds up usage records to daily sums. All stores save usage in this form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import NamedTuple

from llmgateway.local_time import TimeZones
from llmgateway.records import Attempt, Outcome, UsageRecord, UsageSource

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
    for record in records:
        day, local_day = record.timestamp.date(), zones.day(record.timestamp)
        for deployment, counted in _counted(record):
            cell = Cell(day, local_day, record.key_id, record.user, record.group, record.counted_model, deployment)
            before = sums.get(cell)
            sums[cell] = counted if before is None else tuple(a + b for a, b in zip(before, counted, strict=True))
    return sums


def _counted(record: UsageRecord) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield the deployments that were asked for *record*, with what is counted of each.

    Tokens and cost are counted at the deployment that was asked, because Azure bills them there. All else is counted
    once, at the deployment that was asked last.
    """
    elsewhere = record.attempts_elsewhere
    for attempt in elsewhere:
        yield attempt.azure_deployment or "", _of_attempt(record, attempt)
    prompt = record.prompt_tokens - sum(each.prompt_tokens for each in elsewhere)
    completion = record.completion_tokens - sum(each.completion_tokens for each in elsewhere)
    total = record.total_tokens - sum(each.prompt_tokens + each.completion_tokens for each in elsewhere)
    yield (
        record.counted_deployment,
        (
            1,
            prompt,
            completion,
            total,
            record.cached_tokens,
            record.reasoning_tokens,
            _cost_of_the_others(record, elsewhere),
            int(record.outcome is not Outcome.OK),
            int(record.cost_usd is None and record.total_tokens > 0),
            *_not_counted_by_azure(record, total),
        ),
    )


def _of_attempt(record: UsageRecord, attempt: Attempt) -> tuple[float, ...]:
    total = attempt.prompt_tokens + attempt.completion_tokens
    # Without a price of one attempt the cost of the record is not known, and nothing of it is counted.
    cost = 0.0 if record.cost_usd is None else attempt.cost_usd or 0.0
    return (
        0,
        attempt.prompt_tokens,
        attempt.completion_tokens,
        total,
        0,
        0,
        cost,
        0,
        0,
        *_not_counted_by_azure(record, total),
    )


def _cost_of_the_others(record: UsageRecord, elsewhere: tuple[Attempt, ...]) -> float:
    if record.cost_usd is None or not elsewhere:
        return record.cost_usd or 0.0
    # Not the difference, which would have an error in its last digits.
    return sum(each.cost_usd or 0.0 for each in record.attempts if each not in elsewhere)


def _not_counted_by_azure(record: UsageRecord, tokens: int) -> tuple[int, int]:
    source = record.usage_source
    return tokens if source is UsageSource.ESTIMATED else 0, tokens if source is UsageSource.BOUND else 0
