"""The table of list prices, and its sources."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmgateway.usage.build_prices import build, main
from llmgateway.usage.pricing import prices_of_table
from llmgateway.usage.retail_prices import read_retail

LITELLM: dict[str, Any] = {
    "azure/gpt-4o": {
        "mode": "chat",
        "supports_vision": True,
        "input_cost_per_token": 2.5e-06,
        "cache_read_input_token_cost": 1.25e-06,
        "output_cost_per_token": 1e-05,
    },
    "azure/gpt-4o-2024-11-20": {"mode": "chat", "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05},
    "azure/eu/gpt-4o": {"mode": "chat", "input_cost_per_token": 2.75e-06, "output_cost_per_token": 1.1e-05},
    "azure/gpt-5.6-sol": {
        "mode": "chat",
        "input_cost_per_token": 4e-06,
        "output_cost_per_token": 2e-05,
        "input_cost_per_token_above_272k_tokens": 8e-06,
        "output_cost_per_token_above_272k_tokens": 3e-05,
        "input_cost_per_token_priority": 8e-06,
        "output_cost_per_token_priority": 4e-05,
        "input_cost_per_token_flex": 2e-06,
    },
    "azure/gpt-audio-2025-08-28": {
        "mode": "chat",
        "input_cost_per_token": 2.5e-06,
        "output_cost_per_token": 1e-05,
        "input_cost_per_audio_token": 4e-05,
        "output_cost_per_audio_token": 8e-05,
    },
    "azure/text-embedding-3-small": {"mode": "embedding", "input_cost_per_token": 2e-08, "output_cost_per_token": 0.0},
    "azure/model-router": {"mode": "chat", "input_cost_per_token": 1.4e-07, "output_cost_per_token": 0.0},
    "azure/tts-1": {"mode": "audio_speech", "input_cost_per_character": 0.000015},
    "azure/whisper-1": {"mode": "audio_transcription", "input_cost_per_second": 0.0001},
    "azure_ai/DeepSeek-R1": {"mode": "chat", "input_cost_per_token": 1.35e-06, "output_cost_per_token": 5.4e-06},
    "gpt-4o": {
        "mode": "chat",
        "litellm_provider": "openai",
        "input_cost_per_token": 2.5e-06,
        "output_cost_per_token": 1e-05,
        "input_cost_per_token_priority": 4.25e-06,
        "output_cost_per_token_priority": 1.7e-05,
    },
    "ft:gpt-4o": {
        "mode": "chat",
        "litellm_provider": "openai",
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 1e-06,
    },
    "deepseek/deepseek-r1": {"mode": "chat", "input_cost_per_token": 1e-07, "output_cost_per_token": 1e-07},
}


def meter(name: str, price: float, unit: str = "1M", region: str = "swedencentral", **fields: Any) -> dict[str, Any]:
    """An item of Azure's list, in the documented form ("Azure Retail Prices overview"); no list was at hand."""
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": region,
        "location": "SE Central",
        "effectiveStartDate": "2026-08-01T00:00:00Z",
        "meterId": "0f2c7a51-6d1e-4f0a-9c55-3b0f4e6f9a10",
        "meterName": name,
        "productId": "DZH318Z0BQ4B",
        "productName": "Azure OpenAI",
        "skuName": name,
        "serviceName": "Foundry Models",
        "serviceFamily": "AI + Machine Learning",
        "unitOfMeasure": unit,
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        **fields,
    }


def price(rows: Any, model: str, kind: str, tier: str = "default", above: int = 0, deployment: str = "global") -> float:
    return next(row.prices[kind] for key, row in rows.items() if key == (model, deployment, tier, above))


@pytest.fixture
def rows():
    return build(LITELLM, {})[0]


def test_takes_prices_per_million_from_litellm(rows):
    """By model, type of deployment, tier and length; images of chat models cost as much as text."""
    assert (2.5, 1.25, 10.0, 2.5) == tuple(
        price(rows, "gpt-4o", kind) for kind in ("prompt", "cached", "completion", "image")
    )
    assert 2.75 == price(rows, "gpt-4o", "prompt", deployment="eu")
    assert 8.0 == price(rows, "gpt-5.6-sol", "prompt", above=272_000)
    assert 80.0 == price(rows, "gpt-audio-2025-08-28", "audio_completion")
    assert 1.35 == price(rows, "deepseek-r1", "prompt")


