"""Where data of persons is kept: what there is, how it is handed out, and how it is erased.

Each kind of data has one :class:`Holder`. Whoever adds another kind adds a holder to the list in ``app.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Protocol

from ..erased import is_about, named, with_pseudonym, without_person
from ..errors import NotFound
from ..interfaces import AlertStore, AuditLog, RefusalLog, StoredResponses, UsageLog
from ..records import (
    Alert,
    AuditEntry,
    Erasure,
    Kept,
    KeyQuery,
    Person,
    RecordQuery,
    Refusal,
    RefusalQuery,
    ReportQuery,
)
from .identities import Identities
from .keys import Keys
from .persons import Persons
from .policy import OrganisationPolicy

_SECRET = ("digest", "retiring_digest")
_PAGE = 1000
_MOST_ALERTS = 100_000  # the store purges them


class Holder(Protocol):
    """One kind of data about persons. Every method may be called again, also after an error."""

    name: str
    """The name in exports and counts."""

    def kept_of(self, user: str) -> Kept:
        """Return what there is of *user*."""
        ...

    def export(self, user: str, key_ids: Collection[str]) -> Mapping[str, Iterable[Any]]:
        """Return everything, as JSON with times and dataclasses, by name of the list it goes into."""
        ...

    def erase_name(self, user: str, pseudonym: str) -> None:
        """Erase what is kept under the name *user* and belongs to no key: it can only be found by the name."""
        ...

    def erase(self, erasure: Erasure) -> None:
        """Erase what belongs to the keys of *erasure*."""
        ...


class KeysHolder:
    """The keys themselves. They are removed."""

    name = "keys"

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def kept_of(self, user: str) -> Kept:
        found = self._keys.list(KeyQuery(user=user))
        return Kept({key.id: frozenset((user,)) for key in found}, len(found))

    def export(self, user: str, key_ids: Collection[str]) -> Mapping[str, Iterable[Any]]:
        found = [key for key in self._keys.get_all(sorted(key_ids)) if key.user == user]
        return {
            "keys": [{name: value for name, value in asdict(key).items() if name not in _SECRET} for key in found],
        }

    def erase_name(self, user: str, pseudonym: str) -> None:
        """Do nothing: all of it belongs to keys."""

    def erase(self, erasure: Erasure) -> None:
        found = self._keys.get_all(erasure.key_ids)
        self._keys.remove_all([key.id for key in found if erasure.covers(key.id, key.user)])


class UsageHolder:
    """Usage records, and their sums."""

    name = "records"

    def __init__(self, usage_log: UsageLog) -> None:
        self._log = usage_log

    def kept_of(self, user: str) -> Kept:
        return self._log.kept_of(user)

    def export(self, user: str, key_ids: Collection[str]) -> Mapping[str, Iterable[Any]]:
        return {"sums": self._sums(user, key_ids), "records": self._records(user)}

    def _sums(self, user: str, key_ids: Collection[str]) -> Iterator[Any]:
        for key_id in sorted(key_ids):
            by = ("day", "user", "key", "group", "model")
            for row in self._log.report(ReportQuery(by=by, key_id=key_id)):
                if row.by["user"] == user:
                    yield row.by | {name: value for name, value in asdict(row).items() if name != "by"}

    def _records(self, user: str) -> Iterator[Any]:
        after = ""
        while page := self._log.records(RecordQuery(user=user, after=after, limit=_PAGE)):
            yield from page
            after = page[-1].id

    def erase_name(self, user: str, pseudonym: str) -> None:
        """Do nothing: all of it belongs to keys."""

    def erase(self, erasure: Erasure) -> None:
        self._log.erase(erasure)


class PersonsHolder:
    """What is set for the person: limits, and a raise."""

    name = "person"

    def __init__(self, persons: Persons, policy: OrganisationPolicy) -> None:
        self._persons = persons
        self._policy = policy

    def kept_of(self, user: str) -> Kept:
        return Kept({}, int(self._persons.get(user) != Person(user=user)))

    def export(self, user: str, key_ids: Collection[str]) -> Mapping[str, Iterable[Any]]:  # noqa: ARG002
        person = self._persons.get(user)
        return {"person": [] if person == Person(user=user) else [person]}

    def erase_name(self, user: str, pseudonym: str) -> None:  # noqa: ARG002
        if self.kept_of(user).records:
            self._persons.remove(user)
            self._policy.stored()  # so that the copy in Redis is written anew

    def erase(self, erasure: Erasure) -> None:
        """Do nothing: it has no key."""


class IdentitiesHolder:
    """The account at the identity provider. It is forgotten, with its e-mail address and its refresh token."""

    name = "identity"

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    def kept_of(self, user: str) -> Kept:
        return Kept({}, int(self._identities.of_user(user) is not None))

    def export(self, user: str, key_ids: Collection[str]) -> Mapping[str, Iterable[Any]]:  # noqa: ARG002
        identity = self._identities.of_user(user)
        if identity is None:
            return {"identity": []}
        return {"identity": [{name: value for name, value in asdict(identity).items() if name != "refresh_token"}]}

    def erase_name(self, user: str, pseudonym: str) -> None:  # noqa: ARG002
        identity = self._identities.of_user(user)
        if identity is not None:
            with suppress(NotFound):  # another process has forgotten it meanwhile
                self._identities.remove(identity.id)

    def erase(self, erasure: Erasure) -> None:
        """Do nothing: it is found by the name."""


class AlertsHolder:
    """Warnings that name the person, such as that a budget is spent. They are deleted; what was sent is out."""

    name = "alerts"

    def __init__(self, alerts: AlertStore) -> None:
        self._alerts = alerts

    def kept_of(self, user: str) -> Kept:
        return Kept({}, len(self._about(user)))

    def export(self, user: str, key_ids: Collection[str]) -> Mapping[str, Iterable[Any]]:  # noqa: ARG002
        shown = ("at", "event", "scope", "text", "threshold", "used", "limit")
        return {"alerts": [{name: getattr(alert, name) for name in shown} for alert in self._about(user)]}

    def _about(self, user: str) -> list[Alert]:
        return [alert for alert in self._alerts.recent(limit=_MOST_ALERTS) if alert.user == user]

    def erase_name(self, user: str, pseudonym: str) -> None:  # noqa: ARG002
        self._alerts.forget_person(user)

    def erase(self, erasure: Erasure) -> None:
        """Do nothing: they are kept by the name."""


class PromptsHolder:
    """The prompts of keys, which may name their users: all versions."""

    name = "prompts"

    def __init__(self, policy: OrganisationPolicy, keys: Keys) -> None:
        self._policy = policy
        self._keys = keys

    def kept_of(self, user: str) -> Kept:
        found = self._keys.list(KeyQuery(user=user))
        return Kept({}, sum(len(self._policy.prompt_versions(scope=_scope(key.id))) for key in found))

    def export(self, user: str, key_ids: Collection[str]) -> Mapping[str, Iterable[Any]]:
        mine = [key.id for key in self._keys.get_all(sorted(key_ids)) if key.user == user]
        return {"prompts": [one for key_id in mine for one in self._policy.prompt_versions(scope=_scope(key_id))]}

    def erase_name(self, user: str, pseudonym: str) -> None:
        """Do nothing: all of it belongs to keys."""

    def erase(self, erasure: Erasure) -> None:
        others = {key.id for key in self._keys.get_all(erasure.key_ids)}
        scopes = [_scope(key_id) for key_id in erasure.key_ids if key_id not in others]
        self._policy.erase_prompts(scopes, erasure.pseudonym)


class StoredResponsesHolder:
    """Whose the responses are that Azure stores, beside the usage records. It is forgotten: nobody owns them then."""

    name = "stored_responses"

    def __init__(self, stored: StoredResponses) -> None:
        self._stored = stored

    def kept_of(self, user: str) -> Kept:
        return Kept({}, len(self._stored.of(user)))

    def export(self, user: str, key_ids: Collection[str]) -> Mapping[str, Iterable[Any]]:  # noqa: ARG002
        found = self._stored.of(user)
        return {"stored_responses": [{"id": each} | found[each]._asdict() for each in sorted(found)]}

    def erase_name(self, user: str, pseudonym: str) -> None:  # noqa: ARG002
        self._stored.forget(lambda owned: owned.user == user)

    def erase(self, erasure: Erasure) -> None:
        self._stored.forget(lambda owned: erasure.covers(owned.key_id, owned.user))


class RefusalsHolder:
    """The requests that were refused, as far as they had a key. They go by themselves after some days."""

    name = "refusals"

    def __init__(self, refusals: RefusalLog) -> None:
        self._refusals = refusals

    def kept_of(self, user: str) -> Kept:
        return self._refusals.kept_of(user)

    def export(self, user: str, key_ids: Collection[str]) -> Mapping[str, Iterable[Any]]:  # noqa: ARG002
        return {"refusals": self._pages(user)}

    def _pages(self, user: str) -> Iterator[Refusal]:
        before: tuple[datetime, str] | None = None
        while page := self._refusals.list(RefusalQuery(user=user, before=before, limit=_PAGE)):
            yield from page
            before = page[-1].timestamp, page[-1].id

    def erase_name(self, user: str, pseudonym: str) -> None:
        """Do nothing: all of it belongs to keys."""

    def erase(self, erasure: Erasure) -> None:
        self._refusals.erase(erasure)


class AuditHolder:
    """The entries of the audit log about the person, and about their keys."""

    name = "audit"

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def kept_of(self, user: str) -> Kept:
        entries = self._log.about(user, ())
        key_ids = {entry.target for entry in entries if entry.target.startswith("key_")}
        of_keys = self._log.about(None, key_ids)
        names: dict[str, set[str]] = {key_id: set() for key_id in key_ids}
        for entry in of_keys:
            names[entry.target].update(named(entry))
        count = len({entry.id for entry in (*entries, *of_keys)})
        return Kept({key_id: frozenset(found) for key_id, found in names.items()}, count)

    def export(self, user: str, key_ids: Collection[str]) -> Mapping[str, Iterable[Any]]:
        # Entries about a key that somebody else has, too, are handed out only if they name the person.
        entries = self._log.about(user, key_ids)
        shared = {entry.target for entry in entries if entry.target in key_ids and named(entry) - {user}}
        return {"audit": [entry for entry in entries if entry.target not in shared or is_about(entry, user)]}

    def erase_name(self, user: str, pseudonym: str) -> None:
        def change(entry: AuditEntry) -> AuditEntry:
            if entry.target.startswith("key_"):
                return entry  # later, by the key: until then it can be found by the name
            is_target = entry.target == user and entry.action.startswith("user.")
            return replace(
                entry,
                target=pseudonym if is_target else entry.target,
                before=with_pseudonym(entry.before, user, pseudonym),
                after=with_pseudonym(entry.after, user, pseudonym),
            )

        self._log.replace(user, (), change)

    def erase(self, erasure: Erasure) -> None:
        owners = _first_owners(self._log.about(None, erasure.key_ids))

        def change(entry: AuditEntry) -> AuditEntry:
            before = _of(entry.before, owners.get(entry.target, ""))
            after = _of(entry.after, before)
            owners[entry.target] = after
            return replace(
                entry,
                before=_without(entry.before, erasure, entry.target, before),
                after=_without(entry.after, erasure, entry.target, after),
            )

        self._log.replace(None, erasure.key_ids, change)


def _scope(key_id: str) -> str:
    return f"key:{key_id}"


def _first_owners(entries: Iterable[AuditEntry]) -> dict[str, str]:
    """Return who had each key before its first entry, as far as the entries, oldest first, tell."""
    owners: dict[str, str] = {}
    for entry in entries:
        if entry.target not in owners and (owner := _of(entry.before, _of(entry.after, ""))):
            owners[entry.target] = owner
    return owners


def _of(document: Mapping[str, Any] | None, owner: str) -> str:
    """Return who has the key that *document* describes; *owner* if it does not tell."""
    user = None if document is None else document.get("user")
    return user if isinstance(user, str) else owner


def _without(document: Mapping[str, Any] | None, erasure: Erasure, key_id: str, owner: str) -> Mapping[str, Any] | None:
    if document is None or not erasure.covers(key_id, owner):
        return document
    return without_person(document, erasure.pseudonym)
