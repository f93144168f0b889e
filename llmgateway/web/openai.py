"""The endpoints for users, compatible with OpenAI's API."""

from __future__ import annotations

from dataclasses import fields
from datetime import date
from typing import Any

from flask import Response

from ..errors import ModelNotFound
from ..ratelimit.limiter import Allowance
from ..records import UNLIMITED, KeyRecord, Limits, ReportQuery, UsageRow, moment
from . import examples, stored
from .blueprint import Blueprint
from .context import bearer_key, services
from .dates import time_zones
from .relay import register
from .schemas.users import MeSchema, ModelListSchema, ModelSchema

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
MODEL_IN_PATH = {"in": "path", "name": "model", "description": "Its id in the list.", "example": examples.MODEL}


@blp.after_request
def keep_private(response: Response) -> Response:
    """Keep answers out of caches."""
    # Caches treat only requests with Authorization as private (RFC 9111 section 3.5), not those with 'api-key'.
    if "Cache-Control" not in response.headers:
        response.headers.add(*_NO_STORE)
    return response


register(blp)
stored.register(blp)


def model_list() -> dict[str, Any]:
    """Return the models that the key of the current request may use."""
    models = services().gateway.routing.models(services().keys.authenticate(bearer_key()))
    return {"object": "list", "data": [_model(name) for name in models]}


def model_of_key(model: str) -> dict[str, Any]:
    """Return the model if the key of the current request may use it.

    Raises:
        ModelNotFound: it may not, or there is none.
    """
    key = bearer_key()
    principal = services().keys.authenticate(key)
    # A key in the place of a model is a mistake, and must not be in the answer.
    if model == key or not services().gateway.routing.may_use(principal, model):
        raise ModelNotFound("Your key has no such model. GET /v1/models lists those it has.", param="model")
    return _model(model)


@blp.route("/models", methods=["GET"])
@blp.operation(
    "List the models your key may use",
    description="Where the gateway takes whatever Azure has, those that have answered within 30 days.",
)
@blp.response(200, ModelListSchema, description="The models.", example=examples.MODELS)
def list_models() -> dict[str, Any]:
    return model_list()


@blp.route("/models/<path:model>", methods=["GET"], parameters=[MODEL_IN_PATH])
@blp.operation("Look a model up", "UnknownModel", description="To find out whether your key may use it.")
@blp.response(200, ModelSchema, description="Your key may use it.", example=examples.MODELS["data"][0])
def get_model(model: str) -> dict[str, Any]:
    return model_of_key(model)


@blp.route("/me", methods=["GET"])
@blp.operation(
    "Say whose key this is, and what is left of it",
    description=(
        "`remaining` is what is left of the limits now. Of a budget it is what is not spent: running requests may hold "
        "a part of it until they end. `usage` counts requests a second or two after their end. The key itself is not "
        "in the answer."
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
    today = time_zones().day(moment(services().clock()))
    first_days = {"today": today, "month": today.replace(day=1), "total": None}
    return {name: _sum(key, first_day) for name, first_day in first_days.items()}


def _sum(key: KeyRecord, first_day: date | None) -> UsageRow:
    (row,) = services().usage_log.report(ReportQuery(first_day=first_day, key_id=key.id))
    return row
