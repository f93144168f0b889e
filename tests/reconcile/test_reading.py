"""Files as people download them are read, or refused with what to do."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tracemalloc
import zipfile

import pytest

from llmgateway.reconcile import files
from llmgateway.reconcile.files import UnusableFile
from llmgateway.reconcile.reading import read_statement
from tests.reconcile.samples import ACCOUNT, SCHEMAS, Charge, metric, stream, table

INP = "gpt 4o 1120 Inp glbl Tokens"
OUTP = "gpt 4o 1120 Outp glbl Tokens"
CHARGES = [Charge(INP, 1_234, deployment="chat", cost=0.5), Charge(OUTP, 3, unit="1M", day="2026-10-06")]


def read(*opened, name="bill.csv"):
    return read_statement((f"{number}-{name}", file) for number, file in enumerate(opened))


def seen(statement):
    """What a statement says: day, deployment, meter or metric, tokens, money."""
    return sorted(
        (f"{place.day}", place.deployment, place.meter, round(amount.quantity * place.tokens_per_unit, 3), amount.money)
        for place, amount in statement.amounts()
    )


EXPECTED = [("2026-10-05", "chat", INP, 1234.0, 0.5), ("2026-10-06", None, OUTP, 3.0, 0.0)]


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ("ea_actual", "EA actual"),
        ("ea_2024", "EA 2024-08-01 / MCA"),
        ("mca", "EA 2024-08-01 / MCA"),
        ("focus", "FOCUS 1.0"),
        ("focus_sku_meter", "FOCUS 1.0"),
    ],
)
def test_reads_every_schema(schema, name):
    """The same charges are the same in each of them."""
    statement = read(stream(table(CHARGES, schema)))

    assert EXPECTED == seen(statement)
    assert {"contoso-eu"} == {place.account for place, _ in statement.amounts()}
    assert {"USD"} == {place.currency for place, _ in statement.amounts()}
    assert [(name, 2, 0)] == [(file.schema, file.rows, file.other_rows) for file in statement.files]


def zipped(name, content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", '{"blobs": []}')
        archive.writestr(name, content)
    file.seek(0)
    return file


TABLE = table(CHARGES, "mca").encode()


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(stream("\ufeff" + table(CHARGES, "focus")), id="byte_order_mark"),
        pytest.param(stream(TABLE.decode(), "utf-16"), id="utf_16"),
        pytest.param(io.BytesIO(gzip.compress(b"\xef\xbb\xbf" + TABLE)), id="gzip"),
        pytest.param(io.BytesIO(gzip.compress(TABLE[:200]) + gzip.compress(TABLE[200:])), id="gzip_in_members"),
        pytest.param(zipped("2026/part_0_0001.csv", TABLE), id="zip"),
        pytest.param(zipped("part_0_0001.csv.gz", gzip.compress(TABLE)), id="gzip_in_zip"),
        pytest.param(stream(table(CHARGES, "mca", delimiter=";")), id="semicolons"),
        pytest.param(stream(table(CHARGES, "mca", delimiter="\t")), id="tabs"),
        pytest.param(stream(TABLE.decode().replace("\r\n", "\n")), id="line_feeds"),
        pytest.param(stream("\r\nCosts of October\r\n" + TABLE.decode() + "\r\n\r\n"), id="title_and_empty_lines"),
    ],
)
def test_reads_every_form_of_a_file(file):
    assert EXPECTED == seen(read(file))


def test_adds_up_the_parts_of_an_export():
    """Each part has a header; a charge may be in several."""
    parts = [[Charge(INP, 1), Charge(INP, 2)], [Charge(INP, 4), Charge(OUTP, 8)]]

    statement = read(*(stream("\ufeff" + table(part)) for part in parts), name="part_0_0001.csv")

    assert [("2026-10-05", None, INP, 7.0, 0.0), ("2026-10-05", None, OUTP, 8.0, 0.0)] == sorted(
        {
            (*each[:3], sum(other[3] for other in seen(statement) if other[2] == each[2]), 0.0)
            for each in seen(statement)
        }
    )


@pytest.mark.parametrize("schema", SCHEMAS)
def test_other_services_are_counted_and_left_out(schema):
    """An export is of a subscription, with machines and disks."""
    machine = Charge("D2as v5", 24, unit="1 Hour", service="Microsoft.Compute", resource="/subscriptions/1/vm/one")

    statement = read(
        stream(
            table([*CHARGES, machine], schema).replace("Foundry Models,Azure OpenAI,,D2as", "Virtual Machines,,,D2as")
        )
    )

    assert EXPECTED == seen(statement)
    assert [(3, 1)] == [(file.rows, file.other_rows) for file in statement.files]


def test_finds_charges_by_resource_or_category():
    """Some exports have no ConsumedService."""
    by_resource = table(CHARGES[:1], ConsumedService="", MeterCategory="Cognitive Services")
    by_category = table(CHARGES[:1], ConsumedService="", ResourceId="")

    assert EXPECTED[:1] == seen(read(stream(by_resource)))
    assert EXPECTED[:1] == seen(read(stream(by_category)))


def test_prefers_costs_in_us_dollars():
    """Customer agreements have both; ours are in US dollars."""
    text = table([Charge(INP, 1, cost=0.9, currency="EUR")], "mca", costInUsd="1.0")

    assert [(1.0, "USD")] == [(amount.money, place.currency) for place, amount in read(stream(text)).amounts()]


@pytest.mark.parametrize(
    "column", [{"x_PricingBlockSize": "1000"}, {"x_PricingBlockSize": "1000.0"}, {"x_PricingUnitDescription": "1K"}]
)
def test_a_block_of_a_price_counts_where_the_unit_is_a_single_one(column):
    """FOCUS may say ``Units`` and 1,000 in a column of its own."""
    text = table([Charge(INP, 5, unit="Units")], "focus", **column)

    assert [5000.0] == [each[3] for each in seen(read(stream(text)))]


def test_reads_numbers_with_a_decimal_comma():
    """A spreadsheet that separates with semicolons writes them so."""
    text = table([Charge(INP, 500)], delimiter=";", Quantity="0,5")

    assert [500.0] == [each[3] for each in seen(read(stream(text)))]


def test_finds_the_deployment_in_the_resource():
    text = table([Charge(INP, 1, resource=f"{ACCOUNT}/deployments/chat")])

    assert ["chat"] == [each[1] for each in seen(read(stream(text)))]


def locked(archive):
    """The archive as if its files had a password: a bit in the headers says so (APPNOTE 4.4.4)."""
    content = archive.getvalue()
    for header, length in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content = re.sub(re.escape(header) + b"(.{%d})." % (length - 4), header + b"\\1\x01", content, flags=re.DOTALL)
    return content


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"PAR1\x15", "Parquet file. Choose CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Excel workbook. Save it as CSV UTF-8"),
        (zipped("[Content_Types].xml", b"<x/>").getvalue(), "Excel workbook. Save it as CSV UTF-8"),
        (zipped("readme.txt", b"x").getvalue(), "no CSV file in this archive"),
        (locked(zipped("a.csv", b"x")), "Unpack the archive first"),
        (gzip.compress(TABLE)[:-20], "damaged or not complete"),
        (b"\x1f\x8bxx", "damaged or not complete"),
        (b"PK\x03\x04xx", "damaged or not complete"),
        (TABLE.replace(b"Physics", b"Physik \xe4"), "not UTF-8"),
        (b"Name,Age\r\nAda,36\r\n", "neither an export of costs nor one of metrics; it begins with 'Name,Age'"),
        (b"<html>", "neither an export of costs"),
        (b"\x00\x01\x02\x03", "neither an export of costs"),
        (b"{", "it is not JSON"),
        (b"[" * 200_000, "it is not JSON"),
        (b'{"value": []}', "no metrics in this JSON"),
        (b'{"error": {"code": "x"}}', "no metrics in this JSON"),
        (b'{"value": [{"timeseries": [{}]}]}', "not an answer of the metrics API"),
        (TABLE.replace(b"quantity", b"menge"), "no column quantity. Export 'cost and usage details"),
        (TABLE.replace(b"quantity", b"a").replace(b"date", b"b"), "no column date nor quantity"),
        (TABLE.replace(b"10/05/2026", b"31/10/2026"), "line 2: '31/10/2026' is no day like"),
        (TABLE.replace(b"1.234", b"many"), "line 2: 'many' is no number. Correct it, or export again."),
        (TABLE + b"1,2\r\n", "line 4: there are 2 columns, and the first line has"),
        (table([Charge("D2", 1, service="x", resource="")], MeterCategory="x").encode(), "no charge of Azure"),
        (TABLE.splitlines(keepends=True)[0], "no charge of Azure OpenAI or Foundry is in there"),
    ],
)  # fmt: skip
def test_refuses_other_files_and_says_what_to_do(file, expected):
    """The message begins with the name of the file."""
    with pytest.raises(UnusableFile) as refusal:
        read(io.BytesIO(file))

    assert expected in str(refusal.value)
    assert str(refusal.value).startswith("0-bill.csv")


def test_holds_no_rows_in_memory(tmp_path):
    """Exports of large organisations have a gigabyte; most of it is of other services."""
    others = [
        Charge(f"meter {number}", 1, service="Microsoft.Compute", resource=f"/vm/{number}", product="x" * 500)
        for number in range(10_000)
    ]
    path = tmp_path / "large.csv"
    path.write_text(table([*CHARGES, *others, *CHARGES * 1000]).replace("Foundry Models,xxx", "VM,xxx"))
    assert path.stat().st_size > 6_000_000

    tracemalloc.start()
    try:
        with path.open("rb") as file:
            statement = read(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [(12_002, 10_000)] == [(each.rows, each.other_rows) for each in statement.files]
    assert peak < 1_000_000


def test_a_pipe_is_refused():
    """It cannot be read twice."""
    reader, writer = os.pipe()
    os.close(writer)
    with open(reader, "rb") as file, pytest.raises(UnusableFile, match=r"is a pipe, .* Save it as a file"):
        read(file)


@pytest.mark.parametrize("again", ["ea_actual", "focus"])
def test_refuses_the_same_charges_twice(again):
    """The newest run of a daily export has the days of the runs before it; another schema has the same charges."""
    newer = [*CHARGES, Charge(INP, 77, day="2026-10-07")]

    with pytest.raises(
        UnusableFile, match=r"1-bill.csv: it has the same charges as 0-bill.csv. .* only the newest run"
    ):
        read(stream(table(CHARGES)), stream(table(newer, again)))


TWO_DAYS = {"2026-10-05T00:00:00Z": 100.0, "2026-10-05T23:59:00Z": 20.0, "2026-10-06T00:00:00Z": 3.0}
IN_METRICS = [
    ("2026-10-05", "chat", "ProcessedPromptTokens", 120.0, 0.0),
    ("2026-10-06", "chat", "ProcessedPromptTokens", 3.0, 0.0),
]


def answer(*metrics):
    return {"cost": 0, "interval": "PT1M", "value": [*metrics], "namespace": "Microsoft.CognitiveServices/accounts"}


# A minute without requests has no total.
TWO_DAYS_AND_NOTHING = TWO_DAYS | {"2026-10-07T00:00:00Z": None}
PROMPTS = metric("ProcessedPromptTokens", TWO_DAYS_AND_NOTHING, ModelDeploymentName="chat", ModelName="gpt-4o")


@pytest.mark.parametrize(
    "document",
    [
        answer(PROMPTS),
        [answer(PROMPTS)],
        {"values": [answer(PROMPTS) | {"resourceid": ACCOUNT}]},
    ],
    ids=["one", "list", "batch"],
)
def test_reads_answers_of_the_metrics_api(document):
    """Points are added up by UTC day; a resource is in the metric's identifier."""
    statement = read(stream(json.dumps(document, indent=1)))

    assert IN_METRICS == seen(statement)
    assert {("contoso-eu", "gpt-4o")} == {(place.account, place.model) for place, _ in statement.amounts()}


