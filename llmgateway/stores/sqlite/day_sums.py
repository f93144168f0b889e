"""Coarser sums in SQLite: by day of everything and of each group, and by month of each key.

``usage_days`` has the sums by day (:mod:`llmgateway.stores.day_sums`); its series are those of ``usage_day_series``.
``usage_monthly`` adds up ``usage_daily`` and ``usage_shifted`` by month, so that a report of all people or keys does
not read every day of each.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import orjson

from llmgateway.stores.day_sums import DayCell, StoredSpread, day_sums
from llmgateway.stores.sums import SUMS, Cell, add_sums

from .columns import IN_LIST
from .days import month_and_day, number_of
from .rows import insert

_SUMS = ", ".join(SUMS)
_SUMMED = ", ".join(f"sum({name})" for name in SUMS)
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
# Only constant names are formatted into statements; values are always parameters.
_ADD_DAYS = f"""
    INSERT INTO usage_days (series, local_day, day, {_SUMS}, spread) VALUES {{}}
    ON CONFLICT DO UPDATE SET {_ADDED}, spread = added_counts(spread, excluded.spread)
"""  # noqa: S608
_ADD_MONTHS = f"INSERT INTO usage_monthly (month, series, {_SUMS}) VALUES {{}} ON CONFLICT DO UPDATE SET {_ADDED}"  # noqa: S608
_FIND_SERIES = """
    SELECT id FROM usage_day_series WHERE whole = ? AND "group" IS ? AND model = ? AND deployment = ?
"""
_MAKE_SERIES = 'INSERT INTO usage_day_series (whole, "group", model, deployment) VALUES (?, ?, ?, ?) RETURNING id'
_FORGET_DAY = """
    DELETE FROM usage_days
    WHERE (series, local_day, day) IN (SELECT id, ?, ? FROM usage_day_series)
"""
_FORGET_MONTH = f"DELETE FROM usage_monthly WHERE month = ? AND series {IN_LIST}"  # noqa: S608
_COUNT_MONTH = f"""
    INSERT INTO usage_monthly (month, series, {_SUMS})
    SELECT ?1, series, {_SUMMED} FROM (
        SELECT series, {_SUMS} FROM usage_daily WHERE series IN (SELECT value FROM json_each(?2)) AND month = ?1
        UNION ALL
        SELECT series, {_SUMS} FROM usage_shifted WHERE series IN (SELECT value FROM json_each(?2)) AND local_month = ?1
    ) GROUP BY series
"""  # noqa: S608


def add_coarser(
    connection: sqlite3.Connection,
    sums: Mapping[Cell, Sequence[float]],
    spreads: Mapping[DayCell, StoredSpread],
    series: Mapping[tuple[Any, ...], int],
    known: Mapping[tuple[Any, ...], int],
) -> dict[tuple[Any, ...], int]:
    """Add to the coarser sums what is added to those of keys. Return the ids of the coarser series.

    Args:
        series: Ids of the series of *sums*.
        known: Ids of coarser series that need not be looked up.
    """
    found = add_days(connection, sums, spreads, known)
    months: dict[tuple[int, int], tuple[float, ...]] = {}
    for cell, amounts in sums.items():
        at = month_and_day(cell.local_day)[0], series[cell.series]
        add_sums(months, at, amounts)
    insert(connection, _ADD_MONTHS, [(*at, *amounts) for at, amounts in months.items()])
    return found


def add_days(
    connection: sqlite3.Connection,
    sums: Mapping[Cell, Sequence[float]],
    spreads: Mapping[DayCell, StoredSpread],
    known: Mapping[tuple[Any, ...], int],
) -> dict[tuple[Any, ...], int]:
    """Like :func:`add_coarser`, but for the sums by day alone."""
    found: dict[tuple[Any, ...], int] = {}
    rows = []
    for cell, amounts in day_sums(sums).items():
        spread = spreads.get(cell)
        days = number_of(cell.local_day), number_of(cell.day)
        series = cell.series
        if series not in found:
            found[series] = known.get(series) or _find_series(connection, cell)
        rows.append((found[series], *days, *amounts, spread and orjson.dumps(spread).decode()))
    insert(connection, _ADD_DAYS, rows)
    return found


def _find_series(connection: sqlite3.Connection, cell: DayCell) -> int:
    """Return the id of the series of *cell*, which is made if it is not there."""
    found = connection.execute(_FIND_SERIES, cell.series).fetchone()
    if found is None:
        found = connection.execute(_MAKE_SERIES, cell.series).fetchone()
    return int(found[0])


def forget_day(connection: sqlite3.Connection, day: date) -> None:
    """Delete the sums of the UTC day *day*. Those of its months stay as they are, see :func:`recount_months`."""
    for local_day in (day - timedelta(days=1), day, day + timedelta(days=1)):
        connection.execute(_FORGET_DAY, (number_of(local_day), number_of(day)))


def recount_months(connection: sqlite3.Connection, series: Collection[int], day: date) -> None:
    """Add up the months again in which the UTC day *day* is, for these series, from their sums by day."""
    ids = json.dumps([*series])
    for month in {month_and_day(day + timedelta(days=days))[0] for days in (-1, 0, 1)}:
        connection.execute(_FORGET_MONTH, (month, ids))
        connection.execute(_COUNT_MONTH, (month, ids))
