"""Requests that the gateway has refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


class RefusedAgain(NamedTuple):
    """One more request that was refused like another one a moment before."""

    id: str
    timestamp: datetime
    message: str
    endpoint: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that the gateway answered with an error of its own, and that left no usage record.

    Contains no key and no text of the prompt. Equal refusals within a minute are one, with their number.
    """

    id: str
    """The identifier that the client saw as ``x-request-id``; of several requests, that of the first."""
    timestamp: datetime
    """When the (first) request was refused."""
    status: int
    code: str | None
    """As in the error of the answer; ``None`` where OpenAI has none."""
    limit: str | None = None
    """Which limit was reached, as in ``x-llmgateway-limit``; ``None`` if it was none of the gateway's."""
    key_id: str | None = None
    """``None`` if the key is nobody's, or none was sent."""
    user: str | None = None
    group: str | None = None
    endpoint: str | None = None
    """The path, with ``{name}`` for its variable parts."""
    model: str | None = None
    """As the client named it; its first :data:`LONGEST_RECORDED_MODEL` characters."""
    address: str | None = None
    """IP address of the client."""
    message: str
    """What the client was told."""
    count: int = 1
    """How many requests were refused like this, one after the other."""
    last_at: datetime | None = None
    """When the last of them was; ``None`` if there was one only."""
    repeats: tuple[RefusedAgain, ...] = ()
    """The first few of the others, so that they can be found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalQuery:
    """Selects the refusals that match every given field, newest first."""

    key_ids: Sequence[str] | None = None
    """Of any of these keys."""
    user: str | None = None
    group: str | None = None
    groups: tuple[str, ...] | None = None
    """Only of these groups."""
    code: str | None = None
    status: int | None = None
    model: str | None = None
    endpoint: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    before: tuple[datetime, str] | None = None
    """Only what comes after this time and identifier, which are those of the last one of the page before."""
    newer_than: tuple[datetime, str] | None = None
    """Only what was refused after this time, or then with a higher identifier."""
    limit: int
    """Maximum number of refusals."""


class RefusalCount(NamedTuple):
    """How many requests were refused with the same code at about the same time."""

    at: datetime
    """To the minute."""
    code: str | None
    requests: int
