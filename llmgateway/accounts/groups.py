"""Courses and teams: what their keys have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..clock import Clock
from ..errors import InUse, NotFound
from ..interfaces import KeyStore, OrganisationStore
from ..records import Group, Prompt, moment


class Groups:
    """The groups of the organisation. Thread-safe.

    Of two changes of one group at once the later one holds.
    """

    def __init__(self, store: OrganisationStore, keys: KeyStore, *, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    def list(self) -> list[Group]:
        """All of them, by name."""
        groups = self._store.load().groups
        return [groups[name] for name in sorted(groups)]

    def find(self, name: str) -> Group | None:
        return self._store.load().groups.get(name)

    def get(self, name: str) -> Group:
        """Raises NotFound if there is no such group."""
        group = self.find(name)
        if group is None:
            raise NotFound("There is no such group. GET /admin/groups lists those there are.", param="name")
        return group

    def put(self, name: str, **fields: Any) -> Group:
        """Make the group, or replace all of its *fields* but ``created_at`` and ``prompt``."""
        before = self.find(name)
        if before is None:
            group = Group(name=name, created_at=moment(self._clock()), **fields)
        else:
            group = Group(name=name, created_at=before.created_at, prompt=before.prompt, **fields)
        self._store.set_group(group)
        return group

    def set_prompt(self, name: str, prompt: Prompt | None) -> None:
        """Raises NotFound if there is no such group."""
        self._store.set_group(replace(self.get(name), prompt=prompt))

    def remove(self, name: str) -> None:
        """Forget a group that no key is in.

        Raises:
            NotFound: there is no such group.
            InUse: keys are in it, which would have no limits of the group any more.
        """
        self.get(name)
        if self._keys.list(group=name, limit=1):
            raise InUse("There are keys in this group. Remove them, or move them to another group, first.")
        self._store.remove_group(name)
