"""The endpoints for users, compatible with OpenAI's API."""

from __future__ import annotations

from dataclasses import fields
from datetime import date
from typing import Any

from flask import Response, request

from ..errors import ModelNotFound
from ..proxy.pipeline import CompletionRequest, Reply
from ..ratelimit.limiter import Allowance
from ..records import UNLIMITED, KeyRecord, Limits, ReportQuery, UsageRow, moment
from . import examples
from .blueprint import Blueprint
from .body import check_media_type, read_body
from .context import bearer_key, request_id, sent_key, services
from .replies import FinalResponse
from .schemas.users import CHAT_ANSWER, CHAT_REQUEST, MeSchema, ModelListSchema, ModelSchema

blp = Blueprint(
    "users",
    __name__,
    url_prefix="/v1",
    description="What everybody with a key can call. OpenAI's own clients do, with this address and your key.",
    key="userKey",
    refusals=("InvalidKey", "StoreUnavailable"),
)
_NO_LIMITS = Allowance(UNLIMITED, {})

_NO_STORE = ("Cache-Control", "no-store")
# nginx and similar proxies buffer responses without this header.
_NO_BUFFERING = (("X-Accel-Buffering", "no"), ("Cache-Control", "no-cache"))
_WITHOUT_LENGTH = (204, 304)
"""Statuses of responses without a body and a Content-Length (RFC 9110, section 8.6)."""

_MODEL_IN_PATH = {"in": "path", "name": "model", "description": "Its id in the list.", "example": examples.MODEL}


@blp.after_request
def _keep_private(response: Response) -> Response:
    # Caches treat only requests with Authorization as private (RFC 9111 section 3.5), not those with 'api-key'.
    if "Cache-Control" not in response.headers:
        response.headers.add(*_NO_STORE)
    return response


@blp.route("/chat/completions", methods=["POST"])
@blp.operation(
    "Answer a conversation",
    "InvalidCompletion",
    "ModelNotAllowed",
    "ModelNotFound",
    "BodyTooLarge",
    "UnsupportedMediaType",
    "Limited",
    "UpstreamUnusable",
    "Busy",
    "UpstreamTimeout",
    description=(
        "Takes what OpenAI's chat completions take: every parameter goes on to Azure, known here or not. The "
        "organisation's prompt is put in front of the conversation. "
        "With `stream: true` the answer comes as server-sent events, the last of which is `[DONE]`; if it breaks "
        "off, an event with `error` comes instead."
    ),
    requestBody=CHAT_REQUEST,
    responses={200: CHAT_ANSWER},
)
def create_chat_completion() -> Response:
    # Each of Flask's globals is used once, because an access takes as long as two function calls.
    environ, used, id_ = request.environ, services(), request_id()
    check_media_type(environ.get("CONTENT_TYPE"), environ.get("HTTP_CONTENT_ENCODING"))
    completion = CompletionRequest(
        id=id_,
        key=sent_key(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_API_KEY")),
        body=read_body(environ, largest=used.settings.max_body_bytes),
        endpoint="/v1/chat/completions",
        client_address=environ.get("REMOTE_ADDR"),
        client_gone=environ.get("waitress.client_disconnected"),
    )
    return _response(used.gateway.complete(completion), id_)


def _response(reply: Reply, id_: str) -> Response:
    headers = [*reply.headers, ("x-llmgateway-request-id", id_)]
    if not isinstance(reply.body, bytes):
        headers += _NO_BUFFERING
    else:
        headers.append(_NO_STORE)
        if reply.status not in _WITHOUT_LENGTH:
            headers.append(("Content-Length", str(len(reply.body))))
    if not any(name == "x-request-id" for name, _ in reply.headers):  # Azure's names are in lower case
        headers.append(("x-request-id", id_))
    return FinalResponse(reply.body, reply.status, headers)


@blp.route("/models", methods=["GET"])
@blp.operation("List the models your key may use", description="Empty where the gateway takes whatever Azure has.")
@blp.response(200, ModelListSchema, description="The models.", example=examples.MODELS)
def list_models() -> dict[str, Any]:
    models = services().gateway.models(services().keys.authenticate(bearer_key()))
    return {"object": "list", "data": [_model(name) for name in models]}


@blp.route("/models/<path:model>", methods=["GET"], parameters=[_MODEL_IN_PATH])
@blp.operation("Look a model up", "UnknownModel", description="To find out whether your key may use it.")
@blp.response(200, ModelSchema, description="Your key may use it.", example=examples.MODELS["data"][0])
def get_model(model: str) -> dict[str, Any]:
    if model not in services().gateway.models(services().keys.authenticate(bearer_key())):
        raise ModelNotFound("Your key has no such model. GET /v1/models lists those it has.", param="model")
    return _model(model)


@blp.route("/me", methods=["GET"])
@blp.operation(
    "Say whose key this is, and what is left of it",
    description=(
        "`remaining` is what is left of the limits now; `usage` counts requests a second or two after their end. The "
        "key itself is not in the answer."
    ),
)
@blp.response(200, MeSchema, description="Your key.", example=examples.ME)
def get_me() -> dict[str, Any]:
    principal = services().keys.authenticate(bearer_key())
    key = principal.key
    left = services().limiter.allowances(principal)
    return {
        "id": key.id,
        "user": key.user,
        "name": key.name,
        "group": key.group,
        "expires_at": key.expires_at,
        "models": principal.models,
        **_allowance(left.get("key", _NO_LIMITS)),
        "shared": {scope: _allowance(left[scope]) if scope in left else None for scope in ("group", "organisation")},
        "usage": _usage_so_far(key),
    }


def _allowance(allowance: Allowance) -> dict[str, Any]:
    remaining = {field.name: allowance.remaining.get(field.name) for field in fields(Limits)}
    return {"limits": allowance.limits, "remaining": remaining}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "organisation"}


def _usage_so_far(key: KeyRecord) -> dict[str, UsageRow]:
    today = moment(services().clock()).date()
    first_days = {"today": today, "month": today.replace(day=1), "total": None}
    return {name: _sum(key, first_day) for name, first_day in first_days.items()}


def _sum(key: KeyRecord, first_day: date | None) -> UsageRow:
    (row,) = services().usage_log.report(ReportQuery(first_day=first_day, key_id=key.id))
    return row
