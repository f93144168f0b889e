"""The Responses API: what the gateway checks, adds and counts, and what a request names that Azure stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from ...errors import GatewayError, InvalidRequest
from ...usage.answers import name_of
from ...usage.booking import Asked
from ...usage.meter import Meter
from ...usage.responses_meter import ResponsesMeter, see_response
from ...usage.seen import Seen
from ...usage.tokens import estimate_input_tokens
from ..dialect import Dialect
from ..parsing import RESPONSES_FORMAT
from .fields import whole_number
from .operation import Operation, Reference

_COMPLETE = {
    "apply_patch_call": "operation",
    "apply_patch_call_output": "status",
    "compaction": "encrypted_content",
    "computer_call_output": "output",
    "custom_tool_call": "input",
    "custom_tool_call_output": "output",
    "function_call": "arguments",
    "function_call_output": "output",
    "local_shell_call": "action",
    "local_shell_call_output": "output",
    "mcp_approval_response": "approve",
    "message": "content",
    "reasoning": "encrypted_content",
    "shell_call": "action",
    "shell_call_output": "output",
}
"""Types of items that contain everything that the model gets of them, if they have this field. Clients make up
identifiers for such items. Any other item may be completed with what Azure has stored under its identifier."""

_NO_CONTAINERS = frozenset(("annotations", "content", "headers", "output", "outputs", "parameters"))
"""Fields of tools and items that only quote a container, or have names of the client's own."""


def _check(document: dict[str, Any]) -> None:
    _refuse_unaccountable(document)
    given = document.get("input")
    if given is None:
        if document.get("previous_response_id") is None and document.get("prompt") is None:
            raise InvalidRequest("'input' is missing: send a text, or a list of items.", param="input")
    elif not isinstance(given, str | list):
        raise InvalidRequest("'input' must be a text or a list of items.", param="input")
    elif isinstance(given, list) and not all(isinstance(item, dict) for item in given):
        index = next(index for index, item in enumerate(given) if not isinstance(item, dict))
        raise InvalidRequest(f"'input[{index}]' must be an object.", param=f"input[{index}]")
    for name in ("instructions", "previous_response_id"):
        value = document.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"'{name}' must be a text.", param=name)
    tools = document.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise InvalidRequest("'tools' must be a list of tools.", param="tools")


def _refuse_unaccountable(document: dict[str, Any]) -> None:
    if document.get("background") not in (None, False):
        raise InvalidRequest(
            "'background' is not served here: Azure works on after the request has ended, and what that uses could not "
            "be counted for your key. Leave it out, and send 'stream': true if the answer takes long.",
            param="background",
        )
    if document.get("conversation") is not None:
        raise InvalidRequest(
            "'conversation' is not served here: whoever has its id could read it. Send 'previous_response_id' with the "
            "id of the last response instead, or the whole conversation as 'input'.",
            param="conversation",
        )


def _with_prompt(document: dict[str, Any], prompt: str) -> dict[str, Any]:
    # On every call: Azure does not carry instructions over from the previous response (OpenAI, API reference, 2026).
    instructions = document.get("instructions")
    return {"instructions": f"{prompt}\n\n{instructions}" if instructions else prompt}


def _asked(document: dict[str, Any], _body: bytes) -> Asked:
    return Asked(
        most_tokens=whole_number(document, "max_output_tokens"), service_tier=name_of(document, "service_tier")
    )


def _prompt_tokens(document: dict[str, Any], prompt: str, models: Sequence[str | None]) -> int:
    return estimate_input_tokens(document, prompt, models=models)


def _may_add_usage(_document: dict[str, Any]) -> bool:
    return False  # the last event has it in any case


def _meter(_dialect: Dialect, _withhold_usage: bool, _asked: Asked) -> Meter:
    return ResponsesMeter()


def error_event(error: GatewayError, seen: Seen) -> bytes:
    """Return the event of *error* for streams of responses.

    It has OpenAI's fields, and Azure's ``error`` within it: OpenAI's clients for Python and JavaScript raise an
    exception for the latter only (openai-python 1 to 3, ``_streaming``).
    """
    body = error.as_json()["error"]
    flat = dict(body) if isinstance(body, dict) else {}
    event = {**flat, "type": "error", "sequence_number": seen.events, "error": body}
    return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"


def references(document: dict[str, Any]) -> list[Reference]:
    """Return what a request names of that Azure stores: a response first, then items and containers."""
    found: dict[Reference, None] = {}
    previous = document.get("previous_response_id")
    if isinstance(previous, str):
        found[Reference(previous, "response")] = None
    given = document.get("input")
    for item in given if isinstance(given, list) else ():
        found.update(dict.fromkeys(_named_by(item)))
    tools = document.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        found.update((Reference(container, "container"), None) for container in _containers(tool))
    return [*found]


def _named_by(item: dict[str, Any]) -> Iterator[Reference]:
    kind, id_ = item.get("type"), item.get("id")
    if kind is None and "role" in item:  # without both, an item is a reference (OpenAI, API reference, 2026)
        kind = "message"
    needed = _COMPLETE.get(kind) if isinstance(kind, str) else None
    if isinstance(id_, str) and (needed is None or not _has(item, needed)):
        yield Reference(id_, "item")
    asked = item.get("approval_request_id")
    if isinstance(asked, str):
        yield Reference(asked, "item")
    for container in _containers(item):
        yield Reference(container, "container")


def _has(item: dict[str, Any], needed: str) -> bool:
    """Return whether *item* says what it needs to say. Nothing, in whatever form, may be completed by Azure."""
    return bool(item.get(needed)) or (needed == "approve" and item.get(needed) is False)


def _containers(value: Any) -> Iterator[str]:
    """Yield the identifiers of containers in a tool or an item, wherever they are."""
    unvisited = [value]
    while unvisited:
        value = unvisited.pop()
        if isinstance(value, list):
            unvisited.extend(value)
        elif isinstance(value, dict):
            for name, child in value.items():
                if name in ("container", "container_id"):
                    named = child.get("id") if isinstance(child, dict) else child
                    yield from (
                        each for each in (named if isinstance(named, list) else [named]) if isinstance(each, str)
                    )
                if isinstance(child, dict | list) and name not in _NO_CONTAINERS:
                    unvisited.append(child)


RESPONSES = Operation(
    name="responses",
    body_format=RESPONSES_FORMAT,
    check=_check,
    asked=_asked,
    with_prompt=_with_prompt,
    prompt_tokens=_prompt_tokens,
    may_add_usage=_may_add_usage,
    meter=_meter,
    see=see_response,
    error_event=error_event,
    references=references,
    in_path=False,
)
