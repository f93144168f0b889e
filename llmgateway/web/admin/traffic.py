"""When requests come, how long they take, and how many are refused: sums for charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from ...local_time import TimeZones
from ...records import DaySpread, RefusalCount, ReportQuery, Spread, percentile
from .. import examples
from ..context import services
from ..schemas.traffic import (
    HoursSchema,
    LatencyQuerySchema,
    LatencySchema,
    RefusalReportSchema,
    RefusedQuerySchema,
    TrafficQuerySchema,
)
from . import reach
from .blueprint import blp

_PERIODS: dict[str, Callable[[date], str]] = {
    "day": date.isoformat,
    "week": lambda day: "{:04}-W{:02}".format(*day.isocalendar()[:2]),
    "month": lambda day: day.isoformat()[:7],
}
_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_EARLIER = (
    "What an older version has added up is not counted here, until `llmgateway rebuild-usage` adds up the records that "
    "are still kept."
)


@blp.route("/usage/latency", methods=["GET"])
@blp.operation(
    "Report how long requests take",
    description="Percentiles of the time to the first token of streams, and of the duration of requests that ended "
    "well, for each day, week or month with requests and for all of them. They are at most 15 % off. "
    f"{_EARLIER}",
)
@blp.arguments(LatencyQuerySchema, location="query")
@blp.response(200, LatencySchema, description="The percentiles.", example=examples.LATENCY)
def report_latency(query: dict[str, Any]) -> dict[str, Any]:
    days = [*services().usage_log.spreads(_wanted(query))]
    by = query["by"]
    periods: dict[str, list[DaySpread]] = {}
    for day in days:
        periods.setdefault(_PERIODS[by](date.fromisoformat(day.day)), []).append(day)
    return {"rows": [{by: name, **_times(found)} for name, found in periods.items()], "total": _times(days)}


@blp.route("/usage/hours", methods=["GET"])
@blp.operation(
    "Report at which hours requests come",
    description="For each weekday, from Monday on, 24 hours of the clock in the organisation's time zone. The numbers "
    f"are sums of the whole period, so they compare best over whole weeks. {_EARLIER}",
)
@blp.arguments(TrafficQuerySchema, location="query")
@blp.response(200, HoursSchema, description="The hours.", example=examples.HOURS)
def report_hours(query: dict[str, Any]) -> dict[str, Any]:
    days = [*services().usage_log.spreads(_wanted(query))]
    requests, cost = [[0] * 24 for _ in range(7)], [[0.0] * 24 for _ in range(7)]
    for day in days:
        weekday = date.fromisoformat(day.day).weekday()
        for hour, number in day.spread.hours.items():
            requests[weekday][hour] += number
        for hour, amount in day.spread.cost_usd.items():
            cost[weekday][hour] += amount
    counted = sum(map(sum, requests))
    return {
        "requests": requests if counted else None,
        "cost_usd": [[round(amount, 9) for amount in hours] for hours in cost] if counted else None,
        "counted_requests": counted,
        "all_requests": sum(day.requests for day in days),
    }


@blp.route("/usage/refusals", methods=["GET"])
@blp.operation(
    "Report how many requests were refused",
    description="By the gateway itself, by day and code. Counts what `GET /admin/logs?kind=refusal` lists, with "
    "repetitions: the last `LLMGATEWAY_REFUSAL_DAYS`, and no more than `LLMGATEWAY_MOST_REFUSALS`. After very many "
    "refusals at once the numbers are too small.",
)
@blp.arguments(RefusedQuerySchema, location="query")
@blp.response(200, RefusalReportSchema, description="The numbers.", example=examples.REFUSAL_REPORT)
def report_refusals(query: dict[str, Any]) -> dict[str, Any]:
    zones = services().policy.time_zones()
    start, end = query.get("start"), query.get("end")
    counts = services().refusals.stored.counts(
        since=None if start is None else zones.start(start),
        until=None if end is None else zones.start(end + timedelta(days=1)),
        group=reach.check_filter(query.get("group")),
        groups=reach.reach(),
    )
    rows = _by_day(counts, zones)
    return {
        "rows": [{"day": day, "code": code, "requests": number} for (day, code), number in rows],
        "total": {"requests": sum(number for _, number in rows)},
    }


def _wanted(query: Mapping[str, Any]) -> ReportQuery:
    return ReportQuery(
        first_day=query.get("start"),
        last_day=query.get("end"),
        group=reach.check_filter(query.get("group")),
        groups=reach.reach(),
        among={"model": [query["model"]]} if query.get("model") else {},
    )


def _times(days: Sequence[DaySpread]) -> dict[str, Any]:
    total = Spread()
    for day in days:
        total.add(day.spread)
    return {
        "requests": sum(day.requests for day in days),
        "ttft_ms": _percentiles(total.first_token),
        "duration_ms": _percentiles(total.duration),
    }


def _percentiles(buckets: Counter[int]) -> dict[str, Any] | None:
    if not buckets:
        return None
    return {"requests": buckets.total(), **{name: percentile(buckets, share) for name, share in _PERCENTILES.items()}}


def _by_day(counts: Iterable[RefusalCount], zones: TimeZones) -> list[tuple[tuple[str, str | None], int]]:
    found: Counter[tuple[str, str | None]] = Counter()
    for at, code, number in counts:
        found[zones.day(at).isoformat(), code] += number
    return sorted(found.items(), key=lambda item: (item[0][0], item[0][1] or ""))
