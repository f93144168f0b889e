"""What each model costs, and where that price comes from."""

from __future__ import annotations

from typing import Any

from ...accounts.prompts import Scope
from ...records import Organisation
from ...usage.models import own_settings
from ...usage.pricing import list_prices, listed_as
from .. import examples
from ..context import services
from ..schemas.prices import ModelPriceListSchema, PriceQuerySchema
from .blueprint import blp


@blp.route("/prices", methods=["GET"])
@blp.operation(
    "List what each model costs",
    description="Of every model that users are offered, and of those with settings of your own: the prices that count, "
    "per million tokens, and where they come from. Where a deployment has prices of its own, these take precedence.",
)
@blp.arguments(PriceQuerySchema, location="query")
@blp.response(200, ModelPriceListSchema, description="By name.", example=examples.MODEL_PRICES)
def list_model_prices(query: dict[str, str]) -> dict[str, Any]:
    organisation = services().policy.stored()
    names = [query["model"]] if query.get("model") else _names(organisation)
    return {"items": [_priced(name, organisation) for name in names], "next": None}


def _names(organisation: Organisation) -> list[str]:
    offered = services().gateway.routing.models(services().prompts.principal(Scope()))
    return sorted({*offered, *organisation.models})


def _priced(name: str, organisation: Organisation) -> dict[str, Any]:
    own = own_settings(organisation.models, (name,)).prices
    found, place = (own, None) if own is not None else (list_prices(name), listed_as(name))
    return {
        "model": name,
        "source": "own" if own is not None else "unknown" if found is None else "list",
        "prices": None if found is None else found.as_json(),
        "listed_as": None if place is None else place._asdict(),
    }
