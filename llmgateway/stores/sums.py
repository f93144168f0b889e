"""Adds up usage records to daily sums. All stores save usage in this form."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import NamedTuple

from llmgateway.records import Outcome, UsageRecord, UsageSource

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
    """Identifies one daily sum."""

    day: date
    key_id: str
    user: str
    group: str | None
    model: str
    deployment: str

    @property
    def series(self) -> tuple[str, str, str | None, str, str]:
        """The fields without the day."""
        return self.key_id, self.user, self.group, self.model, self.deployment


def daily_sums(records: Iterable[UsageRecord]) -> dict[Cell, tuple[float, ...]]:
    """Add up *records* by cell. The sums are in the order of ``SUMS``."""
    sums: dict[Cell, tuple[float, ...]] = {}
    for record in records:
        cell = Cell(
            record.timestamp.date(),
            record.key_id,
            record.user,
            record.group,
            record.counted_model,
            record.counted_deployment,
        )
        counted = _counted(record)
        before = sums.get(cell)
        sums[cell] = counted if before is None else tuple(a + b for a, b in zip(before, counted, strict=True))
    return sums


def _counted(record: UsageRecord) -> tuple[float, ...]:
    return (
        1,
        record.prompt_tokens,
        record.completion_tokens,
        record.total_tokens,
        record.cached_tokens,
        record.reasoning_tokens,
        record.cost_usd or 0.0,
        int(record.outcome is not Outcome.OK),
        int(record.cost_usd is None and record.total_tokens > 0),
        record.total_tokens if record.usage_source is UsageSource.ESTIMATED else 0,
        record.total_tokens if record.usage_source is UsageSource.BOUND else 0,
    )
