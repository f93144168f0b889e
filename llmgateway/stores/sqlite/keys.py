"""The keys that were handed out, in the embedded store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

from llmgateway.records import KeyRecord, Lookup
from llmgateway.stores.epoch import from_ms, to_ms

from .database import SQLiteDatabase

_FIELDS = tuple(field.name for field in fields(KeyRecord))
_CHANGEABLE = frozenset(_FIELDS) - {"id", "digest"}
_COLUMNS = ", ".join(f'keys."{name}"' for name in _FIELDS)

# Only names of our own are put into statements; values are always parameters.
_FIND = f"SELECT organisation.generation, {_COLUMNS} FROM organisation LEFT JOIN keys ON keys.digest = ?"  # noqa: S608
_GET = f"SELECT {_COLUMNS} FROM keys WHERE id = ?"  # noqa: S608
_ADD = f"INSERT INTO keys VALUES ({', '.join('?' * len(_FIELDS))}) ON CONFLICT DO NOTHING"  # noqa: S608


class SQLiteKeys:
    """A :class:`~llmgateway.interfaces.KeyStore` in the embedded store's file.

    Every look-up reads the file, so a change is seen at once by every process.
    """

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def find(self, digest: str) -> Lookup:
        ((generation, *row),) = self._database.rows(_FIND, (digest,))
        return Lookup(None if row[0] is None else _record(row), generation)

    def add(self, record: KeyRecord) -> bool:
        with self._database.transaction() as connection:
            return connection.execute(_ADD, [_stored(getattr(record, name)) for name in _FIELDS]).rowcount == 1

    def get(self, key_id: str) -> KeyRecord | None:
        rows = self._database.rows(_GET, (key_id,))
        return _record(rows[0]) if rows else None

    def list(
        self,
        *,
        user: str | None = None,
        group: str | None = None,
        active: bool | None = None,
        after: str = "",
        limit: int | None = None,
    ) -> list[KeyRecord]:
        filters = {'"user" = ?': user, '"group" = ?': group, "active = ?": active}
        wanted = {condition: value for condition, value in filters.items() if value is not None}
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM keys WHERE {' AND '.join(['id > ?', *wanted])} ORDER BY id LIMIT ?",  # noqa: S608
            [after, *wanted.values(), -1 if limit is None else limit],
        )
        return [_record(row) for row in rows]

    def update(self, key_id: str, changes: Mapping[str, object]) -> KeyRecord | None:
        if not changes:
            return self.get(key_id)
        if unknown := changes.keys() - _CHANGEABLE:
            raise ValueError(f"not fields of a key that can be changed: {sorted(unknown)}")
        assignments = ", ".join(f'"{name}" = ?' for name in changes)
        with self._database.transaction() as connection:
            row = connection.execute(
                f"UPDATE keys SET {assignments} WHERE id = ? RETURNING {_COLUMNS}",  # noqa: S608
                [*map(_stored, changes.values()), key_id],
            ).fetchone()
        return _record(row) if row else None

    def remove(self, key_id: str) -> bool:
        with self._database.transaction() as connection:
            return connection.execute("DELETE FROM keys WHERE id = ?", (key_id,)).rowcount == 1


def _stored(value: object) -> object:
    if isinstance(value, datetime):
        return to_ms(value)
    if isinstance(value, (tuple, list)):
        return json.dumps(value)
    return value


def _record(row: Any) -> KeyRecord:
    # Spelled out: this runs for every request, and a loop over the fields takes twice as long.
    key_id, digest, user, name, created_at, group, email, note, active, starts_at, expires_at, models = row
    return KeyRecord(
        id=key_id,
        digest=digest,
        user=user,
        name=name,
        created_at=from_ms(created_at),
        group=group,
        email=email,
        note=note,
        active=bool(active),
        starts_at=None if starts_at is None else from_ms(starts_at),
        expires_at=None if expires_at is None else from_ms(expires_at),
        models=None if models is None else tuple(json.loads(models)),
    )
