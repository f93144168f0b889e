"""What somebody has used on each of the last days, as a chart with its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from markupsafe import Markup

from ...records import moment
from ..context import services
from ..dates import shown
from .blueprint import api
from .charts import COLOURS, stacked
from .formats import money, short

DAYS = 30
_OTHERS = "others"


@dataclass(frozen=True, slots=True)
class UsageChart:
    """A chart of the last days by model."""

    title: str
    svg: Markup
    names: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def is_empty(self) -> bool:
        return not self.names


def usage_chart(**query: str) -> UsageChart:
    """Return the chart of a key, a person or a group: by cost, or by requests if nothing of it has a price."""
    today = shown(moment(services().clock())).date()
    days = [today - timedelta(days=ahead) for ahead in reversed(range(DAYS))]
    found = api().get("/admin/usage", by="day,model", start=days[0].isoformat(), **query)["rows"]
    priced = any(row["cost_usd"] for row in found)
    field, form = ("cost_usd", money) if priced else ("requests", short)
    series = _series(found, days, field)
    title = f"{'Cost' if priced else 'Requests'} of the last {DAYS} days by model"
    rows = [
        [f"{day.day} {day:%b}", *(form(values[number]) for values in series.values())]
        for number, day in enumerate(days)
        if any(values[number] for values in series.values())
    ]
    return UsageChart(title, stacked(days, series, title=title, form=form), [*series], ["Day", *series], rows)


def _series(rows: Sequence[Mapping[str, Any]], days: Sequence[date], field: str) -> dict[str, list[float]]:
    """Return the values of each model by day, the largest model first. What has no colour is added up."""
    places = {day.isoformat(): number for number, day in enumerate(days)}
    by_model: dict[str, list[float]] = {}
    for row in rows:
        values = by_model.setdefault(row["model"], [0.0] * len(days))
        if (place := places.get(row["day"])) is not None:
            values[place] += row[field]
    ordered = sorted((model for model in by_model if any(by_model[model])), key=lambda model: -sum(by_model[model]))
    kept = ordered if len(ordered) <= COLOURS else ordered[: COLOURS - 1]
    series = {model: by_model[model] for model in kept}
    if rest := ordered[len(kept) :]:
        series[_OTHERS] = [sum(by_model[model][place] for model in rest) for place in range(len(days))]
    return series
