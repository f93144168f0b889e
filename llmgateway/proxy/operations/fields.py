"""Checks of fields that several operations have in common."""

from __future__ import annotations

from typing import Any

from ...errors import InvalidRequest

LARGEST_BOUND = 2**31 - 1
"""The most tokens that a client can allow for an answer. No model writes more, and Azure refuses it."""


def is_streamed(document: dict[str, Any]) -> bool:
    """Return whether the client asks for a stream.

    Raises:
        InvalidRequest: ``stream`` or ``stream_options`` has the wrong type.
    """
    stream = document.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("'stream' must be true or false.", param="stream")
    options = document.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("'stream_options' must be an object.", param="stream_options")
    return bool(stream)


def whole_number(document: dict[str, Any], name: str, *, most: int = LARGEST_BOUND) -> int | None:
    """Return the field *name*, or None if it is absent or null.

    A float without a fraction counts as the number, because Azure accepts ``20000.0``. Azure refuses all other values
    that are refused here, so nothing is refused that it would serve.

    Raises:
        InvalidRequest: it is something else, or not between 1 and *most*.
    """
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequest(f"'{name}' must be a whole number.", param=name)
    if not 1 <= value <= most:
        raise InvalidRequest(f"'{name}' must be at least 1 and at most {most}.", param=name)
    return value
