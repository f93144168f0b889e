"""The bill of what was served, as Azure's exports and metrics have it."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from datetime import date

import pytest
import requests
from openai import OpenAI

from llmgateway.simulator import DEFAULT_KEY, Deployment, Script, Simulator
from llmgateway.simulator.bills import METRICS, meter_name, write_export, write_metrics
from llmgateway.simulator.meter import TOKEN_KINDS, Charge
from llmgateway.simulator.recordings import silent_wav

from .calls import CHAT, HELLO, STREAM, call

SCHEMAS = ("ea_actual", "ea_2024", "mca", "focus")
QUANTITY = {"ea_actual": "Quantity", "ea_2024": "Quantity", "mca": "quantity", "focus": "PricingQuantity"}
UNIT = {"ea_actual": "UnitOfMeasure", "ea_2024": "UnitOfMeasure", "mca": "unitOfMeasure", "focus": "PricingUnit"}
METER = {"ea_actual": "MeterName", "ea_2024": "MeterName", "mca": "meterName", "focus": "x_SkuMeterName"}
TAGS = {"ea_actual": "Tags", "ea_2024": "Tags", "mca": "tags", "focus": "Tags"}
SIZES = {"1K": 1_000, "1M": 1_000_000}
DEPLOYMENTS = (
    Deployment("course", model="gpt-4o-2024-11-20"),
    Deployment("ours", model="gpt-4o-mini-2024-07-18", scope="regional"),
    Deployment("ptu", model="gpt-4o-2024-11-20", provisioned=True),
    "o4-mini",
    "text-embedding-3-small",
    "gpt-image-1",
    "whisper",
    "gpt-4o-mini-transcribe",
    Deployment("tts", model="tts-1"),
)


@pytest.fixture
def azure(clock):
    with Simulator(deployments=DEPLOYMENTS, clock=clock) as simulator:
        yield simulator


@pytest.fixture
def busy(azure, clock):
    """A resource that has served everything, on two days."""
    azure.script(Script(cached_tokens=3))
    azure.script(Script(cut_after_events=4))
    azure.script(Script(fault="content_filter"))
    call(azure, {**CHAT, "model": "course"})
    call(azure, {**STREAM, "model": "course"})
    call(azure, {**CHAT, "model": "course"})
    clock.advance(86_400)
    call(azure, {**CHAT, "model": "course", "service_tier": "priority"})
    call(azure, {**CHAT, "model": "ours"})
    call(azure, {**CHAT, "model": "ptu"})
    call(azure, {**CHAT, "model": "o4-mini"})
    call(azure, {**CHAT, "model": "nobody"})
    with OpenAI(base_url=f"{azure.url}/openai/v1", api_key=DEFAULT_KEY, max_retries=0) as client:
        client.embeddings.create(model="text-embedding-3-small", input="hello there")
        client.images.generate(model="gpt-image-1", prompt="a red cat")
        for model in ("whisper", "gpt-4o-mini-transcribe"):
            client.audio.transcriptions.create(model=model, file=("talk.wav", silent_wav(36.0), "audio/wav"))
        client.audio.speech.create(model="tts", input="hello", voice="alloy")
    azure.wait_for(lambda _: not azure.in_progress)
    return azure


def tokens_of(paths, schema: str) -> Counter[str]:
    """The tokens of each meter."""
    found: Counter[str] = Counter()
    for path in paths:
        for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))):
            if row[UNIT[schema]] in SIZES and row[METER[schema]].endswith("Tokens"):
                found[row[METER[schema]]] += round(float(row[QUANTITY[schema]]) * SIZES[row[UNIT[schema]]], 3)
    return found


EXPECTED = {
    "gpt 4o 1120 Inp glbl Tokens": 5 + 8 + 8,
    "gpt 4o 1120 cached Inp glbl Tokens": 3,
    "gpt 4o 1120 Outp glbl Tokens": 4 + 2,
    "gpt 4o 1120 Inp PP glbl Tokens": 8,
    "gpt 4o 1120 Outp PP glbl Tokens": 4,
    "gpt-4o-mini-0718-Inp-regnl Tokens": 8,
    "gpt-4o-mini-0718-Outp-regnl Tokens": 4,
    "o4 mini 0416 Inp glbl Tokens": 8,
    "o4 mini 0416 Outp glbl Tokens": 68,
    "text embedding 3 small Inp glbl Tokens": 2,
    "gpt image 1 Inp glbl Tokens": 3,
    "gpt image 1 Img Outp glbl Tokens": 1056,
    "gpt 4o mini transcribe Aud Inp glbl Tokens": 360,
    "gpt 4o mini transcribe Outp glbl Tokens": 8,
}


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("unit", ["1K", "1M"])
def test_every_schema_says_the_same(busy, tmp_path, schema, unit):
    """To the token; whatever the unit is, and however many files there are."""
    paths = write_export(tmp_path / "bill", [busy], schema=schema, unit=unit, parts=3)
    expected = {
        name.replace(" glbl ", " glbl 1M ") if unit == "1M" else name: tokens for name, tokens in EXPECTED.items()
    }

    assert [path.name for path in paths] == ["part_0_0001.csv", "part_0_0002.csv", "part_0_0003.csv"]
    assert tokens_of(paths, schema) == expected


def test_the_bill_is_what_was_billed(busy):
    """Every token of every request, but those of provisioned throughput, which are counted apart."""
    billed = sum(served.billed.total_tokens for served in busy.served if served.billed is not None)
    charged = Counter()
    for charge in busy.meter.charges:
        charged[charge.provisioned] += charge.quantity if charge.kind in TOKEN_KINDS else 0

    assert charged == {False: billed - 12, True: 12}


def test_other_units(busy):
    """Seconds of whisper, characters of tts; in hours and millions on the bill."""
    others = {charge.kind: charge.quantity for charge in busy.meter.charges if charge.kind not in TOKEN_KINDS}

    assert others == {"audio_seconds": 36.0, "characters": 5}


def test_tools_of_azure_are_billed_by_use(tmp_path):
    """Each in a meter of its own, by the thousand; those who leave early pay for what was used."""
    with Simulator(deployments=("gpt-4o",)) as azure:
        body = {"model": "gpt-4o", "input": "hello there", "tools": [{"type": "web_search"}]}
        call(azure, body, path="/openai/v1/responses")
        azure.wait_for(lambda _: not azure.in_progress)
        [path] = write_export(tmp_path, [azure], schema="mca", foreign=False)
    rows = {row["meterName"]: row for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))}

    assert rows["gpt 4o 1120 web search Calls glbl"]["quantity"] == "0.001"


@pytest.mark.parametrize(
    ("schema", "day", "tags"),
    [
        ("ea_actual", "01/01/2026", '"deployment": "course"'),
        ("ea_2024", "01/01/2026", '"deployment": "course"'),
        ("mca", "01/01/2026", '{"deployment": "course"}'),
        ("focus", "2026-01-01T00:00:00Z", '{"deployment": "course"}'),
    ],
)
def test_the_forms_of_days_and_tags(clock, tmp_path, schema, day, tags):
    """Enterprise agreements leave the braces away; days are those of UTC."""
    clock.now = 1_767_311_999.0  # a second before midnight
    with Simulator(deployments=DEPLOYMENTS, clock=clock) as azure:
        call(azure, {**CHAT, "model": "course"})
        azure.wait_for(lambda _: not azure.in_progress)
        [path] = write_export(tmp_path, [azure], schema=schema, foreign=False)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))

    days = {"mca": "date", "focus": "ChargePeriodStart"}
    assert {row[days.get(schema, "Date")] for row in rows} == {day}
    assert {row[TAGS[schema]] for row in rows} == {tags}
    assert {row["ResourceId"].split("/")[-1] for row in rows} == {"simulated-eastus2"}


def test_a_day_ends_at_midnight(azure, clock):
    """In UTC, to the second."""
    clock.now = 1_767_311_999.0  # a second before midnight
    call(azure, {**CHAT, "model": "course"})
    clock.advance(1)
    call(azure, {**CHAT, "model": "course"})
    azure.wait_for(lambda _: not azure.in_progress)

    assert {charge.day for charge in azure.meter.charges} == {date(2026, 1, 1), date(2026, 1, 2)}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_bills_contain_lines_of_others(busy, tmp_path, schema):
    """A virtual machine, and a meter that nobody knows in units of ten thousand; they can be left away."""
    [path] = write_export(tmp_path, [busy], schema=schema, bom=False)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))

    assert [row[METER[schema]] for row in rows[-2:]] == ["D2as v5", "quasar 9 Zt glbl Widgets"]
    assert [row[UNIT[schema]] for row in rows[-2:]] == ["1 Hour", "10K"]
    assert {len(row) for row in rows} == {len(rows[0])}
    [path] = write_export(tmp_path, [busy], schema=schema, foreign=False)
    assert len(path.read_text().splitlines()) == len(rows) - 2 + 1


def test_a_gap_can_be_made_up(busy, tmp_path):
    """A line that is changed, and one that is missing."""

    def change(item):
        if item.charge.kind == "cached":
            return None
        return item._replace(quantity=item.quantity * 2) if item.charge.deployment == "o4-mini" else item

    changed = tokens_of(write_export(tmp_path, [busy], schema="focus", change=change), "focus")

    assert "gpt 4o 1120 cached Inp glbl Tokens" not in changed
    assert changed["o4 mini 0416 Outp glbl Tokens"] == 136
    assert changed["gpt 4o 1120 Outp glbl Tokens"] == EXPECTED["gpt 4o 1120 Outp glbl Tokens"]


def test_monitor_counts_per_deployment(busy, tmp_path):
    """Also provisioned throughput; JSON as the API answers, and a table that says the same."""
    paths = {path.stem: path for path in write_metrics(tmp_path, busy)}
    tables = {path.stem: path for path in write_metrics(tmp_path, busy, form="csv")}
    assert paths.keys() == tables.keys() == METRICS.keys()
    sums = {name: Counter() for name in METRICS}
    for name, path in paths.items():
        for series in json.loads(path.read_text())["value"][0]["timeseries"]:
            of = {one["name"]["value"]: one["value"] for one in series["metadatavalues"]}
            sums[name][of["ModelDeploymentName"]] += sum(point["total"] for point in series["data"])
        table = Counter()
        for row in csv.DictReader(io.StringIO(tables[name].read_text())):
            table[row["ModelDeploymentName"]] += float(row[name])
        assert table == sums[name]

    assert (sums["ProcessedPromptTokens"]["course"], sums["GeneratedTokens"]["course"]) == (8 * 4, 4 + 2 + 4)
    assert sums["TokenTransaction"]["ptu"] == 12
    assert sums["AzureOpenAIRequests"]["course"] == 4
    assert "nobody" not in sums["AzureOpenAIRequests"]


def test_monitor_knows_status_tier_and_stream(busy, tmp_path):
    """As dimensions."""
    [path] = [path for path in write_metrics(tmp_path, busy, form="csv") if path.stem == "AzureOpenAIRequests"]
    rows = [row for row in csv.DictReader(io.StringIO(path.read_text())) if row["ModelDeploymentName"] == "course"]
    found = {(row["StatusCode"], row["StreamType"], row["ServiceTierResponse"], row["ModelName"]) for row in rows}

    assert found == {
        ("200", "Non-Streaming", "default", "gpt-4o"),
        ("200", "Streaming", "default", "gpt-4o"),
        ("400", "Non-Streaming", "default", "gpt-4o"),
        ("200", "Non-Streaming", "priority", "gpt-4o"),
    }


def test_the_bill_comes_over_http(busy):
    """As CSV, with the metrics as JSON; a reset forgets it."""
    url = busy.url
    bill = requests.get(f"{url}/simulator/bill?schema=ea_2024&unit=1M", timeout=10)
    metrics = requests.get(f"{url}/simulator/metrics?name=GeneratedTokens", timeout=10).json()
    wrong = requests.get(f"{url}/simulator/bill?schema=xml", timeout=10)
    unknown = requests.get(f"{url}/simulator/metrics?name=Latency", timeout=10)
    requests.delete(f"{url}/simulator/served", timeout=10)

    assert bill.headers["content-type"].startswith("text/csv")
    assert "gpt 4o 1120 cached Inp glbl 1M Tokens,1M,0.000003," in bill.text
    assert metrics["value"][0]["name"]["value"] == "GeneratedTokens"
    assert (wrong.status_code, unknown.status_code) == (400, 400)
    assert busy.meter.charges == []


def test_a_client_that_leaves_is_billed_for_what_was_made(azure):
    """The meter adds when the request has ended, and not before."""
    azure.script(Script(tokens=1000, stall_after_events=12))
    with OpenAI(base_url=f"{azure.url}/openai/v1", api_key=DEFAULT_KEY, max_retries=0) as client:
        stream = client.chat.completions.create(model="course", messages=HELLO, stream=True)
        next(iter(stream))
        assert azure.meter.charges == []
        stream.close()
    azure.wait_for(lambda _: not azure.in_progress)
    produced = {charge.kind: charge.quantity for charge in azure.meter.charges}

    assert produced == {"prompt": 8, "completion": azure.served[0].billed.completion_tokens}
    assert 0 < produced["completion"] < 1000


@pytest.mark.parametrize(
    ("scope", "tier", "kind", "unit", "name"),
    [
        ("global", "default", "cached", "1K", "gpt 4o 1120 cached Inp glbl Tokens"),
        ("regional", "default", "completion", "1K", "gpt-4o-1120-Outp-regnl Tokens"),
        ("datazone", "flex", "prompt", "1M", "gpt 4o 1120 Inp Flex DZone 1M Tokens"),
        ("global", "priority", "audio_completion", "1K", "gpt 4o 1120 Aud Outp PP glbl Tokens"),
        ("global", "default", "audio_seconds", "1K", "gpt 4o 1120 Hours glbl"),
    ],
)
def test_names_of_meters(scope, tier, kind, unit, name):
    """In the words of names that were seen."""
    charge = Charge(date(2026, 1, 1), "East US 2", "course", "gpt-4o-2024-11-20", scope, tier, kind, 1)

    assert meter_name(charge, unit) == name
