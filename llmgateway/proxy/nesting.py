"""Bounds the objects, arrays, levels, values and names of a JSON body before it is parsed.

An object takes 3 bytes of a body and 64 bytes or more of memory, and some checks visit each one. So they are counted
first, by functions of ``bytes`` that run in C: 31 MiB take 0.04 s for ``[{},{},…]``, and at most 0.25 s (2026-11).
A parser does not let other threads run: for 1 s with three million names, for 0.4 s with eight million short strings.
So names and values are counted, too. The bounds are high: a request for embeddings can contain millions of numbers.
"""

from __future__ import annotations

from ..errors import InvalidRequest

MOST_LEVELS = 100
"""The most levels of nesting that are accepted."""

MOST_CONTAINERS = 200_000
"""The default of ``LLMGATEWAY_MAX_BODY_CONTAINERS``."""

_NAMES_FOR_CONTAINER, _VALUES_FOR_CONTAINER = 2, 20

MOST_NAMES = _NAMES_FOR_CONTAINER * MOST_CONTAINERS
"""The most names in objects. It grows with the setting. Messages, parts and tools have about two in each object."""

MOST_VALUES = _VALUES_FOR_CONTAINER * MOST_CONTAINERS
"""The most values. It grows with the setting. Azure takes 2,048 texts for embeddings in one request; if they are arrays
of tokens, each can have 1,900."""

_EVERY = bytes(range(256))
_NO_OPENERS = _EVERY.translate(None, b"[{")
_NO_STRUCTURE = _EVERY.translate(None, b'[]{}"')
_AS_ARRAYS = bytes.maketrans(b"{}", b"[]")


def check_nesting(body: bytes, *, most_containers: int) -> None:
    """Check *body*, which need not be valid JSON.

    Raises:
        InvalidRequest: it has more than *most_containers* objects and arrays, more than :data:`MOST_LEVELS` levels,
            or too many values or names.
    """
    _check_containers(body, most_containers)
    counted = max(most_containers, MOST_CONTAINERS)  # a lower setting does not lower these two
    most_values, most_names = _VALUES_FOR_CONTAINER * counted, _NAMES_FOR_CONTAINER * counted
    if _has_more_outside_strings(body, b",", most_values, most_strings=most_values + most_names):
        raise _too_many(f"{most_values:,} values")
    if _has_more_outside_strings(body, b":", most_names, most_strings=most_values + most_names):
        raise _too_many(f"{most_names:,} names in its objects")


def _check_containers(body: bytes, most_containers: int) -> None:
    # Most bodies have so few brackets, also within strings, that nothing has to be looked at.
    if len(body.translate(None, _NO_OPENERS)) <= min(MOST_LEVELS, most_containers):
        return
    brackets = _brackets_outside_strings(body, at_most=2 * most_containers)
    if brackets is None or brackets.count(b"[") > most_containers:
        raise _too_many(f"{most_containers:,} objects and arrays")
    if _has_more_levels(brackets, MOST_LEVELS):
        raise InvalidRequest(f"The body is nested more than {MOST_LEVELS} levels deep.")


def _too_many(what: str) -> InvalidRequest:
    return InvalidRequest(
        f"The body has more than {what}. Send fewer in one request; the admin can raise the limit with "
        "LLMGATEWAY_MAX_BODY_CONTAINERS."
    )


def _has_more_outside_strings(body: bytes, sign: bytes, most: int, *, most_strings: int) -> bool:
    """Return whether *body* has more than *most* times the byte *sign* outside strings, or too many strings."""
    if body.count(sign) <= most:
        return False
    structure = _without_escapes(body).translate(None, _EVERY.translate(None, b'"' + sign))
    if structure.count(b'"') > 2 * most_strings:
        return True  # pieces of none or one byte need no memory, but their list does
    return b"".join(structure.split(b'"')[::2]).count(sign) > most


def _without_escapes(body: bytes) -> bytes:
    """Return *body* without escaped quotes and backslashes: each remaining quote begins or ends a string."""
    if b"\\" not in body:
        return body
    return body.replace(b"\\\\", b"").replace(b'\\"', b"")  # only strings contain backslashes


def _brackets_outside_strings(body: bytes, *, at_most: int) -> bytes | None:
    """Return all brackets outside strings, those of objects as those of arrays; None if there are more than *at_most*.

    If *body* is not valid JSON, this is right up to the first error, where parsers stop.
    """
    structure = _without_escapes(body).translate(_AS_ARRAYS, _NO_STRUCTURE)
    # This joins neighbouring strings and removes empty ones. So between two strings there is at least one bracket.
    structure = structure.replace(b'""', b"")
    if b'"' not in structure:
        return structure
    most_quotes = 2 * (at_most + 1)
    parts = structure.split(b'"', most_quotes + 1)
    return None if len(parts) > most_quotes + 1 else b"".join(parts[::2])


def _has_more_levels(brackets: bytes, levels: int) -> bool:
    for _ in range(levels):
        inner = brackets.replace(b"[]", b"")  # removes the innermost level
        if len(inner) == len(brackets):
            break
        brackets = inner
    return b"[]" in brackets or brackets.count(b"[") > levels
