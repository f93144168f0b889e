"""Computes the cost of tokens in US dollars.

List prices are in ``prices.json`` beside this module, which :mod:`.build_prices` writes. Admins can set prices of their
own for a model or a deployment; they take precedence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from ..records import PRICE_KINDS, ModelSettings, Prices, Usage
from .models import own_settings, without_version

_DEARER = "priority"
"""The only tier that costs more than the default. If its price is not known, the default price would be too low."""

PRIORITY_FACTOR = 2.0
"""Priority costs 1.7 to 2 times the default price (Azure's prices of 2026-09)."""

TOOL_PRICES: Mapping[str, float] = {"web_search": 14.0, "code_interpreter": 30.0, "file_search": 2.5}
"""List prices of Azure's own tools, in US dollars per thousand uses; of the code interpreter, per thousand sessions.
The first two are what LiteLLM's data say of Azure (2026-11), the third is OpenAI's price (2026)."""

_SEPARATORS = re.compile(r"[^a-z0-9]+")


def cost_usd(
    usage: Usage, *models: str | None, own: Mapping[str, ModelSettings], service_tier: str | None = None
) -> float | None:
    """Return the cost of *usage*: 0 if there are no tokens, None if a price that it needs is not known.

    Cached, audio and image tokens are parts of the prompt. Reasoning and audio tokens are parts of the completion.
    Some models have a price of a minute, a character or an image. Where *usage* has that number, it alone counts.

    Audio without a price of its own makes the cost unknown; it is not charged as text. Cached tokens without a price
    cost as much as the others, which is never too little. So do the tokens of images: the chat models that Azure sells
    have one price for both.

    Args:
        models: The names of the model, the most reliable one first. The first name with a price counts.
        own: The organisation's own settings, by model or deployment. Their prices take precedence over list prices.
        service_tier: The tier that the answer names. ``flex`` and tiers that are not known cost the default price if
            they have none of their own, which is never too little. ``priority`` then costs as many times the default
            price as in the list, or :data:`PRIORITY_FACTOR` times.
    """
    if not usage.prompt_tokens and not usage.completion_tokens and not _has_units(usage):
        return 0.0
    prices = own_settings(own, models).prices or _first_list_prices(models)
    if prices is None:
        return None
    if service_tier is None or service_tier == "default":
        return _cost_at(prices, usage)
    tier = service_tier.lower()
    cost = _cost_at(prices.tiers[tier], usage, prices.above) if tier in prices.tiers else None
    if cost is None:
        cost = _cost_at(prices, usage)
        if cost is not None and tier == _DEARER:
            cost *= _priority_factor(models, usage)
    return cost


def highest_cost_usd(
    usage: Usage,
    *models: str | None,
    own: Mapping[str, ModelSettings],
    service_tiers: Iterable[str | None],
    tool_uses: Mapping[str, int] | None = None,
) -> float | None:
    """Return the highest known cost of *usage* at these tiers; None if none is known.

    Azure may serve a request at the default tier in spite of what it asks for.

    Args:
        tool_uses: How often Azure has run each of its own tools. If the price of one of them is not known, the cost is
            not known.
    """
    costs = [cost_usd(usage, *models, own=own, service_tier=tier) for tier in service_tiers]
    cost = max((cost for cost in costs if cost is not None), default=None)
    if not tool_uses or cost is None:
        return cost
    prices = own_settings(own, models).prices
    known = TOOL_PRICES if prices is None else {**TOOL_PRICES, **prices.tools}
    if not known.keys() >= tool_uses.keys():
        return None
    return cost + sum(uses * known[tool] for tool, uses in tool_uses.items()) / 1000


def _priority_factor(models: tuple[str | None, ...], usage: Usage) -> float:
    listed = _first_list_prices(models)
    if listed is None or _DEARER not in listed.tiers:
        return PRIORITY_FACTOR
    default, priority = _cost_at(listed, usage), _cost_at(listed.tiers[_DEARER], usage, listed.above)
    return priority / default if default and priority else PRIORITY_FACTOR


def added(costs: Sequence[float | None]) -> float | None:
    """Return the sum of *costs*; None if one of them is not known."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


class ListedAs(NamedTuple):
    """Where a list price comes from."""

    model: str
    """The name in the table."""
    source: str
    """Whose data it is."""
    date: str
    """The day of these data, like 2026-11-28."""


@lru_cache(maxsize=1000)
def listed_as(model: str) -> ListedAs | None:
    """Return the place in the table where :func:`list_prices` finds the prices of *model*; None if it finds none."""
    name = model.strip().lower()
    while (found := _places().get(letters_of(name))) is None and (shorter := without_version(name)) != name:
        name = shorter
    return found


@lru_cache(maxsize=1000)
def list_prices(model: str, deployment_type: str = "global") -> Prices | None:
    """Return the list prices of *model*; None if they are not known.

    The name may be written in upper case and with other separators, and have a version (``gpt-4o-2024-11-20``). If
    the version has no price of its own, it has the price of the model.

    Args:
        deployment_type: ``global``, ``eu``, ``us`` (data zones) or ``regional``.
    """
    table, name = _table(deployment_type), model.strip().lower()
    found = table.get(letters_of(name))
    while found is None and (shorter := without_version(name)) != name:
        name = shorter
        found = table.get(letters_of(name))
    return found


def letters_of(name: str) -> str:
    """Return the letters and digits of *name*, which is in lower case. The table is searched by these.

    Some of Azure's pages allow no dot in the names of deployments, so people write gpt-35-turbo for gpt-3.5-turbo.
    """
    return _SEPARATORS.sub("", name)


def prices_of_table(document: Mapping[str, Any], deployment_type: str = "global") -> dict[str, Prices]:
    """Return the prices in a table of the form of ``prices.json``, by model."""
    rows: dict[str, dict[tuple[str, int], Mapping[str, Any]]] = {}
    for row in document["prices"]:
        if row["deployment"] == deployment_type:
            rows.setdefault(row["model"], {})[row["tier"], row["above"]] = row
    return {model: _of_rows(parts) for model, parts in rows.items() if ("default", 0) in parts}


def shipped_table() -> dict[str, Any]:
    """Return the table that is part of this program."""
    table: dict[str, Any] = json.loads((files(__package__) / "prices.json").read_bytes())
    return table


def _first_list_prices(models: tuple[str | None, ...]) -> Prices | None:
    for name in models:
        if name and (prices := list_prices(name)) is not None:
            return prices
    return None


def _cost_at(prices: Prices, usage: Usage, above: int | None = None) -> float | None:
    """Return the cost at *prices*; None if one of them is not known.

    Args:
        above: Prompts of more tokens need prices for long prompts.
    """
    if _has_units(usage) and (by_unit := _cost_by_unit(prices, usage)) is not None:
        return by_unit
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if prices.long_context is not None and prices.above is not None and prompt > prices.above:
        prices = prices.long_context
    elif above is not None and prompt > above:
        return None
    millionths = 0.0
    if usage.audio_prompt_tokens or usage.image_prompt_tokens:
        audio = min(usage.audio_prompt_tokens, prompt)
        image = min(usage.image_prompt_tokens, prompt - audio)
        if audio and prices.audio_prompt is None:
            return None
        millionths += audio * (prices.audio_prompt or 0.0)
        prompt -= audio
        if prices.image is not None:
            millionths += image * prices.image
            prompt -= image
    if usage.audio_completion_tokens:
        audio = min(usage.audio_completion_tokens, completion)
        if audio and prices.audio_completion is None:
            return None
        millionths += audio * (prices.audio_completion or 0.0)
        completion -= audio
    if completion:
        if prices.completion is None:
            return None
        millionths += completion * prices.completion
    if usage.cached_tokens and prices.cached is not None:
        cached = min(usage.cached_tokens, prompt)
        millionths += cached * prices.cached
        prompt -= cached
    if prompt and prices.prompt is None:
        return None
    return (millionths + prompt * (prices.prompt or 0.0)) / 1_000_000


def _has_units(usage: Usage) -> bool:
    return bool(usage.audio_seconds or usage.characters or usage.images)


def _cost_by_unit(prices: Prices, usage: Usage) -> float | None:
    """Return the cost of *usage* by the minute, the character or the image; None if there is no such price."""
    if usage.audio_seconds and prices.minute is not None:
        return usage.audio_seconds / 60 * prices.minute
    if usage.characters and prices.characters is not None:
        return usage.characters * prices.characters / 1_000_000
    if usage.images and prices.per_image is not None:
        return usage.images * prices.per_image
    return None


@lru_cache(maxsize=8)
def _table(deployment_type: str) -> dict[str, Prices]:
    return {letters_of(model): prices for model, prices in prices_of_table(shipped_table(), deployment_type).items()}


@lru_cache(maxsize=1)
def _places() -> dict[str, ListedAs]:
    rows = shipped_table()["prices"]
    return {
        letters_of(row["model"]): ListedAs(row["model"], row["source"], row["date"])
        for row in rows
        if row["deployment"] == "global" and row["tier"] == "default" and not row["above"]
    }


def _of_rows(rows: Mapping[tuple[str, int], Mapping[str, Any]]) -> Prices:
    tiers = {tier: _of_tier(rows, tier) for tier, above in rows if tier != "default" and not above}
    default = _of_tier(rows, "default")
    return Prices(
        **{kind: getattr(default, kind) for kind in PRICE_KINDS},
        above=default.above,
        long_context=default.long_context,
        tiers=tiers,
    )


def _of_tier(rows: Mapping[tuple[str, int], Mapping[str, Any]], tier: str) -> Prices:
    above = max(limit for name, limit in rows if name == tier)
    return Prices(
        **_kinds(rows[tier, 0]),
        above=above or None,
        long_context=Prices(**_kinds(rows[tier, above])) if above else None,
    )


def _kinds(row: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: row.get(kind) for kind in PRICE_KINDS}
