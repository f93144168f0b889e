"""What admins call, with the header ``AdminKey``."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict, fields
from typing import Any

from flask import Response, current_app, request

from .. import __version__
from ..errors import NotFound
from ..records import KeyRecord, Outcome, Prices, Prompt, UsageRow
from . import examples
from .blueprint import Blueprint
from .context import services
from .guard import AdminGuard
from .schemas.health import StatusSchema
from .schemas.keys import (
    AddKeySchema,
    CredentialSchema,
    CredentialStoredSchema,
    KeyChangesSchema,
    KeyPageSchema,
    KeyQuerySchema,
    KeySchema,
    KeyWithSecretSchema,
    NewKeySchema,
    RemovedKeySchema,
    RemoveKeySchema,
)
from .schemas.organisation import (
    ModelSettingsListSchema,
    ModelSettingsSchema,
    NamedModelSettingsSchema,
    NewPromptSchema,
    PromptSchema,
    PromptVersionsSchema,
)
from .schemas.usage import LogPageSchema, LogQuerySchema, UsageQuerySchema, UsageReportSchema

GUARD = "llmgateway.admin_guard"

blp = Blueprint(
    "admin",
    __name__,
    url_prefix="/admin",
    description="Keys, the prompt, Azure's key and reports, for those who have the admin key. Changes hold at once.",
    key="adminKey",
    refusals=("InvalidAdminKey", "AdminThrottled", "StoreUnavailable"),
)
_KEY_ID_IN_PATH = {
    "in": "path",
    "name": "key_id",
    "description": "The `id` of a key, not the key itself.",
    "example": examples.KEY_ID,
}
_MODEL_IN_PATH = {
    "in": "path",
    "name": "name",
    "description": "A model as clients ask for it, or a deployment.",
    "example": examples.MODEL,
}
_SHOWN_ONCE = "The new key. `key` stands in this answer and nowhere else: only its digest is stored."
_SUMS = tuple(field.name for field in fields(UsageRow) if field.name != "by")


@blp.before_request
def _guard() -> None:
    check_admin_key(request.headers.get("AdminKey"))


def check_admin_key(key: str | None) -> None:
    """As :meth:`AdminGuard.check`, for the address of the request at hand."""
    guard: AdminGuard = current_app.extensions[GUARD]
    guard.check(key, request.remote_addr or "")


@blp.after_request
def _forbid_storing(response: Response) -> Response:
    # New keys and people's names are in there.
    response.headers["Cache-Control"] = "no-store"
    return response


@blp.route("/setllmkey", methods=["POST"])
@blp.operation(
    "Store Azure's key",
    description=(
        "It is encrypted, goes to Azure from the next request on, and can never be read again. It wins over the "
        "`LLM_API_KEY` that the gateway was started with."
    ),
)
@blp.arguments(CredentialSchema, example={"key": examples.AZURE_KEY})
@blp.response(200, CredentialStoredSchema, description="Stored, and in force.", example={"stored": True})
def set_llm_key(credential: dict[str, str]) -> dict[str, bool]:
    services().policy.set_credential(credential["key"])
    return {"stored": True}


@blp.route("/addapikey", methods=["POST"])
@blp.operation(
    "Hand out a key",
    "KeyExists",
    description=(
        "Give the `key` of the answer to its user: it is shown this once. `POST /admin/keys` takes more: models, "
        "dates, a group."
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
@blp.response(201, KeyWithSecretSchema, description=_SHOWN_ONCE, example=examples.ADDED_KEY)
def add_api_key(new: dict[str, Any]) -> dict[str, Any]:
    return _created(new)


@blp.route("/setprompt", methods=["POST"])
@blp.operation(
    "Set the organisation's prompt",
    description="It goes in front of every conversation from the next request on. An empty one removes it.",
)
@blp.arguments(NewPromptSchema, example={"prompt": examples.PROMPT["prompt"]})
@blp.response(200, PromptSchema, description="The prompt in force.", example=examples.PROMPT)
def set_prompt(new: dict[str, str]) -> Prompt:
    return services().policy.set_prompt(new["prompt"])


@blp.route("/removeapikey", methods=["POST"])
@blp.operation(
    "Take a key back",
    "UnknownKey",
    description="Its next request is refused, on every host. What it used stays in the reports.",
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
    description="The key opens nothing any more.",
    example={"id": examples.KEY_ID, "removed": True},
)
def remove_api_key(which: dict[str, str]) -> dict[str, Any]:
    keys = services().keys
    key_id = which["id"] if "id" in which else keys.find(which["key"]).id
    keys.remove(key_id)
    return {"id": key_id, "removed": True}


@blp.route("/listkeys", methods=["GET"])
@blp.operation("List every key", description="Without the keys themselves, which nobody can read any more.")
@blp.response(200, KeySchema(many=True), description="Oldest first.", example=[examples.KEY])
def list_api_keys() -> list[KeyRecord]:
    return services().keys.list()


@blp.route("/keys", methods=["GET"])
@blp.operation("List keys page by page", description="Without the keys themselves, which nobody can read any more.")
@blp.arguments(KeyQuerySchema, location="query")
@blp.response(200, KeyPageSchema, description="Oldest first.", example={"items": [examples.KEY], "next": None})
def list_keys(query: dict[str, Any]) -> dict[str, Any]:
    limit = query.pop("limit")
    records = services().keys.list(after=query.pop("cursor", ""), limit=limit + 1, **query)
    more = len(records) > limit
    page = records[:limit]
    return {"items": page, "next": page[-1].id if more else None}


@blp.route("/keys", methods=["POST"])
@blp.operation(
    "Hand out a key with all its fields",
    "KeyExists",
    description="Give the `key` of the answer to its user: it is shown this once. Only `user` is needed.",
)
@blp.arguments(NewKeySchema, example=examples.KEY_REQUEST)
@blp.response(201, KeyWithSecretSchema, description=_SHOWN_ONCE, example=examples.NEW_KEY)
def create_key(new: dict[str, Any]) -> dict[str, Any]:
    return _created(new)


@blp.route("/keys/<key_id>", methods=["GET"], parameters=[_KEY_ID_IN_PATH])
@blp.operation("Look a key up", "UnknownKey", description="By its `id`, as `GET /admin/keys` lists it.")
@blp.response(200, KeySchema, description="All that is known of it.", example=examples.KEY)
def get_key(key_id: str) -> KeyRecord:
    return services().keys.get(key_id)


@blp.route("/keys/<key_id>", methods=["PATCH"], parameters=[_KEY_ID_IN_PATH])
@blp.operation(
    "Change a key",
    "UnknownKey",
    description="Fields that are sent are set, `null` clears one, the others stay. `active: false` blocks the key.",
)
@blp.arguments(
    KeyChangesSchema,
    examples={
        "block": {"summary": "Block it", "value": {"active": False, "note": "lost her laptop"}},
        "prolong": {"summary": "Prolong it", "value": {"expires_at": "2027-10-01T00:00:00+02:00"}},
        "every model": {"summary": "Let it use every model", "value": {"models": None}},
    },
)
@blp.response(200, KeySchema, description="The key as it is now.", example=examples.BLOCKED_KEY)
def update_key(changes: dict[str, Any], key_id: str) -> KeyRecord:
    keys = services().keys
    return keys.update(key_id, changes) if changes else keys.get(key_id)


@blp.route("/keys/<key_id>", methods=["DELETE"], parameters=[_KEY_ID_IN_PATH])
@blp.operation(
    "Take a key back, by its id",
    "UnknownKey",
    description="Its next request is refused, on every host. What it used stays in the reports.",
)
@blp.response(204, description="The key opens nothing any more.")
def delete_key(key_id: str) -> None:
    services().keys.remove(key_id)


@blp.route("/prompt", methods=["GET"])
@blp.operation("Read the organisation's prompt", description="The one in force. Users do not see it.")
@blp.response(200, PromptSchema, description="The prompt in force.", example=examples.PROMPT)
def get_prompt() -> Prompt:
    return services().policy.prompt()


@blp.route("/prompt", methods=["PUT"])
@blp.operation("Set the organisation's prompt", description="The same as `POST /admin/setprompt`.")
@blp.arguments(NewPromptSchema, example={"prompt": examples.PROMPT["prompt"]})
@blp.response(200, PromptSchema, description="The prompt in force.", example=examples.PROMPT)
def replace_prompt(new: dict[str, str]) -> Prompt:
    return services().policy.set_prompt(new["prompt"])


@blp.route("/prompt/versions", methods=["GET"])
@blp.operation("Read every prompt there ever was", description="Usage records name the version that was in force.")
@blp.response(
    200,
    PromptVersionsSchema,
    description="Newest first.",
    example={"items": [examples.PROMPT, examples.FIRST_PROMPT], "next": None},
)
def list_prompt_versions() -> dict[str, Any]:
    return {"items": services().policy.prompt_versions(), "next": None}


@blp.route("/models", methods=["GET"])
@blp.operation("List the models with prices of your own", description="Every other model costs its list price.")
@blp.response(
    200, ModelSettingsListSchema, description="By name.", example={"items": [examples.MODEL_SETTINGS], "next": None}
)
def list_model_settings() -> dict[str, Any]:
    prices = services().policy.prices()
    return {"items": [{"name": name, "prices": prices[name]} for name in sorted(prices)], "next": None}


@blp.route("/models/<path:name>", methods=["GET"], parameters=[_MODEL_IN_PATH])
@blp.operation("Look a model's own prices up", "ModelWithoutPrices", description="Without them, its list price holds.")
@blp.response(200, NamedModelSettingsSchema, description="Its prices.", example=examples.MODEL_SETTINGS)
def get_model_settings(name: str) -> dict[str, Any]:
    prices = services().policy.prices().get(name)
    if prices is None:
        raise _no_own_prices()
    return {"name": name, "prices": prices}


@blp.route("/models/<path:name>", methods=["PUT"], parameters=[_MODEL_IN_PATH])
@blp.operation(
    "Set a model's prices",
    description="For requests from now on; records stay as they are. The name may be a model's or a deployment's.",
)
@blp.arguments(ModelSettingsSchema, example={"prices": examples.MODEL_SETTINGS["prices"]})
@blp.response(200, NamedModelSettingsSchema, description="In force.", example=examples.MODEL_SETTINGS)
def set_model_settings(settings: dict[str, Any], name: str) -> dict[str, Any]:
    prices = Prices(**settings["prices"])
    services().policy.set_prices(name, prices)
    return {"name": name, "prices": prices}


@blp.route("/models/<path:name>", methods=["DELETE"], parameters=[_MODEL_IN_PATH])
@blp.operation(
    "Go back to a model's list price",
    "ModelWithoutPrices",
    description="For requests from now on; records stay as they are.",
)
@blp.response(204, description="It costs its list price from now on.")
def delete_model_settings(name: str) -> None:
    policy = services().policy
    if name not in policy.prices():
        raise _no_own_prices()
    policy.set_prices(name, None)


def _no_own_prices() -> NotFound:
    return NotFound("This model has no prices of your own. GET /admin/models lists those that have.", param="name")


@blp.route("/status", methods=["GET"])
@blp.operation("See how the gateway is doing", description="Of the process that answers; others may differ.")
@blp.response(200, StatusSchema, description="Its state now.", example=examples.STATUS)
def get_status() -> dict[str, Any]:
    gateway, settings, ladder = services().gateway, services().settings, services().ladder
    problems = ladder.problems()
    return {
        "version": __version__,
        "rung": ladder.rung(problems),
        "stores": {name: problem or "ok" for name, problem in problems.items()},
        "azure_key": gateway.credential_problem() or "ok",
        "journal": services().journal.backlog(),
        "slots": {
            "capacity": gateway.slots.capacity,
            "taken": gateway.slots.taken,
            "streams": gateway.pace.streams,
            "refused": gateway.slots.refused,
        },
        "process": {"id": os.getpid(), "processes": settings.processes, "threads": settings.threads},
    }


@blp.route("/usage", methods=["GET"])
@blp.operation(
    "Report who used what",
    description="Sums of requests, tokens and cost. A request is in the report a second or two after its end.",
)
@blp.arguments(UsageQuerySchema, location="query")
@blp.response(200, UsageReportSchema, description="The sums.", example=examples.REPORT)
@blp.alt_response(
    200,
    schema={"type": "string"},
    content_type="text/csv",
    description="The sums.",
    example=examples.CSV,
    success=True,
)
def report_usage(query: dict[str, Any]) -> dict[str, Any] | Response:
    by = tuple(name.strip() for name in query.get("by", "").split(",") if name.strip())
    found = services().usage_log.report(by=by, first_day=query.get("start"), last_day=query.get("end"))
    rows = [row.by | _sums(row) for row in found]
    if query["format"] == "csv":
        return _csv(rows, (*by, *_SUMS))
    total = {name: sum(row[name] for row in rows) for name in _SUMS}
    return {"rows": rows if by else [], "total": total}


@blp.route("/logs", methods=["GET"])
@blp.operation(
    "Read single usage records",
    description=(
        "One for every request that reached Azure; what was said in it is not kept. Records that are older than "
        "`LLMGATEWAY_LOG_DAYS` are gone, and stay in the sums of `GET /admin/usage`."
    ),
)
@blp.arguments(LogQuerySchema, location="query")
@blp.response(200, LogPageSchema, description="Newest first.", example=examples.LOG_PAGE)
def list_usage_records(query: dict[str, Any]) -> dict[str, Any]:
    limit = query["limit"]
    records = services().usage_log.records(
        key_id=query.get("key"),
        user=query.get("user"),
        since=query.get("since"),
        until=query.get("until"),
        outcome=Outcome(query["outcome"]) if "outcome" in query else None,
        after=query.get("cursor", ""),
        limit=limit + 1,
    )
    page = records[:limit]
    return {"items": page, "next": page[-1].id if len(records) > limit else None}


def _created(new: dict[str, Any]) -> dict[str, Any]:
    record, key = services().keys.create(**new)
    return asdict(record) | {"key": key}


def _sums(row: UsageRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _SUMS}


def _no_formula(value: Any) -> Any:
    # A spreadsheet runs what begins like this (OWASP, "CSV Injection"); names are chosen by people.
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def _csv(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Response:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows({name: _no_formula(value) for name, value in row.items()} for row in rows)
    return Response(
        text.getvalue(),
        mimetype="text/csv",
        headers={"Content-Disposition": "attachment; filename=usage.csv"},
    )
