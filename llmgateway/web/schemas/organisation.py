"""Schemas of prompts and prices."""

from __future__ import annotations

from typing import Any

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


class WhosePromptSchema(ma.Schema):
    """Selects a group or a key; the organisation if neither is given."""

    group = ma.fields.String(
        metadata={
            "description": "The group of this name.",
            "choices": {"no group": "", "one group": examples.GROUP["name"]},
        }
    )
    key = ma.fields.String(
        metadata={"description": "The key with this `id`.", "choices": {"no key": "", "one key": examples.KEY_ID}}
    )

    @ma.validates_schema
    def _one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("group") and data.get("key"):
            raise ma.ValidationError("Name either 'group' or 'key', or neither for the organisation.", field_name="key")


class PromptSchema(AnswerSchema):
    version = ma.fields.Integer(
        metadata={
            "description": "Higher with every change, counted over the organisation, groups and keys together; "
            "0 if none was ever set.",
            "example": 3,
        }
    )
    scope = ma.fields.String(
        metadata={
            "description": "Whose it is: empty for the organisation's, `group:NAME` or `key:ID`.",
            "example": "",
        }
    )
    prompt = ma.fields.String(attribute="text", metadata={"example": examples.PROMPT["prompt"]})
    set_at = Moment(allow_none=True, metadata={"example": examples.PROMPT["set_at"]})


class PreviewRequestSchema(ma.Schema):
    """A conversation to preview, with the key or the group that would send it."""

    key = ma.fields.String(metadata={"description": "A key's `id`.", "example": examples.KEY_ID})
    group = ma.fields.String(metadata={"description": "A group's name.", "example": examples.GROUP["name"]})
    model = ma.fields.String(metadata={"description": "As a client names it.", "example": examples.MODEL})
    messages = ma.fields.List(
        ma.fields.Dict(),
        required=True,
        metadata={"description": "As a client sends them.", "example": examples.CONVERSATION["messages"]},
    )

    @ma.validates_schema
    def _one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("group") and data.get("key"):
            raise ma.ValidationError("Name either 'group' or 'key', or neither for the organisation.", field_name="key")


class PreviewSchema(AnswerSchema):
    version = ma.fields.Integer(metadata={"description": "Of the prompt; 0: there is none.", "example": 3})
    scope = ma.fields.String(
        metadata={"description": "Whose prompt it is, as in the list of versions.", "example": "group:ml-2026"}
    )
    sent = ma.fields.Dict(
        metadata={"description": "The body as Azure would get it.", "example": examples.PREVIEW["sent"]}
    )


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
    """The organisation's settings of a model."""

    prices = ma.fields.Nested(PricesSchema, required=True)


class NamedModelSettingsSchema(AnswerSchema):
    name = ma.fields.String(metadata={"example": examples.MODEL})
    prices = ma.fields.Nested(PricesSchema)


class ModelSettingsListSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(NamedModelSettingsSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})
