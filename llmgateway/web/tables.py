"""Tables for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Response

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs what begins like this (OWASP, "CSV Injection"); names are chosen by people."""


def csv_table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    name: str,
    verbatim: tuple[str, ...] = (),
    status: int = 200,
) -> Response:
    """Answer with a header and a line for each of *rows*, in which nothing is a formula.

    Args:
        name: Of the file, for a browser.
        verbatim: Columns that are known to hold no formula, and must not change by a character.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(
        {column: value if column in verbatim else _no_formula(value) for column, value in row.items()} for row in rows
    )
    return Response(
        text.getvalue(),
        status=status,
        mimetype="text/csv",
        headers={"Content-Disposition": f"attachment; filename={name}"},
    )


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value
