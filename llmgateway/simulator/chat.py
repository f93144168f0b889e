"""Reads and checks the body of a chat completion, as Azure does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from . import tokens
from .deployments import Deployment
from .faults import CONTENT_FILTER, invalid, unknown_parameter, unrecognized_argument
from .operations import Refused, integer
from .tools import Tool, Turn, chosen, offered, turn_of

FILTERED_PHRASE = "violate the content policy"
"""A prompt that contains this phrase triggers the content filter."""

MOST_ANSWERS = 128
"""Of ``n`` (OpenAI's API reference, chat completions, 2026)."""

_KNOWN_PARAMETERS = frozenset(
    [
        "audio",
        "best_of",
        "data_sources",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    ]
)

_OLDEST_WITH_STREAM_OPTIONS = "2024-08-01"
"""API versions begin with their date, and so can be compared as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A valid request."""

    messages: Sequence[Mapping[str, Any]]
    stream: bool
    include_usage: bool
    obfuscate: bool
    answers: int
    max_tokens: int | None
    """Maximum number of tokens of one answer, including reasoning tokens."""
    tools: Sequence[Any]
    calls: Sequence[Tool]
    """The functions that the model calls."""
    tool_named: bool
    """Whether the request names the function; otherwise the model has chosen."""
    turn: Turn
    response_format: Mapping[str, Any]

    @property
    def prompt_tokens(self) -> int:
        return tokens.of_prompt(self.messages, tools=orjson.dumps(self.tools).decode() if self.tools else "")


def prompt_tokens(document: Mapping[str, Any]) -> int:
    """Count the tokens of the prompt. The body has not been checked yet."""
    messages = document.get("messages")
    tools = document.get("tools")
    known = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    return tokens.of_prompt(known, tools=orjson.dumps(tools).decode() if tools else "")


def characters(document: Mapping[str, Any]) -> int:
    """Return the length of the prompt's text. The body has not been checked yet."""
    messages = document.get("messages")
    if not isinstance(messages, list):
        return 0
    return sum(len(tokens.text_of(message)) for message in messages if isinstance(message, dict))


def read(document: Mapping[str, Any], *, deployment: Deployment, api_version: str | None, strict: bool) -> Chat:
    """Check a request as Azure does.

    Args:
        strict: Refuse parameters that no version of the API has, instead of ignoring them.

    Raises:
        Refused: with the error that Azure answers.
    """
    if strict:
        for name in document.keys() - _KNOWN_PARAMETERS:
            raise Refused(unknown_parameter(name))
    messages = _messages(document)
    stream = document.get("stream") is True
    options = _stream_options(document, stream=stream, deployment=deployment, api_version=api_version)
    if any(FILTERED_PHRASE in tokens.text_of(message) for message in messages):
        raise Refused(CONTENT_FILTER)
    tools = document.get("tools") or []
    choice, turn = document.get("tool_choice"), turn_of(messages)
    parallel = document.get("parallel_tool_calls") is not False
    return Chat(
        messages=messages,
        stream=stream,
        include_usage=options.get("include_usage") is True,
        obfuscate=options.get("include_obfuscation") is not False,
        answers=integer(document, "n", most=MOST_ANSWERS) or 1,
        max_tokens=_max_tokens(document, deployment),
        tools=tools,
        calls=chosen(offered(tools), choice, turn, parallel=parallel),
        tool_named=isinstance(choice, dict) and choice.get("type") != "allowed_tools",
        turn=turn,
        response_format=_response_format(document, messages),
    )


def _messages(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "messages" not in document:
        raise Refused(
            invalid("Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter")
        )
    messages = document["messages"]
    if not isinstance(messages, list):
        raise Refused(
            invalid("Invalid type for 'messages': expected an array of objects.", param="messages", code="invalid_type")
        )
    if not messages:
        raise Refused(
            invalid(
                "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array "
                "instead.",
                param="messages",
                code="empty_array",
            )
        )
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            place = f"messages[{index}]"
            raise Refused(invalid(f"Invalid type for '{place}': expected an object.", param=place, code="invalid_type"))
    return messages


def _stream_options(
    document: Mapping[str, Any], *, stream: bool, deployment: Deployment, api_version: str | None
) -> Mapping[str, Any]:
    options = document.get("stream_options")
    if options is None:
        return {}
    if deployment.old:
        raise Refused(unknown_parameter("stream_options"))
    if api_version is not None and api_version < _OLDEST_WITH_STREAM_OPTIONS:
        raise Refused(unrecognized_argument("stream_options"))
    if not stream:
        raise Refused(
            invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options")
        )
    return options if isinstance(options, dict) else {}


def _max_tokens(document: Mapping[str, Any], deployment: Deployment) -> int | None:
    if deployment.reasons and document.get("max_tokens") is not None:
        raise Refused(
            invalid(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                "instead.",
                param="max_tokens",
                code="unsupported_parameter",
            )
        )
    limit = integer(document, "max_completion_tokens")
    return limit if limit is not None else integer(document, "max_tokens")


def _response_format(document: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    wanted = document.get("response_format")
    if not isinstance(wanted, dict):
        return {}
    mentioned = any("json" in tokens.text_of(message).lower() for message in messages)
    if wanted.get("type") == "json_object" and not mentioned:
        raise Refused(
            invalid(
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
                param="messages",
            )
        )
    return wanted
