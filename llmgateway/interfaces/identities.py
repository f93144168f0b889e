"""Stores of people who sign in, and of their sessions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from ..records import Identity


class IdentityStore(Protocol):
    """Stores the accounts at the identity provider that have signed in."""

    def get(self, identity_id: str) -> Identity | None: ...

    def of_user(self, user: str) -> Identity | None:
        """Return the account that the keys of *user* belong to. Names are compared exactly."""
        ...

    def list(self, *, waiting: bool | None = None, after: str = "", limit: int) -> Sequence[Identity]:
        """Return accounts behind the identifier *after*, sorted by identifier.

        Args:
            waiting: Only those without a user, or only those with one.
        """
        ...

    def due(self, now: datetime, *, limit: int) -> Sequence[Identity]:
        """Return accounts whose ``due_at`` has come, those that wait longest first."""
        ...

    def change(
        self, identity_id: str, change: Callable[[Identity | None], Identity | None]
    ) -> tuple[Identity | None, Identity | None]:
        """Replace an account, and return it as it was before and as it is after. Atomic.

        Args:
            change: Returns the account after the change, from the one before; None if there is none, or to delete it.
                It may be called several times. Nobody changes the account between its last call and this change, which
                is not made if it raises an error. It must not use this store.

        Raises:
            UserTaken: another account has the new user.
        """
        ...


class SessionStore(Protocol):
    """Short texts by name, each until a time. Expired ones are as if they were not there. The time is passed in."""

    def look(self, names: Collection[str], *, now: datetime) -> Mapping[str, str]:
        """Return the texts of those of *names* that there are."""
        ...

    def add(self, name: str, text: str, *, now: datetime, until: datetime) -> bool:
        """Store *text*, unless there is one with this name: then return False. Atomic: of two calls one gets True."""
        ...

    def put(self, name: str, text: str, *, until: datetime) -> None:
        """Store *text*, in place of any other with this name."""
        ...

    def purge(self, now: datetime) -> None:
        """Delete what has expired."""
        ...
