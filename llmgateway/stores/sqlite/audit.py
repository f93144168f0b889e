"""The audit log in SQLite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from llmgateway.records import FIRST_OWNER, AuditEntry, AuditQuery
from llmgateway.stores.epoch import from_ms

from .columns import IN_LIST, listed, stored
from .database import SQLiteDatabase

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
        row = [_stored(getattr(entry, name)) for name in _FIELDS]
        with self._database.transaction() as connection:
            connection.execute(_APPEND, row)

    def entries(self, query: AuditQuery) -> list[AuditEntry]:
        by_first_owner = query.admin == FIRST_OWNER
        filters = {
            "target = ?": query.target,
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
