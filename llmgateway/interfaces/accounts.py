"""Stores of keys, admins, people, the organisation's settings, and the audit log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from ..records import (
    ALL_KEYS,
    AdminRecord,
    AuditEntry,
    AuditQuery,
    Group,
    GroupSize,
    Imported,
    KeyChange,
    KeyQuery,
    KeyRecord,
    Limits,
    Lookup,
    ModelSettings,
    Organisation,
    Person,
    Prompt,
    User,
)


class KeyStore(Protocol):
    """Stores the keys of users, by identifier and by digest.

    Every :meth:`find` that starts after a change has returned sees that change, in every process and on every host.

    A key cannot be put into a group that does not exist. If one call puts a key into a group and another call removes
    the group at the same time, at least one of them fails, even if a process dies in between.
    """

    def find(self, digest: str) -> Lookup:
        """Look up the key with this *digest*, together with the current version of the organisation.

        A key that is being replaced is also found by its ``retiring_digest``. The caller must check whether that
        digest is still valid.
        """
        ...

    def add(self, record: KeyRecord) -> bool:
        """Store a new key. Return False if its identifier or one of its digests exists already. Atomic.

        Raises:
            NoSuchGroup: the key's group does not exist, or is being removed.
        """
        ...

    def add_all(self, records: Sequence[KeyRecord]) -> set[str]:
        """Store all of these new keys, or none.

        Returns:
            The digests that exist already. If there are any, nothing was stored.

        Raises:
            NoSuchGroup: the group of one of the keys does not exist, or is being removed. Nothing was stored.
        """
        ...

    def add_checked(self, record: KeyRecord, check: Callable[[Sequence[KeyRecord]], None]) -> bool:
        """Store a new key. Return False if its identifier or one of its digests exists already. Atomic.

        Args:
            check: Called with all keys of the record's user, and may be called several times. No other call of this
                method stores a key of this user between its last call and this change, which is not made if it raises
                an error. It must not use a store.

        Raises:
            NoSuchGroup: as :meth:`add`.
        """
        ...

    def import_all(self, records: Sequence[KeyRecord], changes: Sequence[KeyChange], *, alone: bool) -> Imported:
        """Store all of these new keys and make all of these changes, or none.

        A key that no longer exists is not changed.

        Args:
            records: New keys, no two of which share a digest.
            changes: Of keys that exist. They never change the group.
            alone: Whether nothing is stored if a user of *records* has a key in the same group already. Of two calls
                at the same time the second one finds the keys of the first.

        Raises:
            NoSuchGroup: as :meth:`add_all`.
            StoreUnavailable: also if another import has not ended in time.
        """
        ...

    def of_users(self, users: Collection[str]) -> list[KeyRecord]:
        """Return all keys of these users, whose names are compared exactly."""
        ...

    def get(self, key_id: str) -> KeyRecord | None: ...

    def get_all(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        """Return those of these keys that exist, sorted by identifier."""
        ...

    def list(self, query: KeyQuery = ALL_KEYS) -> list[KeyRecord]: ...

    def ids(self, query: KeyQuery = ALL_KEYS) -> Sequence[str]:
        """Return the identifiers of the keys of :meth:`list`, in the same order."""
        ...

    def count(self, query: KeyQuery = ALL_KEYS) -> int:
        """Return how many keys match. Pages and the order of *query* are ignored."""
        ...

    def users(self, *, text: str | None = None) -> Sequence[User]:
        """Return the people who have keys, by name in the order of code points.

        Args:
            text: Only those in whose name, or in an e-mail address of whose keys, this occurs, in any case.
        """
        ...

    def group_sizes(self) -> Mapping[str, GroupSize]:
        """Return the size of each group that has keys."""
        ...

    def update(
        self,
        key_id: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        """Set the named fields of one key and return the changed key; None if there is no such key.

        Atomic: if two calls update different fields at the same time, both updates are kept.

        Args:
            changes: Names and values of :class:`KeyRecord` fields; never ``id``, ``digest`` or ``retiring_digest``.
            limits: Fields of :class:`Limits` to set; the value ``None`` removes a limit. Other fields do not change.
            check: Called with the key as it is before, and may be called several times. Nobody changes the key between
                its last call and this change, which is not made if it raises an error. It must not use a store.

        Raises:
            NoSuchGroup: the new group of the key does not exist, or is being removed.
        """
        ...

    def rotate(
        self,
        key_id: str,
        digest: str,
        *,
        retires_at: datetime | None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        """Give the key a new *digest* and return the changed key; None if there is no such key. Atomic.

        The old digest becomes the ``retiring_digest`` until *retires_at*. If *retires_at* is None, the old digest
        stops working at once. A digest that was retiring before stops working at once in any case.

        Args:
            check: As for :meth:`update`.
        """
        ...

    def revoke_group(self, group: str) -> Sequence[KeyRecord]:
        """Deactivate every active key of *group*, and return the changed keys."""
        ...

    def remove(self, key_id: str, *, check: Callable[[KeyRecord], None] | None = None) -> KeyRecord | None:
        """Delete a key, and return the deleted key; None if there is no such key. Atomic.

        Args:
            check: As for :meth:`update`.
        """
        ...

    def update_all(
        self, key_ids: Sequence[str], changes: Mapping[str, object], *, where: KeyQuery = ALL_KEYS
    ) -> Sequence[KeyRecord]:
        """Set the named fields of these keys, and return the changed keys, sorted by identifier.

        Identifiers that are not known are ignored. Each key changes atomically. After an error any of them may have
        changed; a repetition has the same result.

        Args:
            changes: As for :meth:`update`. ``limits`` replaces all limits.
            where: Only keys that match it at the moment of their change are changed; ``after`` and ``limit`` are
                ignored.

        Raises:
            NoSuchGroup: the new group does not exist, or is being removed. No key was put into it.
        """
        ...

    def remove_all(self, key_ids: Sequence[str], *, where: KeyQuery = ALL_KEYS) -> Sequence[KeyRecord]:
        """Delete these keys, and return the deleted keys, sorted by identifier.

        Identifiers that are not known are ignored. After an error any of them may be deleted.

        Args:
            where: As for :meth:`update_all`.
        """
        ...


class AdminStore(Protocol):
    """Stores the named admins. There are few of them, so they are listed all at once.

    Every :meth:`find` that starts after a change has returned sees that change, in every process and on every host.
    """

    def find(self, digest: str) -> AdminRecord | None:
        """Return the admin with this *digest*, or ``retiring_digest``. The caller checks whether it is still valid."""
        ...

    def get(self, admin_id: str) -> AdminRecord | None: ...

    def list(self) -> list[AdminRecord]:
        """Return all admins, oldest first."""
        ...

    def add(self, record: AdminRecord) -> bool:
        """Store a new admin. Return False if the identifier, the name or the digest exists already. Atomic."""
        ...

    def change(
        self, admin_id: str, change: Callable[[AdminRecord], AdminRecord | None]
    ) -> tuple[AdminRecord, AdminRecord | None] | None:
        """Replace an admin, and return it as it was before and as it is after; None if there is no such admin. Atomic.

        Args:
            change: Returns the admin after the change, or None to delete it. It may be called several times. Nobody
                changes the admin between its last call and this change, which is not made if it raises an error. It
                must not use a store.

        Raises:
            NameTaken: another admin has the new name.
        """
        ...


class OrganisationStore(Protocol):
    """Stores what admins set for everybody. Every change also changes the version, in the same transaction."""

    def load(self) -> Organisation: ...

    def set_prompt(self, text: str, set_at: datetime, *, check: Callable[[Prompt], None] | None = None) -> Prompt:
        """Make *text* the organisation's prompt from the next request on, under the next version number.

        Atomic: if two calls run at the same time, both versions are kept, and the higher one is used.

        Args:
            check: As for :meth:`set_model`, with the organisation's prompt.
        """
        ...

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        """Store *text* under the next version number, as a prompt of a group or a key.

        The prompt is used when it is set in the group (:meth:`update_group`) or the key (:meth:`KeyStore.update`).
        So this method does not change the version of the organisation.
        """
        ...

    def erase_prompts(self, scopes: Collection[str], text: str) -> int:
        """Replace the text of all versions of the prompts of these keys (``key:ID``), and return their number.

        No prompt in force changes: the keys no longer exist.
        """
        ...

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        """Return every version that was ever set, newest first. *scope* selects one scope (empty: the organisation)."""
        ...

    def set_limits(self, limits: Limits, *, check: Callable[[Limits], None] | None = None) -> None:
        """Replace the limits of the organisation.

        Args:
            check: As for :meth:`set_model`, with the organisation's limits.
        """
        ...

    def update_limits(self, parts: Mapping[str, object], *, check: Callable[[Limits], None] | None = None) -> Limits:
        """Set some limits of the organisation (``None`` removes a limit), and return all of them. Atomic.

        Args:
            check: As for :meth:`set_limits`.
        """
        ...

    def set_group(self, group: Group, *, check: Callable[[Group | None], None] | None = None) -> Group:
        """Create a group, or replace the fields of the group with the same name; return the stored group. Atomic.

        An existing group keeps its ``created_at``, its ``prompt`` and its ``raised``. Other groups do not change.

        Args:
            check: As for :meth:`set_model`, with the group; None if there is no such group.
        """
        ...

    def update_group(
        self,
        name: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        member_limits: Mapping[str, object] | None = None,
        check: Callable[[Group], None] | None = None,
    ) -> Group | None:
        """Set the named fields of one group and return the changed group; None if there is no such group. Atomic.

        Args:
            changes: Names and values of :class:`Group` fields; never ``name`` or ``created_at``.
            limits: As for :meth:`KeyStore.update`.
            member_limits: The same for the limits of each member.
            check: As for :meth:`set_model`, with the group.
        """
        ...

    def remove_group(self, name: str, *, check: Callable[[Group], None] | None = None) -> Group | None:
        """Delete a group without keys, and return the deleted group; None if there is no such group.

        Args:
            check: As for :meth:`set_model`, with the group.

        Raises:
            InUse: the group has keys, or a key is being put into it.
        """
        ...

    def set_credential(self, credential: bytes) -> None:
        """Store Azure's key. The caller has encrypted it."""
        ...

    def set_model(
        self,
        model: str,
        parts: Mapping[str, object] | None,
        *,
        check: Callable[[Mapping[str, ModelSettings]], None] | None = None,
    ) -> ModelSettings:
        """Set the named fields of the settings of *model*, and return all of its settings. Atomic.

        Other models do not change. A model all of whose settings are ``None`` is forgotten.

        Args:
            model: Name of a model or a deployment.
            parts: Names and values of :class:`~llmgateway.records.ModelSettings` fields; None forgets all of them.
            check: Called with the settings of all models as they are before, and may be called several times. Nobody
                changes them between its last call and this change, which is not made if it raises an error.
        """
        ...

    def document(self, name: str) -> Mapping[str, Any]:
        """Return one of :attr:`~llmgateway.records.Organisation.documents`; empty if there is none.

        Costs less than :meth:`load`.
        """
        ...

    def update_document(self, name: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Replace one of :attr:`~llmgateway.records.Organisation.documents`, and return the new one. Atomic.

        Args:
            change: Returns the new document, from the one before; empty if there is none. It may be called several
                times. Nobody changes the document between its last call and this change, which is not made if it raises
                an error. An empty document is removed.
        """
        ...


class PersonStore(Protocol):
    """Stores what is set for people. :meth:`OrganisationStore.load` returns all of it, so requests need no look-up.

    Names are compared exactly: case, Unicode form and blanks make a difference.
    """

    def get(self, user: str) -> Person | None: ...

    def change(self, user: str, change: Callable[[Person | None], Person | None]) -> Person | None:
        """Replace what is set for one person, and return it. Atomic. This begins a new version of the organisation.

        After an error the change may be stored without a new version. A repetition of the call begins one.

        Args:
            change: Returns what is set from now on, from what was set before; None for nothing. It may be called
                several times. Nobody changes the person between its last call and this change, which is not made if
                it raises an error. It must not use a store.
        """
        ...


class AuditLog(Protocol):
    """Records the changes that admins make. Entries are never deleted, and only :meth:`erase` changes them."""

    def append(self, entry: AuditEntry) -> None: ...

    def entries(self, query: AuditQuery) -> list[AuditEntry]:
        """Return a page of entries."""
        ...

    def about(self, user: str | None, key_ids: Collection[str]) -> Sequence[AuditEntry]:
        """Return the entries whose target is *user* or one of *key_ids*, or that name *user*; oldest first."""
        ...

    def replace(self, user: str | None, key_ids: Collection[str], change: Callable[[AuditEntry], AuditEntry]) -> None:
        """Store the result of *change* for each of the entries of :meth:`about`, oldest first.

        Only targets and documents may change. This is for the erasure of a person, who is in :class:`Erasures` before
        the entries about *key_ids* are replaced: then an entry about them that is appended later loses the person's
        data, too.
        """
        ...
