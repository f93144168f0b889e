"""``llmgateway reconcile`` in front of a gateway that runs, with traffic against the simulator."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter

import pytest
from click.testing import CliRunner

from llmgateway.cli import main
from llmgateway.simulator import Script, Simulator
from tests.gateway_process import GatewayProcess
from tests.reconcile.samples import SCHEMAS, Charge, metric, table
from tests.servers import free_port, wait_until

AZURE_KEY = "azure-key-of-the-bill"
METERS = {
    "gpt-4o": "gpt 4o 1120 {} glbl Tokens",
    "gpt-4o-mini": "gpt-4o-mini-0718-{}-regnl Tokens",
}


@pytest.fixture(scope="module")
def azure():
    with Simulator(key=AZURE_KEY) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(azure, tmp_path_factory):
    environ = {"LLM_BASE_URL": f"{azure.url}/openai/v1", "LLM_API_KEY": AZURE_KEY}
    with GatewayProcess(environ, folder=tmp_path_factory.mktemp("gateway")) as started:
        yield started


@pytest.fixture(scope="module")
def traffic(gateway, azure):
    """Azure's charges for some plain and streamed answers of two models, all of which are in the reports."""
    key = gateway.key()
    for number in range(4):
        azure.script(Script(tokens=20 + number, cached_tokens=3, reasoning_tokens=5))
        gateway.chat(key, model="gpt-4o" if number % 2 else "gpt-4o-mini", stream=number > 1)
    wait_until(lambda: gateway.admin("GET", "/admin/usage").json()["total"]["requests"] == 4, what="four records")
    (row, *_) = gateway.admin("GET", "/admin/usage?by=day").json()["rows"]
    counted: Counter[tuple[str, str]] = Counter()
    for served in azure.served:
        model = "gpt-4o" if b'"gpt-4o"' in served.body else "gpt-4o-mini"
        counted[model, "Inp"] += served.usage.prompt_tokens - served.usage.cached_tokens
        counted[model, "cached Inp" if model == "gpt-4o" else "cached-Inp"] += served.usage.cached_tokens
        counted[model, "Outp"] += served.usage.completion_tokens
    return [
        Charge(METERS[model].format(word), tokens, day=row["day"], deployment=model)
        for (model, word), tokens in counted.items()
    ]


@pytest.fixture
def run(gateway):
    """Run the command; returns what went to standard output."""

    def run(*arguments, status=0, **environ):
        asked = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url} | environ
        run.result = CliRunner().invoke(main, ["reconcile", *map(str, arguments)], env=asked)
        assert status == run.result.exit_code, run.result.output
        return run.result.stdout

    return run


@pytest.fixture
def save(tmp_path):
    def save(text, name="bill.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", newline="")
        return path

    return save


def without(charges, *, index, tokens):
    return [
        charge._replace(tokens=charge.tokens + tokens if number == index else charge.tokens)
        for number, charge in enumerate(charges)
    ]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_traffic_and_its_bill_agree(run, save, traffic, schema):
    """In every schema, to the token; status 0 also at a threshold of 0."""
    text = run(save(table(traffic, schema)), "--threshold", "0")

    assert "All 6 numbers agree within 0 %." in text
    assert "0.0 %" in text
    assert not re.search(r"[+-]\d+\.\d %", text)


@pytest.mark.parametrize("index", range(6))
def test_a_gap_is_found_where_it_is(run, save, traffic, index):
    """The deployment, the kind and the day; status 1 beyond the threshold, and 0 below it."""
    charges = without(traffic, index=index, tokens=1)
    bill = save(table(charges))

    document = json.loads(run(bill, "--threshold", "0.001", "--json", status=1))

    (gap,) = document["beyond"]
    kind = {"I": "prompt", "c": "cached", "O": "completion"}[
        re.search(r"(Inp|cached|Outp)", charges[index].meter)[0][0]
    ]
    assert (charges[index].deployment, kind, charges[index].day, -1) == (
        gap["name"],
        gap["kind"],
        gap["day"],
        gap["gap"],
    )
    assert f"{gap['percent']:+.1f} %" in run(bill)
    assert f"{gap['day']}  {gap['name']}" in run(bill)
    assert "calls that do not go through the gateway" in " ".join(run(bill).split())
    run(bill, "--threshold", "50")


def test_metrics_agree_too(run, save, traffic, azure):
    """All prompt tokens, cached or not, and completion tokens."""
    counted: Counter[tuple[str, str]] = Counter()
    for charge in traffic:
        name = "GeneratedTokens" if "Outp" in charge.meter else "ProcessedPromptTokens"
        counted[name, charge.deployment] += charge.tokens
    at = f"{traffic[0].day}T12:00:00Z"
    values = [metric(name, {at: tokens}, ModelDeploymentName=of) for (name, of), tokens in counted.items()]

    assert "All 4 numbers agree within 0 %." in run(save(json.dumps({"value": values}), "m.json"), "--threshold", "0")


