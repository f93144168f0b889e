"""The data that is stored, counted and passed along: frozen dataclasses, standard library only.

Times are aware UTC datetimes with millisecond precision, because no store must keep more than that.
"""

from __future__ import annotations

import hashlib
import os
import random
import secrets
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
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
    """The period of a budget. Days, weeks and months are those of the calendar in the organisation's time zone."""

    DAY = "day"
    WEEK = "week"
    """Weeks begin on Monday."""
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

LIMIT_PARTS = tuple(field.name for field in fields(Limits))


@dataclass(frozen=True, slots=True, kw_only=True)
class Raise:
    """Higher limits for a while. They end by themselves."""

    limits: Limits
    """What is raised; the other limits stay as they are."""
    until: datetime
    """Exclusive."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> Raise | None:
        """Convert the output of :meth:`as_json`. Fields of a newer version are ignored."""
        if document is None:
            return None
        return cls(limits=Limits.from_json(document["limits"]), until=datetime.fromisoformat(document["until"]))

    def as_json(self) -> dict[str, Any]:
        return {"limits": asdict(self.limits), "until": self.until.isoformat()}

    def raises(self, limits: Limits) -> Limits:
        """Return *limits* with the parts that this raises. None of them is lower than before.

        A budget can be raised only by one of the same unit and period, which is counted together with it.
        """
        return replace(
            limits,
            **{
                part: value
                for part in LIMIT_PARTS
                if is_higher(value := getattr(self.limits, part), than=getattr(limits, part))
            },
        )


def is_higher(value: int | Budget | None, *, than: int | Budget | None) -> bool:
    """Return whether a limit is higher than another one of the same name; False if they cannot be compared."""
    if isinstance(value, Budget) and isinstance(than, Budget):
        return (value.unit, value.period) == (than.unit, than.period) and value.amount > than.amount
    return isinstance(value, int) and isinstance(than, int) and value > than


def in_force(limits: Limits, raised: Raise | None, now: datetime) -> Limits:
    """Return *limits* as they are at *now*, while they may be *raised*."""
    return limits if raised is None or raised.until <= now else raised.raises(limits)


class BudgetState(NamedTuple):
    """What is spent and left of one budget, in its own unit."""

    scope: str
    """``group`` or ``organisation``."""
    name: str
    """Empty for the organisation."""
    unit: str
    period: str
    limit: float
    spent: float | None
    """``None``: not known, because the usage log is unavailable."""
    left: float | None


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
    raised: Raise | None = None

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
    member_limits: Limits = UNLIMITED
    """Limits of each person, for all keys of that person in this group together."""
    raised: Raise | None = None
    """Raises ``limits``."""
    cost_centre: str | None = None
    """Where accounting books its cost."""

    def changed(
        self,
        changes: Mapping[str, Any],
        limits: Mapping[str, Any] | None,
        member_limits: Mapping[str, Any] | None = None,
    ) -> Group:
        """Return a copy with *changes* to its fields, and with changes to the parts of its limits."""
        after = replace(self, **changes)
        return replace(
            after,
            limits=replace(after.limits, **limits or {}),
            member_limits=replace(after.member_limits, **member_limits or {}),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What is set for one person, for all keys of that person together. Others are people without a record here."""

    user: str
    """As in :attr:`KeyRecord.user`. Names are compared exactly: also their case, their Unicode form and blanks."""
    limits: Limits = UNLIMITED
    raised: Raise | None = None
    """Raises these limits, and what :attr:`Group.member_limits` says for this person."""


