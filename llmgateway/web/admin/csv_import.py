"""Reads and checks the CSV file of a class, which a spreadsheet has written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import marshmallow as ma

from ...errors import InvalidFields
from ...records import moment
from ..context import services
from ..errors import invalid_fields
from ..schemas.keys import SHORTEST_OWN_KEY, NewKeySchema
from ..tables import has_formula, original
from . import reach
from .audit_helpers import NO_SUCH_GROUP
from .names import name_problems
from .validity import validity_problems

MOST_LINES = 10_000
"""Maximum number of lines with keys. They are stored in one step, which must not block other requests for long."""

MOST_PROBLEMS = 100
"""Maximum number of wrong lines that are reported."""

_PLAIN = ("user", "name", "group", "email", "note", "active", "starts_at", "expires_at")
_RATES = ("requests_per_minute", "tokens_per_minute", "parallel_requests")
_BUDGET = ("budget_amount", "budget_unit", "budget_period")
COLUMNS = (*_PLAIN, "models", *_RATES, *_BUDGET, "key")

_IGNORED = ("id",)
"""Further columns of the file that an import answers with, which may be imported into another gateway."""

_FORMULA = "Must not begin with one of = + - @, nor have one after a comma or a semicolon, like a formula."

_schema = NewKeySchema()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file, which describes one key."""

    number: int
    """Number of its first line in the file, from 1."""
    fields: dict[str, Any]
    """The arguments of :meth:`~llmgateway.accounts.keys.Keys.create`."""


def read_lines(body: bytes) -> list[Line]:
    """Read and check the whole file.

    Raises:
        InvalidFields: has the problems of all lines.
    """
    problems: dict[int, Any] = {}
    records = _records(_text(body), problems)
    number, names = next(records, (1, []))
    if problems:
        raise bad_lines(problems)
    columns = [name.strip().lower() for name in names]
    _check_header(number, columns)
    lines: list[Line] = []
    read = _Reader(columns)
    for number, cells in records:
        if len(lines) + len(problems) == MOST_LINES:
            raise _bad_file(f"Must have at most {MOST_LINES:,} lines. Split it.")
        try:
            lines.append(Line(number, read(cells)))
        except ma.ValidationError as error:
            problems[number] = error.messages
    if problems:
        raise bad_lines(problems)
    if not lines:
        raise _bad_file("Has no line below the one that names the columns: there is nobody to hand a key to.")
    return lines


def bad_lines(problems: Mapping[int, Any]) -> InvalidFields:
    """Return the error for these problems, by number of the line."""
    named = [str(number) for number in list(problems)[:10]]
    more = ", …" if len(problems) > len(named) else ""
    which = f"Line {named[0]} is" if len(problems) == 1 else f"{len(problems)} lines ({', '.join(named)}{more}) are"
    first = dict(list(problems.items())[:MOST_PROBLEMS])
    kept = f" (of the first {MOST_PROBLEMS})" if len(problems) > MOST_PROBLEMS else ""
    return InvalidFields(
        f"{which} not right; 'errors' says why{kept}. Nothing was stored: correct the file and send all of it again.",
        param="file",
        fields={f"line {number}": problem for number, problem in first.items()},
    )


def _bad_file(problem: str) -> InvalidFields:
    return invalid_fields({"file": [problem]})


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _bad_file("Must be UTF-8. In Excel, save it as 'CSV UTF-8 (comma delimited)'.") from None
    if "\0" in text:
        raise _bad_file("Must be a text file in UTF-8. In Excel, save it as 'CSV UTF-8 (comma delimited)'.")
    if not text.strip():
        raise _bad_file("Is empty. Send a file whose first line names the columns, one of which is 'user'.")
    return text


def _records(text: str, problems: dict[int, Any]) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of every line that is not empty, with the number of its first line.

    A quoted cell may contain line breaks. Reading stops at a line that cannot be parsed, because the start of the next
    line is then unknown. The line is added to *problems*.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems[number] = {"line": [f"Cannot be read as CSV: {error}. Is a quote not closed?"]}
            return
        if any(cell.strip() for cell in cells):
            yield number, cells


def _separator(text: str) -> str:
    """Return the separator. Excel writes semicolons in countries with a decimal comma, and tabs to the clipboard."""
    header = text.lstrip().partition("\n")[0]
    return max(",;\t", key=header.count)


