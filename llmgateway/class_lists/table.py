"""A class list as a table of cells, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

MOST_LINES = 10_000
"""Maximum number of lines with keys. They are stored in one step, which must not block other requests for long."""

MOST_COLUMNS = 500
"""Maximum number of columns. A gradebook has one for each assignment."""

Cell = str | int | float | bool | datetime
"""A cell of a text file is always text; a workbook knows what is a number and what is a day."""


class Unreadable(Exception):
    """The file, or what was said about it, cannot be used.

    Args:
        problem: What is wrong with it, and what to do.
        param: The option that is wrong; ``file`` for the file itself.
        line: The line that is wrong; None if all of it is.
    """

    def __init__(self, problem: str, *, param: str = "file", line: int | None = None) -> None:
        super().__init__(problem)
        self.param = param
        self.line = line


class Row(NamedTuple):
    """A row that is not empty."""

    number: int
    """The number of its first line in the file, from 1; in a workbook the number of the row."""
    cells: list[Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The rows of a file, of which the first names the columns."""

    rows: list[Row]
    format: str
    """``csv`` or ``xlsx``."""
    encoding: str | None = None
    separator: str | None = None
    sheet: str | None = None
    notes: tuple[str, ...] = ()
    """What was guessed, for the person who checks the result."""
    broken: Row | None = None
    """The first line that cannot be parsed, with the reason as its only cell. The rows behind it are unknown."""


def is_empty(cell: Cell) -> bool:
    return isinstance(cell, str) and not cell.strip()