COLUMN_FOR_EACH_METRIC = """TimeStamp,ModelDeploymentName,ModelName,ProcessedPromptTokens
2026-10-05T00:00:00Z,chat,gpt-4o,100
2026-10-05T23:00:00Z,chat,gpt-4o,20
2026-10-06T00:00:00Z,chat,gpt-4o,3
"""
ROW_FOR_EACH_METRIC = """TimeGenerated [UTC],ModelDeploymentName,MetricName,Total
"10/5/2026, 12:00:00.000 AM",chat,ProcessedPromptTokens,120
"10/6/2026, 12:00:00.000 AM",chat,ProcessedPromptTokens,3
"""
TIME_NOT_FIRST = f"""ResourceId,TimeGenerated,MetricName,Total,ModelDeploymentName
{ACCOUNT},2026-10-05,Processed Prompt Tokens,120,chat
{ACCOUNT},2026-10-06,Processed Prompt Tokens,3,chat
"""
CHART = """Sum Processed Prompt Tokens for contoso-eu by ModelDeploymentName

Time,chat
10/5/2026 12:00 AM,"120"
10/6/2026 12:00 AM,3
10/7/2026 12:00 AM,--
"""
SERIES = "Time;Processed Prompt Tokens (Sum), chat\n2026-10-05;120,0\n2026-10-06;3\n"


