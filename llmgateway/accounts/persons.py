"""People, with the limits that all keys of one person share. Most people have none: then nothing is stored of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..interfaces import KeyStore, PersonStore
from ..records import Limits, Organisation, Person, Raise
from .policy import OrganisationPolicy

Change = Callable[[Person], Person]


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

    def list(self, *, after: str = "", limit: int) -> list[tuple[Person, int]]:
        """Return people behind the name *after*, sorted by name, each with the number of their keys."""
        users = {user.name: user.keys for user in self._keys.users(after=after, limit=limit)}
        set_for = self._policy.stored().persons
        names = sorted({*users, *(name for name in set_for if name > after)})[:limit]
        return [(set_for.get(name) or Person(user=name), users.get(name, 0)) for name in names]

    def set_limits(self, user: str, limits: Limits) -> tuple[Person, Person]:
        """Replace the limits of *user*; return what was set before, and what is set now. A raise stays."""
        return self._change(user, lambda person: replace(person, limits=limits))

    def update_limits(self, user: str, parts: Mapping[str, Any]) -> tuple[Person, Person]:
        """Set some limits of *user* (``None`` removes a limit); otherwise like :meth:`set_limits`."""
        return self._change(user, lambda person: replace(person, limits=replace(person.limits, **parts)))

    def set_raise(self, user: str, raised: Raise | None) -> tuple[Person, Person]:
        """Raise the limits of *user* for a while, or end that; otherwise like :meth:`set_limits`."""
        return self._change(user, lambda person: replace(person, raised=raised))

    def remove(self, user: str) -> Person:
        """Forget what is set for *user*, and return it. The keys stay."""
        before, _ = self._change(user, lambda _: Person(user=user))
        return before

    def _change(self, user: str, change: Change) -> tuple[Person, Person]:
        nothing = Person(user=user)
        seen = [nothing]

        def changed(before: Person | None) -> Person | None:
            seen.append(before or nothing)
            after = change(seen[-1])
            return None if after == nothing else after

        def in_memory(current: Organisation, after: Person | None) -> Organisation:
            others = {name: person for name, person in current.persons.items() if name != user}
            return replace(current, persons=others if after is None else {**others, user: after})

        after = self._policy.change(lambda: self._store.change(user, changed), in_memory)
        return seen[-1], after or nothing
