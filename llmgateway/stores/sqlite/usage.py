"""The usage records and their daily sums in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from heapq import nlargest
from operator import attrgetter
from typing import Any

from llmgateway.erased import without_erased
from llmgateway.local_time import TimeZones
from llmgateway.records import (
    ALL_USAGE,
    LONGEST_RECORDED_MODEL,
    UNKNOWN_MODEL,
    Attempt,
    Batch,
    Erasure,
    FilterCount,
    Kept,
    Outcome,
    Rebuilding,
    RecordQuery,
    ReportQuery,
    UsageRecord,
    UsageRow,
    UsageSource,
)
from llmgateway.stores.epoch import from_ms, to_ms
from llmgateway.stores.sums import SUMS, Cell, Zones, daily_sums

from .columns import IN_LIST, listed
from .database import SQLiteDatabase
from .erasures import erasures_of
from .record_pages import SCATTERED, by_group, conditions_of, joined
from .rows import insert, places, some_at_once

_FIELDS = tuple(field.name for field in fields(UsageRecord))
_COLUMNS = ", ".join(f'"{name}"' for name in _FIELDS)
_VALUES = attrgetter(*_FIELDS)
_TIMESTAMP, _CONTENT_FILTER, _FILTER_SEVERITIES, _ATTEMPTS, _TOOL_USES, _STORED_IDS, _LIMITS = map(
    _FIELDS.index, ("timestamp", "content_filter", "filter_severities", "attempts", "tool_uses", "stored_ids", "limits")
)

# Only constant names are formatted into statements; values are always parameters.
_APPEND = f"INSERT INTO logs ({_COLUMNS}) VALUES {{}}"  # noqa: S608
_ADDED = f"ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in SUMS)}"
_ADD = f"INSERT INTO usage_daily (series, month, day, {', '.join(SUMS)}) VALUES {{}} {_ADDED}"  # noqa: S608
# What is on another day in the organisation's time zone than in UTC.
_ADD_SHIFTED = (
    f"INSERT INTO usage_shifted (series, local_month, local_day, day, {', '.join(SUMS)}) VALUES {{}} {_ADDED}"  # noqa: S608
)
_FIND = f"""
    SELECT {_COLUMNS} FROM logs WHERE id IN (
        SELECT id FROM logs WHERE id = ?1
        UNION SELECT id FROM logs WHERE upstream_request_id = ?1
        UNION SELECT record FROM attempt_ids WHERE id = ?1
    ) LIMIT 1
"""  # noqa: S608
_FIND_STORED = f"""
    SELECT {_COLUMNS} FROM logs WHERE id IN (
        SELECT id FROM logs WHERE response_id = ? UNION SELECT record FROM stored_ids WHERE id = ?
    ) LIMIT 1
"""  # noqa: S608
_RENAME_SERIES = "UPDATE usage_series SET user = ? WHERE key_id = ? AND user = ?"
# One search in an index for each key, and not for each of its records.
_LAST_TIMES = "SELECT value, (SELECT max(timestamp) FROM logs WHERE key_id = value) FROM json_each(?)"
_LAST_DAYS = """
    SELECT value, max(
        coalesce((
            SELECT day FROM usage_daily WHERE series = usage_series.id ORDER BY month DESC, day DESC LIMIT 1
        ), 0),
        coalesce((SELECT max(day) FROM usage_shifted WHERE series = usage_series.id), 0)
    )
    FROM json_each(?) JOIN usage_series ON key_id = value
"""
# Deletes by primary key, one series after the other, because the table is not sorted by day.
_FORGET = "DELETE FROM usage_daily WHERE (series, month, day) IN (SELECT id, ?, ? FROM usage_series)"
_FORGET_SHIFTED = """
    DELETE FROM usage_shifted
    WHERE (series, local_month, local_day, day) IN (SELECT id, ?, ?, ? FROM usage_series)
