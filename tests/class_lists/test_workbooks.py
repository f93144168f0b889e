"""Workbooks of Excel: sheets, cells, and files that somebody has made up to do harm."""

from __future__ import annotations

import io
import zipfile

import openpyxl
import pytest

from llmgateway.class_lists import workbooks
from llmgateway.class_lists.reading import Options, read_class_list
from llmgateway.class_lists.table import Unreadable


def workbook(*rows, **sheets) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for title, more in sheets.items():
        sheet = book.create_sheet(title)
        for row in more:
            sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def changed(body: bytes, **parts: str | bytes | None) -> bytes:
    """The workbook with other parts, named without folders; None removes one."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            name = part.filename.rpartition("/")[2].partition(".")[0]
            content = parts.get(name, old.read(part))
            if content is not None:
                new.writestr(part.filename, content)
    return file.getvalue()


def read(body: bytes, **options: object):
    return read_class_list(body, Options(**options))


def refused(body: bytes, **options: object) -> str:
    with pytest.raises(Unreadable) as error:
        read(body, **options)
    return str(error.value)


def sheet_xml(rows: str) -> str:
    return f'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{rows}</sheetData></worksheet>'


def text_row(number: int, text: str, column: str = "A") -> str:
    return f'<row r="{number}"><c r="{column}{number}" t="inlineStr"><is><t>{text}</t></is></c></row>'


def test_lines_have_the_numbers_of_rows():
    """Empty rows count, and columns at the end that are empty do not matter."""
    body = workbook([None], ["user", "note", None], ["ada", 4711, None], [None, None], ["bob", 1.5])

    assert [(3, {"user": "ada", "note": "4711"}), (5, {"user": "bob", "note": "1.5"})] == [
        (line.number, line.cells) for line in read(body).lines
    ]


def test_the_sheet_that_is_named():
    """Whatever the case; a hidden one as well. One that is not there is refused with those that are."""
    body = workbook(["user"], ["ada"], Kurs=[["user"], ["bob"]])

    assert ["bob"] == [line.cells["user"] for line in read(body, sheet=" kurs").lines]
    assert ["ada"] == [line.cells["user"] for line in read(body).lines]
    assert "'Sheet', 'Kurs'" in refused(body, sheet="Liste")


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"sheet1": None}, "damaged"),
        ({"sheet1": "<worksheet><sheetData><row"}, "damaged"),
        ({"sheet1": sheet_xml("")}, "empty"),
        ({"workbook": "<workbook/>"}, "no sheet"),
        ({"workbook": None}, "no Excel workbook"),
        ({"styles": "x"}, "damaged"),
    ],
)
def test_damaged_workbooks(parts, word):
    """Whatever is missing or wrong in them."""
    assert word in refused(changed(workbook(["user"], ["ada"]), **parts)).replace(
        "Has no sheet", "Is damaged: no sheet"
    )


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["word/document.xml"], "no Excel workbook"),
        (["xl/workbook.bin"], ".xlsb"),
        (["mimetype"], ".ods"),
    ],
)
def test_other_files_in_zip(names, word):
    """Documents, and workbooks of other kinds."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "application/vnd.oasis.opendocument.spreadsheet")

    assert word in refused(file.getvalue())
    assert "damaged" in refused(file.getvalue()[:-30])


def test_a_workbook_that_unpacks_to_too_much():
    """Nothing of it is unpacked. Its declared sizes are what is read at most, so that a lie does not help."""
    body = changed(workbook(["user"], ["ada"]), sheet1=sheet_xml(text_row(1, "user") + " " * 40 * 1024 * 1024))

    assert len(body) < 100_000
    assert "32 MB" in refused(body)
    size = 40 * 1024 * 1024 + len(sheet_xml(text_row(1, "user")))
    lying = body.replace(size.to_bytes(4, "little"), (255).to_bytes(4, "little"))
    assert lying != body
    assert "damaged" in refused(lying)


def test_a_workbook_with_cells_far_away():
    """A cell in the last row or column costs no memory for those before it."""
    far_down = sheet_xml(text_row(1, "user") + text_row(2, "ada") + text_row(1_048_576, "bob"))
    beyond = sheet_xml(text_row(1, "user") + text_row(99_999_999, "bob"))
    far_right = sheet_xml(text_row(1, "user") + text_row(2, "ada", "XFD"))
    empty = workbook(["user"], ["ada"])

    assert [2, 1_048_576] == [line.number for line in read(changed(empty, sheet1=far_down)).lines]
    assert "rows" in refused(changed(empty, sheet1=beyond))
    assert "500 columns" in refused(changed(empty, sheet1=far_right))


def test_a_workbook_with_entities_that_multiply():
    """A billion laughs are not told."""
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "{"ha" * 20}">{laughs}]>' + sheet_xml(text_row(1, "&l11;"))

    assert "damaged" in refused(changed(workbook(["user"]), sheet1=bomb))


def test_too_many_lines(monkeypatch):
    """As in a text file."""
    monkeypatch.setattr(workbooks, "MOST_LINES", 3)

    assert "at most 3 lines" in refused(workbook(["user"], *[[f"u{number}"] for number in range(5)]))
