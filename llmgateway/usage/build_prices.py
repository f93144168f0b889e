"""Writes ``prices.json``, the table of list prices: ``python -m llmgateway.usage.build_prices --help``.

A row has the prices of one model, type of deployment, service tier and length of the prompt, in US dollars, with their
source and the day since when they are known. Tokens and characters are counted in millions. A model that has no price
of tokens may have one of a minute of audio, of characters, or of an image. Rows are sorted and have a line each, so
that a difference between two versions can be reviewed. The same input gives the same output.

Sources, the most reliable one first:

1. Azure's retail price list, as files that were saved from https://prices.azure.com/api/retail/prices (see
   :mod:`.retail_prices`);
2. what LiteLLM's file of prices says of Azure (``azure/…``, ``azure_ai/…``; MIT licence);
3. what genai-prices says of Azure (MIT licence);
4. what both say of OpenAI, whose prices are Azure's for the models of both.

A price of 0 is not taken over: both data sets say 0 where they mean that something is billed in another way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ..records import PRICE_KINDS, UNIT_KINDS
from .pricing import letters_of
from .retail_prices import read_retail

_FIELD = re.compile(
    r"(?P<kind>input_cost_per_token|output_cost_per_token|cache_read_input_token_cost|cache_creation_input_token_cost|"
    r"input_cost_per_audio_token|output_cost_per_audio_token|input_cost_per_image_token|output_cost_per_image_token)"
    r"(?:_above_(?P<above>\d+)k_tokens)?(?:_(?P<tier>priority|flex|batches))?"
)
_KINDS = {
    "input_cost_per_token": "prompt",
    "output_cost_per_token": "completion",
    "cache_read_input_token_cost": "cached",
    "cache_creation_input_token_cost": "cache_write",
    "input_cost_per_audio_token": "audio_prompt",
    "output_cost_per_audio_token": "audio_completion",
    "input_cost_per_image_token": "image",
    "output_cost_per_image_token": "completion_image",
}
_UNITS = {
    "input_cost_per_second": ("minute", 60),
    "input_cost_per_character": ("characters", 1_000_000),
    "output_cost_per_image": ("per_image", 1),
}
"""Names of prices of something else than tokens: our name, and how many of theirs make one of ours."""
_TIERS = {None: "default", "priority": "priority", "flex": "flex", "batches": "batch"}
_DEPLOYMENTS = {"eu": "eu", "us": "us", "global": "global", "global-standard": "global"}
_PROMPT_ONLY = {"embedding"}
_MODES = {"chat", "responses", "completion", "realtime", "image_generation", "audio_transcription", "audio_speech"}
_UNIT_MODES = {"image_generation", "audio_transcription", "audio_speech"}
_AZURE_NAMES = {"tts": "tts-1", "tts-hd": "tts-1-hd"}
"""Models that Azure calls otherwise than OpenAI does (Microsoft, "Azure OpenAI models", 2026)."""
_DATE = re.compile(r"-20\d\d-\d\d-\d\d$")
_GONE = re.compile(r"(text-)?(ada|babbage|curie|davinci)(-\d+)?$")
# OpenAI publishes the weights of these, and others sell their tokens.
_NOT_SOLD_BY_OPENAI = ("gpt-oss",)


_UNIT = "US dollars per million tokens or characters, per minute, per image"


class Key(NamedTuple):
    """Identifies a row of the table."""

    model: str
    deployment: str
    tier: str
    above: int


class Row(NamedTuple):
    """Prices by kind, in US dollars (see :class:`~llmgateway.records.Prices`), and their source."""

    prices: dict[str, float]
    source: str
    date: str | None = None


Rows = dict[Key, Row]


def build(
    litellm: Mapping[str, Any], genai: Mapping[str, Rows], retail: Iterable[Mapping[str, Any]] = ()
) -> tuple[Rows, list[str]]:
    """Return the table, and the names of the meters in *retail* that were not understood.

    Args:
        litellm: LiteLLM's file; empty to do without.
        genai: The result of :func:`genai_rows`; empty to do without.
        retail: ``Items`` of all pages of Azure's list.
    """
    rows = {**genai.get("azure", {}), **_litellm(litellm, ("azure", "azure_ai"))}
    _add_undated(rows)
    openai = {**genai.get("openai", {}), **_litellm(litellm, ("openai",))}
    models = {letters_of(key.model) for key in rows}
    rows |= {
        key: row
        for key, row in openai.items()
        if letters_of(key.model) not in models and not key.model.startswith(_NOT_SOLD_BY_OPENAI)
    }
    for name, theirs in _AZURE_NAMES.items():
        rows |= {key._replace(model=name): row for key, row in list(rows.items()) if key.model == theirs}
    _add_priority(rows, openai)
    _add_long_priority(rows)
    unknown = _add_retail(rows, retail)
    _add_undated(rows)
    return rows, unknown


def genai_rows() -> dict[str, Rows]:
    """Return what the installed genai-prices says of Azure and of OpenAI, by provider."""
    from genai_prices.data import providers

    rows: dict[str, Rows] = {"azure": {}, "openai": {}}
    for provider in providers:
        for model in provider.models if provider.id in rows else ():
            # Prices that hold for some days or hours only are left out.
            if not isinstance(model.prices, list) and not _is_others(model.id):
                source = f"genai-prices {provider.id}/{model.id}"
                rows[provider.id].update(_genai_model(source, model.id, model.prices))
    return rows


def text_of(rows: Rows, *, date: str, sources: Mapping[str, str], before: Mapping[str, Any] | None = None) -> str:
    """Return the content of ``prices.json``.

    Args:
        date: The day of rows that are new or changed, ``2026-11-28``.
        sources: Says which files the prices come from.
        before: The table that this one replaces. Rows that have not changed keep their date.
    """
    known = {}
    for row in (before or {}).get("prices", ()):
        same = {name: value for name, value in row.items() if name != "date"}
        known[json.dumps(same, sort_keys=True)] = row["date"]
    lines = []
    for key in sorted(rows):
        prices, source, since = rows[key]
        shown = key._asdict() | {kind: prices[kind] for kind in PRICE_KINDS if kind in prices} | {"source": source}
        shown["date"] = since or known.get(json.dumps(shown, sort_keys=True), date)
        lines.append(json.dumps(shown))
    head = json.dumps({"unit": _UNIT, "date": date, "sources": dict(sorted(sources.items()))})
    return head[:-1] + ', "prices": [\n' + ",\n".join(lines) + "\n]}\n"


def _litellm(document: Mapping[str, Any], providers: Sequence[str]) -> Rows:
    found: Rows = {}
    for name in sorted(document, key=lambda name: (name.startswith("azure_ai/"), name)):
        entry = document[name]
        provider, deployment, model = _names(name, entry)
        if provider not in providers or model is None or _is_others(model):
            continue
        prompt_only = entry.get("mode") in _PROMPT_ONLY
        if not prompt_only and entry.get("mode") not in _MODES:
            continue
        for (tier, above), prices in _sets(entry):
            key = Key(model, deployment, tier, above)
            if _is_complete(prices, prompt_only=prompt_only) and not (key in found and "global" in name):
                found[key] = Row(prices, f"litellm {name}")
    return {key: row for key, row in found.items() if key._replace(tier="default", above=0) in found}


def _names(name: str, entry: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Return the provider, the type of deployment and the model of LiteLLM's *name*."""
    parts = name.lower().split("/")
    if len(parts) == 1:
        return str(entry.get("litellm_provider")), "global", parts[0]
    if len(parts) == 2:
        return parts[0], "global", parts[1]
    return parts[0], _DEPLOYMENTS.get(parts[1], ""), parts[2] if parts[1] in _DEPLOYMENTS else None