class Role(StrEnum):
    """What an admin may do. The table of rights in ``web/admin/rights.py`` says it for each endpoint."""

    OWNER = "owner"
    ADMIN = "admin"
    VIEWER = "viewer"
    GROUP = "group"
    """Manages the groups of the admin, and sees nothing else."""
    METRICS = "metrics"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRecord:
    """A named admin. The record does not contain the admin's key itself."""

    id: str
    digest: str = field(repr=False)
    """SHA-256 of the key, in hex. No API response contains it."""
    name: str
    """Unique."""
    role: Role
    created_at: datetime
    groups: tuple[str, ...] = ()
    """Names of groups; only for :attr:`Role.GROUP`."""
    note: str | None = None
    active: bool = True
    expires_at: datetime | None = None
    retiring_digest: str | None = field(default=None, repr=False)
    """Digest of the previous key, which also works until ``retires_at``."""
    retires_at: datetime | None = None

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests under which this admin is found."""
        return (self.digest,) if self.retiring_digest is None else (self.digest, self.retiring_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyQuery:
    """Selects the keys that match every given field. They are sorted by identifier, oldest first."""

    user: str | None = None
    group: str | None = None
    groups: tuple[str, ...] | None = None
    """Only keys of these groups."""
    active: bool | None = None
    after: str = ""
    """Only keys after this identifier, which is the last one of the page before."""
    limit: int | None = None
    """Maximum number of keys; ``None`` for all."""


ALL_KEYS = KeyQuery()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """What is to change of a key; the other fields stay."""

    before: KeyRecord
    """The key as it was when the change was decided on."""
    fields: Mapping[str, object]
    limits: Mapping[str, object]
    """Fields of :class:`Limits`."""


class Imported(NamedTuple):
    """What came of an import of keys. Nothing was stored if there is anything in the first two."""

    taken: Set[str] = frozenset()
    """Digests of the new keys that exist already."""
    present: Set[tuple[str, str | None]] = frozenset()
    """Users and groups of the new keys that have a key already."""
    changed: Sequence[KeyRecord] = ()
    """The keys that were changed, as they are now."""


class User(NamedTuple):
    """A person who has keys."""

    name: str
    keys: int


class Lookup(NamedTuple):
    """The result of looking up a key."""

    record: KeyRecord | None
    version: str
    """Version of the :class:`Organisation`. Every change changes it. It can only be compared for equality."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a model costs in US dollars: its tokens per million, or what else Azure counts. ``None``: not known."""

    prompt: float | None = None
    cached: float | None = None
    """Price of prompt tokens that Azure had in its cache. If it is not known, they cost as much as the others, which
    is never too little."""
    completion: float | None = None
    cache_write: float | None = None
    """Price of prompt tokens that Azure put into its cache. Azure does not report their number (2026-11), so no cost is
    computed with it yet."""
    audio_prompt: float | None = None
    audio_completion: float | None = None
    image: float | None = None
    """Price of prompt tokens of images, where the answer counts them apart. If it is not known, they cost as much as
    text."""
    minute: float | None = None
    """Price of a minute of audio that is written down. Where it is known, the tokens of such a request cost nothing."""
    characters: float | None = None
    """Price of a million characters that are spoken. The same holds for it."""
    per_image: float | None = None
    """Price of one image that is made. The same holds for it."""
    above: int | None = None
    """Prompts of more tokens than this cost the prices of ``long_context``: the whole request, not the excess."""
    long_context: Prices | None = None
    tiers: Mapping[str, Prices] = field(default_factory=dict)
    """Prices of other service tiers than the default, by the name that answers have in ``service_tier``."""
    tools: Mapping[str, float] = field(default_factory=dict)
    """Prices of Azure's own tools, by name, in US dollars per thousand uses. The others have their list price."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Prices:
        """Convert the output of :meth:`as_json`. Fields of a newer version are ignored."""
        prices: dict[str, Any] = {name: document.get(name) for name in PRICE_KINDS}
        long_context = document.get("long_context")
        if long_context is not None:
            prices |= {"above": long_context["above"], "long_context": cls.from_json(long_context)}
        tiers = {name: cls.from_json(tier) for name, tier in (document.get("tiers") or {}).items()}
        return cls(**prices, tiers=tiers, tools=document.get("tools") or {})

    def as_json(self) -> dict[str, Any]:
        """Return the prices that are known, in the shape of ``PUT /admin/models/{name}``."""
        document: dict[str, Any] = {name: price for name in PRICE_KINDS if (price := getattr(self, name)) is not None}
        if self.long_context is not None:
            document["long_context"] = {"above": self.above, **self.long_context.as_json()}
        if self.tools:
            document["tools"] = dict(self.tools)
        if self.tiers:
            document["tiers"] = {name: prices.as_json() for name, prices in self.tiers.items()}
        return document


TOKEN_KINDS = ("prompt", "cached", "completion", "cache_write", "audio_prompt", "audio_completion", "image")
"""The fields of :class:`Prices` that are prices of tokens."""

UNIT_KINDS = ("minute", "characters", "per_image")
"""The fields of :class:`Prices` that are prices of something else than tokens."""

PRICE_KINDS = (*TOKEN_KINDS, *UNIT_KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployment at Azure that an admin has registered for a model."""

    name: str
    """Unique within the model."""
    base_url: str
    """As ``LLM_BASE_URL``."""
    deployment: str
    """Its name at Azure."""
    api_version: str | None = None
    key: str | None = field(default=None, repr=False)
    """The key of its resource, encrypted; ``None`` for that of ``LLM_BASE_URL``."""
    identity: bool = False
    """Whether a token of Entra ID authenticates the gateway, in place of a key."""
    key_header: str | None = None
    """``None`` for ``LLM_KEY_HEADER``."""
    priority: int = 1
    """Those with the smallest number are asked first."""
    weight: float = 1.0
    """Its part of the requests among those with the same priority."""
    active: bool = True

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Deployment:
        """Convert the output of :meth:`as_json`. Fields of a newer version are ignored."""
        return cls(**{one.name: document[one.name] for one in fields(cls) if one.name in document})

    def as_json(self) -> dict[str, Any]:
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What admins set for one model or deployment. ``None``: the gateway's own tables decide."""

    prices: Prices | None = None
    max_output_tokens: int | None = None
    """The most tokens of one answer, including reasoning."""
    tokens_per_second: float | None = None
    """How fast it writes at most. Decides what is booked for answers whose count never came."""
    reasoning: bool | None = None
    """Whether it thinks unseen before it answers."""
    deployments: tuple[Deployment, ...] | None = None
    """Where it is. ``None`` or empty: it is not registered, and ``LLM_BASE_URL`` answers."""
    endpoints: tuple[str, ...] | None = None
    """Names of the operations that it serves, such as ``chat/completions``; ``None`` for all."""
    aliases: tuple[str, ...] | None = None
    """Patterns of other names for it, with ``*`` for any text."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelSettings:
        """Convert the output of :meth:`as_json`. Fields of a newer version are ignored."""
        known: dict[str, Any] = {name: document[name] for name in MODEL_FIELDS if document.get(name) is not None}
        if "prices" in known:
            known["prices"] = Prices.from_json(known["prices"])
        if "deployments" in known:
            known["deployments"] = tuple(map(Deployment.from_json, known["deployments"]))
        for name in ("endpoints", "aliases"):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)

    def as_json(self) -> dict[str, Any]:
        """Return the settings that are not ``None``."""
        return {name: _as_json(value) for name in MODEL_FIELDS if (value := getattr(self, name)) is not None}


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    return value.as_json() if isinstance(value, Prices | Deployment) else value


MODEL_FIELDS = tuple(field.name for field in fields(ModelSettings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """What admins set for everybody, as one snapshot."""

    prompt: Prompt = Prompt()
    credential: bytes | None = field(default=None, repr=False)
    """Azure's key, encrypted; ``None`` if no admin has set one."""
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    """Settings of models, by model or deployment. A model without prices here costs its list price."""
    limits: Limits = UNLIMITED
    """Limits of all keys together."""
    groups: Mapping[str, Group] = field(default_factory=dict)
    """Groups by name."""
    persons: Mapping[str, Person] = field(default_factory=dict)
    """The people for whom something is set, by name."""
    documents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Other settings, by name, as JSON. The module that reads and writes a document knows its fields."""
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
    audio_prompt_tokens: int = 0
    """Part of ``prompt_tokens``."""
    audio_completion_tokens: int = 0
    """Part of ``completion_tokens``."""
    image_prompt_tokens: int = 0
    """Part of ``prompt_tokens``."""
    audio_seconds: float = 0.0
    """The length of a recording that was written down. It is a way to count it beside its tokens, as are the next."""
    characters: int = 0
    """The length of a text that was spoken."""
    images: int = 0
    """The number of images that were made."""


class Outcome(StrEnum):
    """How a request that was sent to Azure ended."""

    OK = "ok"
    UPSTREAM_ERROR = "upstream_error"
    CLIENT_CLOSED = "client_closed"
    BROKEN = "broken"
    TIMEOUT = "timeout"
    REVOKED = "revoked"
    """The key was revoked meanwhile."""
    INTERRUPTED = "interrupted"


class UsageSource(StrEnum):
    """The source of the token counts of a record."""

    UPSTREAM = "upstream"
    """Azure counted."""
    ESTIMATED = "estimated"
    """Azure did not count. The tokens are those that the gateway saw, and those that can have been on their way."""
    BOUND = "bound"
    """Azure did not count, and the model worked unseen. The tokens are the most that it can have produced."""
    NONE = "none"
    """The request cost nothing."""


UNKNOWN_MODEL = "unknown"
"""The name under which all models that do not exist are counted, so that nobody can fill the reports with names."""

LONGEST_RECORDED_MODEL = 100


class Quota(NamedTuple):
    """What Azure's headers say about the limits of a deployment. ``None``: nothing."""

    limit_requests: int | None = None
    """Requests per minute."""
    remaining_requests: int | None = None
    limit_tokens: int | None = None
    """Tokens per minute."""
    remaining_tokens: int | None = None

    def is_lower_than(self, before: Quota) -> bool:
        """Return whether a limit is smaller than it was before."""
        return _is_less(self.limit_requests, before.limit_requests) or _is_less(self.limit_tokens, before.limit_tokens)


