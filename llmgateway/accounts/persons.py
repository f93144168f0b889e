"""People, with the limits that all keys of one person share. Most people have none: then nothing is stored of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..interfaces import KeyStore, PersonStore
from ..records import Limits, Organisation, Person, Raise
from .policy import OrganisationPolicy

Change = Callable[[Person], Person]
Check = Callable[[Person], None]
"""Called with what was set before a change. Nobody changes it between this and the change, which is not made if this
raises an error."""


class Persons:
    """The people of the organisation, by name: those who have keys, and those for whom something is set. Thread-safe.

    Names are compared exactly: also their case, their Unicode form, and blanks.
    """

    def __init__(self, store: PersonStore, keys: KeyStore, policy: OrganisationPolicy) -> None:
        self._store = store
        self._keys = keys
        self._policy = policy

    def get(self, user: str) -> Person:
        """Return what is set for *user*. Nothing is set for somebody who is not known."""
        return self._store.get(user) or Person(user=user)

    def list(self, text: str | None = None) -> list[tuple[Person, int]]:
        """Return people, sorted by name, each with the number of their keys.

        Args:
            text: Only those in whose name, or in an e-mail address of whose keys, this occurs, in any case.
        """
        users = {user.name: user.keys for user in self._keys.users(text=text)}
        set_for = self._policy.stored().persons
        folded = (text or "").casefold()
        names = sorted({*users, *(name for name in set_for if folded in name.casefold())})
        return [(set_for.get(name) or Person(user=name), users.get(name, 0)) for name in names]

    def set_limits(self, user: str, limits: Limits, *, check: Check | None = None) -> tuple[Person, Person]:
        """Replace the limits of *user*; return what was set before, and what is set now. A raise stays."""
        return self._change(user, lambda person: replace(person, limits=limits), check)

    def update_limits(
        self, user: str, parts: Mapping[str, Any], *, check: Check | None = None
    ) -> tuple[Person, Person]:
        """Set some limits of *user* (``None`` removes a limit); otherwise like :meth:`set_limits`."""
        return self._change(user, lambda person: replace(person, limits=replace(person.limits, **parts)), check)

    def set_raise(self, user: str, raised: Raise | None, *, check: Check | None = None) -> tuple[Person, Person]:
        """Raise the limits of *user* for a while, or end that; otherwise like :meth:`set_limits`."""
        return self._change(user, lambda person: replace(person, raised=raised), check)

    def remove(self, user: str, *, check: Check | None = None) -> Person:
        """Forget what is set for *user*, and return it. The keys stay."""
        before, _ = self._change(user, lambda _: Person(user=user), check)
        return before

    def _change(self, user: str, change: Change, check: Check | None) -> tuple[Person, Person]:
        nothing = Person(user=user)
        seen = [nothing]

        def changed(before: Person | None) -> Person | None:
            seen.append(before or nothing)
            if check is not None:
                check(seen[-1])
            after = change(seen[-1])
            return None if after == nothing else after

        def in_memory(current: Organisation, after: Person | None) -> Organisation:
            others = {name: person for name, person in current.persons.items() if name != user}
            return replace(current, persons=others if after is None else {**others, user: after})

        after = self._policy.change(lambda: self._store.change(user, changed), in_memory)
        return seen[-1], after or nothing
