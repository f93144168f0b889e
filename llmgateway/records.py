"""The data that is stored, counted and passed along: frozen dataclasses, standard library only.

Times are aware UTC datetimes with millisecond precision, the coarsest of the stores'.
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
    """Return the UTC time *seconds* after the epoch, in whole milliseconds, as every store keeps it."""
    return _EPOCH + timedelta(milliseconds=int(seconds * 1000))


def new_id(prefix: str, seconds: float) -> str:
    """Make up an identifier that sorts by its time, to the millisecond.

    So inserts are at one end of an index, and a page can continue behind the last identifier of the
    one before. 64 random bits make collisions within a millisecond practically impossible.
    """
    return f"{prefix}_{int(seconds * 1000):012x}{secrets.token_hex(8)}"


# Identifiers of requests have to be unique, not secret. Random bytes of the system would take 40 us, and release
# the interpreter's lock twice.
_chance = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_chance.seed)


def new_request_id(seconds: float) -> str:
    """Make up a UUID version 7 (RFC 9562 section 5.7): Azure's own form, and it sorts by time."""
    chance = _chance.getrandbits(74)
    bits = (int(seconds * 1000) & (2**48 - 1)) << 80 | 7 << 76 | chance >> 62 << 64 | 2 << 62 | chance & (2**62 - 1)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class Unit(StrEnum):
    """What a budget is counted in."""

    USD = "usd"
    TOKENS = "tokens"
    REQUESTS = "requests"


class Period(StrEnum):
    """How long a budget lasts; days and months are those of the calendar, in UTC."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be used within a period."""

    amount: float
    unit: Unit
    period: Period


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a key, a group or the organisation may use; ``None`` for no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    parallel_requests: int | None = None
    budget: Budget | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Limits:
        """Convert what ``dataclasses.asdict`` returned, as stores keep it. Fields of a newer program are ignored."""
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
    """One version of a system prompt. Version 0 means that none was ever set.

    Versions are counted over all scopes together, so that a version alone names one text.
    """

    version: int = 0
    text: str = ""
    """Empty: nothing is put in front of a conversation."""
    set_at: datetime | None = None
    scope: str = ""
    """Whose: empty for the organisation's, ``group:NAME``, ``key:ID``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A key that was handed out: who holds it and what it may do. The key itself is not in it."""

    id: str
    digest: str = field(repr=False)
    """SHA-256 of the key in hex; what look-ups go by. Leaves the stores in no answer."""
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
    """Names of the models the key may use; ``None`` for every one."""
    limits: Limits = UNLIMITED
    prompt: Prompt | None = None
    """Replaces the group's and the organisation's; ``None`` for none of its own."""
    retiring_digest: str | None = field(default=None, repr=False)
    """Of the key that this one replaces, which opens the same until ``retires_at``."""
    retires_at: datetime | None = None

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests that find this key: its own, and the retiring one."""
        return (self.digest,) if self.retiring_digest is None else (self.digest, self.retiring_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A course or a team: what its keys have in common, beside what each has of its own."""

    name: str
    created_at: datetime
    note: str | None = None
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    models: tuple[str, ...] | None = None
    """Models its keys may use, if they may use them themselves; ``None`` for every one."""
    limits: Limits = UNLIMITED
    """Of all its keys together."""
    prompt: Prompt | None = None
    """Replaces the organisation's; ``None`` for none of its own."""

    def changed(self, changes: Mapping[str, Any], limits: Mapping[str, Any] | None) -> Group:
        """Return the group with *changes* to its fields, and with *limits* in place of those of the same name."""
        after = replace(self, **changes)
        return replace(after, limits=replace(after.limits, **limits)) if limits else after


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyQuery:
    """Which keys to list: those that match every field that is given, oldest identifier first."""

    user: str | None = None
    group: str | None = None
    active: bool | None = None
    after: str = ""
    """Only keys behind this identifier, which is the last one of the page before."""
    limit: int | None = None
    """The most keys; ``None`` for all."""


ALL_KEYS = KeyQuery()