def _is_less(limit: int | None, before: int | None) -> bool:
    return limit is not None and before is not None and limit < before


UNKNOWN_QUOTA = Quota()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request to Azure for a request of a client, which may need several."""

    deployment: str
    """The name under which an admin has registered it."""
    status: int | None = None
    """HTTP status of the answer; ``None`` if there was none."""
    upstream_request_id: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    error_code: str | None = None
    azure_deployment: str | None = None
    """Its name at Azure; ``None`` in records of older versions."""
    resource: str | None = None
    """The address of its resource at Azure; ``None`` for that of ``LLM_BASE_URL``, and in records of older versions."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Attempt:
        """Convert the output of ``dataclasses.asdict``. Fields of a newer version are ignored."""
        return cls(**{name: document[name] for name in _ATTEMPT_FIELDS if name in document})


_ATTEMPT_FIELDS = tuple(field.name for field in fields(Attempt))


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
    """Name of the model in the client's request; its first :data:`LONGEST_RECORDED_MODEL` characters."""
    model_known: bool = True
    """Whether Azure, or an admin, knows the model. If not, the sums count it as :data:`UNKNOWN_MODEL`."""
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
    """``None`` if the price is not known of the model, of the service tier, or of a kind of token."""
    prompt_version: int = 0
    content_filter: tuple[str, ...] = ()
    """Categories of Azure's content filter that flagged the prompt or the answer."""
    filter_severities: tuple[str, ...] = ()
    """What the filter found, also where it let it pass: ``category:severity``, with ``low``, ``medium`` or ``high``;
    ``found`` for categories without severities."""
    ttft_ms: float | None = None
    """Time to first token: from the arrival of the request to the first event that contains text. Streams only."""
    duration_ms: float
    upstream_request_id: str | None = None
    region: str | None = None
    client_address: str | None = None
    attempts: tuple[Attempt, ...] = ()
    """What was sent to registered deployments, in order. Tokens and cost of the record are the sums. Empty for
    requests to ``LLM_BASE_URL``."""
    response_id: str | None = None
    """The identifier of a response that Azure stores; it belongs to the user of this record."""
    stored_ids: tuple[str, ...] = ()
    """What else Azure stores with the response, and what later requests can name: its items, and its containers."""
    stored_at: str | None = None
    """Address of the resource that has the response; ``None`` for that of ``LLM_BASE_URL``."""
    service_tier: str | None = None
    """The tier that served the request, as Azure named it."""
    spilled_over: bool = False
    """Whether a provisioned deployment had no capacity, so that another one answered, which bills by token."""
    error_code: str | None = None
    """The code in Azure's error, or the gateway's own."""
    tool_uses: Mapping[str, int] = field(default_factory=dict)
    """How often Azure ran its own tools that it bills by use, such as ``web_search``."""

    @property
    def counted_model(self) -> str:
        """The name under which the sums count this record."""
        return self.model if self.model_known else UNKNOWN_MODEL

    @property
    def counted_deployment(self) -> str:
        """The deployment under which the sums count this record. If the client named it, it is counted as the model."""
        is_clients = self.deployment[:LONGEST_RECORDED_MODEL] == self.model
        return UNKNOWN_MODEL if is_clients and not self.model_known else self.deployment

    @property
    def attempts_elsewhere(self) -> tuple[Attempt, ...]:
        """The attempts at other deployments than the one that was asked last. The sums count each at its deployment."""
        return self.attempts and tuple(
            each for each in self.attempts if each.azure_deployment not in (None, self.deployment)
        )


