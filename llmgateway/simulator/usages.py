"""The forms in which Azure, and the models of other makers in Foundry, tell the tokens of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import orjson

from ..records import Usage

UsageForm = Literal["azure", "bare", "floats", "grok", "deepseek", "unfilled", "zeros", "empty", "null", "missing"]
UsagePlace = Literal["last", "finish", "every", "placeholder"]


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return the ``usage`` object in Azure's form since 2025."""
    prompt_details = {"audio_tokens": usage.audio_prompt_tokens, "cached_tokens": usage.cached_tokens}
    if usage.image_prompt_tokens:
        prompt_details["image_tokens"] = usage.image_prompt_tokens
    return {
        "completion_tokens": usage.completion_tokens,
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": usage.audio_completion_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "rejected_prediction_tokens": 0,
        },
        "prompt_tokens": usage.prompt_tokens,
        "prompt_tokens_details": prompt_details,
        "total_tokens": usage.total_tokens,
    }


def _bare(usage: Usage) -> dict[str, Any]:
    return {
        "completion_tokens": usage.completion_tokens,
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
    }


def _floats(usage: Usage) -> dict[str, Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: convert(part) for name, part in value.items()}
        return float(value)

    return {name: convert(value) for name, value in usage_object(usage).items()}


def _grok(usage: Usage) -> dict[str, Any]:
    """Return the form of Grok in Foundry (recorded 2025-10): ``completion_tokens`` without the reasoning."""
    return {**usage_object(usage), "completion_tokens": usage.completion_tokens - usage.reasoning_tokens}


def _deepseek(usage: Usage) -> dict[str, Any]:
    """Return the form of DeepSeek in Foundry (recorded 2026): no details, and no reasoning tokens after reasoning."""
    return {**_bare(usage), "prompt_tokens_details": None, "reasoning_tokens": 0}


FORMS: Mapping[str, Callable[[Usage], dict[str, Any] | None]] = {
    "azure": usage_object,
    "bare": _bare,
    "floats": _floats,
    "grok": _grok,
    "deepseek": _deepseek,
    "unfilled": lambda usage: dict.fromkeys(_bare(usage)),
    "zeros": lambda _: usage_object(Usage()),
    "empty": lambda _: {},
    "null": lambda _: None,
}


def written(usage: Usage, form: str | Mapping[str, Any] | None) -> bytes:
    """Return ``,"usage":…`` in a form; nothing if it is ``missing``. An object is written as it is."""
    if form == "missing":
        return b""
    told = FORMS[form or "azure"](usage) if form is None or isinstance(form, str) else form
    return b',"usage":' + orjson.dumps(told)


def read(told: Mapping[str, Any]) -> Usage | None:
    """Return what a made-up ``usage`` object bills; ``None`` if it does not count the completion."""
    prompt, total = _number(told, "prompt_tokens"), _number(told, "total_tokens")
    completion = max(_number(told, "completion_tokens"), total - prompt)
    if not completion:
        return None
    before, after = _details(told, "prompt_tokens_details"), _details(told, "completion_tokens_details")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cached_tokens=_number(before, "cached_tokens"),
        reasoning_tokens=_number(after, "reasoning_tokens"),
        audio_prompt_tokens=_number(before, "audio_tokens"),
        audio_completion_tokens=_number(after, "audio_tokens"),
        image_prompt_tokens=_number(before, "image_tokens"),
    )


def _details(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = told.get(name)
    return details if isinstance(details, Mapping) else {}


def _number(told: Mapping[str, Any], name: str) -> int:
    value = told.get(name)
    return int(value) if isinstance(value, (int, float)) else 0
