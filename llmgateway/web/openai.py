"""What users call, shaped as OpenAI shapes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import Response, request
from flask_smorest import Blueprint

from ..errors import ModelNotFound, UnsupportedMediaType
from ..gateway import CompletionRequest, Reply
from ..records import KeyRecord, UsageRow, moment
from .context import bearer_key, request_id, services
from .errors import ErrorSchema
from .schemas import CHAT_REQUEST, CHAT_RESPONSES, MeSchema, ModelListSchema, ModelSchema

blp = Blueprint(
    "completions",
    __name__,
    url_prefix="/v1",
    description="For users: any OpenAI client works with this address and your key.",
)
_USER_KEY: list[dict[str, list[str]]] = [{"userKey": []}]


@blp.route("/chat/completions", methods=["POST"])
@blp.doc(
    security=_USER_KEY,
    summary="Answer a conversation",
    description=(
        "Takes what OpenAI's chat completions take; parameters that the gateway does not know pass through. "
        "The organisation's prompt goes in front. With `stream: true` the answer comes as server-sent events."
    ),
    requestBody=CHAT_REQUEST,
    responses=CHAT_RESPONSES,
)
def chat_completions() -> Response:
    _check_media_type()
    reply = services().gateway.complete(
        CompletionRequest(
            id=request_id(),
            key=bearer_key(),
            body=request.get_data(cache=False),
            endpoint=request.path,
            client_address=request.remote_addr,
            client_gone=request.environ.get("waitress.client_disconnected"),
        )
    )
    return _response(reply)


@blp.route("/models", methods=["GET"])
@blp.doc(security=_USER_KEY, summary="List the models your key may use")
@blp.response(200, ModelListSchema)
@blp.alt_response(401, schema=ErrorSchema)
def list_models() -> dict[str, Any]:
    models = services().gateway.models(_caller())
    return {"object": "list", "data": [_model(name) for name in models]}


@blp.route("/models/<path:model>", methods=["GET"])
@blp.doc(security=_USER_KEY, summary="Look one model up")
@blp.response(200, ModelSchema)
@blp.alt_response(401, schema=ErrorSchema)
@blp.alt_response(404, schema=ErrorSchema)
def get_model(model: str) -> dict[str, Any]:
    if model not in services().gateway.models(_caller()):
        raise ModelNotFound("Your key has no such model. GET /v1/models lists those it has.", param="model")
    return _model(model)


@blp.route("/me", methods=["GET"])
@blp.doc(security=_USER_KEY, summary="Whose key this is, and what it has used")
@blp.response(200, MeSchema)
@blp.alt_response(401, schema=ErrorSchema)
def me() -> dict[str, Any]:
    key = _caller()
    return {
        "id": key.id,
        "user": key.user,
        "name": key.name,
        "group": key.group,
        "expires_at": key.expires_at,
        "models": key.models,
        "limits": {},
        "remaining": {},
        "usage": _usage_so_far(key),
    }


def _caller() -> KeyRecord:
    key, _ = services().keys.authenticate(bearer_key())
    return key


def _check_media_type() -> None:
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType("Send the body uncompressed, without 'Content-Encoding'.")
    kind = request.mimetype
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType("Send the body as 'Content-Type: application/json'.")


def _response(reply: Reply) -> Response:
    # Bytes and event streams alike are in their final form: nothing to encode, nothing to join.
    response = Response(reply.body, status=reply.status, direct_passthrough=not isinstance(reply.body, bytes))
    del response.headers["Content-Type"]
    for name, value in reply.headers:
        response.headers.add(name, value)
    response.headers["x-llmgateway-request-id"] = request_id()
    if not isinstance(reply.body, bytes):
        # nginx and others like it buffer what they are not told to pass on at once.
        response.headers["X-Accel-Buffering"] = "no"
        response.headers["Cache-Control"] = "no-cache"
    return response


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "organisation"}


def _usage_so_far(key: KeyRecord) -> dict[str, UsageRow]:
    now = moment(services().clock())
    today = datetime(now.year, now.month, now.day, tzinfo=UTC)
    starts = {"today": today, "month": today.replace(day=1), "total": None}
    return {name: _sum(key, start) for name, start in starts.items()}


def _sum(key: KeyRecord, start: datetime | None) -> UsageRow:
    (row,) = services().usage_log.report(start=start, key_id=key.id)
    return row
