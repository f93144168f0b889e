"""How a class list is read: columns, separators, lines, and what is wrong with them."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.class_lists.reading import Options, read_class_list
from llmgateway.class_lists.table import MOST_COLUMNS, Unreadable


def read(text: str | bytes, **options: object):
    body = text.encode() if isinstance(text, str) else text
    return read_class_list(body, Options(**options))


def cells(text: str | bytes, **options: object):
    return [line.cells for line in read(text, **options).lines]


def refused(text: str | bytes, **options: object) -> Unreadable:
    with pytest.raises(Unreadable) as error:
        read(text, **options)
    return error.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"a;b;c",user\nx,ada\n', [{"user": "ada"}]),
        ("user;note\nada;a,b,c,d\nbob;e,f\n", [{"user": "ada", "note": "a,b,c,d"}, {"user": "bob", "note": "e,f"}]),
        ("sep=;\nuser;note\nada;a,b\n", [{"user": "ada", "note": "a,b"}]),
        ('"sep=,"\r\nuser,note\r\nada,"a;b"\r\n', [{"user": "ada", "note": "a;b"}]),
        ("sep=|\nuser|note\nada|x\n", [{"user": "ada", "note": "x"}]),
        ("user\nLovelace, Ada\n", [{"user": "Lovelace"}]),
        ("user;email\nLovelace, Ada;\nTuring, Alan;\n", [{"user": "Lovelace, Ada"}, {"user": "Turing, Alan"}]),
        ("\n\n  \nuser;name;;\nada;x;;\n;;;\n", [{"user": "ada", "name": "x"}]),
    ],
)
def test_finds_the_separator(text, expected):
    """What divides the first lines evenly, or what the line for Excel says; not what stands within cells."""
    if text.startswith("user\nLovelace"):
        [line] = read(text).lines
        assert "more than 1 cells" in line.problems["line"][0]
        return
    assert expected == cells(text, ignore_other_columns=True)


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ([("user", "Benutzer")], {"user": "ada", "email": "a@x.example"}),
        ([("user", " BENUTZER ")], {"user": "ada", "email": "a@x.example"}),
        ([("user", "Vorname+Nachname")], {"user": "Ada Lovelace", "email": "a@x.example"}),
        ([("user", "E-Mail")], {"user": "a@x.example", "email": "a@x.example"}),
        ([("user", "Benutzer"), ("note", "Fach"), ("email", "")], {"user": "ada", "note": "Physik"}),
        ([("name", "A+B")], {"user": "ada", "name": "1", "email": "a@x.example"}),
    ],
)
def test_columns_as_the_admin_says(mapping, expected):
    """Whatever they would mean by their names; a column may be used twice, or several joined."""
    text = "Benutzer;Vorname;Nachname;E-Mail;Fach;A+B\nada;Ada;Lovelace;a@x.example;Physik;1\n"

    assert [expected] == cells(text, mapping=mapping)


@pytest.mark.parametrize(
    ("header", "options", "param", "words"),
    [
        ("user;Fach", {}, "file", ["no column 'Fach'", "map=FIELD=COLUMN", "ignore_other_columns=true"]),
        ("user;user", {}, "file", ["twice: 'user'"]),
        ("user;Email;E-Mail", {}, "file", []),
        ("user;E-Mail;Mail", {}, "file", ["both 'email'", "map=email=COLUMN"]),
        ("email;note", {}, "file", ["Must have the column 'user'", "map=user=COLUMN"]),
        ("user;hunter2-hunter2-hunter2", {}, "file", ["no column number 2"]),
        ("ada;Physik", {}, "file", ["Must name the columns"]),
        ("user;x", {"mapping": [("nobody", "x")]}, "map", ["no field 'nobody'"]),
        ("user;x", {"mapping": [("note", "y")]}, "map", ["no column 'y'", "'user', 'x'"]),
        ("user;x", {"mapping": [("note", "x"), ("note", "user")]}, "map", ["twice"]),
        ("user;x", {"sheet": "Tabelle1"}, "sheet", ["Only a workbook"]),
    ],
)
def test_says_what_is_wrong_with_the_columns(header, options, param, words):
    """All of it, by the option or the line, with the remedy."""
    if not words:
        assert read(f"{header}\na;b;\n").lines
        return
    error = refused(f"{header}\na;b;c\n", **options)

    assert (param, 1 if param == "file" else None) == (error.param, error.line)
    assert [] == [word for word in words if word not in str(error)]
    assert "hunter2" not in str(error)


def test_other_columns_are_ignored_if_somebody_says_so():
    """And named."""
    found = read("user;Fach;Semester\nada;Physik;3\n", ignore_other_columns=True)

    assert [{"user": "ada"}] == [line.cells for line in found.lines]
    assert ["Fach", "Semester"] == found.about["ignored"]


def test_a_group_for_those_without_one():
    """A line's own group stays; groups of a learning platform are others, and are not looked at."""
    assert ["physics", "ml"] == [line["group"] for line in cells("user,group\nada,\nbob,ml\n", group="physics")]
    moodle = "First name,Last name,Groups\nAda,Lovelace,Team 3\n"
    assert [{"user": "Ada Lovelace", "group": "physics"}] == cells(moodle, group="physics")
    several = read(moodle.replace("Team 3", '"Team 3, Team 4"')).lines
    assert "group=NAME" in several[0].problems["group"][0]


def test_names_every_bad_line():
    """With the column, and the number of the first line of each row."""
    text = (
        "user;expires_at;budget_amount\n"
        '"ada\nlovelace";3/4/2037;1.234\n'
        "bob;31.3.37;5;more\n"
        "eve;31.3.2037;5\n"
        'mal"lory;;"x\n'
    )

    problems = {line.number: [*line.problems] for line in read(text).lines}

    assert {2: ["expires_at", "budget_amount"], 4: ["line"], 5: [], 6: ["line"]} == problems


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf \r\n", "empty"),
        (b"sep=;\r\n", "empty"),
        (b"user\n", "nobody"),
        (b"user\n" + b"a\n" * 10_001, "10,000"),
        (b"user" + b",x" * MOST_COLUMNS + b"\n", str(MOST_COLUMNS)),
        (b"user\nAndr\x81\n", "neither UTF-8"),
        ("user\nada".encode("utf-16")[:-1], "UTF-16"),
        (b"\x00\x01\x02\x03" * 100, "text file"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".xls"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "password"),
        (b"\x1f\x8b\x08", "Unpack"),
        (b"<html><table>", "web page"),
        (b"\xef\xbb\xbf<!DOCTYPE html>", "web page"),
        (b"{\\rtf1", "RTF"),
    ],
)
def test_says_what_to_do_with_other_files(body, word):
    """PDF, old Excel, web pages that call themselves .xls, and what is no list."""
    assert word in str(refused(body))


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\u2028\u2029\x85"), max_size=12)
NAME = TEXT.filter(lambda text: text.strip() and text == text.strip())


@given(
    people=st.lists(st.tuples(NAME, TEXT.map(str.strip)), min_size=1, max_size=6),
    separator=st.sampled_from(",;\t"),
    line_end=st.sampled_from(["\r\n", "\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_was_written_is_read(people, separator, line_end, encoding, quoting):
    """Whatever is in the cells."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator=line_end, quoting=quoting)
    writer.writerows([("user", "note"), *people])

    found = read_class_list(file.getvalue().encode(encoding), Options())

    expected = [{"user": user, **({"note": note} if note else {})} for user, note in people]
    assert expected == [line.cells for line in found.lines]
