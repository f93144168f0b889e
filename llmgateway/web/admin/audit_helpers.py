"""Functions for changes that several endpoints make, and for the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from flask import request

from ...accounts.prompts import Scope
from ...records import UNLIMITED, Group, KeyRecord, Organisation, Prompt
from ..context import current_admin, services
from ..errors import invalid_fields
from ..schemas.keys import KeySchema
from ..schemas.organisation import PromptSchema
from . import etags, reach
from .names import check_names
from .validity import check_validity

SHOWN_ONCE = "The new key. Only this answer contains `key`, because only its digest is stored."
NO_SUCH_GROUP = "There is no such group. Make it first: PUT /admin/groups/{name}, or llmgateway groups set."
TO_END_NOW = "To refuse the key from now on, send 'active': false."

T = TypeVar("T")

_key_schema = KeySchema()
_prompt_schema = PromptSchema()


def write_down(
    action: str,
    target: str,
    *,
    groups: Iterable[str | None] = (None,),
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Record a change by the current request in the audit log; see :meth:`~llmgateway.accounts.audit.Audit.changed`."""
    services().audit.changed(
        action, target, admin=current_admin(), groups=groups, address=request.remote_addr, before=before, after=after
    )


class Replaced(Generic[T]):
    """What a change replaces. Pass it on as ``check``: it is called within the atomic step, and remembers the state.

    What was read before the change may differ from it, if somebody else changes the same at once.

    Args:
        check: Raises an error if the change must not be made.
    """

    state: T

    def __init__(self, check: Callable[[T], None]) -> None:
        self._check = check

    def __call__(self, present: T) -> None:
        self._check(present)
        self.state = present


def hand_out(new: dict[str, Any]) -> dict[str, Any]:
    """Create a key from the fields of :class:`NewKeySchema`, and return its fields and the key itself."""
    reach.choose_group(new)
    check_names(new)
    check_validity(new, instead=TO_END_NOW)
    organisation = services().policy.stored()
    if problems := reach.group_problems(new, organisation):
        raise invalid_fields(problems)
    refuse_unknown_group(new, organisation)
    record, key = services().keys.create(**new)
    write_down("key.create", record.id, groups=(record.group,), after=_key_schema.dump(record))
    return asdict(record) | {"key": key}


def take_back(key_id: str) -> None:
    """Delete a key. Raises NotFound if it does not exist."""
    removed = services().keys.remove(key_id, check=check_key)
    write_down("key.remove", key_id, groups=(removed.group,), before=_key_schema.dump(removed))


def check_key(before: KeyRecord) -> None:
    """Check that the key to change exists for this admin, and is as the client knows it."""
    reach.check_key(before)
    etags.check(shown_key, before)


def shown_key(record: KeyRecord) -> dict[str, Any]:
    """Return what is set for a key, as JSON."""
    shown: dict[str, Any] = _key_schema.dump(record)
    return shown


def refuse_unknown_group(sent: Mapping[str, Any], organisation: Organisation | None = None) -> None:
    group = sent.get("group")
    groups = (organisation or services().policy.stored()).groups
    if group is not None and group not in groups:
        raise invalid_fields({"group": [NO_SUCH_GROUP]})


def some_limits(changes: dict[str, Any], field: str = "limits") -> dict[str, Any] | None:
    """Remove the limits to change from *changes* and return them. ``null`` for all limits stays in *changes*."""
    if changes.get(field, ()) is None:
        changes[field] = UNLIMITED
        return None
    limits: dict[str, Any] | None = changes.pop(field, None)
    return limits


def put_in_force(scope: Scope, text: str) -> Prompt:
    """Set the prompt of *scope*. Raises NotFound."""
    prompts = services().prompts
    owner = PromptOwner()
    after = prompts.set(scope, text, check=owner.check)
    write_down(
        "prompt.set",
        target_of(scope),
        groups=(owner.group,),
        before=shown_prompt(owner.prompt),
        after=shown_prompt(after),
    )
    return after


class PromptOwner:
    """The key or the group whose prompt is changed, as it was at the moment of the change."""

    group: str | None = None
    """The group that it is, or is in; None for the organisation's prompt."""
    prompt: Prompt | None = None
    """Its own prompt, or the organisation's."""

    def check(self, in_force: Prompt, owner: KeyRecord | Group | None) -> None:
        """Check that it exists for this admin, and that its prompt in force is the one that the client knows."""
        if isinstance(owner, KeyRecord):
            reach.check_key(owner)
            self.group = owner.group
        elif owner is not None:
            reach.check_group(owner.name)
            self.group = owner.name
        etags.check(visible_prompt, in_force)
        self.prompt = in_force if owner is None else owner.prompt


def visible_prompt(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as JSON. Of the organisation's, an admin of the role ``group`` does not see the text."""
    shown: dict[str, Any] = _prompt_schema.dump(prompt)
    return shown if prompt.scope or reach.reach() is None else shown | {"prompt": None}


def target_of(scope: Scope) -> str:
    return scope.key_id or scope.group or ""


def shown_prompt(prompt: Prompt | None) -> dict[str, Any] | None:
    shown: dict[str, Any] | None = None if prompt is None or not prompt.version else _prompt_schema.dump(prompt)
    return shown
