"""CSV responses for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Response

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet treats cells that begin with these characters as formulas (OWASP, "CSV Injection")."""


def csv_table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    name: str,
    verbatim: tuple[str, ...] = (),
    status: int = 200,
) -> Response:
    """Return a CSV file with a header and one line for each row. Cells cannot be formulas.

    Args:
        name: File name for browsers.
        verbatim: Columns that contain no formulas, and must not be changed.
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