def _sets(entry: Mapping[str, Any]) -> Iterator[tuple[tuple[str, int], dict[str, float]]]:
    """Yield the prices of an entry by service tier and length of the prompt."""
    sets: dict[tuple[str, int], dict[str, float]] = {}
    for name, value in entry.items():
        field = _FIELD.fullmatch(name)
        if field is not None and isinstance(value, float | int) and value > 0:
            at = _TIERS[field["tier"]], int(field["above"] or 0) * 1000
            sets.setdefault(at, {})[_KINDS[field["kind"]]] = _per_million(value)
    if not sets and entry.get("mode") in _UNIT_MODES:
        units = {kind: _times(entry.get(name), times) for name, (kind, times) in _UNITS.items()}
        sets["default", 0] = {kind: price for kind, price in units.items() if price}
    for at, prices in sets.items():
        of_image = prices.pop("completion_image", None)
        if of_image is not None and "completion" not in prices:
            prices["completion"] = of_image
        # Chat models have no price of their own for images, because Azure converts images to tokens of text.
        if entry.get("supports_vision") and entry.get("mode") in ("chat", "responses") and "prompt" in prices:
            prices.setdefault("image", prices["prompt"])
        yield at, prices


def _genai_model(source: str, name: str, price: Any) -> Rows:
    fields = {
        "prompt": "input_mtok",
        "cached": "cache_read_mtok",
        "completion": "output_mtok",
        "cache_write": "cache_write_mtok",
        "audio_prompt": "input_audio_mtok",
        "audio_completion": "output_audio_mtok",
        "image": "input_image_mtok",
    }
    sets: dict[int, dict[str, float]] = {0: {}}
    for kind, field in fields.items():
        value = getattr(price, field, None)
        if isinstance(value, Decimal):
            value, tiers = value, list[Any]()
        elif value is not None:
            value, tiers = value.base, value.tiers
        if value:
            sets[0][kind] = float(value)
            for tier in tiers:
                # genai-prices says from how many tokens on; we say above how many.
                sets.setdefault(tier.start, {})[kind] = float(tier.price)
    prompt_only = "embed" in name
    model = name.lower()
    return {
        Key(model, "global", "default", above): Row(prices, source)
        for above, prices in sets.items()
        if _is_complete(prices, prompt_only=prompt_only) and _is_complete(sets[0], prompt_only=prompt_only)
    }


