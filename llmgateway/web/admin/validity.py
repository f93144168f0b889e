"""Checks the dates of keys and groups: the end is after the start, and not in the past."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...records import Group, KeyRecord, moment
from ..context import services
from ..errors import invalid_fields

Problems = dict[str, list[str]]


def check_validity(sent: Mapping[str, Any], *, before: KeyRecord | Group | None = None, instead: str) -> None:
    """Check the dates in *sent*, which replace those of *before*.

    Args:
        instead: The sentence in the error message that says how to end the validity now.

    Raises:
        InvalidFields: has the problems by field.
    """
    problems = validity_problems(sent, before=before, now=moment(services().clock()), instead=instead)
    if problems:
        raise invalid_fields(problems)


def validity_problems(
    sent: Mapping[str, Any], *, before: KeyRecord | Group | None = None, now: datetime, instead: str
) -> Problems:
    """Return the problems of the dates in *sent*, by field; empty if there are none."""
    kept = (before.starts_at, before.expires_at) if before is not None else (None, None)
    starts, expires = sent.get("starts_at", kept[0]), sent.get("expires_at", kept[1])
    # An unchanged date in the past is accepted, because clients may send all fields back to change one of them.
    if expires is not None and expires != kept[1] and expires <= now:
        return {"expires_at": [f"Must be in the future. {instead}"]}
    if starts is not None and expires is not None and expires <= starts and (starts, expires) != kept:
        if "expires_at" in sent:
            return {"expires_at": ["Must be later than starts_at."]}
        return {"starts_at": ["Must be earlier than expires_at."]}
    return {}
