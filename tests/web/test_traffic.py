"""Reports about hours, durations and refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from llmgateway.records import Batch, Outcome
from llmgateway.web.context import EXTENSION
from tests.stores.contract import usage
from tests.stores.refusal_contract import refusal, repeated

from .conftest import ADMIN_KEY

ADMIN = {"AdminKey": ADMIN_KEY}
MONDAY = datetime(2026, 11, 2, 9, 15, tzinfo=UTC)


@pytest.fixture
def client(make_app):
    """A gateway with a hundred requests on a Monday morning, and one on Tuesday."""
    app = make_app()
    records = [
        usage(number, timestamp=MONDAY, ttft_ms=10.0 * number, duration_ms=100.0 * number, group="ml", cost_usd=0.5)
        for number in range(1, 101)
    ]
    records.append(
        usage(900, timestamp=MONDAY + timedelta(days=1), duration_ms=5.0, outcome=Outcome.BROKEN, model="o3")
    )
    services = app.extensions[EXTENSION]
    services.usage_log.append(records, batch=Batch("a", 1))
    services.refusals.stored.append(
        [refusal(1, timestamp=MONDAY), repeated(refusal(2, timestamp=MONDAY, code="model_not_found", group="ml"), 4)]
    )
    return app.test_client()


@pytest.fixture
def get(client):
    return lambda path, **query: client.get(f"/admin/usage/{path}", query_string=query, headers=ADMIN).json


def test_percentiles_are_at_most_15_percent_off(get):
    """Of what was measured; null where nothing was."""
    monday, tuesday = get("latency")["rows"]

    assert (100, 100) == (monday["ttft_ms"]["requests"], monday["duration_ms"]["requests"])
    for name, rank in (("p50", 50), ("p90", 90), ("p99", 99)):
        assert pytest.approx(10 * rank, rel=0.155) == monday["ttft_ms"][name]
        assert pytest.approx(100 * rank, rel=0.155) == monday["duration_ms"][name]
    assert {"day": "2026-11-03", "requests": 1, "ttft_ms": None, "duration_ms": None} == tuesday
    assert 101 == get("latency")["total"]["requests"]
    assert {"requests": 0, "ttft_ms": None, "duration_ms": None} == get("latency", model="nobody's")["total"]
    assert [100] == [day["requests"] for day in get("latency", end="2026-11-02")["rows"]]
    assert [("2026-W45", 101)] == [(row["week"], row["requests"]) for row in get("latency", by="week")["rows"]]
    assert [("2026-11", 101)] == [(row["month"], row["requests"]) for row in get("latency", by="month")["rows"]]
    assert ["2026-11-03"] == [day["day"] for day in get("latency", model="o3")["rows"]]


def test_hours_are_those_of_each_weekday(get):
    report = get("hours")

    assert (7, {24}) == (len(report["requests"]), {len(hours) for hours in report["requests"]})
    assert (100, 1, 101) == (report["requests"][0][9], report["requests"][1][9], sum(map(sum, report["requests"])))
    assert (50.0, 0.0) == (report["cost_usd"][0][9], report["cost_usd"][1][9])
    assert (101, 101) == (report["counted_requests"], report["all_requests"])
    nothing = {"requests": None, "cost_usd": None, "counted_requests": 0, "all_requests": 0}
    assert nothing == get("hours", group="physics")


def test_refusals_are_counted_by_day_and_code(get):
    day = "2026-11-02"
    rows = [{"day": day, "code": "insufficient_quota", "requests": 1}]
    rows.append({"day": day, "code": "model_not_found", "requests": 4})

    assert {"rows": rows, "total": {"requests": 5}} == get("refusals", start=day, end=day)
    assert {"rows": rows[1:], "total": {"requests": 4}} == get("refusals", group="ml")
    assert {"rows": [], "total": {"requests": 0}} == get("refusals", start="2026-11-03")


@pytest.mark.parametrize("query", ["start=2026-11-31", "start=2026-11-02&end=2026-11-01", "tz=utc", "by=hour"])
@pytest.mark.parametrize("path", ["latency", "hours", "refusals"])
def test_refuses_what_it_does_not_know(client, path, query):
    assert 422 == client.get(f"/admin/usage/{path}?{query}", headers=ADMIN).status_code


def test_the_highest_have_the_total_of_all(client):
    """Also where the rows are added up here: by cost centre."""
    for by, rows in (("model", [("gpt-4o", 50.0)]), ("cost_centre,model", [("gpt-4o", 50.0)])):
        report = client.get(f"/admin/usage?by={by}&top=1", headers=ADMIN).json
        assert (rows, 101) == ([(row["model"], row["cost_usd"]) for row in report["rows"]], report["total"]["requests"])
    assert 422 == client.get("/admin/usage?by=model&top=0", headers=ADMIN).status_code
