"""Estimates what a request will use and cost, before it is sent."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..accounts.principal import Principal
from ..errors import PriceUnknown
from ..ratelimit.answer_lengths import USUAL_TOKENS
from ..ratelimit.rules import Estimate, Use, has_budget_in_dollars
from ..records import LONGEST_RECORDED_MODEL, KeyRecord, ModelSettings, Outcome, Usage, UsageRecord, UsageSource, moment
from ..usage.booking import Asked
from ..usage.models import model_facts
from ..usage.pricing import cost_usd, highest_cost_usd
from ..usage.tokens import LARGEST_COUNT
from .request import CompletionRequest, UpstreamRequest

_TIMES_MEAN, _SHARED_TOKENS = 4, 2_048
"""What is reserved of a shared budget for an answer without a limit: this multiple of the mean of recent answers, and
at least this many tokens. If the lengths of answers are distributed exponentially, two in a hundred are longer than
four times the mean."""


def draft_record(
    request: CompletionRequest,
    key: KeyRecord,
    upstream: UpstreamRequest,
    now: float,
    *,
    model_known: bool,
    model_name: str | None,
) -> UsageRecord:
    """Return the record that is kept if this process dies before the request has ended.

    Args:
        model_name: The model's name in an earlier answer of the deployment; None if there was none.
    """
    # Not its model: a client may send any name if the deployment is a part of the address.
    estimate = upstream.operation.prompt_tokens(
        upstream.document, upstream.prompt.text, (model_name, upstream.registered_name, upstream.deployment)
    )
    estimate = min(estimate + upstream.continued_tokens, LARGEST_COUNT)
    return UsageRecord(
        id=request.id,
        timestamp=moment(now),
        key_id=key.id,
        user=key.user,
        group=key.group,
        model=upstream.model[:LONGEST_RECORDED_MODEL],
        model_known=model_known,
        deployment=upstream.deployment,
        endpoint=request.endpoint,
        stream=upstream.stream,
        outcome=Outcome.INTERRUPTED,
        prompt_tokens=estimate,
        total_tokens=estimate,
        usage_source=UsageSource.ESTIMATED,
        prompt_version=upstream.prompt.version,
        duration_ms=0.0,
        client_address=request.client_address,
    )


def estimate_use(
    draft: UsageRecord,
    upstream: UpstreamRequest,
    principal: Principal,
    asked: Asked,
    *,
    model_name: str | None,
    usual_tokens: int = USUAL_TOKENS,
    mean_tokens: float | None = None,
) -> Estimate:
    """Estimate what the request may use.

    Args:
        asked: The limits in the body of the request.
        model_name: The model's name in an earlier answer of the deployment; None if there was none.
        usual_tokens: How long the key's answers usually are.
        mean_tokens: The mean length of recent answers of the deployment; None if it is not known.
    """
    prompt, models = draft.prompt_tokens, principal.organisation.models
    # Not its model: a client may send any name if the deployment is a part of the address.
    longest = model_facts(model_name, upstream.registered_name, upstream.deployment, own=models).max_output_tokens
    price = _Price(upstream, model_name, models) if has_budget_in_dollars(principal) else None

    def use(tokens: float) -> Use:
        """Return the use with answers of this length, or of the longest that is possible."""
        completion = math.ceil(min(tokens, longest)) * asked.choices
        return Use(prompt + completion, 0.0 if price is None else price.of(prompt, completion))

    if asked.most_tokens is not None:
        return Estimate.bounded(*use(asked.most_tokens))
    return Estimate(
        most=use(longest),
        likely=use(max(_TIMES_MEAN * (mean_tokens or 0.0), _SHARED_TOKENS)),
        least=use(USUAL_TOKENS),
        per_minute=prompt + min(usual_tokens, longest) * asked.choices,
        choices=asked.choices,
    )


def require_price(principal: Principal, upstream: UpstreamRequest) -> None:
    """Check that the price of the request is known if one of its scopes has a budget in dollars.

    The names that the client and Azure use for the deployment decide, not the name of the model in earlier answers:
    each process has seen other answers, and the same request must not be refused by some of them only.

    Raises:
        PriceUnknown: the price of the model is not known, or that of audio if the request has some or asks for it.
    """
    if not has_budget_in_dollars(principal):
        return
    asked = upstream.asked
    sample = asked.with_audio(Usage(prompt_tokens=1, completion_tokens=0 if asked.most_tokens == 0 else 1))
    if asked.has_units:
        sample = asked.with_units(sample)
    names = upstream.registered_name, upstream.deployment, upstream.model
    if cost_usd(sample, *names, own=principal.organisation.models) is not None:
        return
    of_audio = " for audio" if sample.audio_prompt_tokens or sample.audio_completion_tokens else ""
    raise PriceUnknown(
        f"The price of the model {upstream.deployment!r}{of_audio} is not known, so your budget in dollars cannot pay "
        "it. Use another model, or ask the admin to set its price: PUT /admin/models/{name}, or llmgateway models set.",
        param="model",
    )


class _Price:
    """What a request costs at most, by what it asks for."""

    def __init__(self, upstream: UpstreamRequest, model_name: str | None, models: Mapping[str, ModelSettings]) -> None:
        self._names = model_name, upstream.registered_name, upstream.deployment, upstream.model
        self._models = models
        self._asked = upstream.asked

    def of(self, prompt: int, completion: int) -> float:
        """Return the highest known price of the prompt and the answer in US dollars; 0 if none is known."""
        text = Usage(prompt_tokens=prompt, completion_tokens=completion)
        if self._asked.has_units:
            text = self._asked.with_units(text)
        spoken = self._asked.with_audio(text)
        costs = [
            highest_cost_usd(usage, *self._names, own=self._models, service_tiers={None, self._asked.service_tier})
            for usage in ((text,) if spoken is text else (text, spoken))
        ]
        return max((cost for cost in costs if cost is not None), default=0.0)
