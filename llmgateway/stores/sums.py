"""Usage records added up to sums of days, as every store keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import NamedTuple

from llmgateway.records import Outcome, UsageRecord

SUMS = (
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cost_usd",
    "errors",
)
"""The fields of a :class:`~llmgateway.records.UsageRow` that add up."""


class Cell(NamedTuple):
    """What one sum is about."""

    day: date
    key_id: str
    user: str
    group: str | None
    model: str

    @property
    def series(self) -> tuple[str, str, str | None, str]:
        """What it shares with the cells of other days."""
        return self.key_id, self.user, self.group, self.model


def daily_sums(records: Iterable[UsageRecord]) -> dict[Cell, tuple[float, ...]]:
    """Add *records* up by cell, in the order of ``SUMS``."""
    sums: dict[Cell, tuple[float, ...]] = {}
    for record in records:
        cell = Cell(record.timestamp.date(), record.key_id, record.user, record.group, record.model)
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
    )
