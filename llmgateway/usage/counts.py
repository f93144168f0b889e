"""Reads the token counts in the ``usage`` object of an answer."""

from __future__ import annotations

from typing import Any

from ..records import Usage
from .answers import choices_of
from .tokens import LARGEST_COUNT

# OpenAI's chat completions use the first name, and its newer endpoints and some models
# of Foundry the second.
_PROMPT = ("prompt_tokens", "input_tokens")
_COMPLETION = ("completion_tokens", "output_tokens")
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_COMPLETION_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")


def parse_usage(document: Any) -> Usage | None:
    """Return the counts in the ``usage`` object of *document*; None if it has none.

    A missing object, an empty one and one that contains only nulls or zeros are no counts: some models of Foundry send
    them as placeholders. If only one half was counted, the other half is 0 (:func:`is_whole`).

    ``completion_tokens`` is the number that is billed. Grok does not add its reasoning tokens to the completion tokens,
    but to the total (recorded in 2025).
    """
    usage = document.get("usage") if isinstance(document, dict) else None
    return _parse_counts(usage) if isinstance(usage, dict) else None


def usage_in_choices(document: dict[str, Any]) -> Usage | None:
    """Return the counts in the choice of *document* if it has one choice only; else None.

    Moonshot's models count in the last event of the choice, and not beside ``choices``.
    """
    choices = choices_of(document)
    return parse_usage(choices[0]) if len(choices) == 1 else None


def _parse_counts(usage: dict[str, Any]) -> Usage | None:
    prompt, completion, total = _count(usage, *_PROMPT), _count(usage, *_COMPLETION), _count(usage, "total_tokens")
    prompt_details, completion_details = _details(usage, _PROMPT_DETAILS), _details(usage, _COMPLETION_DETAILS)
    reasoning = max(_count(completion_details, "reasoning_tokens"), _count(usage, "reasoning_tokens"))
    if not prompt and completion:
        prompt = max(0, total - completion)
    completion = max(completion, total - prompt)
    if reasoning > completion:
        completion += reasoning
    if not prompt and not completion:
        return None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cached_tokens=min(prompt, _count(prompt_details, "cached_tokens")),
        reasoning_tokens=reasoning,
        audio_prompt_tokens=min(prompt, _count(prompt_details, "audio_tokens")),
        audio_completion_tokens=min(completion, _count(completion_details, "audio_tokens")),
        image_prompt_tokens=min(prompt, _count(prompt_details, "image_tokens")),
    )


def is_whole(usage: Usage, *, said_something: bool) -> bool:
    """Return whether *usage* counts the prompt and the answer. No prompt has 0 tokens, and no text has 0 tokens."""
    return usage.prompt_tokens > 0 and (usage.completion_tokens > 0 or not said_something)


def _details(usage: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    for name in names:
        if isinstance(details := usage.get(name), dict):
            return details
    return {}


def _count(counts: dict[str, Any], *names: str) -> int:
    """Return the first positive number under *names*; 0 if there is none. Some models send ``12.0`` instead of 12."""
    for name in names:
        value = counts.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LARGEST_COUNT:
            return -int(-value // 1)  # rounds up
    return 0
