"""Computes the cost of tokens in US dollars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import genai_prices
from genai_prices import Usage as PricedUsage

from ..records import Prices, Usage

# Azure's price list comes first. A model that it does not contain has OpenAI's price at Azure.
_PROVIDERS = ("azure", "openai")


def cost_usd(usage: Usage, *models: str | None, own: Mapping[str, Prices]) -> float | None:
    """Return the cost of *usage*, or None if no price is known.

    Cached tokens are a part of the prompt, and cheaper. Reasoning tokens are a part of the completion.

    Args:
        models: The names of the model, the most reliable one first. The first name with a price counts.
        own: The organisation's own prices, by model. They take precedence over list prices.
    """
    names = [name for name in models if name]
    for name in names:
        if name in own:
            return _cost_at(own[name], usage)
    for name in names:
        cost = _list_price(usage, name)
        if cost is not None:
            return cost
    return None


def _cost_at(prices: Prices, usage: Usage) -> float:
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    uncached = usage.prompt_tokens - cached
    millionths = uncached * prices.prompt + cached * prices.cached + usage.completion_tokens * prices.completion
    return millionths / 1_000_000


def _list_price(usage: Usage, model: str) -> float | None:
    flat = _flat_prices(model)
    return _calculated(usage, model) if flat is None else _cost_at(flat, usage)


@lru_cache(maxsize=1000)
def _flat_prices(model: str) -> Prices | None:
    """Return the list prices of *model*, or None if the price of a token depends on their number.

    This computes the prices once for each model. Otherwise genai_prices would compute the cost of each request (100 us
    each). Some models have higher prices for long prompts, of 128,000 tokens or more. They are recognised by a test: a
    very large usage must cost as much as its tokens one by one.
    """
    million = 1_000_000
    prompt = _calculated(Usage(prompt_tokens=1), model)
    cached = _calculated(Usage(prompt_tokens=1, cached_tokens=1), model)
    completion = _calculated(Usage(completion_tokens=1), model)
    if prompt is None or cached is None or completion is None:
        return None
    prices = Prices(prompt=prompt * million, cached=cached * million, completion=completion * million)
    large = Usage(prompt_tokens=2 * million, cached_tokens=million, completion_tokens=million)
    return prices if math.isclose(_cost_at(prices, large), _calculated(large, model) or 0.0, rel_tol=1e-9) else None


def _calculated(usage: Usage, model: str) -> float | None:
    priced = PricedUsage(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=min(usage.cached_tokens, usage.prompt_tokens),
        output_tokens=usage.completion_tokens,
    )
    for provider in _PROVIDERS:
        try:
            return float(genai_prices.calc_price(priced, model, provider_id=provider).total_price)
        except LookupError:
            continue
    return None
