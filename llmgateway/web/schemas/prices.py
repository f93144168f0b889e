"""Schemas of the list of prices."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import validate

from .. import examples
from .fields import AnswerSchema
from .organisation import PricesSchema


class PriceQuerySchema(ma.Schema):
    model = ma.fields.String(
        validate=validate.Length(max=256),
        metadata={
            "description": "Only this one, which need not be offered.",
            "choices": {"every model": "", "one model": examples.MODEL},
        },
    )


class ListedAsSchema(AnswerSchema):
    model = ma.fields.String(metadata={"description": "The name in the list.", "example": examples.MODEL})
    source = ma.fields.String(metadata={"description": "Whose data it is.", "example": "litellm azure/gpt-4o-mini"})
    date = ma.fields.String(metadata={"description": "The day of the data.", "example": "2026-11-28"})


class ModelPriceSchema(AnswerSchema):
    model = ma.fields.String(metadata={"example": examples.MODEL})
    source = ma.fields.String(
        validate=validate.OneOf(["own", "list", "unknown"]),
        metadata={
            "description": "`own`: set with `PUT /admin/models/{name}`. `list`: the list of this program. `unknown`: "
            "requests have no known cost.",
            "example": "list",
        },
    )
    prices = ma.fields.Nested(PricesSchema, allow_none=True)
    listed_as = ma.fields.Nested(
        ListedAsSchema, allow_none=True, metadata={"description": "Where the list has the price; null for your own."}
    )


class ModelPriceListSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(ModelPriceSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})
