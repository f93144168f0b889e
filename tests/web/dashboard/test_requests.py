"""Admins look at requests: a list with filters, one request with its way, and what was refused."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from llmgateway.records import Attempt, Batch, Outcome, moment
from llmgateway.web.context import EXTENSION
from tests.stores.contract import usage
from tests.stores.refusal_contract import refusal

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def services(client):
    return client.application.extensions[EXTENSION]


@pytest.fixture
def store(services, clock):
    """Store records, and refusals."""
    numbers = iter(range(1, 99))

    def store(*items):
        records = [item for item in items if hasattr(item, "outcome")]
        services.usage_log.append(records, batch=Batch("pages", next(numbers)))
        services.refusals.stored.append([item for item in items if not hasattr(item, "outcome")])

    return store


@pytest.fixture
def at(clock):
    """A time some minutes ago."""
    return lambda minutes: moment(clock()) - timedelta(minutes=minutes)


def test_lists_both_kinds_newest_first(owner, store, at):
    store(
        usage(1, timestamp=at(3), user="ada", total_tokens=1234, cost_usd=0.5),
        usage(2, timestamp=at(1), user="bob", outcome=Outcome.UPSTREAM_ERROR, status=429, error_code="capacity"),
        refusal(3, timestamp=at(2), count=7),
    )
    text = owner.open("requests")

    assert ["req_000002", "req_000003", "req_000001"] == re.findall(r'id="r-(\w+)"', text)
    for shown in ("1,234", "$0.50", "429 capacity", "429 key.budget", "7 times"):
        assert shown in text
    assert "No requests." in owner.open("requests?user=nobody")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("user=ada", {"req_000001", "req_000003"}),
        ("kind=refusal", {"req_000003"}),
        ("kind=record&user=ada", {"req_000001"}),
        ("outcome=broken", {"req_000002"}),
        ("status=500", {"req_000002"}),
        ("seconds=2", {"req_000002"}),
        ("seconds=2&user=ada", set()),
        ("model=gpt-4o&group=physics", {"req_000003"}),
        ("code=insufficient_quota", {"req_000003"}),
        ("stream=true", {"req_000002"}),
    ],
)
def test_filters(owner, store, at, query, found):
    store(
        usage(1, timestamp=at(3), user="ada", duration_ms=100),
        usage(2, timestamp=at(2), user="b", outcome=Outcome.BROKEN, status=500, duration_ms=2500, stream=True),
        refusal(3, timestamp=at(1)),
    )

    assert found == set(re.findall(r'id="r-(\w+)"', owner.open(f"requests?{query}")))


def test_pages_with_all_filters(owner, store, at):
    store(*(usage(number, timestamp=at(number), user="ada & bob") for number in range(60)))

    first = owner.open("requests?user=ada+%26+bob")
    (older,) = re.findall(r'href="(\?[^"]*)" rel="next"', first)
    second = owner.open("requests" + older.replace("&amp;", "&"))

    numbers = re.findall(r'id="r-(\w+)"', first) + re.findall(r'id="r-(\w+)"', second)
    assert [f"req_{number:06}" for number in range(60)] == numbers


def test_says_how_far_back_it_has_searched(owner, store, at, monkeypatch):
    monkeypatch.setattr("llmgateway.web.admin.logs.SEARCHED_AT_ONCE", 3)
    store(*(usage(number, timestamp=at(number), region="Sweden" if number == 8 else "East US") for number in range(9)))

    text = owner.open("requests?region=Sweden")
    assert "No match so far." in text
    while not re.search(r'id="r-req_000008"', text):
        (older,) = re.findall(r'href="(\?[^"]*)" rel="next">Search further back', text)
        text = owner.open("requests" + older.replace("&amp;", "&"))


def test_what_was_typed_wrongly_is_shown_again(owner):
    text = owner.open(f"requests?since=yesterday&user={SCRIPT}&status=many", status=422)

    assert 'value="yesterday"' in text
    assert "Must be a time like" in text
    assert "Must be a whole number." in text
    assert SCRIPT not in text


def test_follows(owner, store, at):
    """An answer without news is empty; a request that has ended late is news, too."""
    store(usage(5, timestamp=at(1)))
    text = owner.open("requests?follow=on")
    (seen,) = re.findall(r'hx-headers=.{"X-Seen": "(\w+)"}', text)
    assert 'hx-trigger="every 3s"' in text
    again = {"HX-Request": "true", "X-Seen": seen}
    assert 204 == owner.client.get("/dashboard/requests?follow=on", headers=again).status_code

    store(usage(6, timestamp=at(2)))
    answer = owner.client.get("/dashboard/requests?follow=on", headers=again)
    assert ["req_000005", "req_000006"] == re.findall(r'id="r-(\w+)"', answer.text)
    assert "hx-trigger" not in owner.open("requests")


@pytest.mark.parametrize("wanted", ["req_000001", "azure-1", ' "azure-0" '])
def test_finds_one_by_either_id(owner, store, at, wanted):
    attempts = (Attempt(deployment="east", status=429, upstream_request_id="azure-0"), Attempt(deployment="west"))
    store(usage(1, timestamp=at(1), upstream_request_id="azure-1", attempts=attempts))

    answer = owner.client.get("/dashboard/requests", query_string={"id": wanted})

    assert 303 == answer.status_code
    assert answer.headers["Location"].endswith("requests/req_000001")
    assert "There is no request" in owner.open("requests?id=nothing", status=404)


def test_shows_the_way_of_one(owner, store, at):
    store(
        usage(
            1,
            timestamp=at(1),
            user=SCRIPT,
            stream=True,
            admitted_ms=2.5,
            sent_ms=3.5,
            ttft_ms=400,
            duration_ms=8200,
            limits=("key.requests_per_minute", "group.budget"),
            upstream_request_id="azure-1",
            attempts=(
                Attempt(deployment="east", status=429, error_code="capacity", sent_ms=3.5),
                Attempt(deployment="west", status=200, sent_ms=120, prompt_tokens=7),
            ),
        )
    )
    text = owner.open("requests/req_000001")

    way = re.sub(r"<[^>]+>", "", text[text.index('<ol class="way">') : text.index("</ol>")])
    steps = ["Arrived", "Let in after 2.5 ms", "Sent to east after 3.5 ms", "capacity", "Sent to west after 120 ms"]
    places = [way.index(step) for step in (*steps, "First token after 400 ms", "End after 8.2 s")]
    assert places == sorted(places)
    assert "requests per minute of the key" in text
    assert "azure-1" in text
    assert SCRIPT not in text
    assert "until the first token: 396 ms" in text


def test_of_an_older_record_the_way_is_not_known(owner, store, at):
    store(usage(1, timestamp=at(1)))

    text = owner.open("requests/req_000001")
    assert 2 == text.count('class="missing"')
    assert "Where the time went" not in text


def test_says_of_a_refusal_whose_limit_it_was_and_what_to_do(owner, store, at):
    store(refusal(1, timestamp=at(1), message=f"Too much {SCRIPT}", count=3, last_at=at(0)))

    text = owner.open("requests/req_000001")

    assert "budget of the key" in text
    assert "llmgateway keys set" in text
    assert "3 equal requests" in text
    assert SCRIPT not in text
    assert "no request" in owner.open("requests/req_000009", status=404)


def test_an_admin_of_groups_sees_those_of_the_groups(owner, named, call, store, at):
    call("PUT", "/groups/ml", json={})
    store(usage(1, timestamp=at(1), group="ml"), usage(2, timestamp=at(2)), refusal(3, timestamp=at(3)))
    person = named("group", "ml")

    assert {"req_000001"} == set(re.findall(r'id="r-(\w+)"', person.open("requests")))
    person.open("requests/req_000001")
    person.open("requests/req_000002", status=404)
    assert 404 == person.client.get("/dashboard/requests?id=req_000003").status_code
    assert 403 == named("metrics").client.get("/dashboard/requests").status_code
