"""Text files with separators: CSV, and what Excel calls Unicode text."""

from __future__ import annotations

import csv
import io
import re

from .table import MOST_COLUMNS, MOST_LINES, Row, Table, Unreadable, is_empty

SEPARATORS = ",;\t"

_TEXT_FILE = "In Excel, save it as 'CSV UTF-8', or send the workbook (.xlsx) itself."
_EMPTY = "Is empty. Send a file whose first line names the columns, one of which is 'user'."
_GUESSED = (
    "The file is not UTF-8, so it was read as Windows-1252, which Excel writes in Western Europe. Check the names with "
    "accents; if they are wrong, save the file as 'CSV UTF-8'."
)
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\x00\x00", ""), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_PROBED_BYTES = 4096
_PROBED_ROWS = 20


def read_text(body: bytes) -> Table:
    """Read a text file. Encoding, separator and line ends are found out.

    Raises:
        Unreadable: it is no text, or empty, or too long.
    """
    text, encoding, notes = _decoded(body)
    if "\0" in text:
        raise Unreadable(f"Must be a text file or a workbook. {_TEXT_FILE}")
    if not text.strip():
        raise Unreadable(_EMPTY)
    # The first line may only say what separates the cells of the others, for Excel.
    told = re.match(r"\s*\"?sep=([,;\t|])\"?[ \t]*(?:\r\n|\r|\n)", text, re.IGNORECASE)
    body_text = text[told.end() :] if told else text
    lines_before = len(re.findall(r"\r\n|\r|\n", told[0])) if told else 0
    if not body_text.strip():
        raise Unreadable(_EMPTY)
    separator = told[1] if told else _separator(body_text)
    rows, broken = _rows(body_text, separator, lines_before)
    return Table(
        rows=rows,
        format="csv",
        encoding={"utf-8-sig": "utf-8"}.get(encoding, encoding),
        separator=separator,
        notes=notes,
        broken=broken,
    )


def _decoded(body: bytes) -> tuple[str, str, tuple[str, ...]]:
    """Return the text, its encoding, and a note if that was a guess."""
    encoding = next((name for mark, name in _BOMS if body.startswith(mark)), None) or _unmarked(body)
    try:
        return body.decode(encoding), encoding, ()
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise Unreadable(f"Is not the {encoding.upper()} that its first bytes promise. {_TEXT_FILE}") from None
    try:
        return body.decode("cp1252"), "cp1252", (_GUESSED,)
    except UnicodeDecodeError:
        raise Unreadable(f"Is neither UTF-8 nor Windows-1252. {_TEXT_FILE}") from None


def _unmarked(body: bytes) -> str:
    """Return the encoding of a file without a byte order mark: UTF-16 has a zero beside every Latin letter."""
    probed = body[:_PROBED_BYTES]
    first, second = probed[::2], probed[1::2]
    for name, letters, zeros in (("utf-16-le", first, second), ("utf-16-be", second, first)):
        if zeros and letters.count(0) == 0 and zeros.count(0) * 2 > len(zeros) and len(body) % 2 == 0:
            return name
    return "utf-8"


def _separator(text: str) -> str:
    """Return what separates the cells: what divides the first rows into the most, and equally many, cells."""

    def score(separator: str) -> tuple[bool, int, int]:
        rows = _first_rows(text, separator)
        width = len(rows[0]) if rows else 0
        alike = sum(len(cells) == width for cells in rows) if width > 1 else 0
        # "Name, first name;e-mail": people write a blank behind a comma within a cell.
        within = sum(cell.startswith(" ") for cell in rows[0]) if rows else 0
        return (width > 1 and alike * 2 > len(rows), width - within, alike)

    return max(SEPARATORS, key=score)


def _first_rows(text: str, separator: str) -> list[list[str]]:
    """Return the first rows as they are with this separator, without the empty cells at their ends."""
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for cells in reader:
            while cells and not cells[-1].strip():
                cells.pop()
            if cells:
                rows.append(cells)
            if len(rows) == _PROBED_ROWS:
                break
    except csv.Error:
        pass  # with this separator, or with any; the line is named later
    return rows


def _rows(text: str, separator: str, lines_before: int) -> tuple[list[Row], Row | None]:
    """Return the rows that are not empty. A quoted cell may contain line breaks.

    Reading stops at a line that cannot be parsed, because the start of the next line is then unknown.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[Row] = []
    while True:
        number = lines_before + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return rows, None
        except csv.Error as error:
            return rows, Row(number, [f"Cannot be read as CSV: {error}. Is a quote not closed?"])
        while len(cells) > MOST_COLUMNS and not cells[-1].strip():
            cells.pop()
        if len(cells) > MOST_COLUMNS:
            return rows, Row(number, [f"Has more than {MOST_COLUMNS} cells. Remove the columns that are not needed."])
        if not all(map(is_empty, cells)):
            if len(rows) > MOST_LINES + 1:
                raise Unreadable(f"Must have at most {MOST_LINES:,} lines. Split it.")
            rows.append(Row(number, list(cells)))
