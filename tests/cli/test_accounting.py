"""Reports and statements for accounting from a terminal, in front of a gateway that runs."""

from __future__ import annotations

import csv
import json
import time

import pytest
import requests
from click.testing import CliRunner

from llmgateway.cli import main
from llmgateway.simulator import Simulator
from tests.gateway_process import GatewayProcess
from tests.servers import wait_until

MONTH = time.strftime("%Y-%m", time.gmtime())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway that the group ``ml`` has used once."""
    with Simulator(key="azure-key-of-accounting") as azure:
        environ = {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": "azure-key-of-accounting"}
        with GatewayProcess(environ, folder=tmp_path_factory.mktemp("gateway")) as started:
            yield started


@pytest.fixture(scope="module")
def run(gateway):
    def run(*arguments: str, status: int = 0) -> str:
        asked = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url}
        run.result = CliRunner().invoke(main, arguments, env=asked)
        assert status == run.result.exit_code, run.result.output
        return run.result.stdout

    return run


@pytest.fixture(scope="module")
def used(gateway, run):
    run("groups", "set", "ml", "--cost-centre", "4711")
    key = run("keys", "add", "ada", "--group", "ml").split()[-1]
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    answer = requests.post(
        f"{gateway.url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=30
    )
    assert 200 == answer.status_code
    wait_until(lambda: json.loads(run("usage", "--json"))["total"]["requests"], what="the record in the report")


def told(run, *arguments: str):
    return json.loads(run(*arguments, "--json"))


def test_the_second_currency(run):
    """Set with its rates, added to, shown and removed; a currency is replaced on demand only."""
    run("currency", "show")
    assert "currency set EUR" in run.result.stderr
    assert {"code": "EUR", "rates": {"2026-10": 0.92}} == told(run, "currency", "set", "EUR", "--rate", "2026-10=0.92")
    run("currency", "set", "--rate", "2026-11=0.93", "--rate", "2026-10=none")
    assert ["MONTH    RATE  CURRENCY", "2026-11  0.93  EUR"] == run("currency", "show").splitlines()
    run("currency", "set", "CHF", status=1)
    assert "needs --replace" in run.result.stderr
    assert {"code": "CHF", "rates": {}} == told(run, "currency", "set", "CHF", "--replace")
    run("currency", "remove", status=2)
    assert "--yes" in run.result.stderr
    run("currency", "remove", "--yes")
    assert told(run, "currency", "show")["code"] is None
    for rate in ("2026-10", "2026-10=0,92", "=1", "2026-10=-1"):
        run("currency", "set", "EUR", "--rate", rate, status=2)


def test_reports(run, used):
    """By week and cost centre, in UTC, and in a second currency."""
    run("currency", "set", "EUR", "--rate", f"{MONTH}=2", "--replace")

    table = run("usage", "--by", "week,cost_centre", "--tz", "utc", "--currency", "EUR")
    report = told(run, "usage", "--by", "week,cost_centre", "--tz", "utc", "--currency", "EUR")

    assert ["WEEK", "COST_CENTRE", "REQUESTS", "TOTAL_TOKENS", "COST_USD", "COST", "CURRENCY", "ERRORS"] == (
        table.splitlines()[0].split()
    )
    (row,) = report["rows"]
    assert "4711" == row["cost_centre"]
    assert row["cost"] == pytest.approx(2 * row["cost_usd"])
    assert "EUR" in run("usage", "--currency", "EUR", "--csv")


def test_statements(run, used, tmp_path):
    """As a table, as JSON, as CSV, and as a page in a file."""
    run("currency", "set", "EUR", "--rate", f"{MONTH}=2", "--replace")
    page = tmp_path / "ml.html"

    assert "ada" in run("groups", "statement", "ml", "--month", MONTH)
    assert "at 2 for a US dollar" in run.result.stderr
    assert "can still rise" in run.result.stderr
    assert ["ada"] == [line["user"] for line in told(run, "groups", "statement", "ml", "--month", MONTH)["persons"]]
    assert "" == run("groups", "statement", "ml", "--month", MONTH, "--format", "html", "-o", str(page))
    assert page.read_text().startswith("<!DOCTYPE html>")
    (line,) = csv.DictReader(run("statement", "--month", MONTH, "--format", "csv").splitlines())
    assert ("ml", "4711", "1") == (line["group"], line["cost_centre"], line["requests"])
    assert ["GROUP", "COST_CENTRE", "REQUESTS", "TOTAL_TOKENS", "COST_USD", "COST"] == (
        run("statement", "--month", MONTH).splitlines()[0].split()
    )


def test_a_statement_without_a_rate_says_how_to_set_it(run, used):
    """With the command."""
    run("currency", "set", "EUR", "--replace")

    run("statement", "--month", MONTH)

    assert f"llmgateway currency set --rate {MONTH}=RATE" in run.result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (("statement", "--month", "2026-13"), 1, "Must be a month like 2026-10."),
        (("groups", "statement", "nobody", "--month", "2026-01"), 1, "no such group"),
        (("statement",), 2, "--month"),
        (("statement", "--month", MONTH, "-o", "x.html"), 2, "--format html"),
        (("statement", "--month", MONTH, "--format", "csv", "-o", "/proc/nothing/x.csv"), 2, "cannot be written"),
        (("usage", "--tz", "Europe/Berlin"), 2, "utc"),
        (("usage", "--currency", "XYZ"), 1, "llmgateway currency set"),
    ],
)
def test_says_what_is_wrong(run, arguments, status, problem):
    run(*arguments, status=status)

    assert problem in run.result.stderr
