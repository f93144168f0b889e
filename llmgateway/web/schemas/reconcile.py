"""Schemas of the comparison with Azure's bill."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...reconcile.meters import KINDS
from .fields import AnswerSchema

_TEXTS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}

RECONCILE_FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "array",
                        "items": {"type": "string", "format": "binary"},
                        "description": "One export, in any number of parts.",
                    },
                    "threshold": {
                        "type": "string",
                        "description": "`beyond` lists the days whose tokens differ by more than this many per cent.",
                        "example": "1",
                    },
                    "model": _TEXTS
                    | {
                        "description": "`NAME=MODEL`: the model of a deployment, or of a name that users ask for, "
                        "where its name does not tell.",
                        "example": ["team-a=gpt-4o"],
                    },
                    "meter": _TEXTS
                    | {
                        "description": "`METER=MODEL:KIND`: what a meter counts that is not known, by name or id. KIND "
                        f"is one of {', '.join(KINDS)}.",
                        "example": [],
                    },
                },
            },
            "example": {"file": ["(a file)"], "threshold": "1"},
        }
    },
}
"""OpenAPI's request body object."""


class ComparedPeriodSchema(AnswerSchema):
    start = ma.fields.String(metadata={"example": "2026-10-01"})
    end = ma.fields.String(metadata={"example": "2026-10-31"})


class ComparedFileSchema(AnswerSchema):
    name = ma.fields.String(metadata={"example": "october.csv"})
    schema = ma.fields.String(metadata={"description": "How it was understood.", "example": "FOCUS 1.0"})
    rows = ma.fields.Integer(metadata={"description": "Rows of Azure's AI services.", "example": 412})
    rows_of_other_services = ma.fields.Integer(metadata={"example": 3817})


class ComparisonSchema(AnswerSchema):
    """Azure's number beside the gateway's."""

    source = ma.fields.String(validate=validate.OneOf(["bill", "metrics"]), metadata={"example": "bill"})
    by = ma.fields.String(
        validate=validate.OneOf(["deployment", "model", "everything"]),
        metadata={"description": "What Azure names.", "example": "deployment"},
    )
    name = ma.fields.String(metadata={"example": "gpt-4o-mini"})
    day = ma.fields.String(
        allow_none=True, metadata={"description": "In UTC; null: the whole period.", "example": "2026-10-30"}
    )
    kind = ma.fields.String(
        metadata={"description": "Kind of tokens, or `cost` in `currency`.", "example": "completion"}
    )
    azure = ma.fields.Float(metadata={"example": 120450.0})
    ours = ma.fields.Float(
        allow_none=True, metadata={"description": "null: a cost in another currency.", "example": 120113.0}
    )
    gap = ma.fields.Float(
        allow_none=True, metadata={"description": "Ours without Azure's: negative if we miss some.", "example": -337.0}
    )
    percent = ma.fields.Float(allow_none=True, metadata={"description": "Of Azure's number.", "example": -0.28})
    currency = ma.fields.String(allow_none=True, metadata={"example": None})
    where = ma.fields.String(
        allow_none=True,
        metadata={
            "description": "What is known about the cause of the gap.",
            "example": "Azure has more: calls that do not go through the gateway",
        },
    )


class NotComparedSchema(AnswerSchema):
    """A meter or a metric that has no counterpart in the gateway's books."""

    source = ma.fields.String(metadata={"example": "bill"})
    meter = ma.fields.String(metadata={"example": "Standard Indexing"})
    meter_id = ma.fields.String(metadata={"example": ""})
    unit = ma.fields.String(metadata={"example": "1K"})
    why = ma.fields.String(metadata={"example": "the meter is not known"})
    quantity = ma.fields.Float(metadata={"example": 12.0})
    cost = ma.fields.Float(metadata={"example": 0.4})
    currency = ma.fields.String(metadata={"example": "USD"})
    rows = ma.fields.Integer(metadata={"example": 12})


class ReconciliationSchema(AnswerSchema):
    """Both sides, and where they differ."""

    period = ma.fields.Nested(ComparedPeriodSchema)
    files = ma.fields.List(ma.fields.Nested(ComparedFileSchema))
    totals = ma.fields.List(ma.fields.Nested(ComparisonSchema), metadata={"description": "Of the whole period."})
    days = ma.fields.List(ma.fields.Nested(ComparisonSchema))
    not_compared = ma.fields.List(ma.fields.Nested(NotComparedSchema))
    threshold = ma.fields.Float(allow_none=True, metadata={"example": 1.0})
    beyond = ma.fields.List(
        ma.fields.Nested(ComparisonSchema),
        metadata={"description": "Days with a gap beyond the threshold, the largest first."},
    )
