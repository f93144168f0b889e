"""What users send and get. Chat bodies have no schema: they are Azure's."""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from .. import examples
from .fields import AnswerSchema, Moment
from .usage import UsageSchema


class UsageSoFarSchema(AnswerSchema):
    today = ma.fields.Nested(UsageSchema, metadata={"description": "Since midnight, UTC."})
    month = ma.fields.Nested(UsageSchema, metadata={"description": "Since the first of this month, UTC."})
    total = ma.fields.Nested(UsageSchema)


class MeSchema(AnswerSchema):
    id = ma.fields.String(metadata={"description": "Names the key and opens nothing.", "example": examples.KEY_ID})
    user = ma.fields.String(metadata={"example": "ada"})
    name = ma.fields.String(metadata={"example": "thesis"})
    group = ma.fields.String(allow_none=True, metadata={"example": "ml-2026"})
    expires_at = Moment(allow_none=True, metadata={"description": "null: never.", "example": "2027-03-31T22:00:00Z"})
    models = ma.fields.List(
        ma.fields.String(),
        allow_none=True,
        metadata={"description": "Models the key may use; null for every one.", "example": [examples.MODEL]},
    )
    limits = ma.fields.Dict(metadata={"description": "What the key is limited to; empty for nothing.", "example": {}})
    remaining = ma.fields.Dict(metadata={"description": "What is left of that.", "example": {}})
    usage = ma.fields.Nested(UsageSoFarSchema)


class ModelSchema(AnswerSchema):
    id = ma.fields.String(metadata={"description": "What to send as `model`.", "example": examples.MODEL})
    object = ma.fields.String(metadata={"example": "model"})
    created = ma.fields.Integer(metadata={"description": "Not known here: 0.", "example": 0})
    owned_by = ma.fields.String(metadata={"example": "organisation"})


class ModelListSchema(AnswerSchema):
    object = ma.fields.String(metadata={"example": "list"})
    data = ma.fields.List(ma.fields.Nested(ModelSchema))


CHAT_REQUEST: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["messages"],
                "additionalProperties": True,
                "properties": {
                    "model": {
                        "type": "string",
                        "description": "One of `GET /v1/models`. May be missing if the gateway has only one.",
                        "example": examples.MODEL,
                    },
                    "messages": {
                        "type": "array",
                        "description": "The conversation so far.",
                        "items": {"type": "object", "additionalProperties": True},
                    },
                    "stream": {"type": "boolean", "description": "Send the answer as it is written."},
                },
            },
            "examples": {
                "plain": {"summary": "One answer", "value": examples.CONVERSATION},
                "streamed": {"summary": "An answer as it is written", "value": examples.STREAMED_CONVERSATION},
            },
        }
    },
}

CHAT_ANSWER: dict[str, Any] = {
    "description": "Azure's answer as it came.",
    "content": {
        "application/json": {
            "schema": {"type": "object", "additionalProperties": True},
            "example": examples.COMPLETION,
        },
        "text/event-stream": {"schema": {"type": "string"}, "example": examples.EVENTS},
    },
}
