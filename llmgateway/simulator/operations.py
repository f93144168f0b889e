"""What the operations of the API have in common: a row of the route table says how one is read and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from ..records import Usage
from .deployments import Ability, Deployment
from .faults import STREAM_ERROR, Fault, invalid
from .messages import Request
from .production import Work
from .response_store import ResponseStore
from .scripts import Script


class Refused(Exception):
    """Azure answers with an error instead of what was asked for."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.status)
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for something that its deployment can do."""

    document: Mapping[str, Any]
    """What the operation's :attr:`Operation.parse` has read."""
    deployment: Deployment
    script: Script
    api_version: str | None
    """``None`` on the v1 API."""
    strict: bool
    """Refuse parameters that no version of the API has."""
    created: int
    """Seconds since the epoch."""
    responses: ResponseStore
    """The responses that the resource stores."""
    tier: str | None = None
    """The service tier that serves it; ``None`` if the answer does not name one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The answer to a request, without the headers that all answers have."""

    parts: Sequence[bytes]
    """The events of a stream, or the whole body."""
    content_type: str = "application/json"
    stream: bool = False
    work: Work | None = None
    positions: Sequence[int] = ()
    """Where the model has to have come before each part can be sent."""
    model: str | None = None
    """The model that a router has chosen, if it is not the deployment's own."""
    units: Mapping[str, Any] = field(default_factory=dict)
    """Fields of an :class:`~llmgateway.simulator.meter.Account`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A row of the route table: what one address does."""

    path: str
    """Behind the deployment, or behind ``/openai/v1``."""
    name: str
    """In the texts of Azure's 429."""
    verb: str
    """In the text of ``OperationNotSupported``."""
    ability: Ability
    """What a deployment has to be able to do."""
    parse: Callable[[Request], Mapping[str, Any]]
    """Raises :class:`Refused` if the body cannot be read."""
    characters: Callable[[Mapping[str, Any]], int]
    """Length of the prompt, for the limits. The document has not been checked."""
    prompt_tokens: Callable[[Mapping[str, Any]], int]
    """Tokens of the prompt, for errors that are billed. The document has not been checked."""
    answer: Callable[[Asked], Made]
    """Raises :class:`Refused` if Azure would answer with an error."""
    limits_output: bool = False
    """``max_tokens`` and ``n`` count toward the limit of tokens per minute."""
    in_body: bool = False
    """Also the classic address is ``/openai/PATH``, without the deployment, which the body names."""
    since: str = ""
    """The oldest api-version that has it."""


def parse_json(request: Request) -> dict[str, Any]:
    """Read a body as JSON object.

    Raises:
        Refused: it is none.
    """
    try:
        document = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise Refused(
            invalid(
                "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your "
                "HTTP library correctly. The API expects a JSON payload, but what was sent was not valid JSON.)"
            )
        )
    return document


def peek(operation: Operation | None, request: Request) -> Mapping[str, Any]:
    """Read a body that was not checked and may be anything; then it is empty."""
    try:
        return parse_json(request) if operation is None else operation.parse(request)
    except Refused:
        return {}


def missing(name: str) -> Refused:
    """The error of a parameter that is missing."""
    return Refused(invalid(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"))


def integer(document: Mapping[str, Any], name: str, *, least: int = 1, most: int | None = None) -> int | None:
    """Read an optional number of a document, or of a form, in which it is text.

    Raises:
        Refused: it is none, or too small, or too large.
    """
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused(invalid(f"Invalid type for '{name}': expected an integer.", param=name, code="invalid_type"))
    if value < least:
        raise Refused(
            invalid(
                f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value} instead.",
                param=name,
                code="integer_below_min_value",
            )
        )
    if most is not None and value > most:
        raise Refused(
            invalid(
                f"Invalid '{name}': integer above maximum value. Expected a value <= {most}, but got {value} instead.",
                param=name,
                code="integer_above_max_value",
            )
        )
    return value


def choice(document: Mapping[str, Any], name: str, possible: Sequence[str], default: str) -> str:
    """Read an optional word of which few are possible.

    Raises:
        Refused: it is another one.
    """
    value = document.get(name)
    if value is None:
        return default
    if value not in possible:
        wanted = ", ".join(f"'{word}'" for word in possible)
        raise Refused(
            invalid(f"Invalid value: '{value}'. Supported values are: {wanted}.", param=name, code="invalid_value")
        )
    return str(value)


def text(document: Mapping[str, Any], name: str) -> str:
    """Read a text that has to be there.

    Raises:
        Refused: it is missing, empty, or no text.
    """
    value = document.get(name)
    if value is None or value == "":
        raise missing(name)
    if not isinstance(value, str):
        raise Refused(invalid(f"Invalid type for '{name}': expected a string.", param=name, code="invalid_type"))
    return value


def with_usage(counted: Mapping[str, Any], script: Script) -> dict[str, Any]:
    """Return ``{"usage": …}`` in the form that the script wants; empty if it wants none."""
    match script.usage:
        case "missing":
            return {}
        case "null":
            return {"usage": None}
        case "empty":
            return {"usage": {}}
        case "zeros":
            return {"usage": _numbers(counted, lambda _: 0)}
        case "unfilled":
            return {"usage": _numbers(counted, lambda _: None)}
        case "floats":
            return {"usage": _numbers(counted, float)}
    return {"usage": script.usage if isinstance(script.usage, Mapping) else counted}


def _numbers(value: Any, convert: Callable[[int], Any]) -> Any:
    if isinstance(value, Mapping):
        return {name: _numbers(part, convert) for name, part in value.items()}
    return convert(value) if isinstance(value, int) else value


def prompt_usage(counted: int, script: Script) -> Usage:
    """Return what a prompt alone costs."""
    prompt = counted if script.prompt_tokens is None else script.prompt_tokens
    return Usage(
        prompt_tokens=prompt,
        total_tokens=prompt,
        cached_tokens=script.cached_tokens,
        audio_prompt_tokens=script.audio_prompt_tokens,
        image_prompt_tokens=script.image_prompt_tokens,
    )


def made_stream(
    parts: Sequence[bytes],
    positions: Sequence[int],
    work: Work | None,
    script: Script,
    *,
    units: Mapping[str, Any],
) -> Made:
    """Return events as an answer; with an error event after those that the script lets through, if it wants one."""
    after = script.error_event_after
    if after is not None:
        parts = [*parts[:after], STREAM_ERROR]
        reached = positions[min(after, len(positions)) - 1] if after else 0
        positions = [*positions[:after], reached]
        work = None if work is None else replace(work, until=reached)
    return Made(
        parts=parts,
        content_type="text/event-stream; charset=utf-8",
        stream=True,
        work=work,
        positions=[] if work is None else positions,
        units=units,
    )


def event(document: Mapping[str, Any]) -> bytes:
    """Return an event whose name is its ``type``."""
    return b"event: %b\ndata: %b\n\n" % (str(document["type"]).encode(), orjson.dumps(document))
