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
    DaySpread,
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
from llmgateway.stores.day_sums import DayCell, StoredSpread, Timed, add_counts, spreads
from llmgateway.stores.epoch import from_ms, to_ms
from llmgateway.stores.sums import SUMS, Cell, Zones, add_sums, daily_sums

from .columns import IN_LIST, listed
from .database import SQLiteDatabase
from .day_sums import add_coarser, add_days, forget_day, recount_months
from .days import date_of, month_and_day, number_of
from .erasures import erasures_of
from .record_pages import SCATTERED, by_group, conditions_of, joined
from .reports import TABLES, day_spreads, report_statement, spread_statement, usage_row
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
_FORGET = """
    DELETE FROM usage_daily WHERE (series, month, day) IN (SELECT id, ?, ? FROM usage_series) RETURNING series
"""
_FORGET_SHIFTED = """
    DELETE FROM usage_shifted
    WHERE (series, local_month, local_day, day) IN (SELECT id, ?, ?, ? FROM usage_series) RETURNING series
"""
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
_COUNT = f"""
    SELECT key_id, user, "group", {_COUNTED_MODEL}, {_COUNTED_DEPLOYMENT}, {_COUNTED} FROM logs
    WHERE timestamp >= ? AND timestamp < ? AND NOT ({_FAILED_OVER}) GROUP BY 1, 2, 3, 4, 5
"""  # noqa: S608
_FAILED_OVER_IN = f"SELECT {_COLUMNS} FROM logs WHERE timestamp >= ? AND timestamp < ? AND {_FAILED_OVER}"  # noqa: S608
_TIMES = f"""
    SELECT timestamp, "group", {_COUNTED_MODEL}, {_COUNTED_DEPLOYMENT}, ttft_ms,
        iif(outcome = 'ok', duration_ms, NULL), coalesce(cost_usd, 0)
    FROM logs WHERE timestamp >= ? AND timestamp < ?
"""  # noqa: S608
_MINUTE = 60_000
"""No time zone changes in the middle of a minute."""

KEPT_SERIES = 10_000
"""Maximum number of series whose ids are cached in memory."""

REPLACED_AT_ONCE = 5000
"""Maximum number of records in which one transaction replaces a name, so that other writers get access in between."""


class SQLiteUsageLog:
    """A :class:`~llmgateway.interfaces.UsageLog` in SQLite.

    A batch is one transaction: after an error, nothing of it is stored or counted.
    """

    def __init__(self, database: SQLiteDatabase, *, zones: Zones = TimeZones) -> None:
        self._database = database
        self._zones = zones
        # Ids of committed series, which never change.
        self._series: dict[tuple[Any, ...], int] = {}
        self._day_series: dict[tuple[Any, ...], int] = {}

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
            timed = spreads(map(Timed.of, new), zones)
            day_series = add_coarser(connection, sums, timed, series, self._day_series)
            connection.execute("REPLACE INTO usage_sources VALUES (?, ?)", batch)
        for kept, used in ((self._series, series), (self._day_series, day_series)):
            if len(kept) > KEPT_SERIES:
                kept.clear()
            kept.update(used)

    def report(self, query: ReportQuery = ALL_USAGE) -> list[UsageRow]:
        # query.promptly is ignored: a local file answers quickly, or fails after its timeout.
        statement, values = report_statement(query)
        return [usage_row(query.by, row) for row in self._database.rows(statement, values)]

    def spreads(self, query: ReportQuery = ALL_USAGE) -> list[DaySpread]:
        statement, values = spread_statement(query)
        return day_spreads(self._database.rows(statement, values))

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
            found |= {key_id: _start(date_of(day) + timedelta(days=1)) for key_id, day in days if day}
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
                connection.execute("UPDATE usage_purged SET kept_before = max(kept_before, ?)", (number_of(first_day),))
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
        kept = date_of(kept_before) if kept_before else None
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
            for table in (*TABLES, "usage_days")
            for (day,) in self._database.rows(f"SELECT DISTINCT day FROM {table}")  # noqa: S608
        }
        if first is not None:
            start, end = from_ms(first).date(), from_ms(last).date()
            days.update(number_of(start + timedelta(days=number)) for number in range((end - start).days + 1))
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
            there.append((series, *month_and_day(cell.day), *amounts))
        else:
            shifted.append((series, *month_and_day(cell.local_day), number_of(cell.day), *amounts))
    insert(connection, _ADD, there)
    insert(connection, _ADD_SHIFTED, shifted)


def _rebuild(connection: sqlite3.Connection, number: int, zones: TimeZones) -> None:
    if connection.execute("SELECT kept_before > ? FROM usage_purged", (number,)).fetchone()[0]:
        return  # purged in the meantime
    day = date_of(number)
    changed = _forget(connection, day)
    sums: dict[Cell, tuple[float, ...]] = {}
    timed: dict[DayCell, StoredSpread] = {}
    for start, end, local_day in zones.days(_start(day), _start(day + timedelta(days=1))):
        interval = (to_ms(start), to_ms(end))
        for key_id, user, group, model, deployment, *counted in connection.execute(_COUNT, interval):
            add_sums(sums, Cell(day, local_day, key_id, user, group, model, deployment), counted)
        failed_over = connection.execute(_FAILED_OVER_IN, interval)
        for cell, amounts in daily_sums(map(_record, failed_over), zones).items():
            add_sums(sums, cell, amounts)
        for coarser, counts in spreads(map(_timed, connection.execute(_TIMES, interval)), zones).items():
            add_counts(timed.setdefault(coarser, {}), counts)
    series = {cell.series: _series(connection, cell) for cell in sums}
    _add(connection, ((series[cell.series], cell, amounts) for cell, amounts in sums.items()))
    add_days(connection, sums, timed, {})
    recount_months(connection, changed | {*series.values()}, day)


def _forget(connection: sqlite3.Connection, day: date) -> set[int]:
    """Delete the sums of the UTC day *day*, and return the series that had some."""
    found = connection.execute(_FORGET, month_and_day(day)).fetchall()
    for local_day in (day - timedelta(days=1), day + timedelta(days=1)):
        found += connection.execute(_FORGET_SHIFTED, (*month_and_day(local_day), number_of(day))).fetchall()
    forget_day(connection, day)
    return {series for (series,) in found}


def _timed(row: Sequence[Any]) -> Timed:
    timestamp, *rest = row
    return Timed(from_ms(timestamp), *rest)


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _midnight(day: date) -> int:
    return to_ms(_start(day))


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
