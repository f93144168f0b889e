"""Reads Azure's retail price list, for :mod:`.build_prices`.

The list is https://prices.azure.com/api/retail/prices?$filter=serviceName eq 'Foundry Models'; its pages are saved as
files. The form of its items is documented ("Azure Retail Prices overview", 2026). A meter of which a word is not known
is left out, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .meter_names import read_meter_name
from .pricing import letters_of

LONG_PROMPT = 272_000
"""Meters with ``LongCo`` are for prompts of more tokens (price lists of OpenAI and LiteLLM, 2026-11)."""

_UNITS = {"1K": 1000, "1M": 1}
_EUROPE = re.compile(r"europe|sweden|france|germany|poland|spain|italy")
_AMERICA = re.compile(r"(east|west|central)us\d?$")


class Fact(NamedTuple):
    """What a meter is the price of."""

    model: str
    deployment: str
    tier: str
    above: int
    kind: str


class MeterPrice(NamedTuple):
    """US dollars per million tokens, the meter, and the day since when the price holds."""

    price: float
    meter: str
    since: str


def read_retail(items: Iterable[Mapping[str, Any]], models: Iterable[str]) -> tuple[dict[Fact, MeterPrice], list[str]]:
    """Return the prices in *items*, and the names of the meters that were not understood.

    Where regions differ, the highest price counts.

    Args:
        items: ``Items`` of the pages.
        models: The names of all models that are known from elsewhere.

    Raises:
        ValueError: the prices are not in US dollars.
    """
    known = _by_short_name(models)
    facts: dict[Fact, MeterPrice] = {}
    unknown: set[str] = set()
    for item in items:
        if item.get("type", "Consumption") != "Consumption" or item.get("tierMinimumUnits"):
            continue
        if item["currencyCode"] != "USD":
            raise ValueError(f"{item['meterName']}: save the list in USD, not in {item['currencyCode']}")
        fact, unit = _fact(item, known), _UNITS.get(item["unitOfMeasure"])
        if fact is None or unit is None or not item["retailPrice"]:
            unknown.add(item["meterName"])
            continue
        price = MeterPrice(round(item["retailPrice"] * unit, 6), item["meterName"], item["effectiveStartDate"][:10])
        facts[fact] = max(price, facts.get(fact, price))
    return facts, sorted(unknown)


def _by_short_name(models: Iterable[str]) -> dict[str, str]:
    """Return the models by the names that meters can have: ``54mini`` for gpt-5.4-mini, ``gpt4o1120`` with a date."""
    short: dict[str, str] = {}
    for model in sorted(models):
        dated = re.fullmatch(r"(.+)-20\d\d-(\d\d)-(\d\d)", model)
        name = letters_of("".join(dated.groups()) if dated else model)
        short[name] = model
        short[name.removeprefix("gpt")] = model
    return short


def _fact(item: Mapping[str, Any], known: Mapping[str, str]) -> Fact | None:
    said = read_meter_name(item["meterName"])
    if said is None or len({*said.media}) > 1:
        return None
    model = known.get("".join(map(letters_of, said.words)))
    deployment = _deployment(said.scope, item["armRegionName"])
    kind = _kind(said.direction, said.cache, said.media[0] if said.media else None)
    if model is None or deployment is None or kind is None:
        return None
    return Fact(model, deployment, said.tier, LONG_PROMPT if said.long_context else 0, kind)


def _kind(direction: str | None, cache: str | None, medium: str | None) -> str | None:
    kinds = {
        ("prompt", None, None): "prompt",
        ("completion", None, None): "completion",
        ("prompt", "cached", None): "cached",
        ("prompt", "cache_write", None): "cache_write",
        ("prompt", None, "audio"): "audio_prompt",
        ("completion", None, "audio"): "audio_completion",
        ("prompt", None, "image"): "image",
    }
    return kinds.get((direction or "", cache, medium))


def _deployment(said: str | None, region: str) -> str | None:
    if said != "zone":
        return said
    if _EUROPE.search(region):
        return "eu"
    return "us" if _AMERICA.search(region) else None