def _check_header(number: int, columns: list[str]) -> None:
    problems = []
    while columns and not columns[-1]:
        columns.pop()  # spreadsheets write empty columns at the end
    unknown = [column for column in columns if column not in (*COLUMNS, *_IGNORED)]
    if not set(columns) & set(COLUMNS):
        problems.append(f"Must name the columns. There are: {', '.join(COLUMNS)}.")
    elif unknown:
        names = ", ".join(_named(column, columns) for column in unknown[:10])
        problems.append(f"There is no column {names}. There are: {', '.join(COLUMNS)}.")
    if len(set(columns)) != len(columns):
        twice = dict.fromkeys(_named(column, columns) for column in columns if columns.count(column) > 1)
        problems.append(f"Names a column twice: {', '.join(list(twice)[:10])}.")
    if "user" not in columns and not problems:
        problems.append("Must have the column 'user'.")
    if problems:
        raise bad_lines({number: {"line": problems}})


def _named(column: str, columns: list[str]) -> str:
    # Do not quote text that does not look like a name: in a file without a header it may be a cell with a key.
    is_name = re.fullmatch(r"[a-z_ -]+", column) and len(column) < SHORTEST_OWN_KEY
    return repr(column) if is_name else f"number {columns.index(column) + 1}"


class _Reader:
    """Converts the cells of a line to the fields of a key, with the checks of ``POST /admin/keys``."""

    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self._organisation = services().policy.stored()
        self._now = moment(services().clock())

    def __call__(self, cells: list[str]) -> dict[str, Any]:
        """Return the fields of a key. Raises ValidationError with problems by column."""
        if any(cell.strip() for cell in cells[len(self._columns) :]):
            problem = f"Has more than {len(self._columns)} cells. Is one with a separator in it not quoted?"
            raise ma.ValidationError({"line": [problem]})
        filled = {
            name: original(cell.strip())
            for name, cell in zip(self._columns, cells, strict=False)
            if cell.strip() and name not in _IGNORED
        }
        try:
            fields: dict[str, Any] = _schema.load(_document(filled))
        except ma.ValidationError as error:
            raise ma.ValidationError(_by_column(error.messages_dict)) from None
        if fields.get("models") == ():
            raise ma.ValidationError({"models": ["Names no model. Leave it empty for every one."]})
        problems: dict[str, Any] = dict(validity_problems(fields, now=self._now, instead="Leave it empty for never."))
        try:
            reach.choose_group(fields)
        except InvalidFields as error:
            problems |= dict(error.fields or {})
        else:
            problems |= _by_column(reach.group_problems(fields, self._organisation))
        if fields.get("group") is not None and fields["group"] not in self._organisation.groups:
            problems.setdefault("group", [NO_SUCH_GROUP])
        problems |= name_problems(fields)
        if has_formula(fields.get("key", "")):
            problems["key"] = [_FORMULA]
        if problems:
            raise ma.ValidationError(problems)
        return fields


def _document(cells: dict[str, str]) -> dict[str, Any]:
    """Return the equivalent body of ``POST /admin/keys``."""
    document: dict[str, Any] = {name: cells[name] for name in (*_PLAIN, "key") if name in cells}
    if "models" in cells:
        document["models"] = _models_in(cells["models"])
    limits: dict[str, Any] = {name: _whole(cells[name]) for name in _RATES if name in cells}
    budget = {name.removeprefix("budget_"): cells[name] for name in _BUDGET if name in cells}
    if budget:
        limits["budget"] = budget
    if limits:
        document["limits"] = limits
    return document


def models_cell(models: Iterable[str]) -> str:
    """Return the cell with these models. A name with a separator in it is quoted."""
    return " ".join(
        name if re.fullmatch(r'[^\s;,"]+', name) else '"{}"'.format(name.replace('"', '""')) for name in models
    )


def _models_in(cell: str) -> list[str]:
    found = re.findall(r'"((?:[^"]|"")*)"|([^\s;,]+)', cell)
    return [name or quoted.replace('""', '"') for quoted, name in found]


def _whole(cell: str) -> int | str:
    # The schema reports cells that are not numbers.
    return int(cell) if re.fullmatch(r"-?\d{1,18}", cell, re.ASCII) else cell


def _by_column(messages: Mapping[str, Any]) -> dict[str, Any]:
    """Convert errors of nested fields to errors of columns."""
    found: dict[str, Any] = {}
    for name, problem in messages.items():
        if name == "limits":
            found |= _by_column(problem)
        elif name == "budget":
            found |= {f"budget_{part}": problems for part, problems in problem.items()}
        elif name == "models" and isinstance(problem, Mapping):
            found[name] = [text for problems in problem.values() for text in problems]
        else:
            found[name] = problem
    return found
