"""Schemas of monthly statements."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import validate

from .. import examples
from .currency import check_month
from .fields import AnswerSchema
from .tables import TableSchema

_FORMATS = ("json", "csv", "html")


class FormatSchema(TableSchema):
    format = ma.fields.String(
        load_default="json",
        validate=validate.OneOf(_FORMATS),
        metadata={
            "description": "`csv` is for spreadsheets and has no total; `html` is a page to print.",
            "example": "json",
        },
    )


class GroupStatementQuerySchema(FormatSchema):
    month = ma.fields.String(
        required=True,
        validate=check_month,
        metadata={"description": "A month of the organisation's time zone.", "example": "2026-10"},
    )


class StatementLineSchema(AnswerSchema):
    """What was used, and its rounded cost. The lines of a table add up to its total, to the cent."""

    requests = ma.fields.Integer(metadata={"example": 12})
    prompt_tokens = ma.fields.Integer(metadata={"example": 3400})
    completion_tokens = ma.fields.Integer(metadata={"example": 1200})
    total_tokens = ma.fields.Integer(metadata={"example": 4600})
    cost_usd = ma.fields.Float(
        allow_none=True,
        metadata={"description": "Rounded; null if no price is known of any of the requests.", "example": 41.67},
    )
    cost = ma.fields.Float(
        allow_none=True,
        metadata={
            "description": "In the second currency, rounded; null if there is none, if it has no rate for the month, "
            "or if no price is known.",
            "example": 38.34,
        },
    )
    unpriced_requests = ma.fields.Integer(
        metadata={"description": "Requests whose price is not known; their cost is in no sum.", "example": 0}
    )
    unpriced_models = ma.fields.List(
        ma.fields.String(), metadata={"description": "The models of these requests.", "example": []}
    )


class PersonLineSchema(StatementLineSchema):
    user = ma.fields.String(metadata={"example": "ada"})


class ModelLineSchema(StatementLineSchema):
    model = ma.fields.String(metadata={"example": examples.MODEL})


class CostCentreLineSchema(StatementLineSchema):
    cost_centre = ma.fields.String(
        allow_none=True, metadata={"description": "null: groups without one, and keys without a group."}
    )


class GroupLineSchema(CostCentreLineSchema):
    group = ma.fields.String(
        allow_none=True, metadata={"description": "null: keys without a group.", "example": "ml-2026"}
    )


class StatementHeadSchema(AnswerSchema):
    """Which month it is, and how it is converted."""

    month = ma.fields.String(metadata={"example": "2026-10"})
    timezone = ma.fields.String(metadata={"description": "In which the month is.", "example": "Europe/Berlin"})
    is_final = ma.fields.Boolean(
        metadata={
            "description": "Whether the month has been over for a day, so that no record is on its way any more.",
            "example": True,
        }
    )
    currency = ma.fields.String(
        allow_none=True, metadata={"description": "The second currency, if there is one.", "example": "EUR"}
    )
    rate = ma.fields.Float(
        allow_none=True,
        metadata={
            "description": "How much of it a US dollar was in the month; null if it has no rate.",
            "example": 0.92,
        },
    )


class GroupStatementSchema(StatementHeadSchema):
    group = ma.fields.String(metadata={"example": "ml-2026"})
    cost_centre = ma.fields.String(
        allow_none=True, metadata={"description": "Which the group has now.", "example": "4711"}
    )
    persons = ma.fields.List(ma.fields.Nested(PersonLineSchema))
    models = ma.fields.List(ma.fields.Nested(ModelLineSchema))
    total = ma.fields.Nested(StatementLineSchema)


class StatementSchema(StatementHeadSchema):
    groups = ma.fields.List(
        ma.fields.Nested(GroupLineSchema), metadata={"description": "All, also those that have used nothing."}
    )
    cost_centres = ma.fields.List(ma.fields.Nested(CostCentreLineSchema))
    total = ma.fields.Nested(StatementLineSchema)
