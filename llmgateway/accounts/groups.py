"""Groups of keys, for example of a course or a team, with the settings that their keys share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..clock import Clock
from ..errors import NotFound
from ..records import Group, moment
from .policy import OrganisationPolicy


class Groups:
    """The groups of the organisation. Thread-safe.

    Args:
        on_removed: Called with the name of a group that was removed.
    """

    def __init__(
        self, policy: OrganisationPolicy, *, clock: Clock, on_removed: Callable[[str], None] = lambda _: None
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._on_removed = on_removed

    def list(self) -> list[Group]:
        """Return all groups, sorted by name."""
        groups = self._policy.stored().groups
        return [groups[name] for name in sorted(groups)]

    def find(self, name: str) -> Group | None:
        return self._policy.stored().groups.get(name)

    def get(self, name: str) -> Group:
        """Return a group; raise NotFound if there is no such group."""
        return _found(self.find(name))

    def put(self, name: str, *, check: Callable[[Group | None], None] | None = None, **fields: Any) -> Group:
        """Create the group, or replace all *fields* of an existing one except ``created_at``, ``prompt`` and
        ``raised``.

        Args:
            check: As for :meth:`~llmgateway.interfaces.OrganisationStore.set_group`.
        """
        group = Group(name=name, created_at=moment(self._clock()), **fields)
        return self._policy.set_group(group, check=check)

    def update(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        limits: Mapping[str, Any] | None = None,
        member_limits: Mapping[str, Any] | None = None,
        check: Callable[[Group], None] | None = None,
    ) -> Group:
        """Change the fields in *changes*, and the limits in *limits* and *member_limits*; all others stay.

        Args:
            check: As for :meth:`~llmgateway.interfaces.OrganisationStore.update_group`.

        Raises:
            NotFound: there is no such group.
        """
        return _found(self._policy.update_group(name, changes, limits=limits, member_limits=member_limits, check=check))

    def remove(self, name: str, *, check: Callable[[Group], None] | None = None) -> Group:
        """Delete a group without keys, and return it.

        Args:
            check: As for :meth:`~llmgateway.interfaces.OrganisationStore.remove_group`.

        Raises:
            NotFound: there is no such group.
            GroupInUse: the group has keys. They would lose its limits and dates.
        """
        removed = _found(self._policy.remove_group(name, check=check))
        self._on_removed(name)
        return removed


def _found(group: Group | None) -> Group:
    if group is None:
        raise NotFound("There is no such group. GET /admin/groups lists those there are.", param="name")
    return group