def test_fits_eighty_columns(run, save, traffic):
    """Whatever the names, and however large the numbers."""
    long = Charge("gpt 4o 1120 Inp glbl Tokens", 10**13, day=traffic[0].day, deployment="x" * 200, cost=1e7, unit="1M")
    unknown = Charge("quasar " * 20, 5, day=traffic[0].day, meter_id="a" * 100)

    text = run(save(table([*traffic, long, unknown]), "b" * 100 + ".csv"))

    assert [] == [line for line in text.splitlines() if len(line) > 80]
    assert "10,000,000,000,000" in text
    assert "Not compared" in text
    assert "quasar" in text


def test_draws_bars_with_what_the_terminal_knows(run, save, traffic):
    """Blocks, or else characters that every terminal has."""
    charges = [*traffic, traffic[0]._replace(deployment="stranger", tokens=1000)]

    text = run(save(table(charges)), PYTHONIOENCODING="utf-8")

    (bar,) = re.findall(rf"^{traffic[0].day}  (\S+) +", text, re.MULTILINE)[:1]
    assert {"█", "░"} == set(bar)


def test_prints_csv(run, save, traffic):
    """A line for each number, and one for each meter that is not known; no cell is a formula."""
    charges = [*traffic, Charge("=quasar()", 5, day=traffic[0].day, cost=2.0)]

    rows = list(csv.DictReader(io.StringIO(run(save(table(charges)), "--csv"))))

    assert 6 == sum(row["kind"] in ("prompt", "cached", "completion") for row in rows)
    assert {"0.0"} == {row["percent"] for row in rows if row["kind"] in ("prompt", "cached", "completion")}
    assert [("'=quasar()", "not compared (1K)", "0.005")] == [
        (row["name"], row["kind"], row["azure"]) for row in rows if row["by"] == "meter"
    ]


def test_reads_a_folder(run, save, traffic, tmp_path):
    """As Azure writes it: parts, and a list of them."""
    (tmp_path / "run").mkdir()
    save(table(traffic[:3]), "run/part_0_0001.csv")
    save(table(traffic[3:]), "run/part_0_0002.csv")
    save('{"blobs": []}', "run/manifest.json")

    assert "All 6 numbers agree" in run(tmp_path, "--threshold", "0")


def test_options_say_what_names_mean(run, save, traffic):
    """A meter that is not known, and a model that has another name there."""
    charges = [charge._replace(deployment=None) for charge in traffic]
    charges[0] = charges[0]._replace(meter="quasar 9", meter_id="id-9")
    charges = [charge._replace(meter=charge.meter.replace("gpt 4o 1120", "gpt 9 nova")) for charge in charges]
    bill = save(table(charges))

    run(bill, "--threshold", "0", status=1)
    meter = f"ID-9={traffic[0].deployment}:prompt"
    assert "All 6 numbers agree" in run(bill, "--threshold", "0", "--meter", meter, "--model", "gpt-4o=gpt-9-nova")


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("", [], "bill.csv: it is empty."),
        ("a,b\n1,2\n", [], "neither an export of costs nor one of metrics"),
        (None, ["--meter", "x"], "METER=MODEL:KIND"),
        (None, ["--model", "x"], "'x' is not NAME=MODEL."),
        (None, ["--threshold", "-1"], "Invalid value for '--threshold'"),
        (None, ["--threshold", "nan"], "Invalid value for '--threshold'"),
    ],
)
def test_ends_with_2_for_what_cannot_be_used(run, save, traffic, text, arguments, expected):
    """A gap is 1, so that scripts can tell."""
    run(save(table(traffic) if text is None else text), *arguments, status=2)

    assert expected in run.result.stderr


def test_ends_with_2_without_a_gateway_or_a_file(run, save, traffic, tmp_path):
    """Nothing was compared."""
    run(save(table(traffic)), status=2, LLMGATEWAY_URL=f"http://127.0.0.1:{free_port()}")
    assert "There is no gateway at" in run.result.stderr
    run(save(table(traffic)), status=2, ADMIN_KEY="wrong-key-of-an-admin")
    assert "AdminKey" in run.result.stderr
    run(tmp_path / "none.csv", status=2)
    (tmp_path / "empty").mkdir()
    run(tmp_path / "empty", status=2)
    assert "there is no file in it that ends with .csv" in run.result.stderr
