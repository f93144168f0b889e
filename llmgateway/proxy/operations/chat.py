"""Chat completions: what the gateway checks, adds and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from ...errors import GatewayError, InvalidRequest
from ...usage.answers import name_of
from ...usage.booking import MOST_CHOICES, Asked
from ...usage.meter import Meter, StreamMeter
from ...usage.seen import Seen
from ...usage.tokens import estimate_audio_tokens, estimate_predicted_tokens, estimate_prompt_tokens
from ..dialect import Dialect, editor
from ..parsing import CHAT_FORMAT
from ..plain import see_completion
from .fields import whole_number
from .operation import Operation, Reference


def _check_messages(document: dict[str, Any]) -> None:
    if "messages" not in document:
        raise InvalidRequest("'messages' is missing: send a list of messages.", param="messages")
    messages = document["messages"]
    if not isinstance(messages, list):
        raise InvalidRequest("'messages' must be a list of messages.", param="messages")
    if not messages:
        raise InvalidRequest("'messages' is empty: send at least one message.", param="messages")
    if set(map(type, messages)) != {dict}:
        index = next(index for index, message in enumerate(messages) if not isinstance(message, dict))
        raise InvalidRequest(f"'messages[{index}]' must be an object.", param=f"messages[{index}]")
    roles = [message.get("role", "") for message in messages]
    if set(map(type, roles)) != {str}:
        index = next(index for index, role in enumerate(roles) if not isinstance(role, str))
        raise InvalidRequest(f"'messages[{index}].role' must be a string.", param=f"messages[{index}].role")


def _with_prompt(document: dict[str, Any], prompt: str) -> dict[str, Any]:
    messages = document["messages"]
    return {"messages": [{"role": _prompt_role(messages), "content": prompt}, *messages]}


def _prompt_role(messages: list[dict[str, Any]]) -> str:
    """Return the role of the gateway's prompt.

    Reasoning models accept ``system`` and ``developer``, but not both in one request; other models know ``system``
    only (Microsoft, "Azure OpenAI reasoning models", 2026).
    """
    roles = {message.get("role") for message in messages}
    return "developer" if "developer" in roles and "system" not in roles else "system"


def _references(document: dict[str, Any]) -> list[Reference]:
    """Return the spoken answers that messages name in place of the recordings."""
    spoken = [message["audio"] for message in document["messages"] if "audio" in message]
    named = [audio["id"] for audio in spoken if isinstance(audio, dict) and audio.get("id") is not None]
    if not all(isinstance(each, str) for each in named):
        raise InvalidRequest("The 'id' of an 'audio' must be a string.", param="messages")
    return [Reference(each, "audio") for each in named]


def _may_add_usage(document: dict[str, Any]) -> bool:
    # Azure's "On Your Data" refuses stream_options (microsoft/semantic-kernel#10510). Its field had another name before
    # api-version 2024-02-15-preview.
    return document.get("data_sources") is None and document.get("dataSources") is None


def _asked(document: dict[str, Any], body: bytes) -> Asked:
    # If both bounds are given, the larger one counts, because it depends on the model which of them applies.
    bounds = [whole_number(document, name) for name in ("max_completion_tokens", "max_tokens")]
    modalities = document.get("modalities")
    return Asked(
        choices=whole_number(document, "n", most=MOST_CHOICES) or 1,
        most_tokens=max((bound for bound in bounds if bound is not None), default=None),
        predicted_tokens=estimate_predicted_tokens(document),
        # A search in the bytes is enough: in a text the quotation marks are escaped.
        audio_prompt_tokens=estimate_audio_tokens(document) if b'"input_audio"' in body else 0,
        speaks=isinstance(modalities, list) and "audio" in modalities,
        service_tier=name_of(document, "service_tier"),
    )


def _prompt_tokens(document: dict[str, Any], prompt: str, models: Sequence[str | None]) -> int:
    return estimate_prompt_tokens(document, prompt, models=models)


def _meter(dialect: Dialect, withhold_usage: bool, asked: Asked) -> Meter:
    return StreamMeter(editor(dialect, withhold_usage=withhold_usage), choices=asked.choices)


def error_event(error: GatewayError, _seen: Seen) -> bytes:
    """Return the event of *error* for streams of completions."""
    return b"data: " + orjson.dumps(error.as_json()) + b"\n\n"


CHAT_COMPLETIONS = Operation(
    name="chat/completions",
    body_format=CHAT_FORMAT,
    check=_check_messages,
    asked=_asked,
    with_prompt=_with_prompt,
    prompt_tokens=_prompt_tokens,
    references=_references,
    may_add_usage=_may_add_usage,
    meter=_meter,
    see=see_completion,
    error_event=error_event,
)