@pytest.mark.parametrize(
    "text",
    [COLUMN_FOR_EACH_METRIC, ROW_FOR_EACH_METRIC, TIME_NOT_FIRST, CHART, SERIES],
    ids=["column_for_each_metric", "row_for_each_metric", "time_not_first", "chart", "series"],
)
def test_reads_tables_of_metrics(text):
    """As the portal and a query of logs have them."""
    assert IN_METRICS == seen(read(stream("\ufeff" + text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Time,chat\n2026-10-05,1\n", "the column 'chat' does not say which metric it is. Choose Pr"),
        ("Time,MetricName,Average\n2026-10-05,ProcessedPromptTokens,1\n", "no column Total. Ask for the aggr"),
        ("Time,Total Tokens\nyesterday,1\n", "line 1 below the header: 'yesterday' is no day"),
        ("Time,Total Tokens\n2026-10-05,many\n", "'many' is no number"),
        (
            json.dumps(answer(metric("TotalTokens", {"2026-10-05T00:00Z": 1.0}, "average"))),
            "TotalTokens has no totals. Ask for the aggregation Total (Sum).",
        ),
        (json.dumps(answer(metric("TotalTokens", {"yesterday": 1.0}))), "'yesterday' is no day"),
    ],
)  # fmt: skip
def test_refuses_other_metrics_and_says_what_to_do(text, expected):
    with pytest.raises(UnusableFile) as refusal:
        read(stream(text))

    assert expected in str(refusal.value)


def test_reads_no_more_than_is_allowed(monkeypatch):
    """Of all files together, unpacked; of JSON, which is held in memory, less."""
    charges = table([Charge("gpt-4o-mini-0718-Inp-glbl", 1000)])
    read_statement([("a.csv", stream(charges))], most_bytes=len(charges))
    later = charges.replace("10/05/2026", "10/06/2026")
    with pytest.raises(UnusableFile, match=r"b\.csv: it is too large"):
        read_statement([("a.csv", stream(charges)), ("b.csv", stream(later))], most_bytes=2 * len(charges) - 1)

    monkeypatch.setattr(files, "_LARGEST_JSON", 50)
    document = json.dumps({"value": [metric("ProcessedPromptTokens", {"2026-10-05T00:00:00Z": 7.0})]}) + " " * 20_000
    read_statement([("a.json", stream(document))])
    with pytest.raises(UnusableFile, match=r"a\.json: it is too large"):
        read_statement([("a.json", stream(document))], most_bytes=100_000)
