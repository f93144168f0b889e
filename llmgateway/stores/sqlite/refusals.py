"""The refused requests in SQLite."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from llmgateway.erased import refusals_without_erased
from llmgateway.records import Erasure, Kept, Refusal, RefusalCount, RefusalQuery, RefusedAgain
from llmgateway.stores.epoch import from_ms, to_ms

from .columns import IN_LIST, listed, stored, time_of
from .database import SQLiteDatabase
from .erasures import erasures_of
from .rows import insert, places

_FIELDS = (*(field.name for field in fields(Refusal) if field.name != "repeats"), "repeats")
_COLUMNS = ", ".join(f'"{name}"' for name in _FIELDS)

# Only constant names are formatted into statements; values are always parameters.
_APPEND = f"""
    INSERT INTO refusals ({_COLUMNS}) VALUES {{}}
    ON CONFLICT (id) DO UPDATE SET count = excluded.count, last_at = excluded.last_at, repeats = excluded.repeats
    WHERE excluded.count > count
"""  # noqa: S608
_FIND = f"""
    SELECT {_COLUMNS} FROM refusals WHERE id = ?
    UNION ALL
    SELECT {_COLUMNS} FROM refusals WHERE id = (SELECT refusal FROM refusal_ids WHERE id = ?)
    LIMIT 1
"""  # noqa: S608
_PURGE = """
    DELETE FROM refusals WHERE rowid IN (
        SELECT rowid FROM refusals WHERE timestamp < ? ORDER BY timestamp, id LIMIT ?
    )
"""
_PURGE_OLDEST = """
    DELETE FROM refusals WHERE rowid IN (SELECT rowid FROM refusals ORDER BY timestamp, id LIMIT ?)
"""
_MINUTE = 60_000


class SQLiteRefusalLog:
    """A :class:`~llmgateway.interfaces.RefusalLog` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def append(self, refusals: Sequence[Refusal]) -> None:
        if not refusals:
            return
        repeats = [(again.id, refusal.id) for refusal in refusals for again in refusal.repeats]
        with self._database.transaction() as connection:
            erasures = erasures_of(connection, {refusal.key_id for refusal in refusals if refusal.key_id is not None})
            insert(connection, _APPEND, [*map(_row, refusals_without_erased(refusals, erasures))])
            insert(connection, "INSERT OR IGNORE INTO refusal_ids VALUES {}", repeats)

    def find(self, request_id: str) -> Refusal | None:
        rows = self._database.rows(_FIND, (request_id, request_id))
        return _refusal(rows[0]) if rows else None

    def list(self, query: RefusalQuery) -> list[Refusal]:
        conditions: dict[str, Sequence[object]] = {}
        if query.key_ids is not None:
            conditions[f"key_id IN ({places(query.key_ids)})"] = query.key_ids
        if query.before is not None:
            conditions["(timestamp, id) < (?, ?)"] = (to_ms(query.before[0]), query.before[1])
        if query.newer_than is not None:
            conditions["(timestamp, id) > (?, ?)"] = (to_ms(query.newer_than[0]), query.newer_than[1])
        for condition, value in (
            ("user = ?", query.user),
            ('"group" = ?', query.group),
            (f'"group" {IN_LIST}', listed(query.groups)),
            ("code = ?", query.code),
            ("status = ?", query.status),
            ("model = ?", query.model),
            ("endpoint = ?", query.endpoint),
            ("timestamp >= ?", stored(query.since)),
            ("timestamp < ?", stored(query.until)),
        ):
            if value is not None:
                conditions[condition] = (value,)
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM refusals"  # noqa: S608
            + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
            + " ORDER BY timestamp DESC, id DESC LIMIT ?",
            [*(value for values in conditions.values() for value in values), query.limit],
        )
        return [_refusal(row) for row in rows]

    def counts(
        self,
        *,
        since: datetime | None,
        until: datetime | None,
        group: str | None = None,
        groups: tuple[str, ...] | None = None,
    ) -> Iterator[RefusalCount]:
        filters = {
            "timestamp >= ?": stored(since),
            "timestamp < ?": stored(until),
            '"group" = ?': group,
            f'"group" {IN_LIST}': listed(groups),
        }
        wanted = {condition: value for condition, value in filters.items() if value is not None}
        rows = self._database.rows(
            f"SELECT timestamp / {_MINUTE}, code, sum(count) FROM refusals"  # noqa: S608
            + (f" WHERE {' AND '.join(wanted)}" if wanted else "")
            + " GROUP BY 1, 2",
            [*wanted.values()],
        )
        return (RefusalCount(from_ms(minute * _MINUTE), code, count) for minute, code, count in rows)

    def kept_of(self, user: str) -> Kept:
        names: dict[str, set[str]] = {}
        for key_id, name in self._database.rows(
            """SELECT DISTINCT key_id, user FROM refusals
            WHERE user IS NOT NULL AND key_id IN (SELECT key_id FROM refusals WHERE user = ?)""",
            (user,),
        ):
            names.setdefault(key_id, set()).add(name)
        ((count,),) = self._database.rows("SELECT count(*) FROM refusals WHERE user = ?", (user,))
        return Kept({key_id: frozenset(found) for key_id, found in names.items()}, count)

    def erase(self, erasure: Erasure) -> None:
        with self._database.transaction() as connection:
            for key_id in erasure.key_ids:
                found = connection.execute("SELECT DISTINCT user FROM refusals WHERE key_id = ?", (key_id,)).fetchall()
                connection.executemany(
                    """UPDATE refusals SET user = ?1, address = iif(address IS NULL, NULL, ?1)
                    WHERE key_id = ?2 AND user IS ?3""",
                    [(erasure.pseudonym, key_id, name) for (name,) in found if erasure.covers(key_id, name or "")],
                )

    def purge(self, before: datetime, *, most: int, limit: int) -> int:
        with self._database.transaction() as connection:
            purged = connection.execute(_PURGE, (to_ms(before), limit)).rowcount
            (left,) = connection.execute("SELECT count(*) FROM refusals").fetchone()
            excess = min(left - most, limit - purged)
            if excess > 0:
                purged += connection.execute(_PURGE_OLDEST, (excess,)).rowcount
        return purged


def _row(refusal: Refusal) -> list[object]:
    row = [stored(getattr(refusal, name)) for name in _FIELDS[:-1]]
    repeats = [(id_, to_ms(at), *rest) for id_, at, *rest in refusal.repeats]
    return [*row, json.dumps(repeats) if repeats else None]


def _refusal(row: Sequence[Any]) -> Refusal:
    values: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
    repeats = json.loads(values["repeats"] or "[]")
    return Refusal(
        **values
        | {
            "timestamp": from_ms(values["timestamp"]),
            "last_at": time_of(values["last_at"]),
            "repeats": tuple(RefusedAgain(id_, from_ms(at), *rest) for id_, at, *rest in repeats),
        }
    )
