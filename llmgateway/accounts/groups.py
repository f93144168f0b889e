"""Groups of keys, for example of a course or a team, with the settings that their keys share."""

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
        """Return all groups, sorted by name."""
        groups = self._policy.stored().groups
        return [groups[name] for name in sorted(groups)]

    def find(self, name: str) -> Group | None:
        return self._policy.stored().groups.get(name)

    def get(self, name: str) -> Group:
        """Return a group; raise NotFound if there is no such group."""
        return _found(self.find(name))

    def put(self, name: str, **fields: Any) -> Group:
        """Create the group, or replace all *fields* of an existing one except ``created_at``, ``prompt`` and
        ``raised``."""
        return self._policy.set_group(Group(name=name, created_at=moment(self._clock()), **fields))

    def update(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        limits: Mapping[str, Any] | None = None,
        member_limits: Mapping[str, Any] | None = None,
    ) -> Group:
        """Change the fields in *changes*, and the limits in *limits* and *member_limits*; all others stay.

        Raises:
            NotFound: there is no such group.
        """
        return _found(self._policy.update_group(name, changes, limits=limits, member_limits=member_limits))

    def remove(self, name: str) -> Group:
        """Delete a group without keys, and return it.

        Raises:
            NotFound: there is no such group.
            GroupInUse: the group has keys. They would lose its limits and dates.
        """
        return _found(self._policy.remove_group(name))


def _found(group: Group | None) -> Group:
    if group is None:
        raise NotFound("There is no such group. GET /admin/groups lists those there are.", param="name")
    return group