def _is_others(model: str) -> bool:
    """Whether this is no model of Azure's: tuned by customers, of other sellers, free, or gone for years."""
    return ":" in model or ".ft-" in model or "moderation" in model or _GONE.match(model) is not None


def _is_complete(prices: Mapping[str, float], *, prompt_only: bool) -> bool:
    by_tokens = "prompt" in prices and (prompt_only or "completion" in prices)
    return by_tokens or any(kind in prices for kind in UNIT_KINDS)


def _per_million(price: float) -> float:
    return _times(price, 1_000_000)


def _times(price: Any, factor: int) -> float:
    """Return *price* for as many units; 0 if it is no price."""
    return float(round(Decimal(str(price)) * factor, 6)) if isinstance(price, float | int) else 0.0


def _add_priority(rows: Rows, openai: Rows) -> None:
    """Add prices of the tier ``priority`` that only OpenAI's list has.

    Azure offers the tier for the same models. Without a price its requests could not be priced at all. In data zones
    it is as much dearer as the default tier.
    """
    for key in [key for key in rows if key.tier == "default" and key.above == 0]:
        wanted = key._replace(tier="priority")
        theirs = openai.get(wanted._replace(deployment="global"))
        default = openai.get(key._replace(deployment="global"))
        if theirs is None or default is None or wanted in rows or "prompt" not in rows[key].prices:
            continue
        ratio = rows[key].prices["prompt"] / default.prices["prompt"]
        prices = {kind: round(price * ratio, 6) for kind, price in theirs.prices.items()}
        rows[wanted] = Row(prices, theirs.source if ratio == 1 else f"{theirs.source}, times {ratio:g}")


def _add_long_priority(rows: Rows) -> None:
    """Add prices of long prompts with priority: as much dearer as long prompts are in the default tier."""
    for key in [key for key in rows if key.tier == "default" and key.above]:
        default, tier = rows[key._replace(above=0)], rows.get(key._replace(tier="priority", above=0))
        wanted = key._replace(tier="priority")
        if tier is None or wanted in rows:
            continue
        longer = rows[key].prices
        prices = {
            kind: round(price * longer[kind] / default.prices[kind], 6)
            for kind, price in tier.prices.items()
            if kind in longer and kind in default.prices
        }
        rows[wanted] = Row(prices, f"{tier.source}, in proportion to the default tier")


def _add_retail(rows: Rows, items: Iterable[Mapping[str, Any]]) -> list[str]:
    known = {key.model for key in rows}
    facts, unknown = read_retail(items, known)
    for fact, (price, meter, since) in sorted(facts.items()):
        key = Key(fact.model, fact.deployment, fact.tier, fact.above)
        before = rows.get(key, Row({}, ""))
        source = f"{before.source}; azure {meter}" if before.source else f"azure {meter}"
        rows[key] = Row(before.prices | {fact.kind: price}, source, max(since, before.date or ""))
    # A meter of the completion alone makes no row.
    for key in [key for key, row in rows.items() if not _is_complete(row.prices, prompt_only=True)]:
        del rows[key]
    return unknown


def _add_undated(rows: Rows) -> None:
    """Give a model whose versions alone are in the table the prices of its newest version."""
    models = {key.model for key in rows}
    newest: dict[str, str] = {}
    for model in sorted(models):
        undated = _DATE.sub("", model)
        if undated not in models:
            newest[undated] = model
    for undated, model in newest.items():
        for key in [key for key in rows if key.model == model]:
            rows[key._replace(model=undated)] = rows[key]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m llmgateway.usage.build_prices", description=__doc__.split("\n")[0])
    parser.add_argument("--litellm", type=Path, metavar="FILE", help="model_prices_and_context_window_backup.json")
    parser.add_argument("--genai-prices", action="store_true", help="take what the installed genai-prices knows, too")
    parser.add_argument(
        "--retail", type=Path, metavar="FILE", nargs="+", default=[], help="saved pages of Azure's list"
    )
    parser.add_argument("--date", required=True, help="the day of new and changed rows, like 2026-11-28")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="the table; unchanged rows keep dates"
    )
    given = parser.parse_args(arguments)
    litellm = {} if given.litellm is None else json.loads(given.litellm.read_bytes())
    items = [item for file in given.retail for item in json.loads(file.read_bytes())["Items"]]
    rows, unknown = build(litellm, genai_rows() if given.genai_prices else {}, items)
    before = json.loads(given.output.read_bytes()) if given.output.exists() else None
    sources = {file.name: _digest(file) for file in [*([given.litellm] if given.litellm else []), *given.retail]}
    if given.genai_prices:
        sources["genai-prices"] = version("genai-prices")
    given.output.write_text(text_of(rows, date=given.date, sources=sources, before=before))
    for meter in unknown:
        sys.stderr.write(f"not understood: {meter}\n")
    return 0


def _digest(file: Path) -> str:
    return "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
