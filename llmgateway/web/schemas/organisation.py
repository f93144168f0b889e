"""The prompt and the prices."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import validate

from .. import examples
from .fields import AnswerSchema, Moment


class NewPromptSchema(ma.Schema):
    prompt = ma.fields.String(
        required=True,
        validate=validate.Length(max=100_000),
        metadata={
            "description": "Goes in front of every conversation as a system message; empty for none.",
            "example": examples.PROMPT["prompt"],
        },
    )


class PromptSchema(AnswerSchema):
    version = ma.fields.Integer(
        metadata={"description": "One more with every change; 0 if none was ever set.", "example": 3}
    )
    prompt = ma.fields.String(attribute="text", metadata={"example": examples.PROMPT["prompt"]})
    set_at = Moment(allow_none=True, metadata={"example": examples.PROMPT["set_at"]})


class PromptVersionsSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(PromptSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})


def _price(meaning: str, example: float) -> ma.fields.Float:
    return ma.fields.Float(
        required=True,
        validate=validate.Range(min=0, max=1_000_000),
        metadata={"description": f"US dollars per million {meaning}.", "example": example},
    )


class PricesSchema(ma.Schema):
    prompt = _price("prompt tokens", 2.5)
    cached = _price("prompt tokens that Azure had in its cache", 1.25)
    completion = _price("completion tokens", 10.0)


class ModelSettingsSchema(ma.Schema):
    """What is the organisation's own about a model."""

    prices = ma.fields.Nested(PricesSchema, required=True)


class NamedModelSettingsSchema(AnswerSchema):
    name = ma.fields.String(metadata={"example": examples.MODEL})
    prices = ma.fields.Nested(PricesSchema)


class ModelSettingsListSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(NamedModelSettingsSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})
