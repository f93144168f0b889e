"""Checks the client's request body, and turns it into the body for Azure: with the system prompt, and with a request
for usage in streams."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from ..azure.endpoint import Endpoint, is_deployment_name
from ..errors import InvalidRequest, ModelNotAllowed, ModelNotFound
from ..records import Prompt

# orjson reads an integer beyond 64 bits, and a float beyond 1e308, as a float whose absolute value is at least this.
_LARGE = 2.0**63

DEEPEST = 500
"""The most levels of nesting that are accepted. Without it, json.dumps() would fail at Python's recursion limit, when
the request is already admitted."""

LONGEST_MODEL_NAME = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """One chat completion, ready to be sent."""

    model: str
    """The name that the client sent; the name of the deployment if it sent none."""
    deployment: str
    stream: bool
    withhold_usage: bool
    """Whether the gateway asks for the usage event, and the client did not. Then the client does not get it."""
    prompt: Prompt
    document: dict[str, Any]
    """The client's body, parsed. Do not change it."""
    original: bytes
    """The client's body as it was sent."""

    def body(self, *, include_usage: bool = True) -> bytes:
        """Return the body for Azure. If nothing has to change, these are the client's own bytes.

        Args:
            include_usage: Whether to ask for the usage event if :attr:`withhold_usage` is true. False for
                deployments that do not accept ``stream_options``; the tokens of their streams are estimated.
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
    """Check the parts of *body* that the gateway needs. Azure checks the rest.

    Args:
        prompt: The system prompt to put before the messages. An empty one is left out.
        allowed: The models that the key may use; None for all.
        offered: The models that the gateway offers; empty for all that Azure has.

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
        # The error's own text is not used: it may quote the body, which is a private conversation.
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
        pass  # orjson refuses a lone surrogate, which JavaScript clients can send
    else:
        if not _inspect(document):
            return document
    document = json.loads(body.decode("utf-8", "strict"), parse_float=_finite, parse_constant=_refuse_constant)
    _inspect(document)
    return document


def _inspect(document: Any) -> bool:
    """Return whether a number may have lost digits; raise RecursionError if *document* is nested too deeply."""
    # This looks at the parsed values. To search the text for long numbers would take ten times as long.
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
        raise ValueError("a number is too large for a float (RFC 8259 section 6)")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (RFC 8259 section 6)")


def _dump(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:
        # An integer beyond 64 bits or a lone surrogate, see _load().
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
            # The usage record stores the name. A long text or a lone surrogate must not get there.
            raise ModelNotFound("The name of the model is too long or has unprintable characters.", param="model")
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
