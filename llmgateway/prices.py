"""What tokens cost, in US dollars."""

from __future__ import annotations

import genai_prices
from genai_prices import Usage as PricedUsage

from .records import Usage

# Azure's own list first; a model that it lacks costs at Azure what it costs at OpenAI.
_PROVIDERS = ("azure", "openai")


def cost_usd(usage: Usage, model: str) -> float | None:
    """Return the list price of *usage*, or None if nobody knows what *model* costs.

    Cached tokens are a part of the prompt and cheaper; reasoning tokens are a part of the completion.
    """
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
