"""What reports and single records say about tokens that Azure did not count."""

from __future__ import annotations

import csv

import pytest

from llmgateway.records import Batch, UsageSource
from llmgateway.web.context import EXTENSION
from tests.stores.contract import usage

from .conftest import ADMIN_KEY

ADMIN = {"AdminKey": ADMIN_KEY}
SUMS = ("total_tokens", "estimated_tokens", "bound_tokens")
TOKENS = {UsageSource.UPSTREAM: 1000, UsageSource.ESTIMATED: 200, UsageSource.BOUND: 30, UsageSource.NONE: 0}


@pytest.fixture
def client(make_app):
    """A gateway whose log has, for one key, a record of each source, and one that Azure counted of another key."""
    app = make_app()
    client = app.test_client()
    client.ada = client.post("/admin/keys", json={"user": "ada"}, headers=ADMIN).json
    records = [
        usage(number, usage_source=source, total_tokens=tokens, key_id=client.ada["id"])
        for number, (source, tokens) in enumerate(TOKENS.items())
    ]
    records.append(usage(9, user="bob", total_tokens=4, key_id="key_of_bob"))
    app.extensions[EXTENSION].usage_log.append(records, batch=Batch("a", 1))
    return client


def sums(row):
    return tuple(row[name] for name in SUMS)


def test_reports_how_much_is_estimated_and_bound(client):
    """Rows and total have both sums, and what remains of the total is Azure's own count."""
    report = client.get("/admin/usage?by=user", headers=ADMIN).json

    assert [("ada", 1230, 200, 30), ("bob", 4, 0, 0)] == [(row["user"], *sums(row)) for row in report["rows"]]
    assert (1234, 200, 30) == sums(report["total"])
    assert (1234, 200, 30) == sums(client.get("/admin/usage", headers=ADMIN).json["total"])


def test_spreadsheets_have_both_columns(client):
    """The columns are in CSV, also in rows where they are 0."""
    rows = csv.DictReader(client.get("/admin/usage?by=user&format=csv", headers=ADMIN).text.splitlines())

    assert [("1230", "200", "30"), ("4", "0", "0")] == [sums(row) for row in rows]


def test_users_see_how_much_of_their_usage_is_estimated_and_bound(client):
    """``/v1/me`` has the same sums for each period, of the key alone."""
    me = client.get("/v1/me", headers={"Authorization": f"Bearer {client.ada['key']}"}).json

    assert {"today": (1230, 200, 30), "month": (1230, 200, 30), "total": (1230, 200, 30)} == {
        period: sums(row) for period, row in me["usage"].items()
    }


@pytest.mark.parametrize("source", [source.value for source in UsageSource])
def test_lists_the_records_of_one_source(client, source):
    """``usage_source`` narrows the list down, together with other filters."""
    page = client.get(f"/admin/logs?usage_source={source}&user=ada", headers=ADMIN).json

    assert [(source, TOKENS[source], "ada")] == [
        (record["usage_source"], record["total_tokens"], record["user"]) for record in page["items"]
    ]


def test_refuses_a_source_that_does_not_exist(client):
    """The answer is 422 and names the values that there are."""
    answer = client.get("/admin/logs?usage_source=guessed", headers=ADMIN)

    assert 422 == answer.status_code
    ((problem,),) = answer.json["error"]["errors"].values()
    assert "`upstream`, `estimated`, `bound`, `none`" in problem
