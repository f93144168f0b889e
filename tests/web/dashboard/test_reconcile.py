"""An export of Azure's is dropped on the page, and compared."""

from __future__ import annotations

import io

import pytest

from llmgateway.records import Batch, moment
from llmgateway.web.context import EXTENSION
from tests.reconcile.samples import Charge, table
from tests.stores.contract import usage

SCRIPT = "<script>alert(1)</script>"


def bill(name: str = "gpt-4o-mini") -> bytes:
    return table([Charge("gpt-4o-mini-0718-Inp-glbl", 1000, day="2026-10-30", deployment=name, cost=1.5)]).encode()


@pytest.fixture
def compare(owner):
    def compare(content: bytes, name: str = "october.csv", *, status: int = 200, **fields: str) -> str:
        files = {"file": (io.BytesIO(content), name)} if name else {}
        return owner.send("reconcile", status=status, **files, **fields).text

    return compare


def test_shows_the_gap_by_day_and_deployment(client, compare):
    services = client.application.extensions[EXTENSION]
    at = moment(1_793_361_600.0)  # 2026-10-30T12:00Z
    services.usage_log.append(
        [usage(1, timestamp=at, deployment="gpt-4o-mini", prompt_tokens=400)], batch=Batch("a", 1)
    )

    text = compare(bill(), threshold="1")

    assert "30 Oct 2026" in text
    assert "-600" in text
    assert "-60.00" in text
    assert "calls that do not go through the gateway" in text
    assert "gpt-4o-mini: prompt tokens per day" in text


def test_names_of_azure_are_text(compare):
    text = compare(bill(SCRIPT), f"{SCRIPT}.csv")

    assert "&lt;script&gt;" in text
    assert SCRIPT not in text


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        (b"", {}, "it is empty"),
        (f"{SCRIPT},b\n1,2\n".encode(), {}, "neither an export of costs nor one of metrics"),
        (bill(), {"threshold": "much"}, "Must be a number of per cent"),
        (bill(), {"model": f"{SCRIPT}\nteam=gpt-4o"}, "is not NAME=MODEL"),
    ],
)
def test_says_what_is_wrong_and_keeps_what_was_typed(compare, content, fields, said):
    text = compare(content, status=422, **fields)

    assert said in text
    assert SCRIPT not in text
    if "threshold" in fields:
        assert 'value="much"' in text
    if "model" in fields:
        assert "team=gpt-4o" in text


def test_a_form_without_a_file_is_asked_for_one(owner):
    answer = owner.client.post(
        "/dashboard/reconcile",
        data={"threshold": "1"},
        content_type="multipart/form-data",
        headers={"Sec-Fetch-Site": "same-origin"},
    )
    assert 422 == answer.status_code
    assert "Choose a file" in answer.text
    assert "form" in owner.send("reconcile", status=415).text


def test_is_for_those_who_see_everything(named, call, owner):
    call("PUT", "/groups/ml", json={})
    person = named("group", "ml")

    assert "whole organisation" in person.open("reconcile", status=403)
    person.send("reconcile", status=403)
    assert "Reconcile" not in person.open("requests")
    assert "Reconcile" in owner.open("requests")
    named("viewer").open("reconcile")
