"""The named admins in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from llmgateway.errors import NameTaken
from llmgateway.records import AdminRecord, Role
from llmgateway.stores.epoch import from_ms

from .columns import stored, time_of
from .database import SQLiteDatabase

_FIELDS = tuple(field.name for field in fields(AdminRecord))
_COLUMNS = ", ".join(_FIELDS)

# Only constant names are formatted into statements; values are always parameters.
_SELECT = f"SELECT {_COLUMNS} FROM admins"  # noqa: S608
_ADD = f"INSERT INTO admins ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"  # noqa: S608
_CHANGE = f"UPDATE admins SET {', '.join(f'{name} = ?' for name in _FIELDS)} WHERE id = ?"  # noqa: S608


class SQLiteAdmins:
    """An :class:`~llmgateway.interfaces.AdminStore` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def find(self, digest: str) -> AdminRecord | None:
        rows = self._database.rows(f"{_SELECT} WHERE digest = ?1 OR retiring_digest = ?1", (digest,))
        return _record(rows[0]) if rows else None

    def get(self, admin_id: str) -> AdminRecord | None:
        rows = self._database.rows(f"{_SELECT} WHERE id = ?", (admin_id,))
        return _record(rows[0]) if rows else None

    def list(self) -> list[AdminRecord]:
        return [_record(row) for row in self._database.rows(f"{_SELECT} ORDER BY id")]

    def add(self, record: AdminRecord) -> bool:
        with self._database.transaction() as connection:
            taken = connection.execute(
                "SELECT 1 FROM admins WHERE id = ?1 OR name = ?2 OR digest = ?3 OR retiring_digest = ?3",
                (record.id, record.name, record.digest),
            ).fetchone()
            if not taken:
                connection.execute(_ADD, _row(record))
        return not taken

    def change(
        self, admin_id: str, change: Callable[[AdminRecord], AdminRecord | None]
    ) -> tuple[AdminRecord, AdminRecord | None] | None:
        with self._database.transaction() as connection:
            row = connection.execute(f"{_SELECT} WHERE id = ?", (admin_id,)).fetchone()
            if row is None:
                return None
            before = _record(row)
            after = change(before)
            if after is None:
                connection.execute("DELETE FROM admins WHERE id = ?", (admin_id,))
            elif after != before:
                _check_name(connection, after)
                connection.execute(_CHANGE, [*_row(after), admin_id])
        return before, after


def _check_name(connection: sqlite3.Connection, record: AdminRecord) -> None:
    if connection.execute("SELECT 1 FROM admins WHERE name = ? AND id <> ?", (record.name, record.id)).fetchone():
        raise NameTaken


def _row(record: AdminRecord) -> list[object]:
    return [stored(getattr(record, name)) for name in _FIELDS]


def _record(row: Any) -> AdminRecord:
    values: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
    return AdminRecord(
        **values
        | {
            "role": Role(values["role"]),
            "created_at": from_ms(values["created_at"]),
            "groups": tuple(json.loads(values["groups"])),
            "active": bool(values["active"]),
            "expires_at": time_of(values["expires_at"]),
            "retires_at": time_of(values["retires_at"]),
        }
    )
