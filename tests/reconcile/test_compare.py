"""Azure's numbers beside ours."""

from __future__ import annotations

import json

import pytest

from llmgateway.reconcile.compare import reconcile
from llmgateway.reconcile.meters import Meter
from tests.reconcile.samples import SCHEMAS, Charge, metric, stream, table, usage

INP, CACHED, OUTP = (f"gpt 4o 1120 {word} glbl Tokens" for word in ("Inp", "cached Inp", "Outp"))


def compared(charges, rows, schema="ea_actual", **options):
    text = table(charges, schema) if isinstance(charges, list) else json.dumps(charges)
    return reconcile([("bill", stream(text))], lambda first, last: rows, **options)


def days(result, kind=None):
    """Subject, day, kind, Azure's number, ours, per cent."""
    return [
        (each.subject.name, f"{each.day}"[5:], each.kind, each.azure, each.ours, each.percent)
        for each in result.days
        if each.kind != "cost" and kind in (None, each.kind)
    ]


FULL = [
    Charge(INP, 800, deployment="chat", cost=2.0),
    Charge(CACHED, 200, deployment="chat", cost=0.25),
    Charge(OUTP, 100, deployment="chat", unit="1M", cost=1.0),
    Charge(INP, 70, deployment="chat", day="2026-10-06", cost=0.5),
]
OURS = [
    usage(deployment="chat", model="alias", prompt=1000, cached=200, completion=100, cost=3.25),
    usage("2026-10-06", deployment="chat", model="alias", prompt=70, cost=0.5),
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_equal_books_have_no_gap(schema):
    """Cached tokens are a part of our prompt tokens, and a meter of their own in Azure's bill."""
    result = compared(FULL, OURS, schema)

    assert [
        ("chat", "10-05", "prompt", 800.0, 800, 0.0),
        ("chat", "10-06", "prompt", 70.0, 70, 0.0),
        ("chat", "10-05", "cached", 200.0, 200, 0.0),
        ("chat", "10-05", "completion", 100.0, 100, 0.0),
    ] == days(result)
    assert [("prompt", 870.0, 870), ("cached", 200.0, 200), ("completion", 100.0, 100), ("cost", 3.75, 3.75)] == [
        (each.kind, each.azure, each.ours) for each in result.totals
    ]
    assert [] == result.beyond(0)
    assert [] == result.not_compared
    assert ("2026-10-05", "2026-10-06") == (f"{result.first_day}", f"{result.last_day}")


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("number", range(len(FULL)))
def test_a_missing_charge_is_found_where_it_is(schema, number):
    """Also the only one of its kind."""
    left = [charge for index, charge in enumerate(FULL) if index != number]
    gone = FULL[number]
    # Azure's bill still has the day.
    left.append(gone._replace(meter="gpt-4o-mini-0718-Inp-glbl Tokens", tokens=0, cost=0.0))

    (gap,) = compared(left, OURS, schema).beyond(0)

    kind = {INP: "prompt", CACHED: "cached", OUTP: "completion"}[gone.meter]
    assert ("chat", gone.day, kind, gone.tokens) == (gap.subject.name, f"{gap.day}", gap.kind, gap.gap)
    assert gap.percent is None


def test_asks_for_our_usage_of_azures_days():
    """Other days are not compared."""
    asked = []

    def report(first, last):
        asked.append((f"{first}", f"{last}"))
        return [*OURS, usage("2026-10-07", deployment="chat", prompt=9)]

    result = reconcile([("bill", stream(table(FULL)))], report)

    assert [("2026-10-05", "2026-10-06")] == asked
    assert [] == result.beyond(0)


def test_gaps_are_in_per_cent_of_azures_number():
    """Negative if our books miss something; the largest number of tokens comes first."""
    charges = [Charge(INP, 1000, deployment="a"), Charge(OUTP, 10, deployment="a"), Charge(INP, 8, deployment="b")]
    rows = [usage(deployment="a", prompt=900, completion=11), usage(deployment="b", prompt=8)]

    result = compared(charges, rows)

    assert [("a", "prompt", -10.0), ("a", "completion", 10.0)] == [
        (each.subject.name, each.kind, each.percent) for each in result.beyond(9)
    ]
    assert [] == result.beyond(10)


def test_compares_models_where_azure_names_no_deployment():
    """All deployments of a model, and all of its versions, are one; names are compared without separators."""
    charges = [
        Charge(INP, 5),
        Charge("gpt 4o 0806 Inp regnl Tokens", 2),
        Charge("54 mini Inp Flex Gl", 4),
        Charge("Grok 4.1 Inp DZone Tokens", 8),
    ]
    rows = [
        usage(deployment="chat-eu", model="GPT-4o", prompt=3),
        usage(deployment="gpt-4o-2024-08-06", model="anything", prompt=4),
        usage(deployment="gpt-5.4-mini", model="gpt-5.4-mini-2026-03-17", prompt=4),
        usage(deployment=None, model="grok-4-1-fast-reasoning", prompt=6),
        usage(deployment="g", model="grok-4-1-fast-non-reasoning", prompt=2),
    ]

    result = compared(charges, rows)

    assert [
        ("gpt-4o", "10-05", "prompt", 7.0, 7, 0.0),
        ("gpt-5.4-mini", "10-05", "prompt", 4.0, 4, 0.0),
        ("grok-4.1", "10-05", "prompt", 8.0, 8, 0.0),
    ] == days(result)
    assert {"model"} == {each.subject.by for each in result.days}


def test_somebody_can_say_which_model_a_deployment_is():
    """Names of deployments are free, so they need not tell."""
    charges, rows = [Charge(INP, 5)], [usage(deployment="Team-A", model="best", prompt=5)]

    assert 2 == len(compared(charges, rows).beyond(0))
    assert [] == compared(charges, rows, models={"team-a": "gpt-4o-2024-11-20"}).beyond(0)
    assert [] == compared(charges, rows, models={"best": "gpt-4o"}).beyond(0)


def test_a_tag_that_came_later_does_not_hide_earlier_days():
    """Before it, the bill has only the model; after it, the deployment."""
    charges = [Charge(INP, 5), Charge(INP, 7, deployment="Chat", day="2026-10-06")]
    rows = [
        usage(deployment="chat", prompt=5),
        usage("2026-10-06", deployment="chat", prompt=7),
    ]

    assert [
        ("Chat", "10-06", "prompt", 7.0, 7, 0.0),
        ("gpt-4o", "10-05", "prompt", 5.0, 5, 0.0),
    ] == days(compared(charges, rows))


def test_a_day_without_charges_is_of_the_deployment_that_other_days_name():
    """The gap is where the deployment is, not at a model that the bill does not have."""
    charges = [Charge(INP, 5, deployment="chat"), Charge(OUTP, 1, deployment="other", day="2026-10-06")]
    charges.append(Charge(INP, 3, day="2026-10-08"))
    rows = [
        usage("2026-10-08", deployment="untagged", model="gpt-4o", prompt=3),
        usage(deployment="chat", model="gpt-4o", prompt=5),
        usage("2026-10-06", deployment="chat", model="gpt-4o", prompt=7),
        usage("2026-10-06", deployment="other", completion=1),
    ]

    (gap,) = compared(charges, rows).beyond(0)

    assert ("deployment", "chat", "2026-10-06", 0.0, 7.0) == (
        gap.subject.by,
        gap.subject.name,
        f"{gap.day}",
        gap.azure,
        gap.ours,
    )


def test_no_more_tokens_were_cached_than_there_were():
    """Some models answer more cached tokens than prompt tokens."""
    result = compared([Charge(CACHED, 5)], [usage(prompt=5, cached=9)])

    assert [("gpt-4o", "10-05", "cached", 5.0, 5, 0.0)] == days(result)


def test_audio_images_and_cache_writes_are_of_the_prompt():
    """Our count of the prompt includes them; Azure has meters for each."""
    charges = [
        Charge(INP, 1),
        Charge("gpt 4o 1120 Aud Inp glbl Tokens", 10),
        Charge("gpt 4o 1120 Img Inp glbl Tokens", 100),
        Charge("gpt 4o 1120 Wr Inp glbl Tokens", 1000),
        Charge("gpt 4o 1120 Aud Outp glbl Tokens", 5),
    ]

    assert [
        ("gpt-4o", "10-05", "prompt", 1111.0, 1111, 0.0),
        ("gpt-4o", "10-05", "completion", 5.0, 5, 0.0),
    ] == days(compared(charges, [usage(prompt=1111, completion=5)]))


def test_meters_that_are_not_known_are_listed():
    """With their amount, unit and cost, once for each meter; a known deployment still has their cost."""
    charges = [
        *FULL[:3],
        Charge("quasar 9 Zt glbl Widgets", 20, unit="10K", meter_id="ABC", cost=0.5, deployment="chat"),
        Charge("quasar 9 Zt glbl Widgets", 20, unit="10K", meter_id="ABC", cost=0.25, day="2026-10-06"),
        Charge("gpt 4o Inp glbl Tokens", 3, unit="1 Hour", cost=4.0),
    ]

    result = compared(charges, OURS[:1])

    assert [
        ("gpt 4o Inp glbl Tokens", "", "1 Hour", "the unit does not count tokens", 3.0, 4.0, 1),
        ("quasar 9 Zt glbl Widgets", "abc", "10K", "the meter is not known", 0.004, 0.75, 2),
    ] == [
        (each.meter, each.meter_id, each.unit, each.why, each.quantity, each.cost, each.rows)
        for each in result.not_compared
    ]
    assert [] == result.beyond(0)
    assert ("chat", 3.75) in [(each.subject.name, each.azure) for each in result.totals if each.kind == "cost"]
    known = compared(charges, OURS[:1], meters={"abc": Meter(model="gpt-4o", kind="completion")})
    assert ["gpt 4o Inp glbl Tokens"] == [each.meter for each in known.not_compared]
    assert [20.0, 20.0] == [each.azure for each in known.beyond(0) if each.ours == 0] + [
        each.azure - each.ours for each in known.beyond(0) if each.ours
    ]


def test_costs_are_compared_in_us_dollars_only():
    """Ours are in US dollars."""
    dollars = compared([Charge(INP, 1, cost=2.0)], [usage(prompt=1, cost=1.0)])
    euros = compared([Charge(INP, 1, cost=2.0, currency="EUR")], [usage(prompt=1, cost=1.0)])

    assert [(2.0, 1.0, -50.0, "USD")] == [
        (each.azure, each.ours, each.percent, each.currency) for each in dollars.totals if each.kind == "cost"
    ]
    assert [(2.0, None, None, "EUR")] == [
        (each.azure, each.ours, each.percent, each.currency) for each in euros.totals if each.kind == "cost"
    ]
    assert [] == dollars.beyond(0)


MIDNIGHT = "2026-10-05T00:00:00Z"


def test_compares_metrics_of_deployments():
    """They do not tell cached tokens, so all prompt tokens are compared."""
    document = {
        "value": [
            metric("ProcessedPromptTokens", {MIDNIGHT: 1000.0}, ModelDeploymentName="chat"),
            metric("GeneratedTokens", {MIDNIGHT: 90.0}, ModelDeploymentName="chat"),
            metric("TokenTransaction", {MIDNIGHT: 1090.0}, ModelDeploymentName="chat"),
            metric("AzureOpenAIRequests", {MIDNIGHT: 3.0}, ModelDeploymentName="chat"),
        ]
    }

    result = compared(document, OURS)

    assert [
        ("chat", "10-05", "input", 1000.0, 1000, 0.0),
        ("chat", "10-05", "completion", 90.0, 100, pytest.approx(11.11, abs=0.01)),
        ("chat", "10-05", "total", 1090.0, 1100, pytest.approx(0.92, abs=0.01)),
    ] == days(result)
    assert ["AzureOpenAIRequests"] == [each.meter for each in result.not_compared]
    assert {"metrics"} == {each.subject.source for each in result.days}


def test_tokens_that_two_metrics_count_are_counted_once():
    """Azure has one for OpenAI's models, and one for all models."""
    document = {
        "value": [
            metric("InputTokens", {MIDNIGHT: 1000.0}, ModelDeploymentName="chat"),
            metric("ProcessedPromptTokens", {MIDNIGHT: 1000.0}, ModelDeploymentName="chat"),
            metric("InputTokens", {MIDNIGHT: 50.0}, ModelDeploymentName="grok"),
        ]
    }

    result = compared(document, [OURS[0], usage(deployment="grok", prompt=50)])

    assert [("chat", 1000.0, 1000), ("grok", 50.0, 50)] == [
        (name, azure, ours) for name, _, _, azure, ours, _ in days(result)
    ]


def test_metrics_that_name_nothing_are_of_everything():
    document = {"value": [metric("TotalTokens", {MIDNIGHT: 1150.0})]}

    result = compared(document, [OURS[0], usage(deployment="other", prompt=50)])

    assert [("all deployments", "10-05", "total", 1150.0, 1150, 0.0)] == days(result)


def test_a_bill_and_metrics_are_compared_each():
    """Both say how many tokens there were, so they are not added up."""
    document = {"value": [metric("ProcessedPromptTokens", {MIDNIGHT: 999.0}, ModelDeploymentName="chat")]}
    files = [("bill", stream(table(FULL))), ("metrics", stream(json.dumps(document)))]

    (gap,) = reconcile(files, lambda first, last: OURS[:1] + OURS[1:]).beyond(0.01)[-1:]

    assert ("metrics", "input", 1.0) == (gap.subject.source, gap.kind, gap.gap)


@pytest.mark.parametrize(
    ("charges", "rows", "expected"),
    [
        (
            [Charge(INP, 90, day="2026-10-05"), Charge(INP, 110, day="2026-10-06"), Charge(OUTP, 1, day="2026-10-08")],
            [usage("2026-10-05", prompt=100), usage("2026-10-06", prompt=100), usage("2026-10-08", completion=1)],
            "requests around midnight UTC",
        ),
        ([Charge(INP, 90)], [usage(prompt=100, estimated_tokens=10)], "10 of our tokens are estimates"),
        ([Charge(INP, 90)], [usage(prompt=100)], "up to 24 hours late"),
        ([Charge(INP, 100)], [usage(prompt=90)], "calls that do not go through the gateway"),
        ([Charge(INP, 100)], [], "only in Azure's: calls that do not go through the gateway"),
        (
            [Charge(OUTP, 1, day="2026-10-08"), Charge(OUTP, 0)],
            [usage(prompt=1), usage("2026-10-08", completion=1)],
            "only in our books",
        ),
    ],
    ids=["midnight", "estimates", "late", "past_the_gateway", "only_azure", "only_ours"],
)
def test_says_what_is_known_about_the_cause(charges, rows, expected):
    assert expected in compared(charges, rows).beyond(0)[0].where


def test_the_result_is_json():
    """For scripts and the dashboard; nothing of it is rounded."""
    result = compared([*FULL, Charge("x", 1)], OURS)

    document = json.loads(json.dumps(result.as_json()))

    assert {"start": "2026-10-05", "end": "2026-10-06"} == document["period"]
    assert [{"name": "bill", "schema": "EA actual", "rows": 5, "rows_of_other_services": 0}] == document["files"]
    assert {
        "source": "bill",
        "by": "deployment",
        "name": "chat",
        "day": "2026-10-05",
        "kind": "prompt",
        "azure": 800.0,
        "ours": 800,
        "gap": 0.0,
        "percent": 0.0,
        "currency": None,
        "where": None,
    } == document["days"][0]
    assert ["x"] == [each["meter"] for each in document["not_compared"]]
