"""What tokens cost, in US dollars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import genai_prices
from genai_prices import Usage as PricedUsage

from ..records import Prices, Usage

# Azure's own list first; a model that it lacks costs at Azure what it costs at OpenAI.
_PROVIDERS = ("azure", "openai")


def cost_usd(usage: Usage, *models: str | None, own: Mapping[str, Prices]) -> float | None:
    """Return what *usage* costs, or None if nobody knows.

    Cached tokens are a part of the prompt and cheaper; reasoning tokens are a part of the completion.

    Args:
        models: Names the model goes by, the one to trust most first. A price of the organisation's
            *own* for any of them wins; else it is the list price of the first that has one.
    """
    names = [name for name in models if name]
    for name in names:
        if name in own:
            return _at(own[name], usage)
    for name in names:
        cost = _list_price(usage, name)
        if cost is not None:
            return cost
    return None


def _at(prices: Prices, usage: Usage) -> float:
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    fresh = usage.prompt_tokens - cached
    dollars_per_million = fresh * prices.prompt + cached * prices.cached + usage.completion_tokens * prices.completion
    return dollars_per_million / 1_000_000


def _list_price(usage: Usage, model: str) -> float | None:
    flat = _flat_prices(model)
    return _calculated(usage, model) if flat is None else _at(flat, usage)


@lru_cache(maxsize=1000)
def _flat_prices(model: str) -> Prices | None:
    """The list prices of *model*, if a token costs the same however many there are; else None.

    The data set is asked once for a model instead of for every request (100 us each). Prices with
    steps for long prompts, which begin at 128,000 tokens or more, show in a larger sum than expected.
    """
    million = 1_000_000
    prompt = _calculated(Usage(prompt_tokens=1), model)
    cached = _calculated(Usage(prompt_tokens=1, cached_tokens=1), model)
    completion = _calculated(Usage(completion_tokens=1), model)
    if prompt is None or cached is None or completion is None:
        return None
    prices = Prices(prompt=prompt * million, cached=cached * million, completion=completion * million)
    large = Usage(prompt_tokens=2 * million, cached_tokens=million, completion_tokens=million)
    return prices if math.isclose(_at(prices, large), _calculated(large, model) or 0.0, rel_tol=1e-9) else None


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
