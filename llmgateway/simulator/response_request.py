"""Reads and checks the body of a response, as Azure does.

Fields: openai 3.57.0. Errors whose comment names no other source are OpenAI's, which Azure passes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from . import tokens
from .chat import FILTERED_PHRASE
from .deployments import Deployment
from .faults import (
    CONTENT_FILTER_NEWER,
    Occasion,
    invalid,
    item_not_found,
    previous_response_not_found,
    unknown_parameter,
)
from .operations import Refused, integer, missing
from .response_store import Item, ResponseStore, Stored
from .tools import Tool, Turn, chosen, offered, with_name

HOSTED = {
    "web_search": "web_search",
    "web_search_2025_08_26": "web_search",
    "web_search_preview": "web_search",
    "web_search_preview_2025_03_11": "web_search",
    "code_interpreter": "code_interpreter",
    "file_search": "file_search",
    "image_generation": "image_generation",
    "mcp": "mcp",
}
"""The tools that Azure runs itself, by their type in a request."""

LEAST_OUTPUT_TOKENS = 16

_KNOWN_PARAMETERS = frozenset(
    [
        "background",
        "context_management",
        "conversation",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "moderation",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    ]
)


_TYPES: Mapping[str, tuple[str, type | tuple[type, ...]]] = {
    "tools": ("an array of objects", list),
    "include": ("an array of strings", list),
    "text": ("an object", dict),
    "reasoning": ("an object", dict),
    "metadata": ("an object", dict),
    "stream_options": ("an object", dict),
    "tool_choice": ("a string or an object", (str, dict)),
    "instructions": ("a string", (str, list)),
}
_ITEM_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "type": str,
    "id": str,
    "role": str,
    "call_id": str,
    "name": str,
    "arguments": str,
    "content": (str, list),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A valid request."""

    document: Mapping[str, Any]
    input: Sequence[Item]
    """The items of this request."""
    history: Sequence[Item]
    """The items of the responses before it, which the model reads and Azure bills again."""
    turn: Turn
    calls: Sequence[Tool]
    """The functions that the model calls."""
    hosted: Sequence[Mapping[str, Any]]
    """The tools that Azure runs itself."""
    stream: bool
    obfuscate: bool
    store: bool
    background: bool
    most_tokens: int | None
    """Maximum number of tokens of the output, reasoning included."""
    most_tool_calls: int | None
    summary: bool
    """The reasoning has a summary."""
    encrypted: bool
    """The reasoning comes encrypted, so that a client can send it back."""
    format: Mapping[str, Any]
    """``text.format``."""

    @property
    def prompt_tokens(self) -> int:
        return count(self.document, [*self.history, *self.input])

    def texts(self) -> Iterator[str]:
        """Return everything that the model reads."""
        return _texts(self.document, [*self.history, *self.input])


def items_of(given: Any) -> list[Item]:
    """Return the input as items. A text is the message of a user; what is no item is left away."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []


def count(document: Mapping[str, Any], items: Sequence[Item]) -> int:
    """Count the tokens of a request with all the items that the model reads."""
    messages: list[Mapping[str, Any]] = [_message(item) for item in items]
    if isinstance(document.get("instructions"), str):
        messages.append({"content": document["instructions"]})
    tools = document.get("tools")
    return tokens.of_prompt(messages, tools=orjson.dumps(tools).decode() if tools else "")


def characters(document: Mapping[str, Any]) -> int:
    """Return the length of the request's own text. The body has not been checked yet."""
    own = sum(len(tokens.text_of(_message(item))) for item in items_of(document.get("input")))
    return own + len(str(document.get("instructions") or ""))


def prompt_tokens(document: Mapping[str, Any]) -> int:
    """Count the tokens of the request's own prompt. The body has not been checked yet."""
    return count(document, items_of(document.get("input")))


def read(document: Mapping[str, Any], *, deployment: Deployment, store: ResponseStore, strict: bool) -> Wanted:
    """Check a request.

    Raises:
        Refused: with the error that Azure answers.
    """
    if strict:
        for name in document.keys() - _KNOWN_PARAMETERS:
            raise Refused(unknown_parameter(name))
    _check_types(document)
    keeps = document.get("store") is not False
    previous = _previous(document, store)
    given = [_resolved(item, store) for item in _input(document, previous)]
    history = [] if previous is None else list(previous.history)
    everything = [*history, *given]
    _check_calls(everything)
    if any(FILTERED_PHRASE in text for text in _texts(document, given)):
        raise Refused(CONTENT_FILTER_NEWER)
    if document.get("background") is True and not keeps:
        # Microsoft's page on the Responses API, 2026: background needs store. The words are not recorded.
        raise Refused(invalid("Background responses require 'store' to be true.", param="background"))
    tools = document.get("tools") or []
    turn = turn_of(everything)
    return Wanted(
        document=document,
        input=given,
        history=history,
        turn=turn,
        calls=_calls(document, turn),
        hosted=[] if document.get("tool_choice") == "none" else [tool for tool in _dicts(tools) if _is_hosted(tool)],
        stream=document.get("stream") is True,
        obfuscate=_inner(document, "stream_options").get("include_obfuscation") is not False,
        store=keeps,
        background=document.get("background") is True,
        most_tokens=integer(document, "max_output_tokens", least=LEAST_OUTPUT_TOKENS),
        most_tool_calls=integer(document, "max_tool_calls"),
        summary=deployment.reasons and _inner(document, "reasoning").get("summary") is not None,
        encrypted="reasoning.encrypted_content" in (document.get("include") or []),
        format=_format(document, everything),
    )


