"""Reports by cost centre and in a second currency."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from llmgateway.records import Group, ReportQuery, UsageRow
from llmgateway.usage.currency import Currency
from llmgateway.usage.report import report

EURO = Currency("EUR", {"2026-09": 0.5, "2026-10": 0.25})
GROUPS = {
    name: Group(name=name, created_at=datetime(2026, 9, 1, tzinfo=UTC), cost_centre=centre)
    for name, centre in {"maths": "4711", "physics": "4711", "art": None}.items()
}


class Log:
    """A usage log that answers with these rows, and notes what it was asked for."""

    def __init__(self, *rows: tuple[dict[str, str | None], float]) -> None:
        self._rows = rows
        self.asked: list[ReportQuery] = []

    def report(self, query: ReportQuery) -> list[UsageRow]:
        self.asked.append(query)
        return [
            UsageRow(by={name: by[name] for name in query.by}, requests=1, cost_usd=cost) for by, cost in self._rows
        ]


def shown(log: Log, by: tuple[str, ...], currency: Currency | None = None) -> tuple[list[dict[str, Any]], Any]:
    rows, total = report(log.report, ReportQuery(by=by), groups=GROUPS, currency=currency)
    return [row.as_json(currency) for row in rows], total.as_json(currency)


def test_a_report_in_dollars_is_that_of_the_log():
    """It is asked for no more than is shown."""
    log = Log(({"month": "2026-10"}, 1.0))
    rows, total = shown(log, ("month",))

    assert ("month",) == tuple(log.asked[0].by)
    assert ("2026-10", 1.0) == (rows[0]["month"], rows[0]["cost_usd"])
    assert "cost" not in rows[0]
    assert "cost" not in total


def test_cost_centres_are_those_of_the_groups():
    """Sorted, a missing one first: that of a group without one, of one that is gone, and of no group."""
    log = Log(*(({"group": name, "month": "2026-10"}, 1.0) for name in (None, "art", "gone", "maths", "physics")))
    rows, total = shown(log, ("month", "cost_centre"))

    assert [("2026-10", None, 3), ("2026-10", "4711", 2)] == [
        (row["month"], row["cost_centre"], row["requests"]) for row in rows
    ]
    assert ["month", "cost_centre", "requests"] == list(rows[0])[:3]
    assert 5 == total["requests"]


@pytest.mark.parametrize("by", [("cost_centre",), ("group", "cost_centre"), ("cost_centre", "group")])
def test_a_cost_centre_is_one_of_several_groupings(by):
    """In the order that is asked for."""
    rows, _ = shown(Log(({"group": "maths"}, 1.0)), by)

    assert list(by) == list(rows[0])[: len(by)]
    assert "4711" == rows[0]["cost_centre"]


def test_each_month_has_its_rate():
    """Also if rows are not those of months."""
    log = Log(
        ({"month": "2026-09", "user": "ada"}, 4.0),
        ({"month": "2026-10", "user": "ada"}, 4.0),
        ({"month": "2026-10", "user": "bob"}, 1.0),
    )
    rows, total = shown(log, ("user",), EURO)

    assert [("ada", 8.0, 3.0, []), ("bob", 1.0, 0.25, [])] == [
        (row["user"], row["cost_usd"], row["cost"], row["months_without_rate"]) for row in rows
    ]
    assert (9.0, 3.25, "EUR") == (total["cost_usd"], total["cost"], total["currency"])
    assert (3.25,) == tuple(row["cost"] for row in shown(log, (), EURO)[0])


def test_days_have_the_rate_of_their_month():
    """The log is not asked for months, too: a day tells."""
    log = Log(({"day": "2026-09-30"}, 4.0), ({"day": "2026-10-01"}, 4.0), ({"day": "2026-11-01"}, 4.0))
    rows, total = shown(log, ("day",), EURO)

    assert ("day",) == tuple(log.asked[0].by)
    assert [2.0, 1.0, None] == [row["cost"] for row in rows]
    assert ["2026-11"] == total["months_without_rate"]


def test_a_month_without_a_rate_is_named_where_it_is_missing():
    """In its rows and in the total, and not in others."""
    log = Log(
        ({"month": "2026-10", "user": "ada"}, 4.0),
        ({"month": "2026-12", "user": "bob"}, 1.0),
        ({"month": "2026-11", "user": "bob"}, 1.0),
        ({"month": "2027-01", "user": "eve"}, 0.0),
    )
    rows, total = shown(log, ("user",), EURO)

    assert [("ada", 1.0, []), ("bob", None, ["2026-11", "2026-12"]), ("eve", 0.0, [])] == [
        (row["user"], row["cost"], row["months_without_rate"]) for row in rows
    ]
    assert (None, ["2026-11", "2026-12"]) == (total["cost"], total["months_without_rate"])
