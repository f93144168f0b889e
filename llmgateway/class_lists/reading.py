"""Reads a class list: from the bytes of a file to the fields of a key, line by line, with all that is wrong in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .cells import Ambiguous, Dates, Numbers, text_of, truth_of, word_of
from .columns import RATES, Columns, find_columns
from .table import MOST_LINES, Cell, Row, Table, Unreadable, is_empty
from .text_files import read_text
from .workbooks import is_workbook, read_workbook, refuse_other_files

_EMPTY = "Is empty. Send a file whose first line names the columns, one of which is 'user'."
_NOBODY = "Has no line below the one that names the columns: there is nobody to hand a key to."
_DATES = ("starts_at", "expires_at")
_NUMBERS = ("budget_amount", *RATES)
_LINES_BELOW_HEADER = 3
"""Canvas writes up to two lines below the header that are about the columns, not about people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the admin says about a file."""

    mapping: Sequence[tuple[str, str]] = ()
    """Fields, and the names of the columns for them."""
    group: str | None = None
    """The group of those whose line names none."""
    dates: str | None = None
    """``dmy`` or ``mdy``."""
    decimal: str | None = None
    """``.`` or ``,``."""
    sheet: str | None = None
    ignore_other_columns: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file, which describes one key."""

    number: int
    cells: dict[str, str]
    """By field, in the notation of the API; empty ones are left out."""
    problems: dict[str, list[str]] = field(default_factory=dict)
    """By field; ``line`` for those of the whole line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassList:
    """What a file says, and how it was understood."""

    lines: list[Line]
    about: dict[str, Any]
    """The format, what was recognised and what was ignored, as JSON."""


def read_class_list(body: bytes, options: Options, *, original: Callable[[str], str] = str) -> ClassList:
    """Read the whole file.

    Args:
        original: Returns the text that was there before a program made a cell safe for spreadsheets.

    Raises:
        Unreadable: the file, its first line or an option is wrong, so that its lines cannot be read.
    """
    table = _table(body, options.sheet)
    if not table.rows and table.broken is not None:
        raise Unreadable(text_of(table.broken.cells[0]), line=table.broken.number)
    if not table.rows:
        raise Unreadable(_EMPTY)
    header, *rows = table.rows
    columns = find_columns(
        header, mapping=options.mapping, ignore_others=options.ignore_other_columns, group=options.group
    )
    rows, left_out = _people(rows, columns)
    if len(rows) > MOST_LINES:
        raise Unreadable(f"Must have at most {MOST_LINES:,} lines. Split it.")
    if not rows and table.broken is None:
        raise Unreadable(_NOBODY)
    reader = _Reader(table, columns, rows, options, original)
    lines = [reader.read(row) for row in rows]
    if table.broken is not None:
        lines.append(Line(table.broken.number, {}, {"line": [text_of(table.broken.cells[0])]}))
    return ClassList(lines=lines, about=_about(table, columns, reader, left_out))


def _table(body: bytes, sheet: str | None) -> Table:
    if not body:
        raise Unreadable(_EMPTY)
    if is_workbook(body):
        return read_workbook(body, sheet)
    refuse_other_files(body)
    if sheet is not None:
        raise Unreadable("Only a workbook has sheets, and this is a text file. Leave it out.", param="sheet")
    return read_text(body)


def _people(rows: list[Row], columns: Columns) -> tuple[list[Row], list[dict[str, Any]]]:
    """Leave out the lines of Canvas' gradebook that are not about people, and return them as JSON."""
    if columns.export != "canvas":
        return rows, []
    people, left_out = [], []
    (student, *_) = columns.of.get("user", (0,))
    for place, row in enumerate(rows):
        name = text_of(row.cells[student]) if student < len(row.cells) else ""
        identity = [text_of(cell) for cell in row.cells[1:5]]
        if place < _LINES_BELOW_HEADER and not any(identity):
            left_out.append({"line": row.number, "reason": "This line is about the columns: points, or how they post."})
        elif name.casefold() in ("student, test", "test student"):
            left_out.append({"line": row.number, "reason": "This is Canvas' test student."})
        else:
            people.append(row)
    return people, left_out


class _Reader:
    """Converts the cells of a row, in the notation of the file."""

    def __init__(
        self, table: Table, columns: Columns, rows: list[Row], options: Options, original: Callable[[str], str]
    ) -> None:
        self._columns = columns
        self._group = options.group
        self._original = original
        money = self._all(rows, ("budget_amount",))
        self.numbers = Numbers.of_file(money, separator=table.separator, told=options.decimal)
        self.dates = Dates.of_file(self._all(rows, _DATES), told=options.dates)

    def _all(self, rows: list[Row], fields: Sequence[str]) -> list[Cell]:
        indexes = [index for name in fields for index in self._columns.of.get(name, ())]
        return [row.cells[index] for row in rows for index in indexes if index < len(row.cells)]

    def read(self, row: Row) -> Line:
        cells: dict[str, str] = {}
        problems: dict[str, list[str]] = {}
        width = len(self._columns.names)
        if not all(map(is_empty, row.cells[width:])):
            return Line(row.number, {}, {"line": [f"Has more than {width} cells. Is one with a separator not quoted?"]})
        for name, indexes in self._columns.of.items():
            filled = [row.cells[index] for index in indexes if index < len(row.cells)]
            filled = [cell for cell in filled if not is_empty(cell)]
            if not filled:
                continue
            try:
                cells[name] = self._cell(name, filled)
            except Ambiguous as error:
                problems[name] = [str(error)]
        if self._group is not None:
            cells.setdefault("group", self._group)
        return Line(row.number, cells, problems)

    def _cell(self, name: str, cells: Sequence[Cell]) -> str:
        cell = cells[0] if not isinstance(cells[0], str) else self._original(cells[0].strip())
        if len(cells) > 1:
            return " ".join(self._original(text_of(each)) for each in cells)
        if name in _DATES:
            return self.dates.read(cell)
        if name in _NUMBERS:
            return self.numbers.read(cell)
        if name == "active":
            return truth_of(cell)
        if name in ("budget_unit", "budget_period"):
            return word_of(cell)
        if name == "group" and self._columns.export is not None and "," in text_of(cell):
            raise Ambiguous("Names several groups. Say which one all of them join: group=NAME.")
        if name == "user" and self._columns.export == "canvas":
            return _first_name_first(text_of(cell))
        return text_of(cell)


def _first_name_first(name: str) -> str:
    """Return "Ada Lovelace" for "Lovelace, Ada", as Canvas sorts names. With more commas it stays as it is."""
    match = re.fullmatch(r"([^,]+),\s+([^,]+)", name)
    return f"{match[2].strip()} {match[1].strip()}" if match else name


def _about(table: Table, columns: Columns, reader: _Reader, left_out: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": table.format,
        "encoding": table.encoding,
        "separator": table.separator,
        "sheet": table.sheet,
        "decimal": reader.numbers.decimal,
        "dates": reader.dates.order,
        "export": columns.export,
        "columns": columns.used(),
        "ignored": list(columns.ignored),
        "left_out": left_out,
        "notes": list(table.notes),
    }
