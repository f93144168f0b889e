"""Numbers and days in the notations of several countries; what can mean two things is refused with a remedy."""

from __future__ import annotations

from datetime import datetime

import pytest

from llmgateway.class_lists.cells import Ambiguous, Dates, Numbers, text_of, truth_of, word_of

DAY = datetime(2037, 3, 31)  # noqa: DTZ001 - as a workbook has it
"""A cell with a day."""


def number(text, *, others=(), separator=";", told=None):
    return Numbers.of_file([text, *others], separator=separator, told=told).read(text)


@pytest.mark.parametrize("separator", [";", ",", "\t", None])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", "5"),
        ("-3", "-3"),
        ("12,50", "12.50"),
        ("12.50", "12.50"),
        ("0,125", "0.125"),
        ("1234,567", "1234.567"),
        ("1.234,56", "1234.56"),
        ("1,234.56", "1234.56"),
        ("1.234.567", "1234567"),
        ("1,234,567.8", "1234567.8"),
        ("1 234,50", "1234.50"),
        ("1\u202f234\u00a0567,5", "1234567.5"),
        ("1'234.50", "1234.50"),
        (12.0, "12"),
        (12.5, "12.5"),
        (7, "7"),
    ],
)
def test_numbers_that_are_clear(text, expected, separator):
    """Whatever separates the cells."""
    assert expected == number(text, separator=separator)


@pytest.mark.parametrize("text", ["many", "1,23,4", "12,5,0", "1.23.456", "5 €", "--5", "1e9", ""])
def test_what_is_no_number_stays(text):
    """The schema says what is wrong with it."""
    assert text == number(text)


@pytest.mark.parametrize(
    ("text", "separator", "others", "told", "expected"),
    [
        ("1,234", ";", (), None, "1.234"),  # the decimal sign of those who write semicolons
        ("1.234", ",", (), None, "1.234"),
        ("1.234", ";", ("12,50",), None, "1234"),  # another cell shows the notation
        ("1,234", ",", ("12.50",), None, "1234"),
        ("1.234", "\t", ("1.000,5",), None, "1234"),
        ("1.234", ";", (), ",", "1234"),
        ("1.234", ";", (), ".", "1.234"),
    ],
)
def test_numbers_that_the_file_makes_clear(text, separator, others, told, expected):
    """By its separator, by another number, or because somebody says so."""
    assert expected == number(text, separator=separator, others=others, told=told)


@pytest.mark.parametrize(
    ("text", "separator", "others"),
    [("1.234", ";", ()), ("1,234", ",", ()), ("1.234", "\t", ()), ("1,234", None, ()), ("1.234", ";", ("1,5", "1.5"))],
)
def test_numbers_that_can_be_two(text, separator, others):
    """They are refused; the message says how to write each."""
    with pytest.raises(Ambiguous, match=r"can be 1234 or 1\.234.*decimal=comma"):
        number(text, separator=separator, others=others)


def day(cell, *, others=(), told=None):
    return Dates.of_file([cell, *others], told=told).read(cell)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2037-03-31", "2037-03-31"),
        ("2037-3-1", "2037-03-01"),
        ("2037/03/31", "2037-03-31"),
        ("31.03.2037", "2037-03-31"),
        ("1.3.2037", "2037-03-01"),
        ("1. 3. 2037", "2037-03-01"),
        ("3/31/2037", "2037-03-31"),
        ("31/3/2037", "2037-03-31"),
        ("31-03-2037", "2037-03-31"),
        ("3/3/2037", "2037-03-03"),
        (DAY, "2037-03-31"),
        ("2037-03-31T22:00:00Z", "2037-03-31T22:00:00Z"),
        ("2037-03-31 22:00:00+02:00", "2037-03-31 22:00:00+02:00"),
        ("soon", "soon"),
    ],
)
def test_days_that_are_clear(cell, expected):
    assert expected == day(cell)


@pytest.mark.parametrize(
    ("others", "told", "expected"),
    [
        (("31/12/2036",), None, "2037-04-03"),
        (("12/31/2036",), None, "2037-03-04"),
        ((), "dmy", "2037-04-03"),
        ((), "mdy", "2037-03-04"),
    ],
)
def test_days_that_the_file_makes_clear(others, told, expected):
    """By another day in it, or because somebody says so."""
    assert expected == day("3/4/2037", others=others, told=told)


@pytest.mark.parametrize(
    ("cell", "others", "told", "word"),
    [
        ("3/4/2037", (), None, "can be 2037-04-03 or 2037-03-04"),
        ("3/4/2037", ("31/12/2036", "12/31/2036"), None, "dates=dmy"),
        ("31/12/2036", (), "mdy", "no month where"),
        ("31.3.37", (), None, "all four"),
        ("31/3/37", (), None, "all four"),
        ("46477", (), None, "how Excel stores a day"),
        (46477, (), None, "Format the column as a date"),
        (46477.5, (), None, "Excel"),
        ("31.13.2037", (), None, "no day"),
        ("2037-02-30", (), None, "no day"),
        ("31.03.2037 14:30", (), None, "without a zone"),
        (DAY.replace(hour=14), (), None, "without a zone"),
    ],
)
def test_days_that_are_not_clear(cell, others, told, word):
    """They are refused, with what to write instead."""
    with pytest.raises(Ambiguous, match=word):
        day(cell, others=others, told=told)


def test_words_of_four_languages():
    """For what is true, for units and for periods."""
    assert ["true"] * 5 == [truth_of(cell) for cell in ("WAHR", "Vrai", "tosi", "ja", True)]
    assert ["false"] * 4 == [truth_of(cell) for cell in ("FALSCH", "faux", "EPÄTOSI", False)]
    assert ["month"] * 4 == [word_of(cell) for cell in ("Monat", "mois", "KUUKAUSI", "month")]
    assert ("vielleicht", "eur") == (truth_of("vielleicht"), word_of("eur"))


def test_cells_of_a_workbook_as_text():
    """A number is written as people see it."""
    assert ["4711", "1.5", "true", "2037-03-31"] == [text_of(cell) for cell in (4711.0, 1.5, True, DAY)]
