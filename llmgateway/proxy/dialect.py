"""Two dialects of streamed completions: OpenAI's, and Azure's, which has events that OpenAI does not send."""

from __future__ import annotations

import re
from enum import Enum
from functools import partial
from typing import Any

from ..usage.answers import choices_of, parse_object
from ..usage.counts import parse_usage
from ..usage.events import read_fields
from ..usage.meter import Edit
from .parsing import dump

_FIRST_CHOICE = re.compile(rb'"choices"\s*:\s*\[\s*\{')
_PROMPT_RESULTS = ("prompt_filter_results", "prompt_annotations")
"""Fields of Azure's first event; the second is the name in some api-versions."""


class Dialect(Enum):
    """What a client expects of a stream."""

    OPENAI = "openai"
    """Every event but the one with the usage has a choice, and every choice has a ``delta``. The examples of OpenAI's
    documentation read ``chunk.choices[0].delta.content`` and rely on it."""
    AZURE = "azure"
    """Every event as Azure sent it."""


def editor(dialect: Dialect, *, withhold_usage: bool, with_deltas: bool = True) -> Edit:
    """Return the function that makes Azure's events those of *dialect*.

    Args:
        withhold_usage: Whether to remove the usage event, because the client did not ask for it.
        with_deltas: Whether each choice of OpenAI's has a ``delta``. Those of legacy completions have none.
    """
    return partial(_edit, dialect is Dialect.OPENAI, withhold_usage, with_deltas)


def _edit(openai: bool, withhold_usage: bool, with_deltas: bool, event: bytes, document: dict[str, Any]) -> bytes:
    if document.get("error") or document.get("type") == "error":
        return event
    if not document.get("choices"):
        # An event of another kind, such as a ping, has no field "choices", and neither a count nor filter results.
        azures = "choices" in document or any(name in document for name in _PROMPT_RESULTS)
        withhold = withhold_usage if _is_usage_event(document) else openai and azures
        return b"" if withhold else event
    if openai and with_deltas and any(not isinstance(choice.get("delta"), dict) for choice in choices_of(document)):
        return _with_delta(event, document)
    return event


def _is_usage_event(document: dict[str, Any]) -> bool:
    if parse_usage(document) is not None:
        return True
    # A placeholder in the event with the filter results does not make it the usage event.
    return isinstance(document.get("usage"), dict) and not any(name in document for name in _PROMPT_RESULTS)


def _with_delta(event: bytes, document: dict[str, Any]) -> bytes:
    """Add an empty ``delta`` to each choice without one, and change no other byte if there is only one choice.

    Azure's asynchronous content filter sends its results in such choices (Microsoft, "Content streaming", 2026). An
    event that is nested too deeply to be compared or written is returned as it is.
    """
    changed = document | {"choices": [_choice_with_delta(choice) for choice in document["choices"]]}
    found = _FIRST_CHOICE.search(event)
    try:
        if found is not None:
            inserted = event[: found.end()] + b'"delta":{},' + event[found.end() :]
            if parse_object(read_fields(inserted)[1]) == changed:
                return inserted
        data = dump(changed)
    except RecursionError:
        return event
    lines = [line for line in event.splitlines() if not line.startswith(b"data:")]
    return b"\n".join([*lines, b"data: " + data])


def _choice_with_delta(choice: Any) -> Any:
    if not isinstance(choice, dict) or isinstance(choice.get("delta"), dict):
        return choice
    return choice | {"delta": {}}
