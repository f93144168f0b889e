"""The audit log in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any

from llmgateway.erased import entry_without_erased, is_about
from llmgateway.records import FIRST_OWNER, AuditEntry, AuditQuery
from llmgateway.stores.epoch import from_ms

from .columns import IN_LIST, listed, stored
from .database import SQLiteDatabase
from .erasures import erasures_of
from .rows import places, some_at_once

_FIELDS = tuple(field.name for field in fields(AuditEntry))
_COLUMNS = ", ".join(_FIELDS)

# Only constant names are formatted into statements; values are always parameters.
_APPEND = f"""
    INSERT INTO audit ({_COLUMNS}) VALUES ({", ".join("?" * len(_FIELDS))})
    ON CONFLICT (id) DO NOTHING
"""  # noqa: S608
_OF_GROUPS = f"""
    groups IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM json_each(audit.groups) AS named WHERE named.value NOT {IN_LIST})
"""  # noqa: S608


class SQLiteAuditLog:
    """An :class:`~llmgateway.interfaces.AuditLog` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def append(self, entry: AuditEntry) -> None:
        with self._database.transaction() as connection:
            entry = entry_without_erased(entry, erasures_of(connection, [entry.target]))
            connection.execute(_APPEND, _row(entry))

    def entries(self, query: AuditQuery) -> list[AuditEntry]:
        by_first_owner = query.admin == FIRST_OWNER
        filters = {
            "target = ?": query.target,
            # The whole action, or its noun.
            "? IN (action, substr(action, 1, instr(action, '.') - 1))": query.action,
            "timestamp >= ?": stored(query.since),
            "timestamp < ?": stored(query.until),
            _OF_GROUPS: listed(query.groups),
            "id < ?": query.after or None,
            # One parameter for both columns.
            "? IN (admin_id, admin_name)": None if by_first_owner else query.admin,
        }
        wanted = {condition: value for condition, value in filters.items() if value is not None}
        conditions = [*wanted, *(["admin_id IS NULL"] if by_first_owner else [])]
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM audit"  # noqa: S608
            + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
            + " ORDER BY id DESC LIMIT ?",
            [*wanted.values(), query.limit],
        )
        return [_entry(row) for row in rows]

    def about(self, user: str | None, key_ids: Collection[str]) -> list[AuditEntry]:
        with self._database.reading() as connection:
            return _about(connection, user, key_ids)

    def replace(self, user: str | None, key_ids: Collection[str], change: Callable[[AuditEntry], AuditEntry]) -> None:
        with self._database.transaction() as connection:
            for entry in _about(connection, user, key_ids):
                if (after := change(entry)) != entry:
                    connection.execute(
                        "UPDATE audit SET target = ?, before = ?, after = ? WHERE id = ?",
                        (after.target, _stored(after.before), _stored(after.after), entry.id),
                    )


def _about(connection: sqlite3.Connection, user: str | None, key_ids: Collection[str]) -> list[AuditEntry]:
    found: dict[str, AuditEntry] = {}
    for ids in some_at_once([*key_ids]):
        rows = connection.execute(f"SELECT {_COLUMNS} FROM audit WHERE target IN ({places(ids)})", ids)  # noqa: S608
        found |= {entry.id: entry for entry in map(_entry, rows)}
    if user is not None:
        quoted = json.dumps(user, ensure_ascii=False)  # as in the columns, so that few other entries are read
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM audit WHERE target = ?1 OR instr(before, ?2) OR instr(after, ?2)",  # noqa: S608
            (user, quoted),
        )
        found |= {entry.id: entry for entry in map(_entry, rows) if is_about(entry, user)}
    return [found[entry_id] for entry_id in sorted(found)]


def _row(entry: AuditEntry) -> list[object]:
    return [_stored(getattr(entry, name)) for name in _FIELDS]


def _stored(value: object) -> object:
    return json.dumps(dict(value), ensure_ascii=False) if isinstance(value, Mapping) else stored(value)


def _entry(row: Any) -> AuditEntry:
    values: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
    for name in ("before", "after"):
        if values[name] is not None:
            values[name] = json.loads(values[name])
    if values["groups"] is not None:
        values["groups"] = tuple(json.loads(values["groups"]))
    return AuditEntry(**values | {"timestamp": from_ms(values["timestamp"])})
