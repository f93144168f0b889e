"""Warnings to admins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


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
