"""The data that is stored, counted and passed along: frozen dataclasses, standard library only.

Times are aware UTC datetimes with millisecond precision, because no store must keep more than that.
"""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(seconds: float) -> datetime:
    """Return the UTC time *seconds* after the epoch, in whole milliseconds, as every store saves it."""
    return _EPOCH + timedelta(milliseconds=int(seconds * 1000))


def new_id(prefix: str, seconds: float) -> str:
    """Return a new identifier. Identifiers sort by their time, to the millisecond.

    So inserts go to one end of an index, and the next page of a listing begins after the last identifier of the page
    before. 64 random bits make collisions within a millisecond practically impossible.
    """
    return f"{prefix}_{int(seconds * 1000):012x}{secrets.token_hex(8)}"


# Request identifiers must be unique, not secret. Random bytes of the operating system would take 40 us and release
# the GIL twice.
_random = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)


def new_request_id(seconds: float) -> str:
    """Return a new UUID version 7 (RFC 9562 section 5.7). Azure uses UUIDs, too, and version 7 sorts by time."""
    noise = _random.getrandbits(74)
    bits = (int(seconds * 1000) & (2**48 - 1)) << 80 | 7 << 76 | noise >> 62 << 64 | 2 << 62 | noise & (2**62 - 1)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Unit(StrEnum):
    """The unit of a budget."""

    USD = "usd"
    TOKENS = "tokens"
    REQUESTS = "requests"