class Lookup(NamedTuple):
    """What one look-up in the key store tells a request."""

    record: KeyRecord | None
    version: str
    """Of the organisation: changes with every change of an :class:`Organisation`; compared for equality only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a model costs this organisation, in US dollars per million tokens."""

    prompt: float
    cached: float
    """For the part of the prompt that Azure had in its cache."""
    completion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """What admins set for everybody, as one snapshot."""

    prompt: Prompt = Prompt()
    credential: bytes | None = field(default=None, repr=False)
    """Azure's key, encrypted; ``None`` if no admin has set one."""
    prices: Mapping[str, Prices] = field(default_factory=dict)
    """By model; one that is not in it costs its list price."""
    limits: Limits = UNLIMITED
    """Of everybody together."""
    groups: Mapping[str, Group] = field(default_factory=dict)
    """By name."""
    version: str = ""
    """As in :class:`Lookup`. The stores' own name for it is ``generation``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one completion, as Azure bills them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    """The part of the prompt that Azure had in its cache."""
    reasoning_tokens: int = 0
    """The part of the completion that the model used for thinking, and that is not in the answer."""


class Outcome(StrEnum):
    """How a request that was sent to Azure ended."""

    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"
    CLIENT_CLOSED = "client_closed"
    BROKEN = "broken"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


class UsageSource(StrEnum):
    """Where the token counts of a record come from."""

    UPSTREAM = "upstream"
    ESTIMATED = "estimated"
    NONE = "none"


# Without slots: orjson writes it in a third of the time, twice for each request.
@dataclass(frozen=True, kw_only=True)
class UsageRecord:
    """One request that was sent to Azure, and how it ended. Contains no text of prompt or answer."""

    id: str
    """The request's own identifier, sent to Azure as ``x-ms-client-request-id``; ``_id`` in MongoDB."""
    timestamp: datetime
    """When the request arrived."""
    key_id: str
    user: str
    group: str | None = None
    model: str
    """As the client asked for it."""
    deployment: str
    endpoint: str
    stream: bool
    status: int | None = None
    """Azure's status; ``None`` where no answer came."""
    outcome: Outcome
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    usage_source: UsageSource
    cost_usd: float | None = None
    """``None`` where no price for the model is known."""
    prompt_version: int = 0
    content_filter: tuple[str, ...] = ()
    """Names of the content filter's categories that fired."""
    ttft_ms: float | None = None
    """Arrival to the first event with text in it; streams only."""
    duration_ms: float
    upstream_request_id: str | None = None
    region: str | None = None
    client_address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change that an admin made. Holds no key, no credential and no digest of one."""

    id: str
    """Sorts by time."""
    timestamp: datetime
    address: str | None
    """Where the request came from."""
    admin_key_id: str
    """Tells admin keys apart without saying anything about them."""
    action: str
    """Noun and verb: ``key.create``, ``limits.set``, ``group.revoke``."""
    target: str
    """The identifier or the name of what was changed; empty for the organisation."""
    before: Mapping[str, Any] | None
    """What was changed, as JSON has it; ``None`` where there was nothing."""
    after: Mapping[str, Any] | None
    """``None`` where there is nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """Which usage records to show: those that match every field that is given, newest first."""

    key_id: str | None = None
    user: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    """Not included."""
    outcome: Outcome | None = None
    after: str = ""
    """Only records behind this identifier, which is the last one of the page before."""
    limit: int
    """The most records."""


class Batch(NamedTuple):
    """The name of records that are shipped together; what it names never changes."""

    source: str
    """Who ships: one at a time, in ascending order. Letters, digits and hyphens; nobody else ever had it."""
    number: int
    """Below 2**63."""


GROUPINGS = ("day", "month", "user", "key", "group", "model")
"""What a usage report can be grouped by; ``key`` is the record's ``key_id``, days and months are UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportQuery:
    """Which usage to add up: whole UTC days, both included, of one key or one group if these are given."""

    by: Sequence[str] = ()
    """Any of ``GROUPINGS``."""
    first_day: date | None = None
    last_day: date | None = None
    key_id: str | None = None
    group: str | None = None
    promptly: bool = False
    """Whether to give up after a few seconds, because a request waits for the answer."""


ALL_USAGE = ReportQuery()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums over the usage records that share the values in ``by``."""

    by: dict[str, str | None]
    """Grouping to value: ``day`` as ``2026-01-31``, ``month`` as ``2026-01``."""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    errors: int = 0
    """Records whose outcome is anything but ``ok``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """How far the sums of days have been counted again from the records."""

    done: int
    """Days."""
    days: int
    kept_before: date | None
    """Earlier days stay as they are, because records of them have been purged; None if none have."""
