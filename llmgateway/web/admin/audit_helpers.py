"""Functions for changes that several endpoints make, and for the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flask import request

from ...accounts.prompts import Scope
from ...records import UNLIMITED, Prompt
from ..context import services
from ..errors import invalid_fields
from ..schemas.keys import KeySchema
from ..schemas.organisation import PromptSchema
from .names import check_names
from .validity import check_validity

SHOWN_ONCE = "The new key. Only this answer contains `key`, because only its digest is stored."
NO_SUCH_GROUP = "There is no such group. Make it first: PUT /admin/groups/{name}, or llmgateway groups set."
TO_END_NOW = "To refuse the key from now on, send 'active': false."

_key_schema = KeySchema()
_prompt_schema = PromptSchema()


def write_down(
    action: str, target: str, *, before: Mapping[str, Any] | None = None, after: Mapping[str, Any] | None = None
) -> None:
    """Record a change by the current request in the audit log; see :meth:`~llmgateway.accounts.audit.Audit.changed`."""
    services().audit.changed(action, target, address=request.remote_addr, before=before, after=after)


def hand_out(new: dict[str, Any]) -> dict[str, Any]:
    """Create a key from the fields of :class:`NewKeySchema`, and return its fields and the key itself."""
    check_names(new)
    check_validity(new, instead=TO_END_NOW)
    refuse_unknown_group(new)
    record, key = services().keys.create(**new)
    write_down("key.create", record.id, after=_key_schema.dump(record))
    return asdict(record) | {"key": key}


def take_back(key_id: str) -> None:
    """Delete a key. Raises NotFound if it does not exist."""
    write_down("key.remove", key_id, before=_key_schema.dump(services().keys.remove(key_id)))


def refuse_unknown_group(sent: Mapping[str, Any]) -> None:
    group = sent.get("group")
    if group is not None and services().groups.find(group) is None:
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
    before = prompts.own(scope)
    after = prompts.set(scope, text)
    write_down("prompt.set", target_of(scope), before=shown_prompt(before), after=shown_prompt(after))
    return after


def target_of(scope: Scope) -> str:
    return scope.key_id or scope.group or ""


def shown_prompt(prompt: Prompt | None) -> dict[str, Any] | None:
    shown: dict[str, Any] | None = None if prompt is None or not prompt.version else _prompt_schema.dump(prompt)
    return shown