def test_takes_prices_of_units_where_there_are_none_of_tokens(rows):
    """A second of audio becomes a minute; Azure's own name of a model has the price of OpenAI's."""
    assert {"minute": 0.006} == rows["whisper-1", "global", "default", 0].prices
    assert {"characters": 15.0} == rows["tts", "global", "default", 0].prices


def test_leaves_out_what_is_not_known(rows):
    """Prices of 0, of one direction only, of customers' own models, or of other sellers."""
    assert not {"model-router", "ft:gpt-4o"} & {key.model for key in rows}
    assert ("gpt-5.6-sol", "global", "flex", 0) not in rows
    assert {"prompt"} == rows["text-embedding-3-small", "global", "default", 0].prices.keys()


def test_a_model_without_a_date_has_the_price_of_its_newest_version(rows):
    """Clients ask for gpt-audio, and the data has a dated version only."""
    assert 40.0 == price(rows, "gpt-audio", "audio_prompt")


def test_takes_the_price_of_priority_from_openai(rows):
    """If Azure's is not known; in data zones it is as much dearer as the default price."""
    assert (4.25, 17.0) == tuple(price(rows, "gpt-4o", kind, "priority") for kind in ("prompt", "completion"))
    assert 4.675 == price(rows, "gpt-4o", "prompt", "priority", deployment="eu")


def test_long_prompts_with_priority_are_dearer_in_proportion(rows):
    """Where no source says what they cost."""
    assert (16.0, 60.0) == tuple(
        price(rows, "gpt-5.6-sol", kind, "priority", 272_000) for kind in ("prompt", "completion")
    )


@pytest.mark.parametrize(
    ("name", "unit", "region", "expected"),
    [
        # The names are those that were seen (azure-more.md section 14), with models that the table has.
        ("gpt 4o 1120 cached Inp glbl Tokens", "1K", "westus", ("gpt-4o-2024-11-20", "global", "default", 0, "cached")),
        (
            "gpt-4o-1120-Outp-regnl Tokens",
            "1K",
            "westus",
            ("gpt-4o-2024-11-20", "regional", "default", 0, "completion"),
        ),
        ("GPT 4o outpt Glbl 1M Tokens", "1M", "westus", ("gpt-4o", "global", "default", 0, "completion")),
        ("5.6 sol ShortCo opt Dz 1M Tokens", "1M", "swedencentral", ("gpt-5.6-sol", "eu", "default", 0, "completion")),
        ("5.6 sol ShortCo Cd Inp PP Gl", "1M", "eastus2", ("gpt-5.6-sol", "global", "priority", 0, "cached")),
        ("5.6 sol LongCo Inp Dz", "1M", "eastus2", ("gpt-5.6-sol", "us", "default", 272_000, "prompt")),
        ("56 sol Inp Flex Gl", "1M", "eastus2", ("gpt-5.6-sol", "global", "flex", 0, "prompt")),
        ("5.6 sol Batch cd Inp Gl", "1M", "eastus2", ("gpt-5.6-sol", "global", "batch", 0, "cached")),
        ("5.6 sol Wr Inp Gl", "1M", "eastus2", ("gpt-5.6-sol", "global", "default", 0, "cache_write")),
        ("DeepSeek R1 Inp glbl Tokens", "1K", "eastus2", ("deepseek-r1", "global", "default", 0, "prompt")),
    ],
)
def test_reads_names_of_meters(rows, name, unit, region, expected):
    """Prices of a thousand tokens and of a million are both US dollars per million."""
    (fact,), unknown = read_retail([meter(name, 0.5, unit, region)], {key.model for key in rows})

    assert expected == fact
    assert [] == unknown
    found, _ = read_retail([meter(name, 0.5, unit, region)], {key.model for key in rows})
    assert (500.0 if unit == "1K" else 0.5, name, "2026-08-01") == found[fact]


