"""Converts values that SQLite has no type for to and from column values."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import orjson

from llmgateway.records import UNLIMITED, Limits, Prompt, Raise, SelfService
from llmgateway.stores.day_sums import add_counts
from llmgateway.stores.epoch import from_ms, to_ms


def stored(value: object) -> object:
    """Return the column value: whole milliseconds since 1970 for a time; JSON for lists, limits and prompts."""
    if isinstance(value, datetime):
        return to_ms(value)
    if isinstance(value, Limits):
        return None if value == UNLIMITED else json.dumps(asdict(value))
    if isinstance(value, Prompt):
        return json.dumps(asdict(value) | {"set_at": stored(value.set_at)})
    if isinstance(value, SelfService):
        return json.dumps(asdict(value))
    if isinstance(value, Raise):
        return json.dumps(value.as_json())
    if isinstance(value, (tuple, list)):
        return json.dumps(value)
    return value


def listed(values: Sequence[str] | None) -> str | None:
    """Return the parameter for :data:`IN_LIST`; None if there is no condition."""
    return None if values is None else json.dumps(list(values))


IN_LIST = "IN (SELECT value FROM json_each(?))"
"""The condition that a column has one of some values, as one parameter."""


def time_of(column: int | None) -> datetime | None:
    return None if column is None else from_ms(column)


def models_of(column: str | None) -> tuple[str, ...] | None:
    return None if column is None else tuple(json.loads(column))


# Cached, because every look-up reads the limits of its key, and the keys of a class usually have the same limits.
@functools.lru_cache(maxsize=1024)
def limits_of(column: str | None) -> Limits:
    return UNLIMITED if column is None else Limits.from_json(json.loads(column))


def merged_limits(column: str | None, parts: Mapping[str, Any]) -> Limits:
    """Return the limits in *column*, with the fields *parts* replaced."""
    return replace(limits_of(column), **parts)


@functools.lru_cache(maxsize=1024)
def raise_of(column: str | None) -> Raise | None:
    return None if column is None else Raise.from_json(json.loads(column))


def self_service_of(column: str | None) -> SelfService | None:
    return None if column is None else SelfService.from_json(json.loads(column))


def prompt_of(column: str | None) -> Prompt | None:
    if column is None:
        return None
    document = json.loads(column)
    return Prompt(
        version=document["version"],
        text=document["text"],
        set_at=time_of(document["set_at"]),
        scope=document["scope"],
    )


def added_counts(column: str | None, other: str | None) -> str | None:
    """Add up two columns of numbers by name, as JSON. Statements have this as a function, so that they can add."""
    if column is None or other is None:
        return other if column is None else column
    # Not with json, which would be a tenth of what it takes to store a record.
    counts = orjson.loads(column)
    add_counts(counts, orjson.loads(other))
    return orjson.dumps(counts).decode()
