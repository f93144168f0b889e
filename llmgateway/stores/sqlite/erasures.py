"""The erasures in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime

from llmgateway.records import Erasure, NameDigest
from llmgateway.stores.epoch import from_ms, to_ms

from .database import SQLiteDatabase
from .rows import places, some_at_once

_COLUMNS = "pseudonym, erased_at, salt, digest"
_KEYS = "SELECT key_id, shared FROM erased_keys WHERE pseudonym = ? ORDER BY key_id"
_SHARED = "pseudonym IN (SELECT pseudonym FROM erased_keys WHERE shared)"
_FINISH = f"""
    UPDATE erasures SET finished = 1, salt = iif({_SHARED}, salt, NULL), digest = iif({_SHARED}, digest, NULL)
    WHERE pseudonym = ?
"""  # noqa: S608


class SQLiteErasures:
    """An :class:`~llmgateway.interfaces.Erasures` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def begin(self, erasure: Erasure) -> None:
        name = erasure.name
        with self._database.transaction() as connection:
            connection.execute(
                f"INSERT INTO erasures ({_COLUMNS}, finished) VALUES (?, ?, ?, ?, 0) ON CONFLICT DO NOTHING",  # noqa: S608
                (erasure.pseudonym, to_ms(erasure.erased_at), name and name.salt, name and name.digest),
            )
            connection.executemany(
                "INSERT INTO erased_keys VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET shared = shared OR excluded.shared",
                [(key_id, erasure.pseudonym, key_id in erasure.shared) for key_id in erasure.key_ids],
            )

    def of(self, key_ids: Collection[str]) -> Sequence[Erasure]:
        with self._database.reading() as connection:
            return erasures_of(connection, key_ids)

    def unfinished(self) -> Sequence[Erasure]:
        with self._database.reading() as connection:
            return _erasures(connection, "NOT finished ORDER BY erased_at", ())

    def finish(self, pseudonym: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(_FINISH, (pseudonym,))

    def since(self, time: datetime) -> Sequence[Erasure]:
        with self._database.reading() as connection:
            return _erasures(connection, "erased_at >= ? ORDER BY erased_at", (to_ms(time),))


def erasures_of(connection: sqlite3.Connection, key_ids: Collection[str]) -> list[Erasure]:
    """Return the erasures of these keys, in the transaction of *connection*."""
    found: set[str] = set()
    for ids in some_at_once([*key_ids]):
        rows = connection.execute(
            f"SELECT DISTINCT pseudonym FROM erased_keys WHERE key_id IN ({places(ids)})",  # noqa: S608
            ids,
        )
        found.update(pseudonym for (pseudonym,) in rows)
    if not found:
        return []
    return _erasures(connection, f"pseudonym IN ({places([*found])})", sorted(found))


def _erasures(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> list[Erasure]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM erasures WHERE {condition}", values).fetchall()  # noqa: S608
    made = []
    for pseudonym, erased_at, salt, digest in rows:
        found = connection.execute(_KEYS, (pseudonym,)).fetchall()
        made.append(
            Erasure(
                pseudonym=pseudonym,
                erased_at=from_ms(erased_at),
                key_ids=tuple(key_id for key_id, _ in found),
                shared=tuple(key_id for key_id, shared in found if shared),
                name=None if salt is None else NameDigest(salt=salt, digest=digest),
            )
        )
    return made