class Owned(NamedTuple):
    """Whose a stored response is, and where Azure keeps it. Each of its items has the same."""

    user: str
    response_id: str
    model: str
    """The name that the client sent."""
    deployment: str
    target: str
    """Address of the resource; empty for the one of ``LLM_BASE_URL``."""
    prompt_tokens: int
    """Of the request that made it. A request that continues the response has these in its prompt, too."""
    completion_tokens: int
    at: float
    """When its record was written, in seconds since the epoch: at the end of the answer, if that has come."""
    key_id: str = ""
    """The key that made it; empty if an older version of this program has noted it."""

    @classmethod
    def of(cls, record: UsageRecord) -> Owned:
        return cls(
            user=record.user,
            response_id=record.response_id or "",
            model=record.model,
            deployment=record.deployment,
            target=record.stored_at or "",
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            at=record.timestamp.timestamp() + record.duration_ms / 1000,
            key_id=record.key_id,
        )


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How much the model can write for one request, all choices together."""

    most_tokens: int
    """The most completion tokens: the client's limit or that of the model."""
    tokens_per_second: float
    """How fast they can be written."""


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
    admin_id: str | None = None
    """The named admin who made the change; ``None`` for the first owner, and for entries of older versions."""
    admin_name: str | None = None
    """The name at that time; ``None`` as above."""
    groups: tuple[str, ...] | None = None
    """The groups that the change is about, before and after it; ``None`` if it is not about groups alone. Older
    entries do not have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Selects the entries of the audit log that match every given field, newest first."""

    target: str | None = None
    admin: str | None = None
    """Identifier or name of an admin; :data:`FIRST_OWNER` for ``ADMIN_KEY``."""
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    groups: tuple[str, ...] | None = None
    """Only entries about these groups, and about no other."""
    after: str = ""
    """Only entries after this identifier, which is the last one of the page before."""
    limit: int
    """Maximum number of entries."""


