"""The five endpoints that scripts of existing deployments use."""

from __future__ import annotations

from typing import Any

from ...accounts.prompts import Scope
from ...errors import NotFound
from ...proxy.default_upstream import with_key_place
from ...records import KeyQuery, KeyRecord, Prompt
from .. import examples
from ..context import request_id, services
from ..schemas.keys import (
    AddKeySchema,
    CredentialSchema,
    CredentialStoredSchema,
    KeySchema,
    KeyWithSecretSchema,
    RemovedKeySchema,
    RemoveKeySchema,
)
from ..schemas.organisation import NewPromptSchema, PromptSchema
from . import reach
from .audit_helpers import SHOWN_ONCE, hand_out, put_in_force, take_back, write_down
from .blueprint import blp


@blp.route("/setllmkey", methods=["POST"])
@blp.operation(
    "Store Azure's key",
    description=(
        "It is stored encrypted, and used from the next request on. The API never returns it. It wins over the "
        "`LLM_API_KEY` that the gateway was started with. Then it is tried with one call that costs nothing, for 5 "
        "seconds at most: `azure` is what came of it. The key stays stored in any case. It is sent to the address of "
        "Azure that is in force now, and to Azure's own hosts: if an admin stores the address of another host later, "
        "the key has to be set again."
    ),
)
@blp.arguments(CredentialSchema, example={"key": examples.AZURE_KEY})
@blp.response(
    200,
    CredentialStoredSchema,
    description="Stored, and in force.",
    examples={
        "accepted": {"summary": "Azure accepts it", "value": examples.CREDENTIAL_ACCEPTED},
        "refused": {"summary": "Azure refuses it", "value": examples.CREDENTIAL_REFUSED},
    },
)
def set_llm_key(credential: dict[str, str]) -> dict[str, Any]:
    policy = services().policy
    before = policy.stored()
    stored = before.credential is not None
    endpoint = services().gateway.routing.default(before).endpoint
    policy.set_credential(credential["key"], settings=lambda document, key: with_key_place(document, key, endpoint))
    write_down("credential.set", "", before={"stored": stored}, after={"stored": True})
    trial = services().gateway.credentials.try_key(credential["key"], request_id=request_id())
    return {"stored": True, "azure": trial}


@blp.route("/addapikey", methods=["POST"])
@blp.operation(
    "Create a key",
    "KeyExists",
    description=(
        "Give the `key` of the answer to its user: it is shown this once. `POST /admin/keys` takes more: limits, "
        "models, dates, a group."
    ),
)
@blp.arguments(
    AddKeySchema,
    examples={
        "made up": {"summary": "A key is made up", "value": {"user": "ada", "name": "thesis"}},
        "own": {
            "summary": "A key of your own",
            "value": {"user": "ada", "name": "thesis", "key": examples.SECRET_KEY},
        },
    },
)
@blp.response(201, KeyWithSecretSchema, description=SHOWN_ONCE, example=examples.ADDED_KEY)
def add_api_key(new: dict[str, Any]) -> dict[str, Any]:
    return hand_out(new)


@blp.route("/setprompt", methods=["POST"])
@blp.operation(
    "Set the organisation's prompt",
    description=(
        "It is put before every conversation from the next request on, except for groups and keys with a "
        "prompt of their own. An empty prompt removes it."
    ),
)
@blp.arguments(NewPromptSchema, template=examples.PROMPT_REQUEST)
@blp.response(200, PromptSchema, description="The prompt in force.", example=examples.PROMPT)
def set_prompt(new: dict[str, str]) -> Prompt:
    return put_in_force(Scope(), new["prompt"])


@blp.route("/removeapikey", methods=["POST"])
@blp.operation(
    "Take a key back",
    "UnknownKey",
    description="Its next request is refused, on every host. Its usage stays in the reports.",
)
@blp.arguments(
    RemoveKeySchema,
    examples={
        "by id": {"summary": "By its id", "value": {"id": examples.KEY_ID}},
        "by key": {"summary": "By the key itself", "value": {"key": examples.SECRET_KEY}},
    },
)
@blp.response(
    200,
    RemovedKeySchema,
    description="The key was removed.",
    example={"id": examples.KEY_ID, "removed": True},
)
def remove_api_key(which: dict[str, str]) -> dict[str, Any]:
    key_id = which["id"] if "id" in which else _id_of(which["key"])
    take_back(key_id)
    return {"id": key_id, "removed": True}


@blp.route("/listkeys", methods=["GET"])
@blp.operation("List every key", description="The keys themselves are not stored, so they are not listed.")
@blp.response(200, KeySchema(many=True), description="Oldest first.", example=[examples.KEY])
def list_api_keys() -> list[KeyRecord]:
    return services().keys.list(KeyQuery(groups=reach.reach()))


def _id_of(key: str) -> str:
    record = services().keys.find(key)
    if not reach.reaches(record.group):
        raise NotFound("There is no such key. GET /admin/keys lists those there are.", param="key")
    return record.id
