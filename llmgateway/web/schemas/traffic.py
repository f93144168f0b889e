"""Schemas of the reports about hours, durations and refusals."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from .. import examples
from .fields import AnswerSchema
from .usage import PeriodSchema

_GROUP = {"description": "Only keys of this group.", "choices": {"every group": "", "one group": "ml-2026"}}


class LocalPeriodSchema(PeriodSchema):
    """Days of the organisation: hours are those of its clock."""

    class Meta:
        exclude = ("tz",)


class TrafficQuerySchema(LocalPeriodSchema):
    group = ma.fields.String(metadata=_GROUP)
    model = ma.fields.String(
        metadata={
            "description": "Only this model, as users ask for it.",
            "choices": {"every model": "", "one model": examples.MODEL},
        }
    )


class LatencyQuerySchema(TrafficQuerySchema):
    by = ma.fields.String(
        load_default="day",
        validate=validate.OneOf(("day", "week", "month")),
        metadata={
            "description": "What to have a row for: `day`, `week` or `month`.",
            "choices": {"every day": "day", "every week": "week", "every month": "month"},
        },
    )


class RefusedQuerySchema(LocalPeriodSchema):
    group = ma.fields.String(metadata=_GROUP)


class PercentilesSchema(AnswerSchema):
    requests = ma.fields.Integer(metadata={"description": "That were measured.", "example": 412})
    p50 = ma.fields.Float(metadata={"description": "Half of them took no longer.", "example": 562.0})
    p90 = ma.fields.Float(metadata={"example": 1780.0})
    p99 = ma.fields.Float(metadata={"example": 5620.0})


class TimesSchema(AnswerSchema):
    requests = ma.fields.Integer(metadata={"description": "All of them, measured or not.", "example": 530})
    ttft_ms = ma.fields.Nested(
        PercentilesSchema,
        allow_none=True,
        metadata={"description": "Of streams, to their first token, in milliseconds; null if there is no data."},
    )
    duration_ms = ma.fields.Nested(
        PercentilesSchema,
        allow_none=True,
        metadata={"description": "Of requests that ended well, in milliseconds; null if there is no data."},
    )


class PeriodTimesSchema(TimesSchema):
    day = ma.fields.String(metadata={"description": "In the organisation's time zone.", "example": "2026-10-31"})
    week = ma.fields.String(metadata={"description": "With `by=week`, as in ISO 8601.", "example": "2026-W44"})
    month = ma.fields.String(metadata={"description": "With `by=month`.", "example": "2026-10"})

    def on_bind_field(self, field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = field_name not in ("day", "week", "month")


class LatencySchema(AnswerSchema):
    rows = ma.fields.List(ma.fields.Nested(PeriodTimesSchema), metadata={"description": "Ascending."})
    total = ma.fields.Nested(TimesSchema)


def _matrix(field: ma.fields.Field[Any], description: str) -> ma.fields.List[Any]:
    return ma.fields.List(ma.fields.List(field), allow_none=True, metadata={"description": description})


class HoursSchema(AnswerSchema):
    requests = _matrix(
        ma.fields.Integer(), "Seven weekdays from Monday on, with 24 hours each; null if there is no data."
    )
    cost_usd = _matrix(ma.fields.Float(), "What they cost; null if there is no data.")
    counted_requests = ma.fields.Integer(metadata={"description": "Those whose hour is known.", "example": 530})
    all_requests = ma.fields.Integer(metadata={"description": "All of the period.", "example": 530})


class RefusalRowSchema(AnswerSchema):
    day = ma.fields.String(metadata={"description": "In the organisation's time zone.", "example": "2026-10-31"})
    code = ma.fields.String(allow_none=True, metadata={"example": "rate_limit_exceeded"})
    requests = ma.fields.Integer(metadata={"example": 7})


class RefusalTotalSchema(AnswerSchema):
    requests = ma.fields.Integer(metadata={"example": 7})


class RefusalReportSchema(AnswerSchema):
    rows = ma.fields.List(ma.fields.Nested(RefusalRowSchema), metadata={"description": "Ascending by day and code."})
    total = ma.fields.Nested(RefusalTotalSchema)
