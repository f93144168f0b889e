"""CSV that a spreadsheet of a country reads as it is: read here as Excel does, by hand."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.records import Batch
from llmgateway.web.context import EXTENSION
from llmgateway.web.tables import READERS, csv_text, rounded_so_that_they_add_up
from tests.stores.contract import usage
from tests.stores.refusal_contract import refusal

SEPARATORS = {"excel-en": ",", "excel-de": ";", "excel-fr": ";", "excel-fi": ";"}
DECIMALS = {"excel-en": ".", "excel-de": ",", "excel-fr": ",", "excel-fi": ","}


def read(text: str, reader: str) -> list[dict[str, str]]:
    """What a spreadsheet of this country finds in the file, which says by its first character that it is UTF-8."""
    assert text.startswith("\ufeff")
    assert "\r\n" in text
    return list(csv.DictReader(io.StringIO(text[1:], newline=""), delimiter=SEPARATORS[reader]))


def number(cell: str, reader: str) -> Decimal:
    """The number that the spreadsheet makes of a cell; fails if it is none, as a text with an apostrophe is none."""
    other = {",": ".", ".": ","}[DECIMALS[reader]]
    assert other not in cell
    return Decimal(cell.replace(DECIMALS[reader], "."))


def test_there_are_readers_for_four_languages():
    assert SEPARATORS.keys() == READERS.keys()


@pytest.mark.parametrize("reader", READERS)
def test_numbers_stay_numbers_and_texts_stay_texts(reader):
    """Also negative ones, and those that Python writes with an exponent."""
    values = [-1.5, 0.00001, 12345678.9, -3, 0.1 + 0.2, 1e15]
    texts = ["=1+1", "+49", "-5", "@x", "\tx", "\rx", "a;=1", "Müller"]
    rows = [{"number": value, "text": text} for value, text in zip(values, texts, strict=False)]
    rows += [{"number": 0, "text": text} for text in texts[len(values) :]]

    found = read(csv_text(rows, ("number", "text"), reader=reader), reader)

    assert [Decimal(repr(value)) for value in values] == [number(row["number"], reader) for row in found[: len(values)]]
    for row in found:
        assert row["text"][0] not in "=+-@\t\r"
        assert ";=" not in row["text"]
    assert "Müller" == found[-1]["text"]


@pytest.mark.parametrize("reader", [None, *READERS])
def test_nothing_yes_no_times_and_lists(reader):
    row = {
        "nothing": None,
        "yes": True,
        "time": datetime(2026, 10, 31, 9, 12, 7, 345000, UTC),
        "text": "2026-10-31T10:12:07.345000+01:00",
        "list": ["=a", "b"],
        "object": {"a": 1},
    }
    text = csv_text([row], tuple(row), reader=reader)
    (found,) = read(text, reader) if reader else csv.DictReader(io.StringIO(text, newline=""))

    times = ("2026-10-31T09:12:07.345000+00:00", "2026-10-31T10:12:07.345000+01:00")
    if reader:
        times = ("2026-10-31 09:12:07", "2026-10-31 10:12:07")
    assert ("", "true", *times, "'=a b", '{"a": 1}') == tuple(found.values())


def test_a_program_gets_all_digits():
    assert '"a","b"\r\n"0.000123","-1.5"\r\n' == csv_text(
        [{"a": 0.000123, "b": -1.5}], ("a", "b"), money={"a": 2, "b": 2}
    )


@given(st.lists(st.one_of(st.none(), st.floats(min_value=-1e6, max_value=1e6, allow_nan=False)), max_size=50))
def test_cents_add_up(amounts):
    """To the rounded sum; and no amount is changed by a cent or more."""
    cents = rounded_so_that_they_add_up(amounts, places=2)

    known = [(amount, cent) for amount, cent in zip(amounts, cents, strict=True) if amount is not None]
    assert [amount is None for amount in amounts] == [cent is None for cent in cents]
    exact = sum((Decimal(repr(amount)) for amount, _ in known), Decimal())
    total = sum((cent for _, cent in known), Decimal())
    assert abs(total - exact) <= Decimal("0.005001")
    assert all(abs(cent - Decimal(repr(amount))) < Decimal("0.010001") for amount, cent in known)
    assert all(cent == cent.quantize(Decimal("0.01")) for _, cent in known)


def test_thirds_add_up():
    """Three people share a dollar."""
    assert [Decimal("0.34"), Decimal("0.33"), Decimal("0.33")] == sorted(
        rounded_so_that_they_add_up([1 / 3] * 3, places=2), reverse=True
    )
    assert "0.30" == str(sum(rounded_so_that_they_add_up([0.1, 0.1, 0.1], places=2)))


@pytest.fixture
def books(client):
    """A gateway with the usage of three people, who share a dollar."""
    services = client.application.extensions[EXTENSION]
    records = [
        usage(number, user=user, cost_usd=1 / 3, total_tokens=1000, duration_ms=12.5, error_code="=x")
        for number, user in enumerate(["ada", "=bob", "Zoë"])
    ]
    services.usage_log.append(records, batch=Batch("a", 1))
    services.refusals.stored.append([refusal(1, message="=1+1", user="Zoë"), refusal(2)])
    return client


@pytest.mark.parametrize("reader", READERS)
def test_a_report_adds_up_in_cents(books, admin, call, reader):
    """Three thirds of a dollar are a dollar, in the sum of the column too; the JSON is as it was."""
    answer = books.get(f"/admin/usage?by=user&format=csv&for={reader}", headers=admin)

    rows = read(answer.get_data(as_text=True), reader)
    assert "text/csv" == answer.mimetype
    assert ["'=bob", "Zoë", "ada"] == sorted(row["user"] for row in rows)
    costs = [number(row["cost_usd"], reader) for row in rows]
    assert (Decimal("1.00"), {-2}) == (sum(costs), {cost.as_tuple().exponent for cost in costs})
    assert {"1000"} == {row["total_tokens"] for row in rows}
    assert 1.0 == call("GET", "/usage")["total"]["cost_usd"]


@pytest.mark.parametrize("reader", READERS)
def test_logs_and_refusals_as_csv(books, admin, reader):
    """Every field has a column; both kinds together have all columns."""
    for kind, count in (("record", 3), ("refusal", 2), ("all", 5)):
        answer = books.get(f"/admin/logs?kind={kind}&format=csv&for={reader}", headers=admin)
        rows = read(answer.get_data(as_text=True), reader)
        items = books.get(f"/admin/logs?kind={kind}", headers=admin).json["items"]

        assert count == len(rows) == len(items)
        assert {name for item in items for name in item} == set(rows[0])
        for row, item in zip(rows, items, strict=True):
            assert (item["kind"], item["id"]) == (row["kind"], row["id"])
            assert row["timestamp"] == item["timestamp"][:19].replace("T", " ")
        if kind != "refusal":
            assert {Decimal("12.5")} == {number(row["duration_ms"], reader) for row in rows if row["kind"] == "record"}


@pytest.mark.parametrize("reader", ["", *READERS])
def test_keys_as_csv(client, admin, new_key, reader):
    """With the columns that an import reads, page by page."""
    limits = {"requests_per_minute": 30, "budget": {"amount": 2.5, "unit": "usd", "period": "month"}}
    made = [new_key(user=user, limits=limits, models=["gpt-4o", "gpt-4o-mini"]) for user in ("ada", "=bob", "Zoë")]
    first = client.get(f"/admin/keys?format=csv&limit=2{reader and f'&for={reader}'}", headers=admin)
    cursor = first.headers["x-next-cursor"]
    second = client.get(f"/admin/keys?format=csv&cursor={cursor}{reader and f'&for={reader}'}", headers=admin)

    texts = [each.get_data(as_text=True) for each in (first, second)]
    rows = [
        row
        for text in texts
        for row in (read(text, reader) if reader else csv.DictReader(io.StringIO(text, newline="")))
    ]
    assert "x-next-cursor" not in second.headers
    made.sort(key=lambda key: key["id"])
    assert [key["id"] for key in made] == [row["id"] for row in rows]
    assert {"ada", "'=bob", "Zoë"} == {row["user"] for row in rows}
    amount = "2,5" if reader and DECIMALS[reader] == "," else "2.5"
    expected = ("30", amount, "usd", "month", "true", "gpt-4o gpt-4o-mini")
    names = ("requests_per_minute", "budget_amount", "budget_unit", "budget_period", "active", "models")
    assert {expected} == {tuple(row[name] for name in names) for row in rows}
    assert all(key["key"] not in text for key in made for text in texts)


def test_a_reader_that_is_not_known_is_refused(client, call):
    for path in ("usage", "logs", "keys"):
        errors = call("GET", f"/{path}?format=csv&for=excel-xx", status=422)["error"]["errors"]
        assert "excel-de" in json.dumps(errors["for"])
        assert "for" in call("GET", f"/{path}?for=excel-de", status=422)["error"]["errors"]
        assert "format" in call("GET", f"/{path}?format=xml", status=422)["error"]["errors"]


def test_a_report_of_one_person(books, call):
    """Or of one group, or key."""
    assert 1000 == call("GET", "/usage?user=Zo%C3%AB")["total"]["total_tokens"]
    assert 0 == call("GET", "/usage?user=zo%C3%AB")["total"]["total_tokens"]
    assert 3000 == call("GET", "/usage?key=key_0001")["total"]["total_tokens"]
    assert 0 == call("GET", "/usage?group=physics")["total"]["total_tokens"]
