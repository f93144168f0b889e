"""What Azure says it has counted, added up by day, place and meter. All readers of files write into this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from .files import UnusableFile

BILL, METRICS = "bill", "metrics"
"""The sources: an export of costs, and Azure Monitor's metrics."""


class Place(NamedTuple):
    """Identifies one sum of a statement."""

    source: str
    day: date
    """In UTC."""
    deployment: str | None
    account: str | None
    """The Azure OpenAI or Foundry resource."""
    model: str | None
    """Only where the file names it, as metrics do. Bills have it in the meter."""
    meter: str
    """Name of a meter or of a metric."""
    meter_id: str
    product: str
    unit: str
    tokens_per_unit: float | None
    """None if the unit does not count tokens."""
    currency: str


@dataclass(slots=True)
class Amount:
    """What was counted in one place."""

    quantity: float = 0.0
    """In units."""
    money: float = 0.0
    rows: int = 0


@dataclass
class FileSummary:
    """One file that was read."""

    name: str
    schema: str
    rows: int = 0
    other_rows: int = 0
    """Rows of other services of Azure."""
    amounts: dict[Place, Amount] = field(default_factory=dict)

    def amount(self, place: Place) -> Amount:
        return self.amounts.setdefault(place, Amount())


@dataclass
class Statement:
    """Everything that was read. Its size depends on the days, deployments and meters, not on the rows."""

    files: list[FileSummary] = field(default_factory=list)

    def add(self, summary: FileSummary) -> None:
        """Add a file.

        Raises:
            UnusableFile: another file has the same charges, so they would be counted twice.
        """
        for other in self.files:
            _refuse_repeated(summary, other)
        self.files.append(summary)

    def amounts(self) -> Iterator[tuple[Place, Amount]]:
        for summary in self.files:
            yield from summary.amounts.items()

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day. There must be an amount."""
        days = {place.day for place, _ in self.amounts()}
        return min(days), max(days)


def _refuse_repeated(summary: FileSummary, other: FileSummary) -> None:
    # The parts of one export share no charges, but two exports of a month, or one in two schemas, do.
    mine, theirs = _counted(summary), _counted(other)
    repeated = sum(theirs.get(what) == quantity for what, quantity in mine.items())
    if repeated and repeated * 2 >= min(len(mine), len(theirs)):
        raise UnusableFile(
            f"{summary.name}: it has the same charges as {other.name}. Give each charge once: of an export that runs "
            "every day, only the newest run of a month; of one export, only one schema."
        )


def _counted(summary: FileSummary) -> dict[tuple[str, date, str, str, str], float]:
    counted: Counter[tuple[str, date, str, str, str]] = Counter()
    for place, amount in summary.amounts.items():
        if amount.quantity:
            where = (place.deployment or "").lower(), (place.account or "").lower()
            tokens = amount.quantity * (place.tokens_per_unit or 1.0)
            counted[place.source, place.day, *where, place.meter.lower()] += round(tokens, 3)  # type: ignore[assignment]
    return dict(counted)
