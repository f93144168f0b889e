"""System prompts of the organisation, of groups and of keys."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import orjson

from ...accounts.prompts import Scope
from ...errors import Forbidden
from ...records import FIRST_OWNER, AuditQuery, Group, KeyRecord, Prompt
from .. import examples
from ..context import services
from ..schemas.organisation import (
    NewPromptSchema,
    OwnPromptsSchema,
    PreviewRequestSchema,
    PreviewSchema,
    PromptSchema,
    PromptVersionsSchema,
    WhosePromptSchema,
    WhosePromptToDeleteSchema,
)
from . import etags, reach
from .audit_helpers import PromptOwner, put_in_force, shown_prompt, target_of, visible_prompt, write_down
from .blueprint import blp

_MOST_ENTRIES = 1000
"""The most entries of the audit log in which the authors of prompts are looked for."""

_WHOSE = "Of the group or the key that is named; of the organisation if none is."


@blp.route("/prompt", methods=["GET"])
@blp.operation(
    "Read a prompt",
    "UnknownKeyOrGroup",
    description=f"The one in force; `scope` says whose it is: a key's own, else its group's, else the "
    f"organisation's. Users do not see it. {_WHOSE}",
)
@blp.arguments(WhosePromptSchema, location="query")
@blp.response(200, PromptSchema, description="The prompt in force.", example=examples.PROMPT)
def get_prompt(whose: dict[str, str]) -> dict[str, Any]:
    return _answer(services().prompts.in_force(_scope(whose)))


@blp.route("/prompt", methods=["PUT"])
@blp.operation(
    "Set a prompt",
    "UnknownKeyOrGroup",
    description=f"In force with the next request. An empty one means that there is none. {_WHOSE}",
)
@blp.arguments(WhosePromptSchema, location="query")
@blp.arguments(NewPromptSchema, template=examples.PROMPT_REQUEST)
@blp.response(200, PromptSchema, description="The prompt in force.", example=examples.PROMPT)
def replace_prompt(whose: dict[str, str], new: dict[str, str]) -> dict[str, Any]:
    return _answer(put_in_force(_scope(whose), new["prompt"]))


@blp.route("/prompt", methods=["DELETE"])
@blp.operation(
    "Take a prompt away",
    "UnknownKeyOrGroup",
    description=f"The one behind it comes into force: the group's or the organisation's, or none. {_WHOSE}",
)
@blp.arguments(WhosePromptToDeleteSchema, location="query")
@blp.response(200, PromptSchema, description="The prompt in force now.", example=examples.PROMPT)
def delete_prompt(whose: dict[str, str]) -> dict[str, Any]:
    prompts, scope, owner = services().prompts, _scope(whose), PromptOwner()
    prompts.clear(scope, check=owner.check)
    write_down("prompt.clear", target_of(scope), groups=(owner.group,), before=shown_prompt(owner.prompt))
    return _answer(prompts.in_force(scope))


@blp.route("/prompt/versions", methods=["GET"])
@blp.operation(
    "Read every prompt there ever was",
    description=f"Usage records name the version that was in force. {_WHOSE}",
)
@blp.arguments(WhosePromptSchema, location="query")
@blp.response(
    200,
    PromptVersionsSchema,
    description="Newest first.",
    example={"items": examples.PROMPT_VERSIONS, "next": None},
)
def list_prompt_versions(whose: dict[str, str]) -> dict[str, Any]:
    scope = _scope(whose)
    versions = services().prompts.versions(scope)
    authors = _authors(scope, {prompt.version for prompt in versions})
    return {"items": [asdict(one) | {"set_by": authors.get(one.version)} for one in versions], "next": None}


@blp.route("/prompts", methods=["GET"])
@blp.operation(
    "List the prompts in force",
    description="The organisation's, and those of all groups and keys that have one of their own, also an empty one. "
    "An admin of the role `group` sees those of its groups and their keys.",
)
@blp.response(
    200,
    OwnPromptsSchema,
    description="First the organisation's, then those of groups, then those of keys.",
    example={"items": examples.OWN_PROMPTS, "next": None},
)
def list_prompts() -> dict[str, Any]:
    return {
        "items": [_owned(prompt, owner) for prompt, owner in services().prompts.all() if _reaches(owner)],
        "next": None,
    }


def _reaches(owner: KeyRecord | Group | None) -> bool:
    group = owner.group if isinstance(owner, KeyRecord) else None if owner is None else owner.name
    return reach.reaches(group)


def _owned(prompt: Prompt, owner: KeyRecord | Group | None) -> dict[str, Any]:
    whose: dict[str, Any] = dict.fromkeys(("group", "key", "user", "name"))
    if isinstance(owner, KeyRecord):
        whose |= {"group": owner.group, "key": owner.id, "user": owner.user, "name": owner.name}
    elif owner is not None:
        whose["group"] = owner.name
    return asdict(prompt) | whose


def _authors(scope: Scope, versions: set[int]) -> dict[int, str]:
    """Return who has set each version, as far as the newest entries of the audit log say."""
    found: dict[int, str] = {}
    query = AuditQuery(target=target_of(scope), groups=reach.reach(), limit=_MOST_ENTRIES)
    for entry in services().audit.entries.entries(query) if versions else ():
        version = (entry.after or {}).get("version")
        if entry.action == "prompt.set" and version in versions:
            found[version] = entry.admin_name or FIRST_OWNER
    return found


@blp.route("/prompt/preview", methods=["POST"])
@blp.operation(
    "See what would be sent to Azure",
    "NothingToPreview",
    "ModelNotAllowed",
    description=(
        "If somebody sent this conversation now: the holder of a key, or anybody of a group. Nothing is sent, and "
        "nothing is counted. What its sender would be refused is refused here, too."
    ),
)
@blp.arguments(
    PreviewRequestSchema,
    examples={
        "everybody": {"summary": "Anybody's conversation", "value": examples.CONVERSATION},
        "group": {"summary": "One in a group", "value": examples.PREVIEW_REQUEST},
    },
)
@blp.response(200, PreviewSchema, description="The body for Azure.", example=examples.PREVIEW)
def preview_prompt(request: dict[str, Any]) -> dict[str, Any]:
    principal = services().prompts.principal(_scope(request))
    if reach.reach() is not None and not principal.prompt.scope:
        raise Forbidden("The organisation's prompt is in force here, which only its owners and admins may see.")
    conversation = {name: request[name] for name in ("model", "messages") if name in request}
    body = services().gateway.preview(principal, orjson.dumps(conversation))
    return {"version": principal.prompt.version, "scope": principal.prompt.scope, "sent": json.loads(body)}


def _scope(whose: dict[str, str]) -> Scope:
    """Return the scope that a request names. Raises NotFound or Forbidden if this admin may not read and set it."""
    # Forms also send fields that were left empty.
    scope = Scope(group=whose.get("group") or None, key_id=whose.get("key") or None)
    reach.check_scope(scope)
    return scope


def _answer(prompt: Prompt) -> dict[str, Any]:
    shown = visible_prompt(prompt)
    etags.show(shown)
    return {**shown, "text": shown["prompt"], "set_at": prompt.set_at}
