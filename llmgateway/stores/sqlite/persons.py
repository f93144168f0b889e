"""What is set for people, in SQLite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmgateway.records import Person

from .columns import limits_of, raise_of, stored
from .database import SQLiteDatabase
from .version import begin_version

PERSONS = "SELECT user, limits, raised FROM persons"
"""SQLite compares text byte by byte, so names are compared exactly."""


class SQLitePersons:
    """A :class:`~llmgateway.interfaces.PersonStore` in SQLite."""

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def get(self, user: str) -> Person | None:
        rows = self._database.rows(f"{PERSONS} WHERE user = ?", (user,))
        return person_of(rows[0]) if rows else None

    def change(self, user: str, change: Callable[[Person | None], Person | None]) -> Person | None:
        with self._database.transaction() as connection:
            row = connection.execute(f"{PERSONS} WHERE user = ?", (user,)).fetchone()
            after = change(None if row is None else person_of(row))
            connection.execute("DELETE FROM persons WHERE user = ?", (user,))
            if after is not None:
                values = (user, stored(after.limits), stored(after.raised))
                connection.execute("INSERT INTO persons (user, limits, raised) VALUES (?, ?, ?)", values)
            begin_version(connection)
        return after


def person_of(row: Any) -> Person:
    user, limits, raised = row
    return Person(user=user, limits=limits_of(limits), raised=raise_of(raised))
