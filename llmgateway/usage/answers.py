"""Reads Azure's answers: what a completion, or an event of a streamed one, says about itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import orjson

from .tokens import text_tokens

BASE64_FOR_AUDIO_TOKEN = 200
"""The base64 characters of one token of spoken answer, at least. A second of speech has 20 tokens (OpenAI, pricing of
audio, 2025), and 4,000 characters in the smallest format (Opus with 24 kbit/s)."""

STREAMED_BASE64_FOR_AUDIO_TOKEN = 3200
"""The same for a stream. It always has 24,000 samples of two bytes a second (OpenAI, audio, 2025)."""

_SILENT = frozenset(
    (
        "annotations",
        "content_filter_offsets",
        "content_filter_result",
        "content_filter_results",
        "context",
        "id",
        "reasoning_details",
        "role",
        "type",
    )
)
"""Parts of a message that the model has not written, or that repeat what it has written."""


FOUND = "found"
"""What is written down in place of a severity if a category has none."""

_SEVERITIES = ("low", "medium", "high")
"""What Azure's filters find, besides "safe" (Microsoft, "Content filtering", 2026)."""

_RANKS = {severity: rank for rank, severity in enumerate((FOUND, *_SEVERITIES))}
_MOST_CATEGORIES = 32


def parse_object(data: bytes) -> dict[str, Any] | None:
    """Parse *data*; return None if it is not a JSON object."""
    if b"{" not in data:
        return None
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        # A document may begin with a byte order mark. And two events can each contain one half of a character: as a
        # lone surrogate, or as incomplete UTF-8. orjson refuses all of these, but the rest must be read.
        try:
            document = json.loads(data.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError):
            return None
    return document if isinstance(document, dict) else None


def name_of(document: dict[str, Any], field: str) -> str | None:
    """Return the text of ``model`` or ``service_tier``; None if there is none."""
    name = document.get(field)
    return _writable(name) if isinstance(name, str) and name else None


def _writable(name: str) -> str:
    """Return *name* without halves of characters: the usage record has to be written as UTF-8."""
    return name if name.isascii() else name.encode("utf-8", "replace").decode()


def choices_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a completion, or of an event of a stream."""
    choices = document.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def audio_ids(document: dict[str, Any]) -> list[str]:
    """Return the identifiers of the spoken answers in a completion, or in an event of a stream.

    A client sends one back in place of the recording: ``{"role": "assistant", "audio": {"id": "audio_…"}}``.
    """
    messages = (choice.get(part) for choice in choices_of(document) for part in ("message", "delta"))
    spoken = (message.get("audio") for message in messages if isinstance(message, dict))
    return [audio["id"] for audio in spoken if isinstance(audio, dict) and isinstance(audio.get("id"), str)]


def is_blocked(choice: dict[str, Any]) -> bool:
    """Return whether the content filter ended *choice*. If it is not streamed, it has no message then."""
    return choice.get("finish_reason") == "content_filter"


def texts_of(choice: dict[str, Any]) -> list[str]:
    """Return everything that the model has written in *choice*, in any field.

    That is the content, refusals, visible reasoning, the names and arguments of called tools, and whatever fields a
    model may have in the future. What is known not to be written by the model is left out.
    """
    return [text for name, text in _strings(choice) if name != "data"]


def said_tokens(choice: dict[str, Any]) -> int:
    """Estimate the tokens of what the model has written, or spoken, in *choice*."""
    for_token = STREAMED_BASE64_FOR_AUDIO_TOKEN if "delta" in choice else BASE64_FOR_AUDIO_TOKEN
    return sum(
        -(-len(text) // for_token) if name == "data" else text_tokens(text.encode("utf-8", "surrogatepass"))
        for name, text in _strings(choice)
    )


def _strings(choice: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name and the value of every text in the message of *choice*."""
    unvisited: list[tuple[str, Any]] = [(name, choice.get(name)) for name in ("delta", "message", "text")]
    while unvisited:
        name, value = unvisited.pop()
        if isinstance(value, str):
            if value:
                yield name, value
        elif isinstance(value, dict):
            unvisited.extend((child, value[child]) for child in value if child not in _SILENT)
        elif isinstance(value, list):
            unvisited.extend((name, child) for child in value)


def may_have_filter_results(data: bytes) -> bool:
    """Return whether a content filter may have found something in *data*, an answer. Nearly always it has not.

    What the model has written cannot be taken for a result: its quotation marks are escaped.
    """
    return b"true" in data or b'"low"' in data or b'"medium"' in data or b'"high"' in data


def filter_results(document: Any) -> tuple[set[str], dict[str, str]]:
    """Return which content filters in *document* found or blocked something, and what their findings are.

    It searches the whole document, because Azure puts the results beside choices, prompts and errors, under names in
    the singular and in the plural.

    Returns:
        The categories that fired, and by category the highest severity: ``low``, ``medium`` or ``high``, also of those
        that did not fire; ``found`` for categories without severities, such as ``jailbreak``.
    """
    fired: set[str] = set()
    severities: dict[str, str] = {}
    unvisited = [document]
    while unvisited:
        value = unvisited.pop()
        if isinstance(value, list):
            unvisited.extend(value)
        elif isinstance(value, dict):
            for name, child in value.items():
                if isinstance(child, dict) and ("filtered" in child or "detected" in child):
                    severity = child.get("severity")
                    if child.get("filtered") is True or child.get("detected") is True:
                        fired.add(_writable(name))
                        severity = severity if severity in _SEVERITIES else FOUND
                    if severity in _SEVERITIES or severity == FOUND:
                        higher(severities, _writable(name), severity)
                elif isinstance(child, dict | list):
                    unvisited.append(child)
    return fired, severities


def higher(severities: dict[str, str], category: str, severity: str) -> None:
    """Keep *severity* of *category* if it is higher than the one that is known, if one is."""
    known = severities.get(category)
    if known is None and len(severities) >= _MOST_CATEGORIES:
        return
    if known is None or _RANKS[severity] > _RANKS[known]:
        severities[category] = severity
