"""Class lists as Moodle, Canvas and Excel write them, in several languages. The people in them are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmgateway.class_lists.reading import Options, read_class_list

FILES = Path(__file__).parent / "files"


def read(name: str, **options: object):
    """What the file says: its lines, and how it was understood."""
    found = read_class_list((FILES / name).read_bytes(), Options(**options))
    assert [] == [line.problems for line in found.lines if line.problems]
    return {line.number: line.cells for line in found.lines}, found.about


def test_moodle_participants():
    """First and last name are the user; roles and dates of access are left alone."""
    lines, about = read("moodle_participants.csv")

    assert {
        2: {"user": "Zoë Müller", "email": "zoe.mueller@uni.example"},
        3: {"user": "Seán O\u2019Connor", "email": "sean.oconnor@uni.example"},
        4: {"user": "Mary Ann D'Arcy, Jr.", "email": "m.darcy@uni.example"},
        5: {"user": "Øyvind Åsbø 🦊", "email": "oyvind@uni.example"},
    } == lines
    assert ("moodle", "utf-8", ",") == (about["export"], about["encoding"], about["separator"])
    assert ["Roles", "Last access to course", "Status"] == about["ignored"]
    assert {"user": ["First name", "Last name"], "email": ["Email address"], "group": ["Groups"]} == about["columns"]


def test_moodle_grades_in_a_workbook():
    """The sheet that is hidden is not read; days, numbers and formulas are what they are."""
    lines, about = read("moodle_grades.xlsx")

    assert {
        2: {
            "user": "Änne Groß",
            "email": "aenne@uni.example",
            "expires_at": "2037-03-31",
            "requests_per_minute": "30",
            "budget_amount": "12.5",
            "budget_unit": "usd",
            "budget_period": "month",
        },
        4: {"user": "Jean-Luc d'Aubigné", "email": "jl@uni.example", "expires_at": "2037-04-01"},
    } == lines
    assert ("moodle", "xlsx", "Bewertungen") == (about["export"], about["format"], about["sheet"])
    assert "Kurs gesamt (Punkte)" in about["ignored"]


def test_canvas_gradebook():
    """Without the lines about points and about how grades are posted, and without the test student."""
    lines, about = read("canvas_gradebook.csv", group="physics")

    assert {
        4: {"user": "Ada Lovelace", "group": "physics"},
        5: {"user": "Jörg van der Berg", "group": "physics"},
        6: {"user": "King, Martin Luther, Jr.", "group": "physics"},
    } == lines
    assert [2, 3, 7] == [each["line"] for each in about["left_out"]]
    assert "canvas" == about["export"]


def test_canvas_sections_are_groups_if_nobody_says_another():
    """And the login can be the user."""
    lines, _ = read("canvas_gradebook.csv", mapping=[("user", "SIS Login ID")])

    assert {"user": "ada@uni.example", "group": "PHYS-101"} == lines[4]


def test_excel_in_german():
    """Semicolons, Windows-1252, decimal commas, WAHR and FALSCH."""
    lines, about = read("excel_german.csv")

    assert {
        2: {
            "user": "Jörg Weiß",
            "email": "joerg.weiss@uni.example",
            "note": "braucht; mehr Zeit",
            "active": "true",
            "starts_at": "2026-10-01",
            "expires_at": "2037-03-31",
            "budget_amount": "12.50",
            "budget_unit": "usd",
            "budget_period": "month",
            "requests_per_minute": "1000000",
        },
        3: {
            "user": "Änne Groß",
            "email": "aenne@uni.example",
            "active": "false",
            "expires_at": "2036-09-30",
            "budget_amount": "1234.50",
            "budget_unit": "usd",
            "budget_period": "total",
            "requests_per_minute": "30",
        },
    } == lines
    assert ("cp1252", ";", ",") == (about["encoding"], about["separator"], about["decimal"])
    assert "Windows-1252" in about["notes"][0]


def test_excel_in_french():
    """A grade is called note there, and is none of ours; 31/03 shows that the day comes first in 04/03."""
    lines, about = read("excel_french.csv")

    assert {
        3: {
            "user": "Chloé Lefèvre",
            "email": "chloe@uni.example",
            "expires_at": "2037-03-31",
            "budget_amount": "1234.50",
            "budget_unit": "usd",
            "budget_period": "month",
        },
        4: {
            "user": "Noël D\u2019Œuvre",
            "email": "noel@uni.example",
            "expires_at": "2037-03-04",
            "budget_amount": "5",
            "budget_unit": "usd",
            "budget_period": "month",
        },
    } == lines
    assert (["Note"], "dmy", "names") == (about["ignored"], about["dates"], about["export"])


def test_excel_in_finnish():
    """The last name first; the number of the student is not stored."""
    lines, about = read("excel_finnish.csv")

    assert {
        2: {"user": "Väinö Mäkinen", "email": "vaino.makinen@yo.example", "expires_at": "2037-03-31"},
        3: {"user": "Yrjö Åkerblom", "email": "yrjo@yo.example", "expires_at": "2036-12-01"},
    } == lines
    assert ["Opiskelijanumero"] == about["ignored"]


def test_excel_unicode_text():
    """UTF-16 with tabs."""
    lines, about = read("excel_unicode_text.txt")

    assert "Łukasz Żółć" == lines[2]["user"]
    assert 'Βασίλης "Bill" Παπαδόπουλος' == lines[3]["user"]
    assert ("12.50", "2037-03-31") == (lines[2]["budget_amount"], lines[2]["expires_at"])
    assert ("utf-16", "\t") == (about["encoding"], about["separator"])


def test_excel_in_american_english():
    """The month first, a comma between thousands."""
    lines, about = read("excel_us.csv")

    assert [("2037-03-31", "1234.50"), ("2037-03-04", "2.5")] == [
        (cells["expires_at"], cells["budget_amount"]) for cells in lines.values()
    ]
    assert ("mdy", ".") == (about["dates"], about["decimal"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_every_encoding_line_end_and_separator(encoding, line_end, separator):
    """In every combination, with cells that contain the other separators."""
    rows = [["user", "note", "email"], ["Zoë", '"a; b, c\td"', "z@uni.example"], ["Ødegård", "", ""]]
    body = line_end.join(separator.join(row) for row in rows).encode(encoding)
    if encoding.endswith("e") and encoding.startswith("utf-16"):
        assert not body.startswith((b"\xff\xfe", b"\xfe\xff"))

    found = read_class_list(body, Options())

    assert [
        (2, {"user": "Zoë", "note": "a; b, c\td", "email": "z@uni.example"}),
        (3, {"user": "Ødegård"}),
    ] == [(line.number, line.cells) for line in found.lines]
