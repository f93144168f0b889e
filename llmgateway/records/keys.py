"""Keys, and the groups and people that they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from .limits import UNLIMITED, Limits, Raise


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
    self_made: bool = False
    """Whether its user has made it; see :class:`SelfService`."""

    @property
    def digests(self) -> tuple[str, ...]:
        """The digests under which this key is found: the current one, and the retiring one if there is one."""
        return (self.digest,) if self.retiring_digest is None else (self.digest, self.retiring_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfService:
    """What people may do with keys that they make themselves."""

    keys: int
    """How many each person may have at the same time, also blocked and expired ones."""
    days: int | None = None
    """How long a key is valid at most; ``None`` for no end."""
    models: tuple[str, ...] | None = None
    """Models that such a key may use; ``None`` for all that its group allows."""
    limits: Limits = UNLIMITED
    """Limits of each such key."""

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> SelfService | None:
        """Convert the output of ``dataclasses.asdict``, which stores save. Fields of a newer version are ignored."""
        if document is None:
            return None
        models = document.get("models")
        return cls(
            keys=document["keys"],
            days=document.get("days"),
            models=None if models is None else tuple(models),
            limits=Limits.from_json(document.get("limits")),
        )


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
    self_service: SelfService | None = None
    """What its members may make themselves; ``None`` for nothing."""

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


EXPIRES_SOON = timedelta(days=14)
"""How long before its end a key counts as one that expires soon."""


class KeyState(StrEnum):
    """What a key itself says about whether it is let in. The dates of its group are not part of it."""

    ACTIVE = "active"
    EXPIRING = "expiring"
    """Active, and its end is within :data:`EXPIRES_SOON`."""
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    BLOCKED = "blocked"

    @classmethod
    def of(cls, key: KeyRecord, now: datetime) -> KeyState:
        """Return the state of *key*. A blocked key is blocked, whatever its dates are."""
        if not key.active:
            return cls.BLOCKED
        if key.expires_at is not None and key.expires_at <= now:
            return cls.EXPIRED
        if key.starts_at is not None and key.starts_at > now:
            return cls.NOT_YET_VALID
        if key.expires_at is not None and key.expires_at <= now + EXPIRES_SOON:
            return cls.EXPIRING
        return cls.ACTIVE


KEY_ORDERS = ("created_at", "user", "name", "group", "expires_at")
"""What stores can sort keys by."""

SEARCHED = ("user", "name", "group", "email", "note")
"""Where a text is looked for, beside the identifier of the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyQuery:
    """Selects the keys that match every given field. Unless *order* says otherwise, the oldest identifier comes first.

    Sorting ignores the case of ASCII letters. Keys without a group come before all groups, and keys without an end
    after all others. Equal keys are sorted by identifier.
    """

    text: str | None = None
    """Only keys in which this text occurs somewhere, in any case: in their identifier or in one of ``SEARCHED``."""
    state: KeyState | None = None
    """Only keys in this state at ``now``. ``ACTIVE`` includes those that expire soon."""
    now: datetime | None = None
    """Needed with ``state``."""
    order: str | None = None
    """One of ``KEY_ORDERS``. Then ``after`` must be empty."""
    descending: bool = False
    """Only with ``order``."""
    offset: int = 0
    """How many of the first keys are left out."""
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


class GroupSize(NamedTuple):
    """How large a group is."""

    keys: int
    users: int
    """The people who have these keys."""


class Lookup(NamedTuple):
    """The result of looking up a key."""

    record: KeyRecord | None
    version: str
    """Version of the :class:`Organisation`. Every change changes it. It can only be compared for equality."""
