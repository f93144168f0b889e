"""The overview: how the month goes, and what needs attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from flask import Response, request
from markupsafe import Markup

from ...records import moment
from ..context import services
from ..dates import shown
from .attention import attention
from .blueprint import allowed, api, blp, page
from .charts import heat, lines
from .forecast import WEEKS, forecast
from .formats import count, many, percent, seconds
from .usage_charts import name_of, periods_until, usage_chart

PERIODS = {30: "30 days", 90: "90 days", 365: "a year"}
_TIMES_BY = {30: "day", 90: "week", 365: "month"}
"""What has a point in the charts of times: their columns are most of a large page."""
_TOP = 8
_ALERTS = 5
_PERCENTILES = {"half (p50)": "p50", "90 % (p90)": "p90", "99 % (p99)": "p99"}
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Today:
    """A number of today, and how it compares with the same weekday of last week."""

    number: int
    change: str


@blp.get("/", strict_slashes=False)
def overview() -> Response:
    """Show how the month goes."""
    days = _period()
    today = shown(moment(services().clock())).date()
    month = today.replace(day=1)
    recent = _recent(today)
    return page(
        "overview.html",
        days=days,
        periods=PERIODS,
        today=today,
        month=month,
        spent=sum(row["cost_usd"] for day, row in recent.items() if day >= month),
        expected=forecast({day: row["cost_usd"] for day, row in recent.items()}, today),
        budget=_budget(),
        numbers=_numbers(recent, today),
        cost=usage_chart(days=days),
        times=_times(today, days),
        hours=_hours(today),
        people=_top("user", month) if allowed("GET", "/admin/users") else [],
        groups=_top("group", month),
        attention=attention(api().get("/admin/status")) if allowed("GET", "/admin/status") else None,
        alerts=api().get("/admin/alerts/fired", limit=_ALERTS)["items"]
        if allowed("GET", "/admin/alerts/fired")
        else None,
    )


def _period() -> int:
    text = request.args.get("days", "")
    return int(text) if text in map(str, PERIODS) else min(PERIODS)


def _recent(today: date) -> dict[date, dict[str, Any]]:
    """Return the sums of the days of this month and of those that the forecast and the comparison look at."""
    start = min(today.replace(day=1), today - WEEKS * _WEEK)
    rows = api().get("/admin/usage", by="day", start=start.isoformat())["rows"]
    return {date.fromisoformat(row["day"]): row for row in rows}


def _budget() -> dict[str, Any] | None:
    """Return what is used and left of the organisation's budget; None if it has none, or if it is not to be seen."""
    if not allowed("GET", "/admin/limits"):
        return None
    found: dict[str, Any] | None = api().get("/admin/limits")["remaining"]["budget"]
    return found


def _numbers(recent: dict[date, dict[str, Any]], today: date) -> dict[str, Today]:
    before = today - _WEEK
    share = _share_until_now(before)
    refused = {today: 0, before: 0}
    for row in api().get("/admin/usage/refusals", start=before.isoformat(), end=today.isoformat())["rows"]:
        day = date.fromisoformat(row["day"])
        refused[day] = refused.get(day, 0) + row["requests"]

    def compared(numbers: dict[date, int]) -> Today:
        return Today(numbers.get(today, 0), _change(numbers.get(today, 0), numbers.get(before, 0), share))

    return {
        "requests": compared({day: row["requests"] for day, row in recent.items()}),
        "errors": compared({day: row["errors"] for day, row in recent.items()}),
        "refused": compared(refused),
    }


def _share_until_now(day: date) -> float | None:
    """Return which part of the requests of *day* had come by this time of day; None if it is not known."""
    found = api().get("/admin/usage/hours", start=day.isoformat(), end=day.isoformat())
    if not found["counted_requests"]:
        return None
    hours, now = found["requests"][day.weekday()], shown(moment(services().clock()))
    until_now = sum(hours[: now.hour]) + hours[now.hour] * now.minute / 60
    return float(until_now / found["counted_requests"])


def _change(now: int, before: int, share: float | None) -> str:
    """Return the change to last week in words, such as ``+8 % to last week``."""
    if share is None:
        return "nothing to compare with last week"
    expected = before * share
    if expected < 1:
        return "none by this time last week"
    change = round((now / expected - 1) * 100)
    if change >= 1000:
        return f"{now / expected:,.0f} times last week"
    return "as last week" if change == 0 else f"{change:+,} % to last week".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its numbers."""

    title: str
    svg: Markup
    names: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def _times(today: date, days: int) -> list[tuple[str, Chart | None]]:
    """Return the charts of the time to the first token and of the duration; None for those without data."""
    by = _TIMES_BY[days]
    periods = periods_until(today, days, by)
    start = periods[0]
    found = {row[by]: row for row in api().get("/admin/usage/latency", by=by, start=start.isoformat())["rows"]}
    rows = [found.get(name_of(period, by), {}) for period in periods]
    return [
        (title, _lines(title, periods, [row.get(field) for row in rows], by))
        for title, field in (("Time to first token", "ttft_ms"), ("Duration", "duration_ms"))
    ]


def _lines(title: str, days: Sequence[date], rows: Sequence[dict[str, Any] | None], by: str) -> Chart | None:
    if not any(rows):
        return None
    series = {name: [row[field] if row else None for row in rows] for name, field in _PERCENTILES.items()}
    numbers = [
        [f"{day.day} {day:%b}", *(seconds(values[place]) for values in series.values())]
        for place, day in enumerate(days)
        if rows[place]
    ]
    return Chart(f"{title} per {by}", lines(days, series, title=title), [*series], [by.title(), *series], numbers)


def _hours(today: date) -> Chart | None:
    start, end = today - WEEKS * _WEEK, today - timedelta(days=1)
    found = api().get("/admin/usage/hours", start=start.isoformat(), end=end.isoformat())["requests"]
    if found is None:
        return None
    head = ["Weekday", *(f"{hour:02}" for hour in range(24))]
    rows = [[name, *map(count, hours)] for name, hours in zip(_WEEKDAYS, found, strict=True)]
    title = f"Requests of the last {many(WEEKS, 'week')} by weekday and hour"
    return Chart(title, heat(found, title=title), (), head, rows)


def _top(by: str, month: date) -> list[dict[str, Any]]:
    """Return who has cost most this month, with the share of all."""
    found = api().get("/admin/usage", by=by, start=month.isoformat(), top=_TOP)
    whole = found["total"]["cost_usd"]
    return [{**row, "share": percent(row["cost_usd"], whole)} for row in found["rows"]]
