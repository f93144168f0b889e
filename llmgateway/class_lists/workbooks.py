"""Workbooks of Excel (``.xlsx``), and messages for other files that are no text.

A workbook is a ZIP file, which may unpack to a thousand times its size. So nothing is read before the sizes that its
parts declare are added up; ``zipfile`` reads no more of a part than that. Formulas are not computed: what Excel has
computed last is stored beside each. Macros are not looked at.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any

from .table import MOST_COLUMNS, MOST_LINES, Cell, Row, Table, Unreadable

MOST_UNPACKED_BYTES = 32 * 1024 * 1024
"""Maximum size of an unpacked workbook. 10,000 lines with 15 cells take 9 MB."""

_MOST_ROWS = 1_048_576
"""Rows that Excel has. Nearly all may be empty; a file that was made up may have more."""

_MOST_PARTS = 2000
"""Parts of the ZIP file: sheets, pictures and the like."""

_SAVE_AS = "Open it, and save it as an Excel workbook (.xlsx) or as 'CSV UTF-8'."
_OLD_OR_LOCKED = (
    "Is an old Excel workbook (.xls), or one with a password. Open it, and save it without a password, as an Excel "
    "workbook (.xlsx) or as 'CSV UTF-8'."
)
_COMPRESSED = "Is compressed. Unpack it, and send the file in it."
_WEB_PAGE = f"Is a web page, whatever its name says. {_SAVE_AS}"
_OTHER_FILES = (
    (b"%pdf", "Is a PDF, which has no cells. Ask for the list as an Excel workbook or as CSV."),
    (b"\xd0\xcf\x11\xe0", _OLD_OR_LOCKED),
    (b"\x1f\x8b", _COMPRESSED),
    (b"rar!", _COMPRESSED),
    (b"7z\xbc\xaf", _COMPRESSED),
    (b"{\\rtf", f"Is a text with a layout (RTF), not a table. {_SAVE_AS}"),
    (b"<!doctype html", _WEB_PAGE),
    (b"<html", _WEB_PAGE),
    (b"<table", _WEB_PAGE),
    (b"<?xml", f"Is XML, not a table. {_SAVE_AS}"),
)
"""The first bytes of files of other kinds, in lower case, and what to do."""


def is_workbook(body: bytes) -> bool:
    """Return whether *body* is a ZIP file, as workbooks are."""
    return body.startswith(b"PK\x03\x04")


def refuse_other_files(body: bytes) -> None:
    """Raise Unreadable with what to do if *body* is a file of another kind."""
    start = body[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, problem in _OTHER_FILES:
        if start.startswith(mark):
            raise Unreadable(problem)


def read_workbook(body: bytes, sheet: str | None) -> Table:
    """Read a sheet of a workbook: the one of that name, or the first one that is not hidden.

    Raises:
        Unreadable: it is no workbook, or too large, or has no such sheet.
    """
    _check_archive(body)
    # Imported when the first workbook comes: it takes a fifth of a second, and most gateways never get one.
    import openpyxl

    try:
        workbook = openpyxl.load_workbook(io.BytesIO(body), read_only=True, data_only=True, keep_links=False)
        try:
            found = _sheet(workbook, sheet)
            rows = [*_rows(found)]
            return Table(rows=rows, format="xlsx", sheet=str(found.title))
        finally:
            workbook.close()
    except (Unreadable, MemoryError):
        raise
    # A workbook that another program has damaged, or that somebody has made up, fails anywhere in openpyxl, with
    # errors of every kind.
    except Exception:  # noqa: BLE001
        raise Unreadable(f"Is damaged: it cannot be read as an Excel workbook. {_SAVE_AS}") from None


def _check_archive(body: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            parts = archive.infolist()
            names = {part.filename for part in parts}
            kind = archive.read("mimetype")[:100] if "mimetype" in names else b""
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError, EOFError):
        raise Unreadable(f"Is damaged: it cannot be unpacked. {_SAVE_AS}") from None
    if b"opendocument" in kind:
        raise Unreadable(f"Is a table of LibreOffice or OpenOffice (.ods). {_SAVE_AS}")
    if "xl/workbook.bin" in names:
        raise Unreadable(f"Is a binary workbook (.xlsb). {_SAVE_AS}")
    if "xl/workbook.xml" not in names and not any(name.endswith("workbook.xml") for name in names):
        raise Unreadable(f"Is no Excel workbook. {_SAVE_AS}")
    if len(parts) > _MOST_PARTS or sum(part.file_size for part in parts) > MOST_UNPACKED_BYTES:
        raise Unreadable(
            f"Is too large: unpacked it has more than {MOST_UNPACKED_BYTES // 1024**2} MB. Copy the list into a new "
            "workbook, or save it as 'CSV UTF-8'."
        )


def _sheet(workbook: Any, wanted: str | None) -> Any:
    sheets = [sheet for sheet in workbook.worksheets if hasattr(sheet, "iter_rows")]
    visible = [sheet for sheet in sheets if getattr(sheet, "sheet_state", "visible") == "visible"]
    if wanted is None:
        if not visible:
            raise Unreadable("Has no sheet that can be seen. Name the one to read.", param="sheet")
        return visible[0]
    for sheet in sheets:  # one that is named may be hidden
        if sheet.title.strip().casefold() == wanted.strip().casefold():
            return sheet
    names = ", ".join(repr(sheet.title) for sheet in visible[:20])
    raise Unreadable(f"There is no sheet {wanted[:100]!r}. There are: {names}.", param="sheet")


def _rows(sheet: Any) -> Iterator[Row]:
    sheet.reset_dimensions()  # a file may say that it has a million rows, or none
    found = 0
    # Without max_col, with which openpyxl would make as many cells for each of a million empty rows.
    for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells = [_cell(value) for value in values]
        while cells and cells[-1] == "":
            cells.pop()
        if len(cells) > MOST_COLUMNS:
            raise Unreadable(f"Must have at most {MOST_COLUMNS} columns. Remove those that are not needed.")
        if all(isinstance(cell, str) and not cell.strip() for cell in cells):
            if number > _MOST_ROWS:
                raise Unreadable(f"Must have at most {_MOST_ROWS:,} rows.")
            continue
        found += 1
        if found > MOST_LINES + 2:
            raise Unreadable(f"Must have at most {MOST_LINES:,} lines. Split it.")
        yield Row(number, cells)


def _cell(value: object) -> Cell:
    if value is None:
        return ""
    if isinstance(value, (str, bool, int, float, datetime)):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    return str(value)
