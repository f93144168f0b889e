"""System prompts of the organisation, of groups and of keys. A narrower one replaces the wider one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..clock import Clock
from ..records import Group, KeyRecord, Organisation, Prompt, moment
from .groups import Groups
from .keys import Keys
from .policy import OrganisationPolicy
from .principal import Principal

Check = Callable[[Prompt, "KeyRecord | Group | None"], None]
"""Gets the prompt in force, and the key or the group whose prompt is to change; None for the organisation's."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a prompt belongs to: a group, a key, or the organisation if both fields are None."""

    group: str | None = None
    key_id: str | None = None

    def __str__(self) -> str:
        """Return the value for :attr:`~llmgateway.records.Prompt.scope`."""
        if self.key_id is not None:
            return f"key:{self.key_id}"
        return "" if self.group is None else f"group:{self.group}"


class Prompts:
    """All prompts, with their former versions. Thread-safe."""

    def __init__(self, policy: OrganisationPolicy, groups: Groups, keys: Keys, *, clock: Clock) -> None:
        self._policy = policy
        self._groups = groups
        self._keys = keys
        self._clock = clock

    def own(self, scope: Scope) -> Prompt | None:
        """Return the prompt that was set for *scope* itself; None if there is none.

        Raises:
            NotFound: there is no such group or key.
        """
        if scope.key_id is not None:
            return self._keys.get(scope.key_id).prompt
        if scope.group is not None:
            return self._groups.get(scope.group).prompt
        return self._policy.stored().prompt

    def in_force(self, scope: Scope) -> Prompt:
        """Return the prompt that requests of *scope* get; raise NotFound if there is no such group or key."""
        return self.principal(scope).prompt

    def principal(self, scope: Scope) -> Principal:
        """Return a principal that *scope* applies to.

        For a key, it is the principal of this key. For a group or the organisation, it has a key without any
        settings of its own.

        Raises:
            NotFound: there is no such group or key.
        """
        if scope.key_id is not None:
            key = self._keys.get(scope.key_id)
        else:
            group = None if scope.group is None else self._groups.get(scope.group).name
            key = KeyRecord(id="", digest="", user="", name="", group=group, created_at=moment(self._clock()))
        return Principal(key, self._policy.stored())

    def set(self, scope: Scope, text: str, *, check: Check | None = None) -> Prompt:
        """Set the prompt of *scope* to *text*, from the next request on. With an empty text there is no prompt.

        Args:
            check: Called with the prompt in force and the key or group that it is set for, as for
                :meth:`~llmgateway.interfaces.KeyStore.update`.

        Raises:
            NotFound: there is no such group or key. If it is removed during this call, the text stays in the list of
                versions although no request has used it.
        """
        now = moment(self._clock())
        if scope == Scope():
            return self._policy.set_prompt(text, now, check=_of_organisation(check))
        checked = self._checked(scope, check)
        prompt = self._policy.add_prompt(text, now, scope=str(scope))
        self._put(scope, prompt, checked)
        return prompt

    def clear(self, scope: Scope, *, check: Check | None = None) -> None:
        """Remove the prompt of *scope*, so that the next wider one applies; raise NotFound as :meth:`set` does.

        Args:
            check: As for :meth:`set`.
        """
        if scope == Scope():
            self._policy.set_prompt("", moment(self._clock()), check=_of_organisation(check))
        else:
            self._put(scope, None, self._checked(scope, check))

    def versions(self, scope: Scope) -> list[Prompt]:
        """Return all versions that were ever set for *scope*, the newest first."""
        return self._policy.prompt_versions(scope=str(scope))

    def all(self) -> list[tuple[Prompt, KeyRecord | Group | None]]:
        """Return all prompts that are set, each with the group or key whose it is; None for the organisation's.

        The organisation's comes first, then those of groups by name, then those of keys, oldest key first.
        """
        organisation = self._policy.stored()
        # Every prompt of a key has left a version, and few keys have one.
        named = {one.scope.removeprefix("key:") for one in self._policy.prompt_versions() if one.scope[:4] == "key:"}
        keys = self._keys.get_all(sorted(named))
        groups = organisation.groups
        owners: list[KeyRecord | Group] = [*(groups[name] for name in sorted(groups)), *keys]
        return [(organisation.prompt, None), *((each.prompt, each) for each in owners if each.prompt is not None)]

    def _checked(self, scope: Scope, check: Check | None) -> Callable[[KeyRecord | Group], None] | None:
        """Check a key or a group now, and return the same check for the moment of the change.

        The second check takes wider prompts from the first one: only the key or the group is changed.
        """
        organisation = self._policy.stored()

        def checked(owner: KeyRecord | Group) -> None:
            if check is not None:
                check(_in_force(owner, organisation), owner)

        if scope.key_id is not None:
            checked(self._keys.get(scope.key_id))
        elif scope.group is not None:
            checked(self._groups.get(scope.group))
        return checked

    def _put(self, scope: Scope, prompt: Prompt | None, check: Callable[[KeyRecord | Group], None] | None) -> None:
        if scope.key_id is not None:
            self._keys.update(scope.key_id, {"prompt": prompt}, check=check)
        elif scope.group is not None:
            self._groups.update(scope.group, {"prompt": prompt}, check=check)


def _of_organisation(check: Check | None) -> Callable[[Prompt], None] | None:
    return None if check is None else lambda prompt: check(prompt, None)


def _in_force(owner: KeyRecord | Group, organisation: Organisation) -> Prompt:
    if isinstance(owner, KeyRecord):
        return Principal(owner, organisation).prompt
    return organisation.prompt if owner.prompt is None else owner.prompt
