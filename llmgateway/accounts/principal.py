"""The principal of a request: its key, with the settings that apply to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..records import Budget, Group, KeyRecord, Organisation, Person, Prompt

KEPT_PRINCIPALS = 10_000
"""The most principals in memory. They take about 40 MB, with everything computed from them, if each has a dozen
limits."""


# Compared and hashed by identity, which is fast. This is safe because a principal never changes.
@dataclass(frozen=True, eq=False)
class Principal:
    """A key with its group and its organisation, as they were at one moment."""

    key: KeyRecord
    organisation: Organisation

    @cached_property
    def group(self) -> Group | None:
        return self.organisation.groups.get(self.key.group) if self.key.group else None

    @cached_property
    def person(self) -> Person | None:
        """What is set for the user of the key; None if nothing is."""
        return self.organisation.persons.get(self.key.user)

    @cached_property
    def budgets(self) -> tuple[Budget, ...]:
        """All budgets that apply. A raise changes the amount of one, never its unit or its period."""
        limits = [self.key.limits, self.organisation.limits]
        if self.group is not None:
            limits += [self.group.limits, self.group.member_limits]
        if self.person is not None:
            limits.append(self.person.limits)
        return tuple(each.budget for each in limits if each.budget is not None)

    @cached_property
    def prompt(self) -> Prompt:
        """The system prompt: that of the key, else that of the group, else that of the organisation."""
        if self.key.prompt is not None:
            return self.key.prompt
        group = self.group
        return group.prompt if group is not None and group.prompt is not None else self.organisation.prompt

    @cached_property
    def models(self) -> tuple[str, ...] | None:
        """The models that both the key and its group allow; None for all."""
        group = self.group
        if group is None or group.models is None:
            return self.key.models
        if self.key.models is None:
            return group.models
        return tuple(model for model in self.key.models if model in group.models)


class PrincipalCache:
    """Returns the same principal for the same key and the same organisation. Thread-safe.

    So values that depend on a principal are computed once, not for each request. The cache has only principals of the
    latest organisation. When it has more than *limit*, it is cleared.
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
