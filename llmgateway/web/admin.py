"""What admins call, with the header ``AdminKey``."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from typing import Any

from flask import Response, current_app, request
from flask_smorest import Blueprint

from ..records import KeyRecord, Prompt, UsageRow
from .context import services
from .errors import ErrorSchema
from .guard import AdminGuard
from .schemas import (
    AddKeySchema,
    CredentialSchema,
    CredentialStoredSchema,
    KeyChangesSchema,
    KeyPageSchema,
    KeyQuerySchema,
    KeySchema,
    KeyWithSecretSchema,
    NewKeySchema,
    NewPromptSchema,
    PromptSchema,
    PromptVersionsSchema,
    RemovedKeySchema,
    RemoveKeySchema,
    UsageQuerySchema,
    UsageReportSchema,
)

GUARD = "llmgateway.admin_guard"

blp = Blueprint(
    "admin",
    __name__,
    url_prefix="/admin",
    description="For admins, with the header `AdminKey`. Changes hold at once.",
)
_ADMIN: dict[str, Any] = {"security": [{"adminKey": []}]}
_SUMS = tuple(field.name for field in fields(UsageRow) if field.name != "by")


@blp.before_request
def _guard() -> None:
    guard: AdminGuard = current_app.extensions[GUARD]
    guard.check(request.headers.get("AdminKey"), request.remote_addr or "")


@blp.route("/setllmkey", methods=["POST"])
@blp.doc(**_ADMIN, summary="Store Azure's key")
@blp.arguments(CredentialSchema)
@blp.response(200, CredentialStoredSchema)
@blp.alt_response(401, schema=ErrorSchema)
def set_llm_key(credential: dict[str, str]) -> dict[str, bool]:
    """It is encrypted, goes to Azure with the next request, and can never be read again."""
    services().policy.set_credential(credential["key"])
    return {"stored": True}


@blp.route("/addapikey", methods=["POST"])
@blp.doc(**_ADMIN, summary="Hand out a key")
@blp.arguments(AddKeySchema)
@blp.response(201, KeyWithSecretSchema)
@blp.alt_response(401, schema=ErrorSchema)
@blp.alt_response(409, schema=ErrorSchema)
def add_api_key(new: dict[str, Any]) -> dict[str, Any]:
    """The key stands in this answer and nowhere else."""
    return _created(new)


@blp.route("/setprompt", methods=["POST"])
@blp.doc(**_ADMIN, summary="Set the organisation's prompt")
@blp.arguments(NewPromptSchema)
@blp.response(200, PromptSchema)
@blp.alt_response(401, schema=ErrorSchema)
def set_prompt(new: dict[str, str]) -> Prompt:
    """It goes in front of every conversation from the next request on. An empty one removes it."""
    return services().policy.set_prompt(new["prompt"])


@blp.route("/removeapikey", methods=["POST"])
@blp.doc(**_ADMIN, summary="Take a key back")
@blp.arguments(RemoveKeySchema)
@blp.response(200, RemovedKeySchema)
@blp.alt_response(401, schema=ErrorSchema)
@blp.alt_response(404, schema=ErrorSchema)
def remove_api_key(which: dict[str, str]) -> dict[str, Any]:
    """Its next request is refused."""
    keys = services().keys
    key_id = which["id"] if "id" in which else keys.find(which["key"]).id
    keys.remove(key_id)
    return {"id": key_id, "removed": True}


@blp.route("/listkeys", methods=["GET"])
@blp.doc(**_ADMIN, summary="List every key")
@blp.response(200, KeySchema(many=True))
@blp.alt_response(401, schema=ErrorSchema)
def list_api_keys() -> list[KeyRecord]:
    """Without the keys themselves, which nobody can read any more."""
    return services().keys.list()


@blp.route("/keys", methods=["GET"])
@blp.doc(**_ADMIN, summary="List keys, page by page")
@blp.arguments(KeyQuerySchema, location="query")
@blp.response(200, KeyPageSchema)
@blp.alt_response(401, schema=ErrorSchema)
def list_keys(query: dict[str, Any]) -> dict[str, Any]:
    limit = query.pop("limit")
    records = services().keys.list(after=query.pop("cursor"), limit=limit + 1, **query)
    more = len(records) > limit
    page = records[:limit]
    return {"items": page, "next": page[-1].id if more else None}


@blp.route("/keys", methods=["POST"])
@blp.doc(**_ADMIN, summary="Hand out a key with all its fields")
@blp.arguments(NewKeySchema)
@blp.response(201, KeyWithSecretSchema)
@blp.alt_response(401, schema=ErrorSchema)
@blp.alt_response(409, schema=ErrorSchema)
def create_key(new: dict[str, Any]) -> dict[str, Any]:
    """The key stands in this answer and nowhere else."""
    return _created(new)


@blp.route("/keys/<key_id>", methods=["GET"])
@blp.doc(**_ADMIN, summary="Look a key up")
@blp.response(200, KeySchema)
@blp.alt_response(401, schema=ErrorSchema)
@blp.alt_response(404, schema=ErrorSchema)
def get_key(key_id: str) -> KeyRecord:
    return services().keys.get(key_id)


@blp.route("/keys/<key_id>", methods=["PATCH"])
@blp.doc(**_ADMIN, summary="Change a key")
@blp.arguments(KeyChangesSchema)
@blp.response(200, KeySchema)
@blp.alt_response(401, schema=ErrorSchema)
@blp.alt_response(404, schema=ErrorSchema)
def change_key(changes: dict[str, Any], key_id: str) -> KeyRecord:
    """Fields that are sent are set, `null` clears one, the others stay."""
    keys = services().keys
    return keys.update(key_id, changes) if changes else keys.get(key_id)


@blp.route("/keys/<key_id>", methods=["DELETE"])
@blp.doc(**_ADMIN, summary="Take a key back")
@blp.response(204)
@blp.alt_response(401, schema=ErrorSchema)
@blp.alt_response(404, schema=ErrorSchema)
def remove_key(key_id: str) -> None:
    """Its next request is refused. What it used stays in the reports."""
    services().keys.remove(key_id)


@blp.route("/prompt", methods=["GET"])
@blp.doc(**_ADMIN, summary="Read the organisation's prompt")
@blp.response(200, PromptSchema)
@blp.alt_response(401, schema=ErrorSchema)
def get_prompt() -> Prompt:
    return services().policy.prompt()


@blp.route("/prompt", methods=["PUT"])
@blp.doc(**_ADMIN, summary="Set the organisation's prompt")
@blp.arguments(NewPromptSchema)
@blp.response(200, PromptSchema)
@blp.alt_response(401, schema=ErrorSchema)
def put_prompt(new: dict[str, str]) -> Prompt:
    """It goes in front of every conversation from the next request on. An empty one removes it."""
    return services().policy.set_prompt(new["prompt"])


@blp.route("/prompt/versions", methods=["GET"])
@blp.doc(**_ADMIN, summary="Read every prompt there ever was, newest first")
@blp.response(200, PromptVersionsSchema)
@blp.alt_response(401, schema=ErrorSchema)
def list_prompt_versions() -> dict[str, Any]:
    return {"items": services().policy.prompt_versions(), "next": None}


@blp.route("/usage", methods=["GET"])
@blp.doc(**_ADMIN, summary="Report who used what")
@blp.arguments(UsageQuerySchema, location="query")
@blp.response(200, UsageReportSchema)
@blp.alt_response(401, schema=ErrorSchema)
def report_usage(query: dict[str, Any]) -> dict[str, Any] | Response:
    """Sums by any of the groupings; requests appear within a second or two of their end."""
    by = tuple(name.strip() for name in query["by"].split(",") if name.strip())
    log = services().usage_log
    start, end = query.get("start"), query.get("end")
    rows = [row.by | _sums(row) for row in log.report(by=by, start=start, end=end)] if by else []
    (total,) = log.report(start=start, end=end)
    if query["format"] == "csv":
        return _csv(rows if by else [_sums(total)], (*by, *_SUMS))
    return {"rows": rows, "total": _sums(total)}


def _created(new: dict[str, Any]) -> dict[str, Any]:
    record, key = services().keys.create(**new)
    return asdict(record) | {"key": key}


def _sums(row: UsageRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _SUMS}


def _csv(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Response:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return Response(
        text.getvalue(),
        mimetype="text/csv",
        headers={"Content-Disposition": "attachment; filename=usage.csv"},
    )
