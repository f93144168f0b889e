"""Courses and teams: what their keys have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..clock import Clock
from ..errors import NotFound
from ..records import Group, moment
from .policy import OrganisationPolicy


class Groups:
    """The groups of the organisation. Thread-safe."""

    def __init__(self, policy: OrganisationPolicy, *, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock

    def list(self) -> list[Group]:
        """All of them, by name."""
        groups = self._policy.stored().groups
        return [groups[name] for name in sorted(groups)]

    def find(self, name: str) -> Group | None:
        return self._policy.stored().groups.get(name)

    def get(self, name: str) -> Group:
        """Raises NotFound if there is no such group."""
        return _there(self.find(name))

    def put(self, name: str, **fields: Any) -> Group:
        """Make the group, or replace all of its *fields* but ``created_at`` and ``prompt``."""
        return self._policy.set_group(Group(name=name, created_at=moment(self._clock()), **fields))

    def update(self, name: str, changes: Mapping[str, Any], *, limits: Mapping[str, Any] | None = None) -> Group:
        """Change the fields that are among *changes*, and those of its limits that are among *limits*.

        Raises:
            NotFound: there is no such group.
        """
        return _there(self._policy.update_group(name, changes, limits=limits))

    def remove(self, name: str) -> Group:
        """Forget a group that no key is in, and return what it was.

        Raises:
            NotFound: there is no such group.
            GroupInUse: keys are in it, which would be without its limits and dates.
        """
        return _there(self._policy.remove_group(name))


def _there(group: Group | None) -> Group:
    if group is None:
        raise NotFound("There is no such group. GET /admin/groups lists those there are.", param="name")
    return group
