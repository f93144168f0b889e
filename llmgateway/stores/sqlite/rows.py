"""Many rows by few statements: each statement takes a turn of the interpreter's lock, or more."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

ROWS_AT_ONCE, MANY_ROWS = 16, 128
"""So many rows are written, and names looked up, by one statement: few statements, and not many different ones."""


def some_at_once(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Give *rows* in the parts that one statement takes."""
    start = 0
    while start < len(rows):
        size = MANY_ROWS if len(rows) - start >= MANY_ROWS else ROWS_AT_ONCE
        yield rows[start : start + size]
        start += size


def places(values: Sequence[object]) -> str:
    """The places of *values* in a statement."""
    return ", ".join("?" * len(values))


def insert(connection: sqlite3.Connection, statement: str, rows: Sequence[Sequence[object]]) -> None:
    """Execute *statement*, which has ``{}`` where the rows' places go, for all of *rows*."""
    for some in some_at_once(rows):
        row = f"({places(some[0])})"
        connection.execute(statement.format(", ".join([row] * len(some))), [value for row in some for value in row])
