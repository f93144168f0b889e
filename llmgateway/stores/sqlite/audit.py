"""The audit log in SQLite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from llmgateway.records import AuditEntry
from llmgateway.stores.epoch import from_ms

from .columns import stored
from .database import SQLiteDatabase

_FIELDS = tuple(field.name for field in fields(AuditEntry))
_COLUMNS = ", ".join(_FIELDS)

# Only constant names are formatted into statements; values are always parameters.
_APPEND = f"""
    INSERT INTO audit ({_COLUMNS}) VALUES ({", ".join("?" * len(_FIELDS))})
    ON CONFLICT (id) DO NOTHING
"""  # noqa: S608


class SQLiteAuditLog:
    """An :class:`~llmgateway.interfaces.AuditLog` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def append(self, entry: AuditEntry) -> None:
        row = [_stored(getattr(entry, name)) for name in _FIELDS]
        with self._database.transaction() as connection:
            connection.execute(_APPEND, row)

    def entries(self, *, target: str | None = None, after: str = "", limit: int) -> list[AuditEntry]:
        filters = {"target = ?": target, "id < ?": after or None}
        wanted = {condition: value for condition, value in filters.items() if value is not None}
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM audit"  # noqa: S608
            + (f" WHERE {' AND '.join(wanted)}" if wanted else "")
            + " ORDER BY id DESC LIMIT ?",
            [*wanted.values(), limit],
        )
        return [_entry(row) for row in rows]


def _stored(value: object) -> object:
    return json.dumps(dict(value), ensure_ascii=False) if isinstance(value, Mapping) else stored(value)


def _entry(row: Any) -> AuditEntry:
    values: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
    for name in ("before", "after"):
        if values[name] is not None:
            values[name] = json.loads(values[name])
    return AuditEntry(**values | {"timestamp": from_ms(values["timestamp"])})