FIRST_OWNER = "ADMIN_KEY"
"""The name of the admin who has no record: whoever sends the ``ADMIN_KEY`` of the settings."""


class DeliveryState(StrEnum):
    """What has become of the delivery of an alert to one target."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up, after many attempts."""
    DROPPED = "dropped"
    """Never tried: too many others waited, or the target was removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The delivery of an alert to one target."""

    target: str
    """Identifier of a webhook or an e-mail address in the settings. No secret."""
    state: DeliveryState = DeliveryState.WAITING
    due_at: datetime | None = None
    """When it is tried next; ``None`` if it is not tried any more."""
    attempts: int = 0
    tried_at: datetime | None = None
    status: int | None = None
    """What the server answered to the last attempt: the status of HTTP or the code of SMTP."""
    reason: str | None = None
    """Why the last attempt has failed, and what to do about it. No secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A warning for admins, with its deliveries. Contains no secret."""

    id: str
    """The same for the same event of the same period, so that it is announced once."""
    at: datetime
    event: str
    scope: str
    """What it is about, such as ``organisation``, ``group:physics``, ``key:key_1`` or the name of a store."""
    text: str
    threshold: int | None = None
    """Per cent of a budget."""
    used: float | None = None
    """In the unit of the budget, as is ``limit``."""
    limit: float | None = None
    user: str | None = None
    """The person whom it names; ``None`` if it names nobody."""
    kept_until: datetime | None = None
    """When it may be forgotten, because its period is over; ``None`` for never."""
    deliveries: tuple[Delivery, ...] = ()
    lease: str = ""
    """Identifies who delivers it now; see :meth:`~llmgateway.interfaces.AlertStore.take`."""

    @property
    def due_at(self) -> datetime | None:
        """When the next delivery is due; ``None`` if none waits."""
        return min((each.due_at for each in self.deliveries if each.due_at is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Something that is wrong at present."""

    event: str
    scope: str
    """With ``event``, identifies it."""
    since: datetime
    over: str
    """What admins are told when it is over."""

    @property
    def name(self) -> str:
        return f"{self.event}:{self.scope}"


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
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    before: tuple[datetime, str] | None = None
    """Only what comes after this time and identifier, which are those of the last one of the page before."""
    limit: int
    """Maximum number of refusals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameDigest:
    """Recognises a name that is not kept itself."""

    salt: str
    digest: str
    """scrypt, so that nobody tries many names (RFC 7914; n=2**14, r=8, p=1: about 20 tries a second)."""

    @classmethod
    def of(cls, name: str) -> NameDigest:
        salt = secrets.token_hex(16)
        return cls(salt=salt, digest=_scrypt(name, salt))

    def is_of(self, name: str) -> bool:
        return _scrypt(name, self.salt) == self.digest


@lru_cache(maxsize=1000)
def _scrypt(name: str, salt: str) -> str:
    return hashlib.scrypt(name.encode(), salt=bytes.fromhex(salt), n=2**14, r=8, p=1, dklen=16).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """A person's data was erased, or is being erased. This is kept, and holds for what is stored later, too.

    It goes by the keys of the person and never by the name, so that a person who gets the same name later has nothing
    to do with it.
    """

    pseudonym: str
    """Stands for the name, the e-mail address and all else: ``erased-<random>``."""
    erased_at: datetime
    key_ids: tuple[str, ...]
    """The keys of the person, most of which exist no longer."""
    shared: tuple[str, ...] = ()
    """Those of :attr:`key_ids` that somebody else has had, too, before or after. Of these, only what has the name of
    the person is replaced."""
    name: NameDigest | None = None
    """Recognises the name until the erasure is finished, and longer if there are shared keys."""

    def covers(self, key_id: str, user: str) -> bool:
        """Return whether what was stored for this key under the name *user* belongs to the person."""
        if key_id not in self.key_ids or user == self.pseudonym:
            return False
        return key_id not in self.shared or (self.name is not None and self.name.is_of(user))


class Kept(NamedTuple):
    """What a store has of a person."""

    names: Mapping[str, frozenset[str]]
    """The keys of the person, each with all names that the store has for it."""
    records: int
    """Number of records or entries."""


NOTHING_KEPT = Kept({}, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """Selects the usage records that match every given field, newest first."""

    key_id: str | None = None
    user: str | None = None
    group: str | None = None
    error_code: str | None = None
    groups: tuple[str, ...] | None = None
    """Only records that were made in these groups. The record of ``after`` has to be one of them, too."""
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    outcome: Outcome | None = None
    usage_source: UsageSource | None = None
    after: str = ""
    """Only records after this identifier, which is the last one of the page before."""
    before: tuple[datetime, str] | None = None
    """Like ``after``, with the time of that record, which need not exist any more."""
    limit: int
    """Maximum number of records."""


class Batch(NamedTuple):
    """Identifies records that are shipped together. The content of a batch never changes."""

    source: str
    """Identifies the sender; never used again. A sender ships one batch at a time, in ascending order. Consists of
    letters, digits and hyphens."""
    number: int
    """Less than 2**63."""


GROUPINGS = ("day", "week", "month", "user", "key", "group", "model", "deployment")
"""Possible groupings of a usage report. ``key`` is the record's ``key_id``; weeks begin on Monday. ``deployment`` is
missing in sums that an older version has stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportQuery:
    """Selects the usage to add up: whole days, inclusive; of one key, one user or some groups if they are given."""

    by: Sequence[str] = ()
    """Elements of ``GROUPINGS``."""
    in_utc: bool = False
    """Whether the days, also those to group by, are those of UTC, as on Azure's bill. Otherwise they are those of the
    organisation's time zone. Usage that an older version has added up counts on its UTC day in both."""
    first_day: date | None = None
    last_day: date | None = None
    key_id: str | None = None
    user: str | None = None
    group: str | None = None
    among: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By grouping: only these values of it. So one query adds up the usage of a whole page of keys."""
    groups: tuple[str, ...] | None = None
    """Only usage in these groups."""
    promptly: bool = False
    """If true, the store gives up after a few seconds, because a request waits for the answer."""


ALL_USAGE = ReportQuery()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums of the usage records that have the values in ``by``."""

    by: dict[str, str | None]
    """Value of each grouping: ``day`` like ``2026-01-31``, ``week`` like ``2026-W05`` (ISO 8601), ``month`` like
    ``2026-01``."""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    """Sum of the known costs."""
    errors: int = 0
    """Number of records whose outcome is not ``ok``."""
    unpriced_requests: int = 0
    """Number of records with tokens whose cost is not known."""
    estimated_tokens: int = 0
    """The part of ``total_tokens`` that is from records with :attr:`UsageSource.ESTIMATED`."""
    bound_tokens: int = 0
    """The part of ``total_tokens`` that is from records with :attr:`UsageSource.BOUND`."""


FILTER_GROUPINGS = ("day", "month", "user", "key", "group", "model", "category", "severity")
"""Possible groupings of a report about content filters."""


class FilterCount(NamedTuple):
    """How many records have the same fields and findings of the content filter."""

    day: str
    """Like ``2026-01-31``."""
    user: str
    key_id: str
    group: str | None
    model: str
    fired: tuple[str, ...]
    severities: tuple[str, ...]
    """As in :attr:`UsageRecord.filter_severities`."""
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """The progress of :meth:`~llmgateway.interfaces.UsageLog.rebuild`."""

    done: int
    """Number of days whose sums have been computed."""
    days: int
    """Number of all days to compute."""
    kept_before: date | None
    """The sums of earlier days are kept, because their records have been purged. None if nothing was purged."""
