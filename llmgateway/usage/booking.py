"""Decides which tokens are booked for a request, also if Azure's count never came.

Azure counts at the end of an answer. If the end does not arrive, Azure bills what the model has written until it
noticed that nobody listens any more. The gateway has not seen all of that: a reasoning model thinks unseen, an answer
that is not streamed arrives at once, and the last text may be on its way. So the unseen part is estimated from the time
and from the speed of the deployment, and never too low: otherwise a client could get answers for nothing by leaving
shortly before their ends.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from ..records import Bound, Usage, UsageSource
from .models import ModelFacts
from .seen import Seen

ON_ITS_WAY_SECONDS = 0.5
"""Added to every measured time. Text from another continent arrives 0.2 s after it was written, Azure's content filter
holds text back until it has checked it, and Azure writes on until it notices that the connection is closed."""

NO_CONTENT = (204, 205)
"""Statuses of answers without a body (RFC 9110, section 15.3): there is no completion."""

REQUEST_TIMEOUT = 408
"""The one status of an error that Azure always bills (Microsoft, "Manage costs", 2026)."""

MOST_CHOICES = 128
"""The most choices of one request (OpenAI, API reference, 2026). Azure refuses more."""


IGNORED, A_FEW = 2, 10
"""If this many times the limit, and a few tokens more, were seen, the model has ignored the limit. What was seen is an
estimate, and may be somewhat above the limit if the model has kept to it."""


class Asked(NamedTuple):
    """How much a client has asked for."""

    choices: int = 1
    most_tokens: int | None = None
    """The most tokens of one choice; None if the client set no limit."""
    predicted_tokens: int = 0
    """The tokens of the predicted output. Azure bills those that the model rejects, too, and nobody sees them (OpenAI,
    "Predicted Outputs", 2026)."""
    audio_prompt_tokens: int = 0
    """The part of the prompt that is recordings, estimated."""
    speaks: bool = False
    """Whether the answer may be spoken."""
    service_tier: str | None = None
    """None if the client names none."""
    audio_seconds: float = 0.0
    """The length of the recording that is to be written down."""
    characters: int = 0
    """The length of the text that is to be spoken."""
    images: int = 0
    """The number of images that are to be made."""
    may_think: bool = True
    """Whether a model that thinks does so for this kind of request."""

    @property
    def has_units(self) -> bool:
        """Whether Azure may count something else than tokens."""
        return bool(self.audio_seconds or self.characters or self.images)

    def with_units(self, usage: Usage, *, audio_seconds: float | None = None) -> Usage:
        """Return *usage* with the numbers of what Azure may count in place of tokens.

        Args:
            audio_seconds: The length of the recording, as Azure has counted it.
        """
        seconds = self.audio_seconds if audio_seconds is None else audio_seconds
        return replace(usage, audio_seconds=seconds, characters=self.characters, images=self.images)

    def with_audio(self, usage: Usage) -> Usage:
        """Return *usage*, which is an estimate, with the parts of it that may be audio."""
        if not self.audio_prompt_tokens and not self.speaks:
            return usage
        return replace(
            usage,
            audio_prompt_tokens=min(self.audio_prompt_tokens, usage.prompt_tokens),
            audio_completion_tokens=usage.completion_tokens if self.speaks else 0,
        )


class Times(NamedTuple):
    """How long ago something happened, in seconds. None if it has not happened."""

    sent: float
    """The request was sent."""
    head: float | None = None
    """The status and the headers of the answer arrived."""
    text: float | None = None
    """The last text of a stream arrived."""


def bound_of(asked: Asked, facts: ModelFacts, *, tokens_per_second: float) -> Bound:
    """Return how much an answer can have. The model writes its choices at the same time.

    Args:
        tokens_per_second: How fast the deployment writes one choice. What an admin has set takes precedence.
    """
    most = facts.max_output_tokens if asked.most_tokens is None else min(asked.most_tokens, facts.max_output_tokens)
    return Bound(
        most_tokens=most * asked.choices,
        tokens_per_second=(facts.tokens_per_second or tokens_per_second) * asked.choices,
    )


def book(
    seen: Seen,
    times: Times,
    bound: Bound,
    *,
    prompt_tokens: int,
    status: int | None,
    stream: bool,
    thinks: bool,
    ended: bool,
    predicted_tokens: int = 0,
    billed_error: bool = False,
) -> tuple[Usage, UsageSource]:
    """Return the tokens of a request, and where they come from.

    Args:
        prompt_tokens: The estimate, for the case that Azure did not count.
        status: The HTTP status of the answer; None if there was none.
        thinks: Whether the model produces tokens that are billed and not in the answer.
        ended: Whether the answer was read to its own end, so that nothing more of it can arrive.
        predicted_tokens: The tokens of a predicted output. To accept or reject them takes the model hardly any time.
        billed_error: Whether Azure bills the prompt of this error.
    """
    if seen.usage is not None:
        return seen.usage, UsageSource.UPSTREAM
    if seen.refused and not seen.completion_tokens:
        return Usage(), UsageSource.NONE
    prompt = prompt_tokens if seen.prompt_tokens is None else seen.prompt_tokens
    if status is not None and (status >= 300 or status in NO_CONTENT):
        if not billed_error and status != REQUEST_TIMEOUT:
            return Usage(), UsageSource.NONE
        return _usage(prompt, 0), UsageSource.ESTIMATED
    unseen = thinks or seen.blocked or not (stream or ended)
    tokens = float(seen.completion_tokens)
    if stream and not ended:
        tokens += _written_since(times.text, times.head, times.sent, bound=bound)
    if unseen:
        began = times.head if stream else None  # the head of an answer that is not streamed comes at its end
        tokens = max(tokens, _written_since(began, times.sent, bound=bound) + predicted_tokens)
    completion = min(math.ceil(tokens), bound.most_tokens)
    if seen.completion_tokens > IGNORED * bound.most_tokens + A_FEW:
        completion = seen.completion_tokens
    return _usage(prompt, completion), UsageSource.BOUND if unseen else UsageSource.ESTIMATED


def written_at_most(bound: Bound, *, seconds: float) -> int:
    """Return how many tokens can have been written within *seconds*."""
    return min(math.ceil(_written_since(max(seconds, 0.0), bound=bound)), bound.most_tokens)


def _written_since(*moments: float | None, bound: Bound) -> float:
    """Return the tokens that can have been written since the first of *moments* that is known."""
    seconds = next((moment for moment in moments if moment is not None), 0.0)
    return bound.tokens_per_second * (seconds + ON_ITS_WAY_SECONDS)


def _usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
