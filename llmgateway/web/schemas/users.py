"""Schemas of the endpoints for users. Chat completions have no schema, because Azure checks them."""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from .. import examples
from .fields import AnswerSchema, Moment
from .limits import LimitsInForceSchema, RemainingSchema, ScopeAllowanceSchema, SharedAllowancesSchema
from .usage import UsageSchema


class UsageSoFarSchema(AnswerSchema):
    today = ma.fields.Nested(UsageSchema, metadata={"description": "Since midnight, in the organisation's time zone."})
    month = ma.fields.Nested(UsageSchema, metadata={"description": "Since the first of this month."})
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
        metadata={
            "description": "Models that key and group allow; null for every one.",
            "example": [examples.MODEL],
        },
    )
    limits = ma.fields.Nested(LimitsInForceSchema, metadata={"description": "Of the key itself."})
    remaining = ma.fields.Nested(RemainingSchema)
    person = ma.fields.Nested(
        ScopeAllowanceSchema,
        allow_none=True,
        metadata={"description": "With your other keys; null if you have no limits for all of them together."},
    )
    member = ma.fields.Nested(
        ScopeAllowanceSchema,
        allow_none=True,
        metadata={"description": "With your other keys in the group; null if it has no limits for each member."},
    )
    shared = ma.fields.Nested(SharedAllowancesSchema)
    usage = ma.fields.Nested(UsageSoFarSchema)


class ModelSchema(AnswerSchema):
    id = ma.fields.String(metadata={"description": "What to send as `model`.", "example": examples.MODEL})
    object = ma.fields.String(metadata={"example": "model"})
    created = ma.fields.Integer(metadata={"description": "Not known here: 0.", "example": 0})
    owned_by = ma.fields.String(metadata={"example": "organisation"})


class ModelListSchema(AnswerSchema):
    object = ma.fields.String(metadata={"example": "list"})
    data = ma.fields.List(ma.fields.Nested(ModelSchema))


class DeploymentSchema(AnswerSchema):
    id = ma.fields.String(metadata={"description": "What to name in the path.", "example": examples.MODEL})
    model = ma.fields.String(metadata={"example": examples.MODEL})
    object = ma.fields.String(metadata={"example": "deployment"})
    status = ma.fields.String(metadata={"example": "succeeded"})
    owner = ma.fields.String(metadata={"example": "organisation"})
    created_at = ma.fields.Integer(metadata={"description": "Not known here: 0.", "example": 0})
    updated_at = ma.fields.Integer(metadata={"description": "Not known here: 0.", "example": 0})
    scale_settings = ma.fields.Dict(metadata={"example": {"scale_type": "standard"}})


class DeploymentListSchema(AnswerSchema):
    object = ma.fields.String(metadata={"example": "list"})
    data = ma.fields.List(ma.fields.Nested(DeploymentSchema))


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

RESPONSE_REQUEST: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "additionalProperties": True,
                "properties": {
                    "model": {
                        "type": "string",
                        "description": "One of `GET /v1/models`. May be missing if the gateway has only one.",
                        "example": examples.MODEL,
                    },
                    "input": {"description": "A text, or a list of items."},
                    "previous_response_id": {"type": "string", "description": "Of the response to continue: yours."},
                    "stream": {"type": "boolean", "description": "Send the answer as it is written."},
                },
            },
            "examples": {
                "plain": {"summary": "One answer", "value": examples.RESPONSE_REQUEST},
                "streamed": {"summary": "An answer as it is written", "value": examples.STREAMED_RESPONSE_REQUEST},
                "continued": {"summary": "The next answer", "value": examples.CHAINED_RESPONSE_REQUEST},
            },
        }
    },
}

_OF_WHICH = (
    "Of the limit of which least is left: your key's, your own, your group's or the organisation's. Missing if there "
    "is none. Azure's own come as `x-upstream-ratelimit-*`."
)


def _rate_limit(description: str, example: object, kind: str = "integer") -> dict[str, Any]:
    return {"description": f"{description} {_OF_WHICH}", "schema": {"type": kind}, "example": example}


RATE_LIMIT_HEADERS: dict[str, Any] = {
    "x-ratelimit-limit-requests": _rate_limit("Requests per minute.", 30),
    "x-ratelimit-remaining-requests": _rate_limit("Requests that are left of it now.", 29),
    "x-ratelimit-reset-requests": _rate_limit("When all of it is free again, if no more is used.", "61s", "string"),
    "x-ratelimit-limit-tokens": _rate_limit("Tokens per minute.", 40_000),
    "x-ratelimit-remaining-tokens": _rate_limit("Tokens that are left of it now.", 38_200),
    "x-ratelimit-reset-tokens": _rate_limit("When all of it is free again, if no more is used.", "61s", "string"),
}

CHAT_ANSWER: dict[str, Any] = {
    "description": "Azure's answer as it came.",
    "headers": RATE_LIMIT_HEADERS,
    "content": {
        "application/json": {
            "schema": {"type": "object", "additionalProperties": True},
            "example": examples.COMPLETION,
        },
        "text/event-stream": {"schema": {"type": "string"}, "example": examples.EVENTS},
    },
}

RESPONSE_ANSWER: dict[str, Any] = {
    "description": "Azure's answer as it came.",
    "headers": RATE_LIMIT_HEADERS,
    "content": {
        "application/json": {
            "schema": {"type": "object", "additionalProperties": True},
            "example": examples.RESPONSE,
        },
        "text/event-stream": {"schema": {"type": "string"}, "example": examples.RESPONSE_EVENTS},
    },
}
