"""What admins set for alerts. It is stored as a document of the organisation, whose secrets are encrypted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

DOCUMENT = "alerts"
"""Name of the document (:attr:`~llmgateway.records.Organisation.documents`)."""

THRESHOLDS = (50, 80, 100)


class Event(StrEnum):
    """What admins can be told about."""

    BUDGET = "budget"
    """A share of a budget is used."""
    CREDENTIAL = "credential"
    """Azure's key is missing, or Azure refuses it."""
    STORE = "store"
    """A store is away."""
    QUOTA = "quota"
    """Azure has lowered the quota of a deployment."""
    BACKLOG = "backlog"
    """Usage records wait for the store."""
    PRICE = "price"
    """A model is used without a known price."""
    LEAVER = "leaver"
    """Somebody's account at the identity provider has ended, and the keys are blocked."""


class Format(StrEnum):
    """What a webhook understands."""

    JSON = "json"
    SLACK = "slack"
    TEAMS = "teams"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A URL to which alerts are posted."""

    id: str
    url: str | None = field(repr=False)
    """None if it was encrypted with another ``SECRET_KEY``. It can contain a secret, as those of Slack and Teams do."""
    secret: str | None = field(default=None, repr=False)
    """With it each body is signed."""
    format: Format = Format.JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailbox:
    """An e-mail address to which alerts are sent."""

    address: str

    @property
    def id(self) -> str:
        return f"mail_{hashlib.sha256(self.address.encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """Where alerts go, and what they are about."""

    smtp_url: str | None = field(default=None, repr=False)
    sender: str | None = None
    webhooks: tuple[Webhook, ...] = ()
    emails: tuple[Mailbox, ...] = ()
    thresholds: tuple[int, ...] = THRESHOLDS
    """Per cent of a budget, ascending."""
    events: tuple[Event, ...] = tuple(Event)
    smtp_unreadable: bool = False
    """Whether ``smtp_url`` was encrypted with another ``SECRET_KEY``."""

    @property
    def targets(self) -> dict[str, Webhook | Mailbox]:
        """Everything to which alerts go, by identifier."""
        every: tuple[Webhook | Mailbox, ...] = (*self.webhooks, *self.emails)
        return {target.id: target for target in every}

    @classmethod
    def from_document(cls, document: Mapping[str, Any], decrypt: Callable[[bytes], str | None]) -> AlertSettings:
        """Read what :meth:`as_document` has made. Events of a newer version are ignored."""

        def secret(value: str | None) -> str | None:
            return None if value is None else decrypt(value.encode())

        smtp_url = secret(document.get("smtp_url"))
        known = tuple(str(event) for event in Event)
        return cls(
            smtp_url=smtp_url,
            sender=document.get("from"),
            webhooks=tuple(
                Webhook(
                    id=each["id"],
                    url=secret(each["url"]),
                    secret=secret(each.get("secret")),
                    format=Format(each["format"]),
                )
                for each in document.get("webhooks", ())
            ),
            emails=tuple(Mailbox(address=address) for address in document.get("emails", ())),
            thresholds=tuple(document.get("thresholds", THRESHOLDS)),
            events=tuple(Event(name) for name in document.get("events", known) if name in known),
            smtp_unreadable=smtp_url is None and document.get("smtp_url") is not None,
        )

    def as_document(self, encrypt: Callable[[str], str]) -> dict[str, Any]:
        """Return the document to store; empty if nothing is set."""
        if self == AlertSettings():
            return {}
        return {
            "smtp_url": None if self.smtp_url is None else encrypt(self.smtp_url),
            "from": self.sender,
            "webhooks": [
                {
                    "id": each.id,
                    "url": encrypt(each.url or ""),
                    "secret": None if each.secret is None else encrypt(each.secret),
                    "format": str(each.format),
                }
                for each in self.webhooks
            ],
            "emails": [each.address for each in self.emails],
            "thresholds": list(self.thresholds),
            "events": [str(event) for event in self.events],
        }