class Period(StrEnum):
    """The period of a budget. Days and months are calendar days and months in UTC."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most that may be used within a period."""

    amount: float
    unit: Unit
    period: Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a key, a group or the organisation; ``None`` means no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    parallel_requests: int | None = None
    budget: Budget | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Limits:
        """Convert the output of ``dataclasses.asdict``, which stores save. Fields of a newer version are ignored."""
        if not document:
            return UNLIMITED
        known = {name: document.get(name) for name in ("requests_per_minute", "tokens_per_minute", "parallel_requests")}
        budget = document.get("budget")
        if budget is not None:
            budget = Budget(amount=budget["amount"], unit=Unit(budget["unit"]), period=Period(budget["period"]))
        return cls(budget=budget, **known)


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One version of a system prompt. Version 0 means that no prompt was ever set.

    All scopes share one sequence of version numbers, so a version number identifies one text.
    """

    version: int = 0
    text: str = ""
    """If empty, conversations get no system prompt from the gateway."""
    set_at: datetime | None = None
    scope: str = ""
    """Empty for the organisation, ``group:NAME`` or ``key:ID``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key of a user: who owns it and what it may do. The record does not contain the key itself."""

    id: str
    digest: str = field(repr=False)
    """SHA-256 of the key, in hex. Keys are looked up by it. No API response contains it."""
    user: str
    name: str
    created_at: datetime
    group: str | None = None
    email: str | None = None
    note: str | None = None
    active: bool = True
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    models: tuple[str, ...] | None = None
    """Names of the models that the key may use; ``None`` for all models."""
    limits: Limits = UNLIMITED
    prompt: Prompt | None = None
    """Replaces the prompt of the group and of the organisation; ``None`` if the key has no prompt of its own."""
    retiring_digest: str | None = field(default=None, repr=False)
    """Digest of the previous key, which also works until ``retires_at``."""
    retires_at: datetime | None = None

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests under which this key is found: the current one, and the retiring one if there is one."""
        return (self.digest,) if self.retiring_digest is None else (self.digest, self.retiring_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A course or a team. Its settings apply to all of its keys, in addition to the settings of each key."""

    name: str
    created_at: datetime
    note: str | None = None
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    models: tuple[str, ...] | None = None
    """Models that its keys may use. A key's own ``models`` apply, too. ``None`` for all models."""
    limits: Limits = UNLIMITED
    """Limits of all its keys together."""
    prompt: Prompt | None = None
    """Replaces the prompt of the organisation; ``None`` if the group has no prompt of its own."""

    def changed(self, changes: Mapping[str, Any], limits: Mapping[str, Any] | None) -> Group:
        """Return a copy with *changes* to its fields and *limits* to the fields of its limits."""
        after = replace(self, **changes)
        return replace(after, limits=replace(after.limits, **limits)) if limits else after


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyQuery:
    """Selects the keys that match every given field. They are sorted by identifier, oldest first."""

    user: str | None = None
    group: str | None = None
    active: bool | None = None
    after: str = ""
    """Only keys after this identifier, which is the last one of the page before."""
    limit: int | None = None
    """Maximum number of keys; ``None`` for all."""


ALL_KEYS = KeyQuery()


class Lookup(NamedTuple):
    """The result of looking up a key."""

    record: KeyRecord | None
    version: str
    """Version of the :class:`Organisation`. Every change changes it. It can only be compared for equality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """The prices of a model for this organisation, in US dollars per million tokens."""

    prompt: float
    cached: float
    """Price of prompt tokens that Azure had in its cache."""
    completion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """What admins set for everybody, as one snapshot."""

    prompt: Prompt = Prompt()
    credential: bytes | None = field(default=None, repr=False)
    """Azure's key, encrypted; ``None`` if no admin has set one."""
    prices: Mapping[str, Prices] = field(default_factory=dict)
    """Prices by model. A model without an entry costs its list price."""
    limits: Limits = UNLIMITED
    """Limits of all keys together."""
    groups: Mapping[str, Group] = field(default_factory=dict)
    """Groups by name."""
    version: str = ""
    """As in :class:`Lookup`. The stores save it under the name ``generation``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one completion, as Azure bills them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    """Part of ``prompt_tokens``: tokens that Azure had in its cache."""
    reasoning_tokens: int = 0
    """Part of ``completion_tokens``: tokens that the model used for reasoning. They are not in the answer."""


class Outcome(StrEnum):
    """How a request that was sent to Azure ended."""

    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"
    CLIENT_CLOSED = "client_closed"
    BROKEN = "broken"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


class UsageSource(StrEnum):
    """The source of the token counts of a record."""

    UPSTREAM = "upstream"
    ESTIMATED = "estimated"
    NONE = "none"


# Without slots, because orjson then needs a third of the time, and it serialises two records per request.
@dataclass(frozen=True, kw_only=True)
class UsageRecord:
    """One request that was sent to Azure, and how it ended. Contains no text of the prompt or the answer."""

    id: str
    """Identifier of the request, sent to Azure as ``x-ms-client-request-id``; ``_id`` in MongoDB."""
    timestamp: datetime
    """When the request arrived."""
    key_id: str
    user: str
    group: str | None = None
    model: str
    """Name of the model in the client's request."""
    deployment: str
    endpoint: str
    stream: bool
    status: int | None = None
    """HTTP status of Azure's answer; ``None`` if there was no answer."""
    outcome: Outcome
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usage_source: UsageSource
    cost_usd: float | None = None
    """``None`` if no price is known for the model."""
    prompt_version: int = 0
    content_filter: tuple[str, ...] = ()
    """Categories of Azure's content filter that flagged the prompt or the answer."""
    ttft_ms: float | None = None
    """Time to first token: from the arrival of the request to the first event that contains text. Streams only."""
    duration_ms: float
    upstream_request_id: str | None = None
    region: str | None = None
    client_address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change that an admin made. Contains no key, no credential and no digest of them."""

    id: str
    """Identifiers sort by time."""
    timestamp: datetime
    address: str | None
    """IP address of the admin's client."""
    admin_key_id: str
    """Identifies the admin key, but does not reveal it."""
    action: str
    """Noun and verb: ``key.create``, ``limits.set``, ``group.revoke``."""
    target: str
    """Identifier or name of the changed object; empty for the organisation."""
    before: Mapping[str, Any] | None
    """The object before the change, as JSON; ``None`` if it did not exist."""
    after: Mapping[str, Any] | None
    """The object after the change, as JSON; ``None`` if it no longer exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """Selects the usage records that match every given field, newest first."""

    key_id: str | None = None
    user: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    outcome: Outcome | None = None
    after: str = ""
    """Only records after this identifier, which is the last one of the page before."""
    limit: int
    """Maximum number of records."""


class Batch(NamedTuple):
    """Identifies records that are shipped together. The content of a batch never changes."""

    source: str
    """Identifies the sender; never used again. A sender ships one batch at a time, in ascending order. Consists of
    letters, digits and hyphens."""
    number: int
    """Less than 2**63."""


GROUPINGS = ("day", "month", "user", "key", "group", "model")
"""Possible groupings of a usage report. ``key`` is the record's ``key_id``; days and months are in UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportQuery:
    """Selects the usage to add up: whole UTC days, inclusive; of one key or one group if it is given."""

    by: Sequence[str] = ()
    """Elements of ``GROUPINGS``."""
    first_day: date | None = None
    last_day: date | None = None
    key_id: str | None = None
    group: str | None = None
    promptly: bool = False
    """If true, the store gives up after a few seconds, because a request waits for the answer."""


ALL_USAGE = ReportQuery()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums of the usage records that have the values in ``by``."""

    by: dict[str, str | None]
    """Value of each grouping: ``day`` like ``2026-01-31``, ``month`` like ``2026-01``."""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    errors: int = 0
    """Number of records whose outcome is not ``ok``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """The progress of :meth:`~llmgateway.interfaces.UsageLog.rebuild`."""

    done: int
    """Number of days whose sums have been computed."""
    days: int
    """Number of all days to compute."""
    kept_before: date | None
    """The sums of earlier days are kept, because their records have been purged. None if nothing was purged."""
