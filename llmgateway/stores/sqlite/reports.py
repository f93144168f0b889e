"""The statements for reports. Each reads the coarsest sums that can answer, because they have the fewest rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import orjson

from llmgateway.records import DaySpread, ReportQuery, UsageRow
from llmgateway.stores.day_sums import StoredSpread, add_counts, answers, is_about_everybody, spread_of
from llmgateway.stores.sums import SUMS

from .columns import IN_LIST, listed
from .days import WEEK, day_name, month_and_day, month_name, number_of, week_name

TABLES = ("usage_daily", "usage_shifted")
"""The sums of each key by day."""
_ADDED_UP = ", ".join(
    f"{f'total({name})' if name == 'cost_usd' else f'coalesce(sum({name}), 0)'} AS {name}" for name in SUMS
)
_OF_SERIES = {"user": "user", "key": "key_id", "group": '"group"', "model": "model", "deployment": "deployment"}
_AMONG = "series IN (SELECT id FROM usage_series WHERE {} IN (SELECT value FROM json_each(?)))"
_GROUPINGS = {"day": "day", "week": WEEK.format(day="day"), "month": "month", **_OF_SERIES}
_NAMED: dict[str, Callable[[int], str]] = {"day": day_name, "month": month_name, "week": week_name}
# CROSS JOIN fixes the order: a range of days for each of the few series.
_FROM_DAYS = "usage_day_series AS series CROSS JOIN usage_days ON usage_days.series = series.id"
_FROM_MONTHS = "usage_monthly CROSS JOIN usage_series ON usage_series.id = usage_monthly.series"


def report_statement(query: ReportQuery) -> tuple[str, list[object]]:
    """Return a statement that answers *query* from the coarsest sums that can, with its parameters."""
    of = _of_days if answers(query) else _of_months if _is_of_months(query) else _of_keys
    statement, values = of(query)
    if query.top is not None:
        cost = len(query.by) + SUMS.index("cost_usd") + 1
        ties = "".join(f", {position + 1}" for position in range(len(query.by)))
        return f"SELECT * FROM ({statement}) ORDER BY {cost} DESC{ties} LIMIT ?", [*values, query.top]  # noqa: S608
    return statement, values


def usage_row(by: Sequence[str], row: Sequence[Any]) -> UsageRow:
    """Convert a row of :func:`report_statement`."""
    names = zip(by, row[: len(by)], strict=True)
    return UsageRow(
        by={name: _NAMED[name](value) if name in _NAMED else value for name, value in names},
        **dict(zip(SUMS, row[len(by) :], strict=True)),
    )


def spread_statement(query: ReportQuery) -> tuple[str, list[object]]:
    """Return a statement for the days of *query*, each with its requests and the spread of one of its series."""
    conditions, values = _conditions(query)
    return (
        f"SELECT local_day, requests, spread FROM {_FROM_DAYS} WHERE {conditions} ORDER BY local_day",  # noqa: S608
        values,
    )


def day_spreads(rows: Sequence[tuple[int, int, str | None]]) -> list[DaySpread]:
    """Add up *rows* of :func:`spread_statement` by day."""
    requests: dict[int, int] = {}
    counts: dict[int, StoredSpread] = {}
    for day, number, spread in rows:
        requests[day] = requests.get(day, 0) + number
        if spread is not None:
            add_counts(counts.setdefault(day, {}), orjson.loads(spread))
    return [
        DaySpread(day=day_name(day), requests=number, spread=spread_of(counts.get(day, {})))
        for day, number in requests.items()
    ]


def _of_days(query: ReportQuery) -> tuple[str, list[object]]:
    day = "day" if query.in_utc else "local_day"
    columns = {**{name: f"series.{column}" for name, column in _OF_SERIES.items()}, "day": day, "month": f"{day} / 100"}
    columns["week"] = WEEK.format(day=day)
    conditions, values = _conditions(query)
    return _grouped([columns[name] for name in query.by], _FROM_DAYS, conditions), values


def _conditions(query: ReportQuery) -> tuple[str, list[object]]:
    wanted: dict[str, object] = {"whole = ?": int(is_about_everybody(query))}
    first, last = query.first_day, query.last_day
    if query.in_utc:
        wanted |= {"day >= ?": first and number_of(first), "day <= ?": last and number_of(last)}
        # No time zone is a whole day away from UTC.
        first, last = first and first - timedelta(days=1), last and last + timedelta(days=1)
    wanted |= {"local_day >= ?": first and number_of(first), "local_day <= ?": last and number_of(last)}
    wanted |= {'"group" = ?': query.group, f'"group" {IN_LIST}': listed(query.groups)}
    for grouping, names in query.among.items():
        wanted[f"+{_OF_SERIES[grouping]} {IN_LIST}"] = listed(names)
    given = {condition: value for condition, value in wanted.items() if value is not None}
    return " AND ".join(given), [*given.values()]


def _is_of_months(query: ReportQuery) -> bool:
    """Whether *query* is about whole months, and about so many keys that their months are worth reading."""
    last = query.last_day
    whole = (query.first_day is None or query.first_day.day == 1) and (
        last is None or (last + timedelta(days=1)).day == 1
    )
    few = query.user is not None or query.key_id is not None or {"user", "key"} & {*query.among}
    return whole and not few and not query.in_utc and not {"day", "week"} & {*query.by}


def _of_months(query: ReportQuery) -> tuple[str, list[object]]:
    wanted: dict[str, object] = {
        "month >= ?": query.first_day and month_and_day(query.first_day)[0],
        "month <= ?": query.last_day and month_and_day(query.last_day)[0],
        '"group" = ?': query.group,
        f'"group" {IN_LIST}': listed(query.groups),
    }
    for grouping, names in query.among.items():
        wanted[f"+{_OF_SERIES[grouping]} {IN_LIST}"] = listed(names)
    given = {condition: value for condition, value in wanted.items() if value is not None}
    columns = {**_OF_SERIES, "month": "month"}
    statement = _grouped([columns[name] for name in query.by], _FROM_MONTHS, " AND ".join(given))
    return statement, [*given.values()]


def _of_keys(query: ReportQuery) -> tuple[str, list[object]]:
    first, last = query.first_day, query.last_day
    filters = {
        # The months, too, because they are the first in the order of the tables.
        "{month} >= ?": first and month_and_day(first)[0],
        "{month} <= ?": last and month_and_day(last)[0],
        "{day} >= ?": first and number_of(first),
        "{day} <= ?": last and number_of(last),
        "series IN (SELECT id FROM usage_series WHERE key_id = ?)": query.key_id,
        "series IN (SELECT id FROM usage_series WHERE user = ?)": query.user,
        'series IN (SELECT id FROM usage_series WHERE "group" = ?)': query.group,
        f'series IN (SELECT id FROM usage_series WHERE "group" {IN_LIST})': listed(query.groups),  # noqa: S608
        **{_AMONG.format(_OF_SERIES[grouping]): listed(names) for grouping, names in query.among.items()},
    }
    wanted = {condition: value for condition, value in filters.items() if value is not None}
    return _added_up(query.by, [*wanted], in_utc=query.in_utc), [*wanted.values()] * len(TABLES)


def _added_up(by: Sequence[str], conditions: Sequence[str], *, in_utc: bool) -> str:
    if "week" in by and "day" not in by:
        # First add up days: a day is added to its week much faster than a sum of each series is.
        daily = _added_up(["day" if name == "week" else name for name in by], conditions, in_utc=in_utc)
        return _grouped([WEEK.format(day="by_day") if name == "week" else f"by_{name}" for name in by], f"({daily})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    added = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
    if {"day", "week"} & {*by}:
        columns, grouped = f"series, {{month}} AS month, {{day}} AS day, {', '.join(SUMS)}", ""
    elif by:
        # First add up in the order of the table, without sorting. Only the few resulting rows must be sorted.
        period = ", {month} AS month" if "month" in by else ""
        columns, grouped = f"series{period}, {added}", " GROUP BY series" + (", {month}" if period else "")
    else:
        columns, grouped = added, ""
    shifted = {"day": "day", "month": "day / 100"} if in_utc else {"day": "local_day", "month": "local_month"}
    both = " UNION ALL ".join(
        f"SELECT {columns} FROM {table}{where}{grouped}".format(**names)  # noqa: S608
        for table, names in zip(TABLES, ({"day": "day", "month": "month"}, shifted), strict=True)
    )
    join = " JOIN usage_series ON usage_series.id = series" if _OF_SERIES.keys() & {*by} else ""
    return _grouped([f"{_GROUPINGS[name]} AS by_{name}" for name in by], f"({both}){join}")


def _grouped(columns: Sequence[str], source: str, conditions: str = "") -> str:
    numbers = ", ".join(str(position + 1) for position in range(len(columns)))
    return (
        f"SELECT {', '.join([*columns, _ADDED_UP])} FROM {source}"  # noqa: S608
        + (f" WHERE {conditions}" if conditions else "")
        + (f" GROUP BY {numbers} ORDER BY {numbers}" if columns else "")
    )
