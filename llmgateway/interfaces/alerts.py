"""The store of warnings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from ..records import Alert, Outage


class AlertStore(Protocol):
    """Warnings for admins with their deliveries, and what is wrong at present. All processes and hosts share it.

    So each warning is announced by one of them, and delivered also if that one dies. The time is passed in.
    """

    def add(self, alert: Alert) -> bool:
        """Store a new alert. Return False if its identifier exists already. Atomic."""
        ...

    def take(self, *, now: datetime, until: datetime) -> Alert | None:
        """Return an alert with a delivery that is due, the one that waits longest; None if there is none. Atomic.

        No other call returns it until *until*, unless :meth:`save` gives it back. So it is delivered later if the
        caller dies.
        """
        ...

    def save(self, alert: Alert, *, held_until: datetime | None = None) -> bool:
        """Store the deliveries of an alert that :meth:`take` has returned.

        Args:
            held_until: Until when the caller keeps it; None to give it back.

        Returns:
            False if the caller has kept it for too long, so that it belongs to another one. Nothing was stored.
        """
        ...

    def waiting(self) -> int:
        """Return the number of alerts with deliveries that wait."""
        ...

    def recent(self, *, limit: int, after: tuple[datetime, str] | None = None) -> Sequence[Alert]:
        """Return alerts, newest first.

        Args:
            after: Only those after this one in the list: time and identifier, of an alert that need not exist any more.
        """
        ...

    def observe(self, outage: Outage, *, until: datetime) -> Outage:
        """Note that *outage* is seen now, and return it with the time since which it is seen. Atomic.

        Args:
            until: Until when it lasts if nobody sees it again.
        """
        ...

    def clear(self, name: str, *, until: datetime) -> None:
        """Note that the outage *name* is not seen any more. It is over at *until* if nobody sees it again."""
        ...

    def outages(self) -> Sequence[Outage]:
        """Return those that have not ended."""
        ...

    def end(self, name: str, *, now: datetime) -> bool | None:
        """End the outage *name* if nobody has seen it for long enough. Atomic: one caller ends it.

        Returns:
            True if it was cleared, False if nobody knows what has become of it, None if it has not ended.
        """
        ...

    def claim(self, name: str, *, now: datetime, until: datetime) -> bool:
        """Return whether the caller may do what *name* stands for. No other one may until *until*. Atomic."""
        ...

    def purge(self, now: datetime) -> None:
        """Forget alerts and claims whose time is over. Those with a delivery that waits stay."""
        ...

    def forget_person(self, user: str) -> None:
        """Delete all alerts that name this person."""
        ...
