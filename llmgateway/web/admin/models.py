"""The prices of models for this organisation."""

from __future__ import annotations

from typing import Any

from ...errors import NotFound
from ...records import Prices
from .. import examples
from ..context import services
from ..schemas.organisation import ModelSettingsListSchema, ModelSettingsSchema, NamedModelSettingsSchema, PricesSchema
from .audit_helpers import write_down
from .blueprint import blp

_MODEL_IN_PATH = {
    "in": "path",
    "name": "name",
    "description": "A model as clients ask for it, or a deployment.",
    "example": examples.MODEL,
}

_schema = PricesSchema()


@blp.route("/models", methods=["GET"])
@blp.operation("List the models with prices of your own", description="Every other model costs its list price.")
@blp.response(
    200, ModelSettingsListSchema, description="By name.", example={"items": [examples.MODEL_SETTINGS], "next": None}
)
def list_model_settings() -> dict[str, Any]:
    prices = services().policy.stored().prices
    return {"items": [{"name": name, "prices": prices[name]} for name in sorted(prices)], "next": None}


@blp.route("/models/<path:name>", methods=["GET"], parameters=[_MODEL_IN_PATH])
@blp.operation("Look a model's own prices up", "ModelWithoutPrices", description="Without them, its list price holds.")
@blp.response(200, NamedModelSettingsSchema, description="Its prices.", example=examples.MODEL_SETTINGS)
def get_model_settings(name: str) -> dict[str, Any]:
    prices = services().policy.stored().prices.get(name)
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
    policy, prices = services().policy, Prices(**settings["prices"])
    before = policy.stored().prices.get(name)
    policy.set_prices(name, prices)
    write_down("prices.set", name, before=_shown(before), after=_shown(prices))
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
    before = policy.stored().prices.get(name)
    if before is None:
        raise _no_own_prices()
    policy.set_prices(name, None)
    write_down("prices.remove", name, before=_shown(before))


def _no_own_prices() -> NotFound:
    return NotFound("This model has no prices of your own. GET /admin/models lists those that have.", param="name")


def _shown(prices: Prices | None) -> dict[str, Any] | None:
    shown: dict[str, Any] | None = None if prices is None else _schema.dump(prices)
    return shown
