"""Admins, and what they have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


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
    action: str | None = None
    """An action like ``key.update``, or the noun of several, like ``key``."""
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
