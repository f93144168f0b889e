"""People who sign in at the identity provider, and what is known of sessions, in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any

from llmgateway.errors import UserTaken
from llmgateway.records import Identity
from llmgateway.stores.epoch import to_ms

from .database import SQLiteDatabase
from .rows import places

_SELECT = "SELECT content FROM identities"
_ALL = {None: "", True: "AND user IS NULL ", False: "AND user IS NOT NULL "}
_PUT = """INSERT INTO sessions (name, until, content) VALUES (:name, :until, :text)
    ON CONFLICT (name) DO UPDATE SET until = excluded.until, content = excluded.content"""
_ADD = f"{_PUT} WHERE sessions.until <= :now RETURNING 1"


class SQLiteIdentities:
    """An :class:`~llmgateway.interfaces.IdentityStore` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def get(self, identity_id: str) -> Identity | None:
        return next(iter(self._find("WHERE id = ?", identity_id)), None)

    def of_user(self, user: str) -> Identity | None:
        return next(iter(self._find("WHERE user = ?", user)), None)

    def list(self, *, waiting: bool | None = None, after: str = "", limit: int) -> Sequence[Identity]:
        return self._find(f"WHERE id > ? {_ALL[waiting]}ORDER BY id LIMIT ?", after, limit)

    def due(self, now: datetime, *, limit: int) -> Sequence[Identity]:
        return self._find("WHERE due_at <= ? ORDER BY due_at, id LIMIT ?", to_ms(now), limit)

    def change(
        self, identity_id: str, change: Callable[[Identity | None], Identity | None]
    ) -> tuple[Identity | None, Identity | None]:
        with self._database.transaction() as connection:
            row = connection.execute(f"{_SELECT} WHERE id = ?", (identity_id,)).fetchone()
            before = None if row is None else _identity(row)
            after = change(before)
            if after != before:
                connection.execute("DELETE FROM identities WHERE id = ?", (identity_id,))
                if after is not None:
                    _insert(connection, after)
        return before, after

    def _find(self, condition: str, *values: object) -> Sequence[Identity]:
        return [_identity(row) for row in self._database.rows(f"{_SELECT} {condition}", values)]


class SQLiteSessions:
    """A :class:`~llmgateway.interfaces.SessionStore` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def look(self, names: Collection[str], *, now: datetime) -> dict[str, str]:
        found = f"SELECT name, content FROM sessions WHERE name IN ({places([*names])}) AND until > ?"  # noqa: S608
        return dict(self._database.rows(found, (*names, to_ms(now))))

    def add(self, name: str, text: str, *, now: datetime, until: datetime) -> bool:
        values = {"name": name, "text": text, "now": to_ms(now), "until": to_ms(until)}
        with self._database.transaction() as connection:
            return bool(connection.execute(_ADD, values).fetchall())

    def put(self, name: str, text: str, *, until: datetime) -> None:
        with self._database.transaction() as connection:
            connection.execute(_PUT, {"name": name, "text": text, "until": to_ms(until)})

    def purge(self, now: datetime) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE until <= ?", (to_ms(now),))


def _insert(connection: sqlite3.Connection, identity: Identity) -> None:
    # Nobody has the user NULL, to which nothing is equal.
    if connection.execute("SELECT 1 FROM identities WHERE user = ?", (identity.user,)).fetchone():
        raise UserTaken
    due_at = None if identity.due_at is None else to_ms(identity.due_at)
    content = json.dumps(identity.as_json(), ensure_ascii=False)
    connection.execute("INSERT INTO identities VALUES (?, ?, ?, ?)", (identity.id, identity.user, due_at, content))


def _identity(row: Any) -> Identity:
    return Identity.from_json(json.loads(row[0]))
