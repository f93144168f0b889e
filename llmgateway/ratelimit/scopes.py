"""The scopes of a request, each of which may have limits: its key, its person, its group, the organisation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ..accounts.principal import Principal
from ..records import UNLIMITED, Group, KeyRecord, Limits, Organisation, Person, UsageRecord, in_force


@dataclass(frozen=True, slots=True)
class Scope:
    """What the same limits apply to, with the limits that are in force."""

    kind: str
    """``key``, ``member`` (a person's keys in one group), ``person`` (all keys of a person), ``group`` or
    ``organisation``. The header ``x-llmgateway-limit`` begins with it."""
    name: str
    """Identifier of the key, name of the person, name of the group; empty for the organisation."""
    limits: Limits
    is_shared: bool
    """Whether several people use its budget."""
    group: str = ""
    """The group of a ``member``."""

    @classmethod
    def of_key(cls, key: KeyRecord, now: datetime) -> Scope:
        return cls("key", key.id, in_force(key.limits, key.raised, now), is_shared=False)

    @classmethod
    def of_member(cls, group: Group, user: str, person: Person | None, now: datetime) -> Scope:
        """Return the scope of the keys that *user* has in *group*. A raise of the *person* raises its limits."""
        limits = in_force(group.member_limits, None if person is None else person.raised, now)
        return cls("member", user, limits, is_shared=False, group=group.name)

    @classmethod
    def of_person(cls, person: Person, now: datetime) -> Scope:
        return cls("person", person.user, in_force(person.limits, person.raised, now), is_shared=False)

    @classmethod
    def of_group(cls, group: Group, now: datetime) -> Scope:
        return cls("group", group.name, in_force(group.limits, group.raised, now), is_shared=True)

    @classmethod
    def of_organisation(cls, organisation: Organisation) -> Scope:
        return cls("organisation", "", organisation.limits, is_shared=True)

    @property
    def counters(self) -> str:
        """Prefix of the names of its counters. Those of people have a digest, so that no counter contains a name."""
        if self.kind in ("member", "person"):
            # With the length of the group's name, so that no two pairs of names are joined to the same text.
            text = f"{len(self.group)}:{self.group}{self.name}"
            return f"{self.kind}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def usage(self) -> Mapping[str, str]:
        """The value of each grouping of a report that selects its usage."""
        if self.kind == "member":
            return {"user": self.name, "group": self.group}
        return {"user" if self.kind == "person" else self.kind: self.name} if self.name else {}

    def __str__(self) -> str:
        return {
            "key": "Your key",
            "member": f"Your account in the group {self.group!r}",
            "person": "Your account, which is all of your keys,",
            "group": f"Your group {self.name!r}",
        }.get(self.kind, "The organisation")


def scopes_of(principal: Principal, now: datetime) -> Iterator[Scope]:
    """Yield the scopes of *principal* that have limits, with the limits that are in force at *now*."""
    group, person = principal.group, principal.person
    scopes = [Scope.of_key(principal.key, now)]
    if group is not None:
        scopes.append(Scope.of_member(group, principal.key.user, person, now))
    if person is not None:
        scopes.append(Scope.of_person(person, now))
    if group is not None:
        scopes.append(Scope.of_group(group, now))
    scopes.append(Scope.of_organisation(principal.organisation))
    return (scope for scope in scopes if scope.limits != UNLIMITED)


def raise_ends(principal: Principal) -> list[datetime]:
    """Return when the raises of *principal* end, or have ended."""
    raised = [each.raised for each in (principal.key, principal.group, principal.person) if each is not None]
    return [each.until for each in raised if each is not None]


def scopes_of_record(record: UsageRecord) -> list[Scope]:
    """Return every scope that the request of *record* counts for, without limits."""
    scopes = [
        Scope("key", record.key_id, UNLIMITED, is_shared=False),
        Scope("person", record.user, UNLIMITED, is_shared=False),
        Scope("organisation", "", UNLIMITED, is_shared=True),
    ]
    if record.group:
        scopes += [
            Scope("member", record.user, UNLIMITED, is_shared=False, group=record.group),
            Scope("group", record.group, UNLIMITED, is_shared=True),
        ]
    return scopes