"""
_ADDED_UP = ", ".join(
    f"{f'total({name})' if name == 'cost_usd' else f'coalesce(sum({name}), 0)'} AS {name}" for name in SUMS
)
_COUNTED = """
    count(*), sum(prompt_tokens), sum(completion_tokens), sum(total_tokens), sum(cached_tokens),
    sum(reasoning_tokens), total(cost_usd), sum(outcome <> 'ok'),
    sum(cost_usd IS NULL AND total_tokens > 0),
    sum(iif(usage_source = 'estimated', total_tokens, 0)), sum(iif(usage_source = 'bound', total_tokens, 0))
"""
_COUNTED_MODEL = f"iif(model_known, model, '{UNKNOWN_MODEL}')"
_COUNTED_DEPLOYMENT = (
    f"iif(model_known OR substr(deployment, 1, {LONGEST_RECORDED_MODEL}) <> model, deployment, '{UNKNOWN_MODEL}')"
)
# Attempts at other deployments than the last one, which have sums of their own.
_FAILED_OVER = """attempts IS NOT NULL AND EXISTS (
    SELECT 1 FROM json_each(attempts) WHERE json_extract(value, '$.azure_deployment') <> deployment
)"""
_OF_SERIES = {"user": "user", "key": "key_id", "group": '"group"', "model": "model", "deployment": "deployment"}
_AMONG = "series IN (SELECT id FROM usage_series WHERE {} IN (SELECT value FROM json_each(?)))"
# Whole days since 1 March of the year 0, and from that the number of the week, which begins on Monday. With months that
# begin in March, the leap day is the last one (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
_YEAR, _MONTH = "(by_day / 10000 - (by_day / 100 % 100 < 3))", "((by_day / 100 % 100 + 9) % 12)"
_DAYS = f"(365 * {_YEAR} + {_YEAR} / 4 - {_YEAR} / 100 + {_YEAR} / 400 + ({_MONTH} * 306 + 5) / 10 + by_day % 100 - 1)"
_WEEK = f"({_DAYS} + 2) / 7"
_GROUPINGS = {"day": "day", "week": _WEEK.replace("by_day", "day"), "month": "month", **_OF_SERIES}
_FIRST_MONDAY = -307
"""The ordinal (:meth:`datetime.date.toordinal`) of the Monday of week 0."""


_TABLES = ("usage_daily", "usage_shifted")
_MINUTE = 60_000
"""No time zone changes in the middle of a minute."""

KEPT_SERIES = 10_000
"""Maximum number of series whose ids are cached in memory."""

REPLACED_AT_ONCE = 5000
"""Maximum number of records in which one transaction replaces a name, so that other writers get access in between."""


_SERIES_OF_GROUPS = f'series IN (SELECT id FROM usage_series WHERE "group" {IN_LIST})'  # noqa: S608


class SQLiteUsageLog:
    """A :class:`~llmgateway.interfaces.UsageLog` in SQLite.

    A batch is one transaction: after an error, nothing of it is stored or counted.
    """

    def __init__(self, database: SQLiteDatabase, *, zones: Zones = TimeZones) -> None:
        self._database = database
        self._zones = zones
        self._series: dict[
            tuple[str, str, str | None, str, str], int
        ] = {}  # ids of committed series, which never change

    def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
        zones = self._zones()
        with self._database.transaction() as connection:
            # Necessary, because records that have been purged since would look like new records.
            if _is_known(connection, batch):
                return
            erasures = erasures_of(connection, {record.key_id for record in records})
            new = _append(connection, without_erased(records, erasures))
            sums = daily_sums(new, zones)
            series = {cell.series: self._series.get(cell.series) or _series(connection, cell) for cell in sums}
            _add(connection, ((series[cell.series], cell, amounts) for cell, amounts in sums.items()))
            connection.execute("REPLACE INTO usage_sources VALUES (?, ?)", batch)
        if len(self._series) > KEPT_SERIES:
            self._series.clear()
        self._series.update(series)

    def report(self, query: ReportQuery = ALL_USAGE) -> list[UsageRow]:
        # query.promptly is ignored: a local file answers quickly, or fails after its timeout.
        by = query.by
        filters = {
            "{day} >= ?": None if query.first_day is None else _number(query.first_day),
            "{day} <= ?": None if query.last_day is None else _number(query.last_day),
            "series IN (SELECT id FROM usage_series WHERE key_id = ?)": query.key_id,
            "series IN (SELECT id FROM usage_series WHERE user = ?)": query.user,
            'series IN (SELECT id FROM usage_series WHERE "group" = ?)': query.group,
            _SERIES_OF_GROUPS: listed(query.groups),
        }
        wanted = {condition: value for condition, value in filters.items() if value is not None}
        conditions, values = [*wanted], [*wanted.values()]
        for grouping, names in query.among.items():
            # As JSON, because the number of parameters of a statement has a limit.
            conditions.append(_AMONG.format(_OF_SERIES[grouping]))
            values.append(json.dumps(list(names)))
        rows = self._database.rows(_report(by, conditions, in_utc=query.in_utc), values * len(_TABLES))
        return [
            UsageRow(
                by={name: _named(name, value) for name, value in zip(by, row[: len(by)], strict=True)},
                **dict(zip(SUMS, row[len(by) :], strict=True)),
            )
            for row in rows
        ]

    def records(self, query: RecordQuery) -> list[UsageRecord]:
        if query.after:
            found = self._database.rows('SELECT timestamp, "group" FROM logs WHERE id = ?', (query.after,))
            if not found or not (query.groups is None or found[0][1] in query.groups):
                return []
            query = replace(query, after="", before=(from_ms(found[0][0]), query.after))
        apart = by_group(query)
        if apart is not None:
            pages = [record for each in apart for record in self.records(each)]
            return nlargest(query.limit, pages, key=attrgetter("timestamp", "id"))
        where, values = conditions_of(query).where()
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM logs{where} ORDER BY timestamp DESC, id DESC LIMIT ?",  # noqa: S608
            [*values, query.limit],
        )
        return [_record(row) for row in rows]

    def horizon(self, query: RecordQuery, *, most: int) -> datetime | None:
        apart = by_group(query)
        if apart is not None:
            found = [self.horizon(each, most=most // len(apart)) for each in apart]
            return max((at for at in found if at is not None), default=None)
        conditions = conditions_of(query)
        if not conditions.others:
            return None
        if conditions.is_scattered:
            most //= SCATTERED
        where, values = joined(conditions.indexed)
        rows = self._database.rows(
            f"SELECT timestamp FROM logs{where} ORDER BY timestamp DESC LIMIT 1 OFFSET ?",  # noqa: S608
            [*values, most],
        )
        return from_ms(rows[0][0]) if rows else None

    def find(self, request_id: str) -> UsageRecord | None:
        rows = self._database.rows(_FIND, (request_id,))
        return _record(rows[0]) if rows else None

    def find_stored(self, stored_id: str) -> UsageRecord | None:
        rows = self._database.rows(_FIND_STORED, (stored_id, stored_id))
        return _record(rows[0]) if rows else None

    def last_used(self, key_ids: Sequence[str]) -> dict[str, datetime]:
        latest = self._database.rows(_LAST_TIMES, (json.dumps(list(key_ids)),))
        found = {key_id: from_ms(at) for key_id, at in latest if at is not None}
        purged = [key_id for key_id in key_ids if key_id not in found]
        if purged:
            days = sorted(self._database.rows(_LAST_DAYS, (json.dumps(purged),)))  # the latest day of a key comes last
            found |= {key_id: _start(_date(day) + timedelta(days=1)) for key_id, day in days if day}
        return found

    def filter_counts(self, query: ReportQuery = ALL_USAGE) -> list[FilterCount]:
        zones = TimeZones() if query.in_utc else self._zones()
        end = None if query.last_day is None else to_ms(zones.start(query.last_day + timedelta(days=1)))
        filters: dict[str, object] = {
            "timestamp >= ?": None if query.first_day is None else to_ms(zones.start(query.first_day)),
            "timestamp < ?": end,
            "key_id = ?": query.key_id,
            "user = ?": query.user,
            '"group" = ?': query.group,
            f'"group" {IN_LIST}': listed(query.groups),
        }
        wanted = {condition: value for condition, value in filters.items() if value is not None}
        where = " AND ".join(("filter_severities IS NOT NULL", *wanted))
        rows = self._database.rows(
            f"""SELECT timestamp / {_MINUTE}, user, key_id, "group", {_COUNTED_MODEL}, content_filter,
                filter_severities, count(*)
            FROM logs WHERE {where} GROUP BY 1, 2, 3, 4, 5, 6, 7""",  # noqa: S608
            list(wanted.values()),
        )
        counts: Counter[tuple[Any, ...]] = Counter()
        for minute, *found, requests in rows:
            counts[zones.day(from_ms(minute * _MINUTE)).isoformat(), *found] += requests
        return [
            FilterCount(day, user, key_id, group, model, tuple(json.loads(fired)), tuple(json.loads(found)), requests)
            for (day, user, key_id, group, model, fired, found), requests in counts.items()
        ]

    def purge(self, first_day: date, *, limit: int) -> int:
        with self._database.transaction() as connection:
            purged = connection.execute(
                "DELETE FROM logs WHERE rowid IN (SELECT rowid FROM logs WHERE timestamp < ? LIMIT ?)",
                (_midnight(first_day), limit),
            ).rowcount
            if purged:
                connection.execute("UPDATE usage_purged SET kept_before = max(kept_before, ?)", (_number(first_day),))
        return purged

    def kept_of(self, user: str) -> Kept:
        names: dict[str, set[str]] = {}
        for key_id, name in self._database.rows(
            """SELECT DISTINCT key_id, user FROM usage_series
            WHERE key_id IN (SELECT key_id FROM usage_series WHERE user = ?)""",
            (user,),
        ):
            names.setdefault(key_id, set()).add(name)
        ((count,),) = self._database.rows("SELECT count(*) FROM logs WHERE user = ?", (user,))
        return Kept({key_id: frozenset(found) for key_id, found in names.items()}, count)

    def erase(self, erasure: Erasure) -> None:
        # First the records: a rebuild makes sums of what it finds in them.
        for key_id in erasure.key_ids:
            for name in self._covered("logs", erasure, key_id):
                while self._replace_some(erasure.pseudonym, key_id, name) == REPLACED_AT_ONCE:
                    pass
            for name in self._covered("usage_series", erasure, key_id):
                with self._database.transaction() as connection:
                    connection.execute(_RENAME_SERIES, (erasure.pseudonym, key_id, name))
        self._series.clear()

    def _covered(self, table: str, erasure: Erasure, key_id: str) -> list[str]:
        """Return the names in *table* that *erasure* replaces."""
        rows = self._database.rows(f"SELECT DISTINCT user FROM {table} WHERE key_id = ?", (key_id,))  # noqa: S608
        return [name for (name,) in rows if erasure.covers(key_id, name)]

    def _replace_some(self, pseudonym: str, key_id: str, name: str) -> int:
        with self._database.transaction() as connection:
            return connection.execute(
                """UPDATE logs SET user = ?1, client_address = iif(client_address IS NULL, NULL, ?1)
                WHERE rowid IN (SELECT rowid FROM logs WHERE key_id = ?2 AND user = ?3 LIMIT ?4)""",
                (pseudonym, key_id, name, REPLACED_AT_ONCE),
            ).rowcount

    def rebuild(self) -> Iterator[Rebuilding]:
        # Each day is one transaction, and each batch is one, so batches in between are counted as usual.
        ((kept_before,),) = self._database.rows("SELECT kept_before FROM usage_purged")
        days = [day for day in self._days() if day >= kept_before]
        kept = _date(kept_before) if kept_before else None
        yield Rebuilding(done=0, days=len(days), kept_before=kept)
        for done, day in enumerate(days, 1):
            zones = self._zones()
            with self._database.transaction() as connection:
                _rebuild(connection, day, zones)
            yield Rebuilding(done=done, days=len(days), kept_before=kept)

    def _days(self) -> list[int]:
        ((first, last),) = self._database.rows("SELECT min(timestamp), max(timestamp) FROM logs")
        days = {
            day
            for table in _TABLES
            for (day,) in self._database.rows(f"SELECT DISTINCT day FROM {table}")  # noqa: S608
        }
        if first is not None:
            start, end = from_ms(first).date(), from_ms(last).date()
            days.update(_number(start + timedelta(days=number)) for number in range((end - start).days + 1))
        return sorted(days)


def _is_known(connection: sqlite3.Connection, batch: Batch) -> bool:
    found = connection.execute("SELECT number FROM usage_sources WHERE source = ?", (batch.source,)).fetchone()
    return found is not None and found[0] >= batch.number


def _append(connection: sqlite3.Connection, records: Sequence[UsageRecord]) -> list[UsageRecord]:
    """Store the records that do not exist yet, and return them."""
    unseen = {record.id: record for record in reversed(records)}
    for ids in some_at_once([*unseen]):
        statement = f"SELECT id FROM logs WHERE id IN ({places(ids)})"  # noqa: S608
        for (known,) in connection.execute(statement, ids).fetchall():
            del unseen[known]
    new = [*unseen.values()]
    insert(connection, _APPEND, [*map(_row, new)])
    return new


def _series(connection: sqlite3.Connection, cell: Cell) -> int:
    values = cell.series
    found = connection.execute(
        'SELECT id FROM usage_series WHERE key_id = ? AND user = ? AND "group" IS ? AND model = ? AND deployment = ?',
        values,
    ).fetchone()
    if found is None:
        found = connection.execute(
            'INSERT INTO usage_series (key_id, user, "group", model, deployment) VALUES (?, ?, ?, ?, ?) RETURNING id',
            values,
        ).fetchone()
    return int(found[0])


def _add(connection: sqlite3.Connection, sums: Iterable[tuple[int, Cell, Sequence[float]]]) -> None:
    """Add these amounts of these series and days to the sums."""
    there, shifted = [], []
    for series, cell, amounts in sums:
        if cell.local_day == cell.day:
            there.append((series, *_month_and_day(cell.day), *amounts))
        else:
            shifted.append((series, *_month_and_day(cell.local_day), _number(cell.day), *amounts))
    insert(connection, _ADD, there)
    insert(connection, _ADD_SHIFTED, shifted)


def _rebuild(connection: sqlite3.Connection, number: int, zones: TimeZones) -> None:
    if connection.execute("SELECT kept_before > ? FROM usage_purged", (number,)).fetchone()[0]:
        return  # purged in the meantime
    day = _date(number)
    connection.execute(_FORGET, _month_and_day(day))
    for local_day in (day - timedelta(days=1), day + timedelta(days=1)):
        connection.execute(_FORGET_SHIFTED, (*_month_and_day(local_day), number))
    for start, end, local_day in zones.days(_start(day), _start(day + timedelta(days=1))):
        interval = (to_ms(start), to_ms(end))
        for key_id, user, group, model, deployment, *sums in connection.execute(
            f'SELECT key_id, user, "group", {_COUNTED_MODEL}, {_COUNTED_DEPLOYMENT}, {_COUNTED} FROM logs '  # noqa: S608
            f"WHERE timestamp >= ? AND timestamp < ? AND NOT ({_FAILED_OVER}) GROUP BY 1, 2, 3, 4, 5",
            interval,
        ).fetchall():
            cell = Cell(day, local_day, key_id, user, group, model, deployment)
            _add(connection, [(_series(connection, cell), cell, sums)])
        failed_over = connection.execute(
            f"SELECT {_COLUMNS} FROM logs WHERE timestamp >= ? AND timestamp < ? AND {_FAILED_OVER}",  # noqa: S608
            interval,
        ).fetchall()
        apart = daily_sums(map(_record, failed_over), zones)
        _add(connection, ((_series(connection, cell), cell, amounts) for cell, amounts in apart.items()))


def _report(by: Sequence[str], conditions: Sequence[str], *, in_utc: bool) -> str:
    if "week" in by and "day" not in by:
        # First add up days: a day is added to its week much faster than a sum of each series is.
        daily = _report(["day" if name == "week" else name for name in by], conditions, in_utc=in_utc)
        return _grouped([_WEEK if name == "week" else f"by_{name}" for name in by], daily)
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
        for table, names in zip(_TABLES, ({"day": "day", "month": "month"}, shifted), strict=True)
    )
    join = " JOIN usage_series ON usage_series.id = series" if _OF_SERIES.keys() & {*by} else ""
    return _grouped([f"{_GROUPINGS[name]} AS by_{name}" for name in by], both, join)


def _grouped(columns: Sequence[str], rows: str, join: str = "") -> str:
    numbers = ", ".join(str(position + 1) for position in range(len(columns)))
    return (
        f"SELECT {', '.join([*columns, _ADDED_UP])} FROM ({rows}){join}"  # noqa: S608
        + (f" GROUP BY {numbers} ORDER BY {numbers}" if columns else "")
    )


def _number(day: date) -> int:
    return (day.year * 100 + day.month) * 100 + day.day


def _month_and_day(day: date) -> tuple[int, int]:
    return _number(day) // 100, _number(day)


def _date(day: int) -> date:
    return date(day // 10000, day // 100 % 100, day % 100)


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _midnight(day: date) -> int:
    return to_ms(_start(day))


def _named(grouping: str, value: Any) -> str | None:
    if grouping == "day":
        return f"{value // 10000:04}-{value // 100 % 100:02}-{value % 100:02}"
    if grouping == "month":
        return f"{value // 100:04}-{value % 100:02}"
    if grouping == "week":
        year, week, _ = date.fromordinal(_FIRST_MONDAY + 7 * value).isocalendar()
        return f"{year:04}-W{week:02}"
    return value  # type: ignore[no-any-return]


def _row(record: UsageRecord) -> list[object]:
    row: list[object] = [*_VALUES(record)]
    row[_TIMESTAMP] = to_ms(record.timestamp)
    row[_CONTENT_FILTER] = json.dumps(record.content_filter) if record.content_filter else "[]"
    row[_FILTER_SEVERITIES] = json.dumps(record.filter_severities) if record.filter_severities else None
    row[_ATTEMPTS] = json.dumps([asdict(attempt) for attempt in record.attempts]) if record.attempts else None
    row[_TOOL_USES] = json.dumps(dict(record.tool_uses)) if record.tool_uses else None
    row[_STORED_IDS] = json.dumps(record.stored_ids) if record.stored_ids else None
    row[_LIMITS] = json.dumps(record.limits) if record.limits else None
    return row


def _record(row: Sequence[Any]) -> UsageRecord:
    values: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
    return UsageRecord(
        **values
        | {
            "timestamp": from_ms(values["timestamp"]),
            "stream": bool(values["stream"]),
            "model_known": bool(values["model_known"]),
            "outcome": Outcome(values["outcome"]),
            "usage_source": UsageSource(values["usage_source"]),
            "content_filter": tuple(json.loads(values["content_filter"])),
            "filter_severities": tuple(json.loads(values["filter_severities"] or "[]")),
            "spilled_over": bool(values["spilled_over"]),
            "attempts": tuple(map(Attempt.from_json, json.loads(values["attempts"] or "[]"))),
            "tool_uses": json.loads(values["tool_uses"] or "{}"),
            "stored_ids": tuple(json.loads(values["stored_ids"] or "[]")),
            "limits": tuple(json.loads(values["limits"] or "[]")),
        }
    )
