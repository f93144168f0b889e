"""CSV at the command line, and what a user has seen, found from a terminal."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from llmgateway.cli import client as client_module
from llmgateway.cli import main
from llmgateway.cli.reports import _month
from llmgateway.simulator import Simulator
from tests.gateway_process import GatewayProcess
from tests.servers import wait_until

AZURE_KEY = "azure-key-of-the-csv-tests"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with Simulator(key=AZURE_KEY) as azure:
        environ = {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": AZURE_KEY}
        with GatewayProcess(environ, folder=tmp_path_factory.mktemp("gateway")) as started:
            yield started


@pytest.fixture
def run(gateway):
    def run(*arguments: str, status: int = 0) -> str:
        asked = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url}
        run.result = CliRunner().invoke(main, arguments, env=asked)
        assert status == run.result.exit_code, run.result.output
        return run.result.stdout

    return run


@pytest.fixture(scope="module")
def refused(gateway):
    """The answer to a request of Ada, who has asked for a model that her key may not use; and one that succeeded."""
    key = gateway.key(user="ada", group="physics", models=["gpt-4o-mini"])
    assert 200 == gateway.chat(key).status
    return gateway.chat(key, model="gpt-4o")


def test_an_error_is_shown_by_its_id(run, refused):
    """With what to do about it, in words that can be pasted."""
    id_ = refused.header("x-request-id")
    shown = run("logs", "show", id_)
    assert "model_not_allowed" in shown
    assert "llmgateway keys set key_" in shown
    found = json.loads(run("logs", "show", id_, "--json"))
    assert (id_, "refusal", "ada", "physics") == tuple(found[name] for name in ("id", "kind", "user", "group"))
    run("logs", "show", "nothing", status=1)
    assert "try again after some seconds" in run.result.output


def test_refusals_are_listed_with_their_code(run, refused):
    wait_until(lambda: "model_not_allowed" in run("logs", "list", "--refusals"), what="the refusal")

    head, row = run("logs", "list", "--refusals", "--user", "ada", "--code", "model_not_allowed").splitlines()
    assert {"CODE", "LIMIT", "COUNT"} <= set(head.split())
    assert {"model_not_allowed", "403", "ada"} <= set(row.split())
    for options in (("--group", "chemistry"), ("--code", "overloaded"), ("--until", "2026-01-01"), ("--key", "key_9")):
        assert [] == json.loads(run("logs", "list", "--refusals", *options, "--json"))
    found = json.loads(run("logs", "list", "--id", refused.header("x-request-id"), "--refusals", "--json"))
    assert ["model_not_allowed"] == [each["code"] for each in found]


def test_both_kinds_are_listed_together(run, refused):
    kinds = lambda: {each["kind"] for each in json.loads(run("logs", "list", "--everything", "--json"))}  # noqa: E731
    wait_until(lambda: {"record", "refusal"} == kinds(), what="both")

    listed = [line.split()[3] for line in run("logs", "--everything", "--user", "ada").splitlines()[1:]]
    assert ["refusal", "record"] == listed
    assert "ERROR_CODE" in run("logs").splitlines()[0]


@pytest.mark.parametrize("command", [("keys", "list"), ("logs", "list"), ("usage", "--by", "user")], ids=" ".join)
def test_csv_for_a_country_and_for_programs(run, refused, command):
    wait_until(lambda: "ada" in run("logs", "list", "--csv"), what="the record")
    german, plain = run(*command, "--for", "excel-de"), run(*command, "--csv")

    assert german.startswith("\ufeff")
    assert not plain.startswith("\ufeff")
    (row, *_) = csv.DictReader(io.StringIO(german[1:]), delimiter=";")
    (same, *_) = csv.DictReader(io.StringIO(plain))
    assert row.keys() == same.keys()
    assert row["user"] == same["user"] == "ada"


def test_all_pages_are_one_table(run, gateway, monkeypatch):
    """One header, one byte order mark, and a line for each key."""
    for number in range(5):
        gateway.key(user=f"many-{number}")
    monkeypatch.setattr(client_module, "PAGE", 2)

    for reader, mark in (("--csv", ""), ("--for=excel-fi", "\ufeff")):
        text = run("keys", "list", reader)
        lines = text.splitlines()
        assert mark == text[: len(mark)]
        assert 1 == text.count('"tokens_per_minute"')
        assert text.count("\ufeff") == len(mark)
        assert {f"many-{number}" for number in range(5)} <= {line.replace(";", ",").split('","')[1] for line in lines}


def test_what_one_person_has_used_this_month(run, refused):
    wait_until(lambda: json.loads(run("usage", "--user", "ada", "--this-month", "--json"))["total"]["requests"] == 1)

    assert 0 == json.loads(run("usage", "--user", "ada", "--last-month", "--json"))["total"]["requests"]
    assert 0 == json.loads(run("usage", "--user", "Ada", "--this-month", "--json"))["total"]["requests"]
    assert 1 == json.loads(run("usage", "--group", "physics", "--json"))["total"]["requests"]
    run("usage", "--this-month", "--start", "2026-01-01", status=2)
    assert "or a month" in run.result.output


@pytest.mark.parametrize(
    ("now", "zone", "this", "last"),
    [
        ("2026-03-31T22:30:00", "UTC", ("2026-03-01", "2026-03-31"), ("2026-02-01", "2026-02-28")),
        ("2026-03-31T22:30:00", "Europe/Berlin", ("2026-04-01", "2026-04-30"), ("2026-03-01", "2026-03-31")),
        ("2028-03-01T02:00:00", "America/New_York", ("2028-02-01", "2028-02-29"), ("2028-01-01", "2028-01-31")),
    ],
)
def test_months_are_those_of_the_organisation(now, zone, this, last):
    class Remote:
        def call(self, *_):
            return {"timezone": zone}

    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert [this, last] == [_month(Remote(), before, now=moment) for before in (0, 1)]
