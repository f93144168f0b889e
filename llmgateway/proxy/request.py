"""From the client's bytes to the bytes for Azure: checked, the prompt in front, usage asked for."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from ..azure.endpoint import Endpoint, is_deployment_name
from ..errors import InvalidRequest, ModelNotAllowed, ModelNotFound
from ..records import Prompt

# orjson reads an integer beyond 64 bits, and a float beyond 1e308, as a float no smaller than this.
_LARGE = 2.0**63

DEEPEST = 500
"""Levels of nesting that are taken. json.dumps() gives up at Python's recursion limit, by then too late to refuse."""

LONGEST_MODEL_NAME = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """One chat completion, ready to be sent."""

    model: str
    """As the client asked for it; the deployment where it asked for nothing."""
    deployment: str
    stream: bool
    withhold_usage: bool
    """The usage event was asked for by us, and the client must not see it."""
    prompt: Prompt
    document: dict[str, Any]
    """The client's own body, parsed; not to be changed."""
    original: bytes

    def body(self, *, include_usage: bool = True) -> bytes:
        """Return what goes to Azure: the client's own bytes, if nothing has to change.

        Args:
            include_usage: Whether the deployment takes ``stream_options``; without, a stream's
                tokens can only be estimated.
        """
        changes: dict[str, Any] = {}
        if self.prompt.text:
            system = {"role": "system", "content": self.prompt.text}
            changes["messages"] = [system, *self.document["messages"]]
        if self.withhold_usage and include_usage:
            changes["stream_options"] = {**(self.document.get("stream_options") or {}), "include_usage": True}
        if not changes:
            return self.original
        return _dump(self.document | changes)


def prepare(
    body: bytes,
    *,
    endpoint: Endpoint,
    prompt: Prompt,
    allowed: tuple[str, ...] | None,
    offered: tuple[str, ...],
) -> Chat:
    """Check *body* as far as the gateway has to understand it; the rest is Azure's to judge.

    Args:
        prompt: The system prompt to put in front; an empty one is not.
        allowed: The models of the key; None for all.
        offered: The models of the gateway; empty for whatever Azure has.

    Raises:
        InvalidRequest: not JSON, not an object, or a part of the wrong type; says what and where.
        ModelNotAllowed: the key may not use the model.
        ModelNotFound: the gateway does not offer the model.
    """
    document = _parse(body)
    _check_messages(document)
    stream = _check_stream(document)
    model = _model(document, endpoint)
    _check_model(model, endpoint, allowed=allowed, offered=offered)
    options = document.get("stream_options") or {}
    return Chat(
        model=model,
        deployment=endpoint.deployment or model,
        stream=stream,
        withhold_usage=stream and options.get("include_usage") is not True,
        prompt=prompt,
        document=document,
        original=body,
    )


def _parse(body: bytes) -> dict[str, Any]:
    if not body:
        raise InvalidRequest("The request has no body. Send a JSON object with 'model' and 'messages'.")
    try:
        document = _load(body)
    except RecursionError:
        raise InvalidRequest(f"The body is nested more than {DEEPEST} levels deep.") from None
    except ValueError as error:
        # The error's own text may quote the body, which is somebody's conversation.
        where = f" at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise InvalidRequest(f"The body is not valid JSON{where}.") from None
    if not isinstance(document, dict):
        raise InvalidRequest("The body must be a JSON object with 'model' and 'messages'.")
    return document


def _load(body: bytes) -> Any:
    """Parse *body* so that :func:`_dump` gives the same values back."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        pass  # orjson refuses half of a surrogate pair, which JavaScript clients do send
    else:
        if not _inspect(document):
            return document
    document = json.loads(body.decode("utf-8", "strict"), parse_float=_finite, parse_constant=_refuse_constant)
    _inspect(document)
    return document


def _inspect(document: Any) -> bool:
    """Say whether a number may have lost digits; raise RecursionError beyond the deepest level."""
    # Looking at the parsed values takes a tenth of the time of looking for digits in the text.
    level, depth, found = [document], 0, False
    while level:
        if depth > DEEPEST:
            raise RecursionError
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                below.extend(value.values())
            elif kind is list:
                below.extend(value)
            elif kind is float and not -_LARGE < value < _LARGE:
                found = True
        level, depth = below, depth + 1
    return found


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large for JSON's readers (RFC 8259 section 6)")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (RFC 8259 section 6)")


def _dump(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:
        # An integer beyond 64 bits or half of a surrogate pair, see _load().
        return json.dumps(document, separators=(",", ":")).encode()


def _check_messages(document: dict[str, Any]) -> None:
    if "messages" not in document:
        raise InvalidRequest("'messages' is missing: send a list of messages.", param="messages")
    messages = document["messages"]
    if not isinstance(messages, list):
        raise InvalidRequest("'messages' must be a list of messages.", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest(f"'messages[{index}]' must be an object.", param=f"messages[{index}]")


def _check_stream(document: dict[str, Any]) -> bool:
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("'stream' must be true or false.", param="stream")
    options = document.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("'stream_options' must be an object.", param="stream_options")
    return bool(stream)


def _model(document: dict[str, Any], endpoint: Endpoint) -> str:
    model = document.get("model")
    if model is not None and not isinstance(model, str):
        raise InvalidRequest("'model' must be a string.", param="model")
    if model:
        if len(model) > LONGEST_MODEL_NAME or not model.isprintable():
            # The usage record keeps the name: it must not be a text, nor half of a surrogate pair.
            raise ModelNotFound("The name of the model is none that could exist.", param="model")
        return model
    if endpoint.deployment is None:
        raise InvalidRequest("'model' is missing: name the model to use.", param="model")
    return endpoint.deployment


def _check_model(model: str, endpoint: Endpoint, *, allowed: tuple[str, ...] | None, offered: tuple[str, ...]) -> None:
    if offered and model not in offered:
        raise ModelNotFound(
            f"The model {model[:100]!r} does not exist here. GET /v1/models lists yours.", param="model"
        )
    if allowed is not None and model not in allowed:
        raise ModelNotAllowed(
            f"Your key may not use the model {model[:100]!r}. GET /v1/models lists those it may.", param="model"
        )
    if endpoint.names_model_in_path and not is_deployment_name(model):
        raise ModelNotFound(f"The model {model[:100]!r} does not exist here.", param="model")
