"""People who sign in with the organisation's identity provider."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

Claim = str | tuple[str, ...]
"""What a provider says about a person under one name: one value or several."""


class Account(NamedTuple):
    """What the identity provider says of one of its accounts, checked. ``repr()`` must not be logged."""

    issuer: str
    subject: str
    """The provider's identifier of the account, which never changes."""
    claims: Mapping[str, Any]
    refresh_token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An account at the identity provider, and whose keys it stands for."""

    id: str
    """See :meth:`id_of`."""
    issuer: str
    subject: str
    """As in :attr:`Account.subject`."""
    claimed: str
    """The name that the provider gave at the last sign-in. Other accounts may claim the same."""
    first_at: datetime
    signed_in_at: datetime
    user: str | None = None
    """The person whose keys belong to this account; ``None`` while an admin has to decide it. No two accounts have the
    same."""
    email: str | None = None
    active: bool = True
    """Whether it may sign in."""
    claims: Mapping[str, Claim] = field(default_factory=dict)
    """What the provider said, as far as the rules for roles and groups look at it."""
    refresh_token: str | None = field(default=None, repr=False)
    """Encrypted. With it the gateway asks whether the account still exists."""
    due_at: datetime | None = None
    """When the gateway asks next, or looks at the date of the last sign-in; ``None`` for never."""
    refused_since: datetime | None = None
    """Since when the provider has refused the refresh token each time."""
    blocked_keys: tuple[str, ...] = ()
    """The keys that were blocked because the account seems to have ended."""
    left_at: datetime | None = None
    """When they were blocked."""

    @staticmethod
    def id_of(issuer: str, subject: str) -> str:
        """Return the identifier of the account *subject* of *issuer*. The same account always has the same one."""
        text = f"{issuer}\n{subject}"  # a URL has no line break, so no other pair makes this text
        return f"person_{hashlib.sha256(text.encode()).hexdigest()[:28]}"

    def as_json(self) -> dict[str, Any]:
        """Return all fields, with times in ISO 8601."""
        document = asdict(self)
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in document.items()
            if value is not None
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Identity:
        """Read what :meth:`as_json` has made. Fields of a newer version are ignored."""
        fields = {name: document[name] for name in cls.__slots__ if name in document}
        for name in ("first_at", "signed_in_at", "due_at", "refused_since", "left_at"):
            if name in fields:
                fields[name] = datetime.fromisoformat(fields[name])
        claims = fields.get("claims", {})
        fields["claims"] = {name: tuple(each) if isinstance(each, list) else each for name, each in claims.items()}
        fields["blocked_keys"] = tuple(fields.get("blocked_keys", ()))
        return cls(**fields)
