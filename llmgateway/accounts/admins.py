"""The admins: named ones with keys of their own, and the first owner, who has the ``ADMIN_KEY`` of the settings."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from ..clock import Clock
from ..errors import Conflict, InvalidFields, NotFound, StoreUnavailable
from ..interfaces import AdminStore
from ..records import FIRST_OWNER, AdminRecord, Role, moment, new_id
from .keys import digest

log = logging.getLogger(__name__)

PREFIX = "llmgw-admin-"
"""The beginning of every key of a named admin."""

# 32 random bytes in base64: only such a key is looked up in a store.
_KEY = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{43}")

# The salt is fixed, so that entries of all hosts and of all times can be compared.
_SALT = b"llmgateway admin key"

MOST_ADMINS = 1000
"""Maximum number of named admins, who are listed on one page."""

Check = Callable[[AdminRecord], None]
"""Called with the admin before a change. Nobody changes the admin between this and the change, which is not made if it
raises an error."""


@lru_cache
def fingerprint(admin_key: str) -> str:
    """Return 12 hexadecimal digits that show whether two changes were made with the same key. They have no other use.

    A person who reads the audit log can try keys. scrypt allows about 20 tries per second and processor (n=2**14:
    16 MiB, about 50 ms, once at start; RFC 7914 section 2). Entries of earlier editions have a SHA-256 in its place.
    """
    return hashlib.scrypt(admin_key.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=6).hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """Who sends a request to the admin API."""

    id: str | None
    """None for the first owner."""
    name: str
    role: Role
    groups: tuple[str, ...] = ()
    key_id: str
    """See :attr:`~llmgateway.records.AuditEntry.admin_key_id`."""

    @property
    def reach(self) -> tuple[str, ...] | None:
        """The groups that exist for this admin; None for everything."""
        return self.groups if self.role is Role.GROUP else None

    def __str__(self) -> str:
        return self.id or self.name


def first_owner(admin_key: str) -> Admin:
    """Return whoever sends the ``ADMIN_KEY``."""
    return Admin(id=None, name=FIRST_OWNER, role=Role.OWNER, key_id=fingerprint(admin_key))


class Admins:
    """The named admins. Thread-safe.

    The first owner is not among them. So there is always an owner, whatever is changed here.
    """

    def __init__(self, store: AdminStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def authenticate(self, key: str) -> tuple[Admin | None, str]:
        """Return the admin with this key; or None, and why.

        Raises:
            StoreUnavailable: no store answers, and this process does not have the admin in memory. Only for keys that
                nobody can guess.
        """
        if not _KEY.fullmatch(key):
            return None, "is not known here"
        # The time says nothing about other keys: their digests cannot be guessed byte by byte.
        sent = digest(key)
        record = self._store.find(sent)
        if record is None:
            return None, "is not known here"
        if not record.active:
            return None, "has been blocked"
        now = moment(self._clock())
        if record.expires_at is not None and now >= record.expires_at:
            return None, "has expired"
        if sent != record.digest and (record.retires_at is None or now >= record.retires_at):
            return None, "has been replaced by a new one"
        return _admin(record, _key_id(sent)), ""

    def resume(self, admin_id: str, key_id: str) -> Admin | None:
        """Return the admin who has signed in with the key *key_id*, as the admin is now.

        None if the admin was blocked or removed, or if the key is not valid any more.
        """
        record = self._store.get(admin_id)
        now = moment(self._clock())
        if record is None or not record.active or (record.expires_at is not None and now >= record.expires_at):
            return None
        valid = [record.digest]
        if record.retiring_digest is not None and record.retires_at is not None and now < record.retires_at:
            valid.append(record.retiring_digest)
        return _admin(record, key_id) if key_id in map(_key_id, valid) else None

    def list(self) -> list[AdminRecord]:
        """Return all named admins, the oldest first."""
        return self._store.list()

    def get(self, admin_id: str) -> AdminRecord:
        """Return an admin; raise NotFound if there is none with this identifier."""
        record = self._store.get(admin_id)
        if record is None:
            raise _not_found()
        return record

    def create(self, *, name: str, role: Role, **fields: Any) -> tuple[AdminRecord, str]:
        """Create an admin, and return the record and the key itself.

        Raises:
            Conflict: there is an admin with this name, or there are too many.
            InvalidFields: role and groups contradict each other.
        """
        now, key = self._clock(), _generated()
        record = AdminRecord(
            id=new_id("admin", now), digest=digest(key), name=name, role=role, created_at=moment(now), **fields
        )
        _check_groups(record)
        if len(self._store.list()) >= MOST_ADMINS:
            raise Conflict(f"There are {MOST_ADMINS} admins, which is the most. Remove one first.")
        if not self._store.add(record):
            raise Conflict("There is an admin with this name already. Choose another one.", param="name")
        return record, key

    def update(self, admin_id: str, changes: Mapping[str, Any], *, check: Check) -> tuple[AdminRecord, AdminRecord]:
        """Change the fields in *changes*, and return the admin before and after.

        A change of the role to another one than ``group`` also removes the groups.

        Raises:
            NotFound: there is no such admin.
            NameTaken: another admin has the new name.
            InvalidFields: role and groups contradict each other.
        """
        role = changes.get("role", Role.GROUP)
        fields = {**({} if role is Role.GROUP else {"groups": ()}), **changes}

        def changed(before: AdminRecord) -> AdminRecord:
            check(before)
            after = replace(before, **fields)
            _check_groups(after, before=before)
            return after

        before, after = self._change(admin_id, changed)
        return before, after or before

    def rotate(self, admin_id: str, *, overlap_seconds: int, check: Check) -> tuple[AdminRecord, AdminRecord, str]:
        """Replace the key of an admin, and return the admin before and after, and the new key; raise NotFound.

        Args:
            overlap_seconds: How long the old key stays valid.
        """
        key = _generated()
        retires_at = moment(self._clock()) + timedelta(seconds=overlap_seconds) if overlap_seconds else None

        def rotated(before: AdminRecord) -> AdminRecord:
            check(before)
            return replace(
                before,
                digest=digest(key),
                retiring_digest=before.digest if overlap_seconds else None,
                retires_at=retires_at,
            )

        before, after = self._change(admin_id, rotated)
        return before, after or before, key

    def remove(self, admin_id: str, *, check: Check) -> AdminRecord:
        """Delete an admin, and return the record; raise NotFound."""
        before, _ = self._change(admin_id, lambda record: check(record))
        return before

    def forget_group(self, name: str) -> None:
        """Take a group that was removed from all admins, who would manage a later group of the same name.

        Raises nothing: the group is removed in any case.
        """
        try:
            for record in self._store.list():
                if name in record.groups:
                    self._store.change(record.id, lambda record: _without(record, name))
        except StoreUnavailable:
            log.exception("Admins keep the right to manage the group that was removed, until they are changed.")

    def _change(
        self, admin_id: str, change: Callable[[AdminRecord], AdminRecord | None]
    ) -> tuple[AdminRecord, AdminRecord | None]:
        changed = self._store.change(admin_id, change)
        if changed is None:
            raise _not_found()
        return changed


def _admin(record: AdminRecord, key_id: str) -> Admin:
    return Admin(id=record.id, name=record.name, role=record.role, groups=record.groups, key_id=key_id)


def _key_id(sent: str) -> str:
    """Return the mark of a key with this digest. It cannot be guessed, so this needs no scrypt.

    Not the digest itself, which the audit log would show.
    """
    return hashlib.sha256(_SALT + sent.encode()).hexdigest()[:12]


def _check_groups(record: AdminRecord, *, before: AdminRecord | None = None) -> None:
    """Check that an admin of the role ``group`` has groups, and no other has."""
    problem = None
    if record.role is Role.GROUP and not record.groups:
        problem = "Name the groups that this admin manages, at least one."
    elif record.role is not Role.GROUP and record.groups:
        problem = "Only the role 'group' has groups: leave them out, or choose that role."
    # An admin whose last group was removed can still be blocked or renamed.
    if problem is not None and (before is None or (before.role, before.groups) != (record.role, record.groups)):
        message = "These fields are not right: 'groups'. 'errors' says why."
        raise InvalidFields(message, param="groups", fields={"groups": [problem]})


def _without(record: AdminRecord, group: str) -> AdminRecord:
    return replace(record, groups=tuple(name for name in record.groups if name != group))


def _generated() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def _not_found() -> NotFound:
    return NotFound("There is no admin with this id. GET /admin/admins lists those there are.", param="id")
