"""Reads and writes many rows with few statements, because each statement releases and acquires the GIL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

ROWS_AT_ONCE, MANY_ROWS = 16, 128
"""Numbers of rows or names per statement. There are few sizes, so that few statements must be prepared."""


def some_at_once(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield *rows* in parts, each for one statement."""
    start = 0
    while start < len(rows):
        size = MANY_ROWS if len(rows) - start >= MANY_ROWS else ROWS_AT_ONCE
        yield rows[start : start + size]
        start += size


def places(values: Sequence[object]) -> str:
    """Return the placeholders for *values* in a statement."""
    return ", ".join("?" * len(values))


def insert(connection: sqlite3.Connection, statement: str, rows: Sequence[Sequence[object]]) -> None:
    """Execute *statement* for all *rows*. ``{}`` in the statement is replaced by the placeholders of the rows."""
    for some in some_at_once(rows):
        row = f"({places(some[0])})"
        connection.execute(statement.format(", ".join([row] * len(some))), [value for row in some for value in row])