@pytest.mark.parametrize(
    "item",
    [
        meter("gpt 9 Inp glbl Tokens", 1.0),  # a model that no source knows
        meter("gpt 4o Inp glbl Hosting Tokens", 1.0),  # a word that nobody knows
        meter("gpt 4o glbl Tokens", 1.0),  # no direction
        meter("gpt 4o Inp Tokens", 1.0),  # no type of deployment
        meter("gpt 4o Inp Outp glbl", 1.0),
        meter("gpt 4o Inp glbl", 1.0, "1 Hour"),
        meter("gpt 4o Inp Dz", 1.0, region="australiaeast"),
        meter("gpt 4o Inp glbl", 0.0),
    ],
    ids=lambda item: item["meterName"],
)
def test_does_not_guess_what_a_meter_means(rows, item):
    """It is named instead, so that somebody can look."""
    assert ({}, [item["meterName"]]) == read_retail([item], {key.model for key in rows})


def test_does_not_take_reservations_nor_other_currencies(rows):
    """A reservation is another contract; a price in euros is not one in dollars."""
    models = {key.model for key in rows}

    assert ({}, []) == read_retail([meter("gpt 4o Inp glbl", 1.0, type="Reservation")], models)
    with pytest.raises(ValueError, match="save the list in USD"):
        read_retail([meter("gpt 4o Inp glbl", 1.0, currencyCode="EUR")], models)


def test_azures_own_list_wins(rows):
    """Of each price that it has, at the dearest region; the other prices of the model stay."""
    items = [meter("gpt 4o Inp glbl", price, region=region) for price, region in ((3.0, "eastus"), (3.5, "westus"))]

    merged, unknown = build(LITELLM, {}, items)

    assert [] == unknown
    assert (3.5, 10.0) == (price(merged, "gpt-4o", "prompt"), price(merged, "gpt-4o", "completion"))
    assert "azure gpt 4o Inp glbl" in merged["gpt-4o", "global", "default", 0].source
    assert "litellm" in merged["gpt-4o", "global", "default", 0].source


def test_writes_the_same_table_for_the_same_input(tmp_path, capsys):
    """Rows are sorted, have a line each, and keep their day until they change. What was not understood is named."""
    litellm, retail, output = (tmp_path / name for name in ("litellm.json", "retail.json", "prices.json"))
    litellm.write_text(json.dumps(LITELLM))
    page = {"BillingCurrency": "USD", "NextPageLink": None, "Items": [meter("5.6 sol Inp Gl", 4.5), meter("Sora", 1)]}
    retail.write_text(json.dumps(page))
    first = [f"--litellm={litellm}", f"--retail={retail}", f"--output={output}", "--date=2026-11-28"]

    assert 0 == main(first)
    text = output.read_text()
    assert "not understood: Sora" in capsys.readouterr().err
    assert 4.5 == prices_of_table(json.loads(text))["gpt-5.6-sol"].prompt
    assert sorted(text.splitlines()[1:-1], key=lambda line: line.rstrip(",")) == text.splitlines()[1:-1]
    assert 0 == main(first)
    assert text == output.read_text()

    later = LITELLM | {"azure_ai/DeepSeek-R1": LITELLM["azure_ai/DeepSeek-R1"] | {"input_cost_per_token": 1e-06}}
    litellm.write_text(json.dumps(later))
    assert 0 == main([*first[:3], "--date=2026-12-01"])
    changed = [line for line in output.read_text().splitlines()[1:-1] if line not in text.splitlines()]
    assert ["deepseek-r1"] == [json.loads(line.rstrip(","))["model"] for line in changed]
    assert "2026-12-01" in changed[0]


def test_works_without_azures_list(tmp_path):
    """Its files are optional, since the builder fetches nothing."""
    litellm, output = tmp_path / "litellm.json", tmp_path / "prices.json"
    litellm.write_text(json.dumps(LITELLM))

    assert 0 == main([f"--litellm={litellm}", f"--output={output}", "--date=2026-11-28"])
    assert 2.5 == prices_of_table(json.loads(output.read_text()))["gpt-4o"].prompt
