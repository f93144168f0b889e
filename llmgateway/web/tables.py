"""CSV files: everything that leaves the program for a spreadsheet is written here.

Without a reader, a file is for programs: commas, decimal points, UTF-8 without a byte order mark, numbers with all of
their digits. With one, it is for the spreadsheet of a country, which takes the file as it is.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from flask import Response

from ..usage.rounding import apportioned, exact, rounded

# A spreadsheet takes a cell that begins with one of these characters for a formula (OWASP, "CSV Injection"; the last
# four are the wide forms of the first four). A cell may begin after every separator, also within quotes: Excel in a
# country with a decimal comma splits lines at semicolons, and knows no quotes but those at the start of such a part,
# which it takes away. The apostrophes are those that were there before, so that reading takes away what writing has
# added and no more.
_FORMULA = r"(?:^|(?<=[,;\t\r\n]))(?=(?:[^\S\t\r\n]|['\"])*[=+\-@\t\r＝＋－＠])"  # noqa: RUF001
_UNSAFE = re.compile(_FORMULA)
_MADE_SAFE = re.compile(_FORMULA + "'")

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:[+-]\d\d:\d\d|Z)")
_BYTE_ORDER_MARK = "\ufeff"

NEXT_CURSOR = "x-next-cursor"
"""The header that has the ``cursor`` of the next page of a list as CSV; not sent on the last page."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads a file: the language of a spreadsheet decides how it has to be written."""

    separator: str = ","
    decimal: str = "."
    for_spreadsheet: bool = False
    """Whether it begins with a byte order mark, has times as spreadsheets read them, and money in cents."""


PROGRAM = Reader()
READERS = {
    "excel-en": Reader(",", ".", for_spreadsheet=True),
    "excel-de": Reader(";", ",", for_spreadsheet=True),
    "excel-fr": Reader(";", ",", for_spreadsheet=True),
    "excel-fi": Reader(";", ",", for_spreadsheet=True),
}
"""By the value of the parameter ``for`` and of the option ``--for``. LibreOffice and Numbers read the same files."""


def csv_table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    name: str,
    verbatim: tuple[str, ...] = (),
    money: Mapping[str, int] = MappingProxyType({}),
    reader: str | None = None,
    next_cursor: str | None = None,
    status: int = 200,
) -> Response:
    """Return a CSV file as a response; see :func:`csv_text`.

    Args:
        name: File name for browsers.
        next_cursor: Of the next page, if the file is a page of a list.
    """
    headers = {"Content-Disposition": f"attachment; filename={name}"}
    if next_cursor is not None:
        headers[NEXT_CURSOR] = next_cursor
    text = csv_text(rows, columns, verbatim=verbatim, money=money, reader=reader)
    return Response(text, status=status, mimetype="text/csv", headers=headers)


def csv_text(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    verbatim: tuple[str, ...] = (),
    money: Mapping[str, int] = MappingProxyType({}),
    reader: str | None = None,
) -> str:
    """Return a CSV file with a header and one line for each row. All cells are quoted, and no text can be a formula.

    Args:
        verbatim: Columns that contain no formulas, and must not be changed.
        money: Columns of amounts, with the decimal places of their currency. For a spreadsheet they are rounded to
            these, so that they add up to the rounded sum.
        reader: One of :data:`READERS`; None for programs.
    """
    how = PROGRAM if reader is None else READERS[reader]
    if how.for_spreadsheet and money:
        rows = _with_money(list(rows), money)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, quoting=csv.QUOTE_ALL, delimiter=how.separator, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {column: row[column] if column in verbatim else _cell(row.get(column), how) for column in columns}
        )
    return (_BYTE_ORDER_MARK if how.for_spreadsheet else "") + text.getvalue()


def rounded_so_that_they_add_up(amounts: Sequence[float | None], *, places: int) -> list[Decimal | None]:
    """Round *amounts* so that their sum is the rounded sum of the amounts. What is None stays None."""
    known = [exact(amount) for amount in amounts if amount is not None]
    parts = iter(apportioned(rounded(sum(known, Decimal()), places=places), known, places=places))
    return [None if amount is None else next(parts) for amount in amounts]


def _with_money(rows: list[Mapping[str, Any]], money: Mapping[str, int]) -> list[Mapping[str, Any]]:
    changed = [dict(row) for row in rows]
    for column, places in money.items():
        amounts = rounded_so_that_they_add_up([row.get(column) for row in rows], places=places)
        for row, amount in zip(changed, amounts, strict=True):
            row[column] = amount
    return [*changed]


def _cell(value: Any, how: Reader) -> Any:
    """Return the cell for *value*, a value of JSON or a time."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return value
    if isinstance(value, float | Decimal):
        return _number(value, how)
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, Mapping):
        value = json.dumps(value, ensure_ascii=False) if value else ""
    elif isinstance(value, list | tuple):
        value = " ".join(map(_word, value))
    text = str(value)
    if how.for_spreadsheet and _TIME.fullmatch(text):
        return text[:19].replace("T", " ")
    return no_formula(text)


def _word(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else str(value)


def _number(value: float | Decimal, how: Reader) -> str:
    """Return a number without an exponent. It is no text, so a minus sign at its beginning is no formula."""
    if not math.isfinite(value):
        return str(value)
    text = f"{Decimal(repr(value)) if isinstance(value, float) else value:f}"
    return text.replace(".", how.decimal)


def has_formula(text: str) -> bool:
    """Whether a spreadsheet may take a part of *text* for a formula."""
    return bool(_UNSAFE.search(text))


def original(cell: str) -> str:
    """Return the text that :func:`csv_text` has written as *cell*."""
    return _MADE_SAFE.sub("", cell)


def no_formula(value: Any) -> Any:
    """Return *value*, which a spreadsheet takes for no formula."""
    return _UNSAFE.sub("'", value) if isinstance(value, str) else value
