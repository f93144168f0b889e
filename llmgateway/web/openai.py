"""The endpoints for users, compatible with OpenAI's API."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Any

from flask import Response, g

from ..accounts.principal import Principal
from ..errors import ModelNotFound
from ..ratelimit.allowances import Allowances
from ..ratelimit.periods import LocalDay
from ..ratelimit.scopes import Scope, scopes_of
from ..records import LIMIT_PARTS, UNLIMITED, KeyRecord, Period, ReportQuery, UsageRow, moment
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
_NO_STORE = ("Cache-Control", "no-store")
MODEL_IN_PATH = {"in": "path", "name": "model", "description": "Its id in the list.", "example": examples.MODEL}


@blp.after_request
def complete_headers(response: Response) -> Response:
    """Keep answers out of caches, and add the headers ``x-ratelimit-*`` that :func:`present_principal` has read."""
    # Caches treat only requests with Authorization as private (RFC 9111 section 3.5), not those with 'api-key'.
    if "Cache-Control" not in response.headers:
        response.headers.add(*_NO_STORE)
    for name, value in g.get("rate_limits", {}).items():
        response.headers.setdefault(name, value)
    return response


register(blp)
stored.register(blp)


def present_principal() -> Principal:
    """Return the principal of the current request's key, and let the response say what is left of its limits."""
    principal = services().keys.authenticate(bearer_key())
    g.rate_limits = services().limiter.headers(principal)
    return principal


def model_list() -> dict[str, Any]:
    """Return the models that the key of the current request may use."""
    models = services().gateway.routing.models(present_principal())
    return {"object": "list", "data": [_model(name) for name in models]}


def model_of_key(model: str) -> dict[str, Any]:
    """Return the model if the key of the current request may use it.

    Raises:
        ModelNotFound: it may not, or there is none.
    """
    key, principal = bearer_key(), present_principal()
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
        "a part of it until they end. How large the budgets in `shared` are, and what is left of them, is null unless "
        "the admin shows it. `usage` counts requests a second or two after their end. The key itself is not in the "
        "answer."
    ),
)
@blp.response(200, MeSchema, description="Your key.", example=examples.ME)
def get_me() -> dict[str, Any]:
    principal = present_principal()
    key, scopes = principal.key, [*scopes_of(principal, moment(services().clock()))]
    left = {
        scope.kind: _allowance(scope, allowances)
        for scope, allowances in zip(scopes, services().limiter.allowances.of(scopes), strict=True)
    }
    return {
        "id": key.id,
        "user": key.user,
        "name": key.name,
        "group": key.group,
        "expires_at": key.expires_at,
        "models": principal.models,
        **left.get("key", {"limits": UNLIMITED, "remaining": _remaining({})}),
        "person": left.get("person"),
        "member": left.get("member"),
        "shared": {kind: left.get(kind) for kind in ("group", "organisation")},
        "usage": _usage_so_far(key),
    }


def _allowance(scope: Scope, allowances: Allowances) -> dict[str, Any]:
    limits, remaining = asdict(scope.limits), _remaining(allowances)
    if scope.is_shared and limits["budget"] and not services().limiter.shows_shared:
        limits["budget"]["amount"] = remaining["budget"] = None
    return {"limits": limits, "remaining": remaining}


def _remaining(allowances: Allowances) -> dict[str, float | None]:
    return {part: allowances[part].left if part in allowances else None for part in LIMIT_PARTS}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "organisation"}


def _usage_so_far(key: KeyRecord) -> dict[str, UsageRow]:
    today = LocalDay.at(moment(services().clock()), time_zones())
    first_days = {"today": today.day, "month": today.first_day(Period.MONTH), "total": None}
    return {name: _sum(key, first_day) for name, first_day in first_days.items()}


def _sum(key: KeyRecord, first_day: date | None) -> UsageRow:
    (row,) = services().usage_log.report(ReportQuery(first_day=first_day, key_id=key.id))
    return row
