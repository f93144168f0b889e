"""What somebody has used on each of the last days, as a chart with its numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
_MOST_BARS = 100
"""With more days than these there is a bar for each week: narrower ones say nothing, and make the page large."""
_MOST_OF_MANY_DAYS = 6
"""How many models are told apart where there are many days, for the same reason."""
_OTHERS = "others"
_FIRST: dict[str, Callable[[date], date]] = {
    "day": lambda day: day,
    "week": lambda day: day - timedelta(days=day.weekday()),
    "month": lambda day: day.replace(day=1),
}
_NAMES: dict[str, Callable[[date], str]] = {
    "day": date.isoformat,
    "week": lambda day: "{:04}-W{:02}".format(*day.isocalendar()[:2]),
    "month": lambda day: day.isoformat()[:7],
}


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


def usage_chart(days: int = DAYS, **query: str) -> UsageChart:
    """Return the chart of a key, a person, a group or everybody: by cost, or by requests if nothing has a price."""
    today = shown(moment(services().clock())).date()
    by = "day" if days <= _MOST_BARS else "week"
    periods = periods_until(today, days, by)
    start = periods[0]
    found = api().get("/admin/usage", by=f"{by},model", start=start.isoformat(), **query)["rows"]
    priced = any(row["cost_usd"] for row in found)
    field, form = ("cost_usd", money) if priced else ("requests", short)
    most = COLOURS if days <= DAYS else _MOST_OF_MANY_DAYS
    series = _series(found, [name_of(period, by) for period in periods], by, field, most=most)
    title = f"{'Cost' if priced else 'Requests'} per {by} by model"
    rows = [
        [f"{day.day} {day:%b}", *(form(values[number]) for values in series.values())]
        for number, day in enumerate(periods)
        if any(values[number] for values in series.values())
    ]
    svg = stacked(periods, series, title=title, form=form)
    return UsageChart(title, svg, [*series], [by.title(), *series], rows)


def periods_until(today: date, days: int, by: str) -> list[date]:
    """Return the last *days* days, or the first days of the weeks or months in which they are."""
    first = _FIRST[by]
    return sorted({first(today - timedelta(days=ahead)) for ahead in range(days)})


def name_of(period: date, by: str) -> str:
    """Return what the API calls the day, the week or the month that begins with *period*."""
    return _NAMES[by](period)


def _series(
    rows: Sequence[Mapping[str, Any]], days: Sequence[str], by: str, field: str, *, most: int
) -> dict[str, list[float]]:
    """Return the values of each model by day or week, the largest model first. What has no colour is added up."""
    places = {day: number for number, day in enumerate(days)}
    by_model: dict[str, list[float]] = {}
    for row in rows:
        values = by_model.setdefault(row["model"], [0.0] * len(days))
        if (place := places.get(row[by])) is not None:
            values[place] += row[field]
    ordered = sorted((model for model in by_model if any(by_model[model])), key=lambda model: -sum(by_model[model]))
    kept = ordered if len(ordered) <= most else ordered[: most - 1]
    series = {model: by_model[model] for model in kept}
    if rest := ordered[len(kept) :]:
        series[_OTHERS] = [sum(by_model[model][place] for model in rest) for place in range(len(days))]
    return series
