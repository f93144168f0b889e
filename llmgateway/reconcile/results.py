"""The result of a comparison: Azure's number beside ours, and what is known about the cause of a gap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, NamedTuple

from .meters import CACHED, COMPLETION, PROMPT
from .monitor import INPUT, TOTAL

COST = "cost"
"""The kind of a comparison in US dollars; the others are in tokens."""

DEPLOYMENT, MODEL, EVERYTHING = "deployment", "model", "everything"
_ORDER = (PROMPT, CACHED, INPUT, COMPLETION, TOTAL, COST)
_LATE = timedelta(days=1)
"""Azure's costs come 8 to 24 hours late (measured, 2026-09)."""


class Subject(NamedTuple):
    """What is compared: a deployment if Azure names it, else a model, else everything together."""

    source: str
    """``bill`` or ``metrics``."""
    by: str
    name: str


@dataclass(slots=True)
class Comparison:
    """Azure's number beside ours."""

    subject: Subject
    kind: str
    day: date | None
    """None for the whole period."""
    azure: float = 0.0
    ours: float | None = 0.0
    """None if it cannot be compared: a cost in another currency."""
    not_counted: float = 0.0
    """The part of ours that Azure had not counted in its answers, so that it was estimated."""
    currency: str = ""
    where: str = ""
    """What is known about the cause of a gap."""

    @property
    def gap(self) -> float | None:
        """Ours without Azure's: negative if our books miss something."""
        return None if self.ours is None else self.ours - self.azure

    @property
    def percent(self) -> float | None:
        """The gap in per cent of Azure's number; None if only we have something, or if nothing can be compared."""
        gap = self.gap
        if gap is None or (gap and not self.azure):
            return None
        return 100 * gap / self.azure if gap else 0.0

    def is_beyond(self, threshold: float) -> bool:
        """Return whether the gap is larger than *threshold* per cent. What only one side has always is."""
        return bool(self.gap) and (self.percent is None or abs(self.percent) > threshold)

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.subject.source,
            "by": self.subject.by,
            "name": self.subject.name,
            "day": None if self.day is None else self.day.isoformat(),
            "kind": self.kind,
            "azure": self.azure,
            "ours": self.ours,
            "gap": self.gap,
            "percent": self.percent,
            "currency": self.currency or None,
            "where": self.where or None,
        }


@dataclass(slots=True)
class NotCompared:
    """A meter or metric that has no counterpart in our books."""

    source: str
    meter: str
    meter_id: str
    unit: str
    why: str
    quantity: float = 0.0
    cost: float = 0.0
    currency: str = ""
    rows: int = 0


@dataclass(slots=True, kw_only=True)
class Reconciliation:
    """The result."""

    first_day: date
    last_day: date
    files: list[dict[str, Any]]
    days: list[Comparison] = field(default_factory=list)
    """For each subject, kind and day."""
    totals: list[Comparison] = field(default_factory=list)
    """For each subject and kind."""
    not_compared: list[NotCompared] = field(default_factory=list)

    def beyond(self, threshold: float) -> list[Comparison]:
        """Return the days whose tokens differ by more than *threshold* per cent, the largest gap first."""
        found = [each for each in self.days if each.kind != COST and each.is_beyond(threshold)]
        return sorted(found, key=lambda each: -abs(each.gap or 0))

    def as_json(self) -> dict[str, Any]:
        return {
            "period": {"start": self.first_day.isoformat(), "end": self.last_day.isoformat()},
            "files": self.files,
            "totals": [each.as_json() for each in self.totals],
            "days": [each.as_json() for each in self.days],
            "not_compared": [
                {name: getattr(each, name) for name in NotCompared.__slots__} for each in self.not_compared
            ],
        }


def own_model(text: str) -> tuple[str, str]:
    """Read ``NAME=MODEL``, which somebody says about a deployment, or about a name that users ask for.

    Raises:
        ValueError: it is written in another way; the text says how.
    """
    name, _, model = text.partition("=")
    if not name.strip() or not model.strip():
        raise ValueError(f"{text!r} is not NAME=MODEL.")
    return name.strip(), model.strip()


def totals_of(days: Iterable[Comparison]) -> list[Comparison]:
    """Return the sums over all days, for each subject and kind."""
    totals: dict[tuple[Subject, str], Comparison] = {}
    for each in days:
        total = totals.setdefault((each.subject, each.kind), Comparison(each.subject, each.kind, None))
        total.azure += each.azure
        total.ours = None if each.ours is None or total.ours is None else total.ours + each.ours
        total.not_counted += each.not_counted
        total.currency = each.currency
    return [*totals.values()]


def explain(result: Reconciliation) -> None:
    """Say of each day with a gap what is known about its cause."""
    by_place = {(each.subject, each.kind, each.day): each for each in result.days}
    for each in result.days:
        if not each.gap or each.day is None:
            continue
        neighbours = [by_place.get((each.subject, each.kind, each.day + timedelta(days=step))) for step in (-1, 1)]
        moved = [other.day for other in neighbours if other and other.gap and _cancel(each.gap, other.gap)]
        each.where = f"the reverse of the gap on {moved[0]}: requests around midnight UTC" if moved else ""
        each.where = each.where or _cause(each, each.gap, each.day > result.last_day - _LATE)


def _cancel(one: float, other: float) -> bool:
    return abs(one + other) <= 0.01 * abs(one)


def _cause(each: Comparison, gap: float, is_last_day: bool) -> str:
    if each.kind == COST and each.azure and each.ours:
        return "prices, discounts, or tokens: see the kinds above"
    if gap > 0 and each.not_counted >= 0.5 * gap:
        return f"{each.not_counted:,.0f} of our tokens are estimates, because Azure's answer had no count"
    if gap > 0 and is_last_day:
        return "the last day of the export: Azure's numbers come up to 24 hours late"
    if not each.azure:
        return "only in our books: another subscription, or the model's name differs (--model)"
    if not each.ours:
        return "only in Azure's: calls that do not go through the gateway, or the model's name differs (--model)"
    if gap < 0:
        return "Azure has more: calls that do not go through the gateway"
    return "our books have more than Azure has"


def order(each: Comparison) -> tuple[Any, ...]:
    """Sort by subject, kind and day."""
    return each.subject.source, each.subject.by, each.subject.name.lower(), _ORDER.index(each.kind), each.day
