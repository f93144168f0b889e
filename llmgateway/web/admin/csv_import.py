"""Checks the lines of a class list, as ``POST /admin/keys`` checks its body."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import marshmallow as ma

from ...class_lists.columns import BUDGET, COLUMNS, PLAIN, RATES
from ...class_lists.reading import ClassList, Line, Options, read_class_list
from ...class_lists.table import Unreadable
from ...errors import InvalidFields
from ...records import moment
from ..context import services
from ..errors import invalid_fields
from ..schemas.keys import NewKeySchema
from ..tables import has_formula, original
from . import reach
from .audit_helpers import NO_SUCH_GROUP
from .names import name_problems
from .validity import validity_problems

MOST_PROBLEMS = 100
"""Maximum number of wrong lines that are reported."""

_FORMULA = "Must not begin with one of = + - @, nor have one after a comma or a semicolon, like a formula."

_schema = NewKeySchema()

__all__ = ["COLUMNS", "CheckedLine", "bad_lines", "check_lines", "models_cell", "read"]


@dataclass(frozen=True, slots=True)
class CheckedLine:
    """A line of the file, which describes one key."""

    number: int
    """Number of its first line in the file, from 1."""
    fields: dict[str, Any] = field(default_factory=dict)
    """The fields of the key that the line names; empty if there are problems."""
    problems: dict[str, Any] = field(default_factory=dict)
    """By column."""
    user: str | None = None
    """As the file has it."""


def read(body: bytes, options: Options) -> ClassList:
    """Read the whole file.

    Raises:
        InvalidFields: the file, its first line or one of *options* cannot be used.
    """
    try:
        return read_class_list(body, options, original=original)
    except Unreadable as error:
        if error.line is not None:
            raise bad_lines({error.line: {"line": [str(error)]}}) from error
        raise invalid_fields({error.param: [str(error)]}) from error


def check_lines(lines: Iterable[Line]) -> list[CheckedLine]:
    check = _Check()
    checked = []
    for line in lines:
        user = line.cells.get("user")
        try:
            checked.append(CheckedLine(line.number, check(line), {}, user))
        except ma.ValidationError as error:
            checked.append(CheckedLine(line.number, {}, dict(error.messages_dict), user))
    return checked


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


class _Check:
    """Converts the cells of a line to the fields of a key, with the checks of ``POST /admin/keys``."""

    def __init__(self) -> None:
        self._organisation = services().policy.stored()
        self._now = moment(services().clock())

    def __call__(self, line: Line) -> dict[str, Any]:
        """Return the fields of a key. Raises ValidationError with problems by column."""
        if "line" in line.problems:
            raise ma.ValidationError(dict(line.problems))
        cells = line.cells
        try:
            # A cell that could not be understood is missing here, so that it is named once.
            fields: dict[str, Any] = _schema.load(_document(cells), partial=tuple(line.problems))
        except ma.ValidationError as error:
            raise ma.ValidationError(_by_column(error.messages_dict) | line.problems) from None
        if "name" not in cells:
            del fields["name"]  # a line that names none changes none
        if fields.get("models") == ():
            raise ma.ValidationError({"models": ["Names no model. Leave it empty for every one."]})
        problems: dict[str, Any] = dict(line.problems)
        problems |= validity_problems(fields, now=self._now, instead="Leave it empty for never.")
        try:
            reach.choose_group(fields)
        except InvalidFields as error:
            problems |= dict(error.fields or {})
        else:
            problems |= _by_column(reach.group_problems(fields, self._organisation))
        if fields.get("group") is not None and fields["group"] not in self._organisation.groups:
            problems.setdefault("group", [f"{NO_SUCH_GROUP} Or name the one that all of them join: group=NAME."])
        problems |= name_problems(fields)
        if has_formula(fields.get("key", "")):
            problems["key"] = [_FORMULA]
        if problems:
            raise ma.ValidationError(problems)
        return fields


def _document(cells: Mapping[str, str]) -> dict[str, Any]:
    """Return the equivalent body of ``POST /admin/keys``."""
    document: dict[str, Any] = {name: cells[name] for name in (*PLAIN, "key") if name in cells}
    if "models" in cells:
        document["models"] = _models_in(cells["models"])
    limits: dict[str, Any] = {name: _whole(cells[name]) for name in RATES if name in cells}
    budget = {name.removeprefix("budget_"): cells[name] for name in BUDGET if name in cells}
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
    # The schema reports cells that are not numbers. A spreadsheet may write 30,0.
    match = re.fullmatch(r"(-?\d{1,18})(?:\.0+)?", cell, re.ASCII)
    return int(match[1]) if match else cell


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