def _check_types(document: Mapping[str, Any]) -> None:
    for name, (wanted, types) in _TYPES.items():
        value = document.get(name)
        if value is not None and not isinstance(value, types):
            raise _wrong_type(name, wanted)
    for index, tool in enumerate(document.get("tools") or []):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            raise _wrong_type(f"tools[{index}]", "an object with a type")
        if not isinstance(tool.get("headers") or {}, dict):
            raise _wrong_type(f"tools[{index}].headers", "an object")
    wanted_format = _inner(document, "text").get("format")
    if wanted_format is not None and not isinstance(wanted_format, dict):
        raise _wrong_type("text.format", "an object")
    for index, item in enumerate(items_of(document.get("input"))):
        for name, kind in _ITEM_TYPES.items():
            if item.get(name) is not None and not isinstance(item[name], kind):
                raise _wrong_type(f"input[{index}].{name}", "another type")


def _wrong_type(name: str, wanted: str) -> Refused:
    return Refused(invalid(f"Invalid type for '{name}': expected {wanted}.", param=name, code="invalid_type"))


def _previous(document: Mapping[str, Any], store: ResponseStore) -> Stored | None:
    name = document.get("previous_response_id")
    if name is None:
        return None
    if document.get("conversation") is not None:
        raise Refused(
            invalid(
                "Mutually exclusive parameters: 'previous_response_id' and 'conversation'.",
                param="previous_response_id",
                code="mutually_exclusive_parameters",
            )
        )
    stored = store.find(str(name))
    if stored is None:
        raise Refused(previous_response_not_found(Occasion(response=str(name))))
    return stored


def _input(document: Mapping[str, Any], previous: Stored | None) -> list[Item]:
    given = document.get("input")
    if given is None:
        if previous is None and document.get("prompt") is None:
            raise missing("input")
        return []
    if not isinstance(given, (str, list)) or not all(isinstance(item, dict) for item in given if given != str(given)):
        raise Refused(
            invalid(
                "Invalid type for 'input': expected one of an array of objects or string.",
                param="input",
                code="invalid_type",
            )
        )
    return items_of(given)


def _resolved(item: Item, store: ResponseStore) -> Item:
    """Return the item that a reference means. Reasoning whose content is not encrypted is nothing but a reference."""
    refers = item.get("type") == "item_reference" or (
        item.get("type") == "reasoning" and "id" in item and not item.get("encrypted_content")
    )
    if not refers:
        return item
    found = store.item(str(item.get("id")))
    if found is None:
        raise Refused(item_not_found(Occasion(item=str(item.get("id")))))
    return found


def _check_calls(items: Sequence[Item]) -> None:
    """Every call has a result, and every result a call."""
    called = {item.get("call_id"): item for item in items if item.get("type") in ("function_call", "custom_tool_call")}
    outputs = {item.get("call_id") for item in items if _is_output(item)}
    for call in outputs - called.keys():
        raise Refused(invalid(f"No tool call found for function call output with call_id {call}.", param="input"))
    for call in called.keys() - outputs:
        raise Refused(invalid(f"No tool output found for function call {call}.", param="input"))


def _is_output(item: Item) -> bool:
    return item.get("type") in ("function_call_output", "custom_tool_call_output")


def turn_of(items: Sequence[Item]) -> Turn:
    """Return what has happened since the user spoke last."""
    said: str | None = None
    called, results = set[str](), list[str]()
    for item in items:
        if item.get("role") == "user":
            said, called, results = tokens.text_of(item), set(), []
        elif item.get("type") in ("function_call", "custom_tool_call"):
            called.add(str(item.get("name")))
        elif _is_output(item):
            results.append(tokens.text_of(_message(item)))
    return Turn(said, frozenset(called), tuple(results))


def _calls(document: Mapping[str, Any], turn: Turn) -> list[Tool]:
    choice = document.get("tool_choice")
    if isinstance(choice, dict) and str(choice.get("type")) in HOSTED:
        return []
    parallel = document.get("parallel_tool_calls") is not False
    return chosen(offered(document.get("tools")), choice, turn, parallel=parallel)


def scripted_calls(document: Mapping[str, Any], names: Sequence[str]) -> list[Tool]:
    tools = offered(document.get("tools"))
    return [with_name(tools, name) for name in names]


def _is_hosted(tool: Mapping[str, Any]) -> bool:
    return tool.get("type") in HOSTED


def _format(document: Mapping[str, Any], items: Sequence[Item]) -> Mapping[str, Any]:
    wanted = _inner(_inner(document, "text"), "format")
    if wanted.get("type") == "json_object" and not any("json" in text.lower() for text in _texts(document, items)):
        raise Refused(
            invalid(
                "Response input messages must contain the word 'json' in some form to use 'text.format' of type "
                "'json_object'.",
                param="input",
            )
        )
    return wanted


def _texts(document: Mapping[str, Any], items: Sequence[Item]) -> Iterator[str]:
    yield str(document.get("instructions") or "")
    for item in items:
        yield tokens.text_of(_message(item))


def _message(item: Item) -> Mapping[str, Any]:
    """Return an item as a message, so that its text can be counted."""
    if "content" in item and item.get("type", "message") == "message":
        return item
    parts = (
        item.get(name) for name in ("name", "arguments", "input", "output", "code", "encrypted_content", "summary")
    )
    texts = [part if isinstance(part, str) else tokens.text_of({"content": part}) for part in parts if part]
    return {"content": " ".join(texts)}


def _inner(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _dicts(values: Any) -> list[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, dict)]
