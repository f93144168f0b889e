"""Who sends a request, with everything that admins have set about that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..records import Group, KeyRecord, Organisation, Prompt

KEPT_PRINCIPALS = 10_000
"""Principals kept in memory: some 40 MB with all that is computed from them, if each has a dozen limits."""


# Compared and hashed by identity, which is fast: nothing in it ever changes.
@dataclass(frozen=True, eq=False)
class Principal:
    """A key with its group and its organisation, as of one moment."""

    key: KeyRecord
    organisation: Organisation

    @cached_property
    def group(self) -> Group | None:
        return self.organisation.groups.get(self.key.group) if self.key.group else None

    @cached_property
    def prompt(self) -> Prompt:
        """What goes in front of the conversation: the key's, else the group's, else the organisation's."""
        if self.key.prompt is not None:
            return self.key.prompt
        group = self.group
        return group.prompt if group is not None and group.prompt is not None else self.organisation.prompt

    @cached_property
    def models(self) -> tuple[str, ...] | None:
        """What both the key and its group allow; None for everything."""
        group = self.group
        if group is None or group.models is None:
            return self.key.models
        if self.key.models is None:
            return group.models
        return tuple(model for model in self.key.models if model in group.models)


class PrincipalCache:
    """Returns the same object for the same key and the same organisation. Thread-safe.

    So what is computed from them is computed once and not for each request. It keeps principals of the latest
    organisation only, and at most *limit* of them.
    """

    def __init__(self, *, limit: int = KEPT_PRINCIPALS) -> None:
        self._limit = limit
        self._latest: tuple[Organisation | None, dict[str, Principal]] = (None, {})

    def of(self, key: KeyRecord, organisation: Organisation) -> Principal:
        latest, principals = self._latest
        if latest is not organisation or len(principals) > self._limit:
            principals = {}
            self._latest = (organisation, principals)
        principal = principals.get(key.id)
        if principal is None or principal.key is not key:
            principal = principals[key.id] = Principal(key, organisation)
        return principal
