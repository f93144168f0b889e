"""The overview: what it says, to whom, and where it leads."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import pytest

from llmgateway.records import Batch, Outcome
from llmgateway.web.context import EXTENSION
from llmgateway.web.dashboard.attention import attention
from llmgateway.web.dashboard.forecast import forecast
from llmgateway.web.examples import STATUS
from tests.stores.contract import usage
from tests.stores.refusal_contract import refusal, repeated

HOSTILE = "<script>alert(1)</script>\u202e😀" + "x" * 80


@pytest.fixture(autouse=True)
def _begun(new_key):
    """Without any key, the overview leads to the first steps."""
    new_key(user="somebody")


@pytest.fixture
def use(client):
    """Put records of the last days into the log: a request a day, each for a dollar, and a second one today."""
    services = client.application.extensions[EXTENSION]
    now = datetime.fromtimestamp(services.clock(), UTC).replace(microsecond=0)

    def use(**fields: object) -> datetime:
        common = {"cost_usd": 1.0, "ttft_ms": 300.0, "group": "physics", **fields}
        records = [usage(number, timestamp=now - timedelta(days=number), **common) for number in range(40)]
        records.append(usage(99, timestamp=now, outcome=Outcome.BROKEN, **common))
        services.usage_log.append(records, batch=Batch("a", 1))
        services.refusals.stored.append([repeated(refusal(1, timestamp=now), 3)])
        return now

    return use


def figures(text: str) -> dict[str, str]:
    found = re.findall(r"<small>([^<]*)</small>\s*<p class=\"figure\">(?:<a [^>]*>)?([^<]*)", text)
    return dict(found)


def test_says_how_the_month_goes(owner, call, use):
    now = use()
    call("PUT", "/limits", json={"budget": {"amount": 5000, "unit": "usd", "period": "month"}})

    text = owner.open()

    assert {
        "Spent this month": f"${now.day + 1}.00",
        "Requests today": "2",
        "Refused today": "3",
        "Errors today": "1",
    } == figures(text)
    assert "$5,000 per month" in text
    assert "by the end of the month" in text
    assert "no data" not in text.lower()
    for title in ("Cost per day by model", "Time to first token per day", "Duration per day", "by weekday and hour"):
        assert title in text


def test_an_empty_gateway_has_an_overview(owner):
    text = owner.open()

    assert "Nothing was used in this time." in text
    assert "No data." in text
    assert "by the end of the month" not in text


@pytest.mark.parametrize(("days", "bars"), [("30", "day"), ("90", "day"), ("365", "week"), ("1", "day"), ("x'", "day")])
def test_the_charts_have_a_period(owner, use, days, bars):
    """What is not offered is as good as none."""
    use()

    assert f"Cost per {bars} by model" in owner.open(f"?days={days}")


def test_names_are_text(owner, use):
    use(user=HOSTILE, group=HOSTILE, model=HOSTILE)

    text = owner.open()

    assert "alert(1)" in text
    assert "<script>alert" not in text


def test_an_admin_of_a_group_sees_that_group_alone(named, call, use):
    call("PUT", "/groups/chemistry", json={})
    use()

    text = named("group", "chemistry").open()

    assert {"Spent this month": "$0", "Requests today": "0", "Refused today": "0", "Errors today": "0"} == figures(text)
    assert "physics" not in text
    for title in ("Top people", "What needs attention", "Last alerts"):
        assert title not in text


def test_a_viewer_gets_no_button(named, use):
    use()

    assert "New key" not in named("viewer").open()


@pytest.mark.parametrize(
    ("cost", "today", "expected"),
    [
        # Four weeks of a dollar each day: a dollar for each day of the month.
        ({date(2026, 11, 1) + timedelta(days=n): 1.0 for n in range(-20, 15)}, date(2026, 11, 15), 30.0),
        # Nothing at weekends: 21 of the 30 days are others.
        (
            {day: 1.0 for n in range(-20, 15) if (day := date(2026, 11, 1) + timedelta(days=n)).weekday() < 5},
            date(2026, 11, 15),
            21.0,
        ),
        # Today more than usual.
        (
            {date(2026, 11, 2) + timedelta(days=n): 1.0 for n in range(28)} | {date(2026, 11, 30): 9.0},
            date(2026, 11, 30),
            37.0,
        ),
        ({date(2026, 11, 10): 1.0}, date(2026, 11, 15), None),
        ({}, date(2026, 11, 15), None),
    ],
)
def test_the_forecast_goes_by_weekdays(cost, today, expected):
    """And says nothing if it knows less than a week."""
    assert expected == forecast(cost, today)


def test_what_is_broken_comes_first():
    status = {
        **STATUS,
        "azure_key": "refused",
        "stores": {"sqlite": "is away"},
        "warnings": ["Look at this."],
        "journal": {"records": 9, "oldest_seconds": 3.0, "problem": "full"},
    }

    found = attention(status)

    assert ["bad", "bad", "bad", "warn", "warn", "warn"] == [concern.kind for concern in found]
    assert "limited" in " ".join(concern.text for concern in found)
    assert [] == attention({**STATUS, "deployments": [], "unpriced_models": []})
