"""System prompts: the organisation's, and those of groups and keys, which replace it."""

from __future__ import annotations

from dataclasses import dataclass

from ..clock import Clock
from ..records import KeyRecord, Prompt, moment
from .groups import Groups
from .keys import Keys
from .policy import OrganisationPolicy
from .principal import Principal


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose prompt: the group's of this name, the key's with this identifier, or the organisation's."""

    group: str | None = None
    key_id: str | None = None

    def __str__(self) -> str:
        """As :attr:`~llmgateway.records.Prompt.scope`."""
        if self.key_id is not None:
            return f"key:{self.key_id}"
        return "" if self.group is None else f"group:{self.group}"


class Prompts:
    """Every prompt there is and ever was. Thread-safe."""

    def __init__(self, policy: OrganisationPolicy, groups: Groups, keys: Keys, *, clock: Clock) -> None:
        self._policy = policy
        self._groups = groups
        self._keys = keys
        self._clock = clock

    def own(self, scope: Scope) -> Prompt | None:
        """Return the prompt that was set for *scope* itself; None if it has none of its own.

        Raises:
            NotFound: no such group or key.
        """
        if scope.key_id is not None:
            return self._keys.get(scope.key_id).prompt
        if scope.group is not None:
            return self._groups.get(scope.group).prompt
        return self._policy.stored().prompt

    def in_force(self, scope: Scope) -> Prompt:
        """Return the prompt that is put in front of the conversations of *scope*. Raises NotFound."""
        return self.principal(scope).prompt

    def principal(self, scope: Scope) -> Principal:
        """Return the key's holder, or anybody in the group, or anybody at all. Raises NotFound."""
        if scope.key_id is not None:
            key = self._keys.get(scope.key_id)
        else:
            group = None if scope.group is None else self._groups.get(scope.group).name
            key = KeyRecord(id="", digest="", user="", name="", group=group, created_at=moment(self._clock()))
        return Principal(key, self._policy.stored())

    def set(self, scope: Scope, text: str) -> Prompt:
        """Put *text* in force from the next request on; an empty one means that there is none.

        Raises:
            NotFound: no such group or key. If it is removed at the same moment it stays removed, and the text is
                a version that was never in force.
        """
        now = moment(self._clock())
        if scope == Scope():
            return self._policy.set_prompt(text, now)
        self.own(scope)
        prompt = self._policy.add_prompt(text, now, scope=str(scope))
        self._put(scope, prompt)
        return prompt

    def clear(self, scope: Scope) -> None:
        """Take away the prompt that was set for *scope*: the next wider one is in force then. Raises NotFound."""
        if scope == Scope():
            self._policy.set_prompt("", moment(self._clock()))
        else:
            self._put(scope, None)

    def versions(self, scope: Scope) -> list[Prompt]:
        """Every version that was ever set for *scope*, newest first."""
        return self._policy.prompt_versions(scope=str(scope))

    def _put(self, scope: Scope, prompt: Prompt | None) -> None:
        if scope.key_id is not None:
            self._keys.update(scope.key_id, {"prompt": prompt})
        elif scope.group is not None:
            self._groups.update(scope.group, {"prompt": prompt})
