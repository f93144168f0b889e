"""CSV responses for spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Response

# A spreadsheet takes a cell that begins with one of these characters for a formula (OWASP, "CSV Injection"; the last
# four are the wide forms of the first four). A cell may begin after every separator, also within quotes: Excel in a
# country with a decimal comma splits lines at semicolons, and knows no quotes but those at the start of such a part,
# which it takes away. The apostrophes are those that were there before, so that reading takes away what writing has
# added and no more.
_FORMULA = r"(?:^|(?<=[,;\t\r\n]))(?=(?:[^\S\t\r\n]|['\"])*[=+\-@\t\r＝＋－＠])"  # noqa: RUF001
_UNSAFE = re.compile(_FORMULA)
_MADE_SAFE = re.compile(_FORMULA + "'")


def csv_table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    name: str,
    verbatim: tuple[str, ...] = (),
    status: int = 200,
) -> Response:
    """Return a CSV file with a header and one line for each row. All cells are quoted, and none can be a formula.

    Args:
        name: File name for browsers.
        verbatim: Columns that contain no formulas, and must not be changed.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(
        {column: value if column in verbatim else no_formula(value) for column, value in row.items()} for row in rows
    )
    return Response(
        text.getvalue(),
        status=status,
        mimetype="text/csv",
        headers={"Content-Disposition": f"attachment; filename={name}"},
    )


def has_formula(text: str) -> bool:
    """Whether a spreadsheet may take a part of *text* for a formula."""
    return bool(_UNSAFE.search(text))


def original(cell: str) -> str:
    """Return the text that :func:`csv_table` has written as *cell*."""
    return _MADE_SAFE.sub("", cell)


def no_formula(value: Any) -> Any:
    """Return *value*, which a spreadsheet takes for no formula."""
    return _UNSAFE.sub("'", value) if isinstance(value, str) else value
