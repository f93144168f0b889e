"""Courses and teams."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...records import UNLIMITED, Limits
from .. import examples
from .fields import AnswerSchema, Moment, single_line
from .limits import LimitsInForceSchema, LimitsSchema


class GroupFieldsSchema(ma.Schema):
    """All that a group is; what is left out is nothing."""

    note = ma.fields.String(
        allow_none=True,
        load_default=None,
        validate=validate.Length(max=2000),
        metadata={"description": "For admins only.", "example": "Tuesdays, room 101"},
    )
    starts_at = Moment(
        allow_none=True,
        load_default=None,
        metadata={"description": "Its keys are refused before.", "example": "2026-10-01T00:00:00+02:00"},
    )
    expires_at = Moment(
        allow_none=True,
        load_default=None,
        metadata={
            "description": "Its keys are refused from then on; must be in the future. A date alone is its midnight in "
            "UTC.",
            "example": "2027-04-01T00:00:00+02:00",
        },
    )
    models = ma.fields.List(
        ma.fields.String(validate=single_line(128)),
        allow_none=True,
        load_default=None,
        validate=validate.Length(max=100),
        metadata={
            "description": "Models its keys may use; a key with models of its own may use those that are in both. "
            "null for every one.",
            "example": [examples.MODEL],
        },
    )
    limits = ma.fields.Nested(
        LimitsSchema,
        allow_none=True,
        load_default=None,
        metadata={"description": "What all its keys together may use, beside the limits that each has of its own."},
    )

    @ma.post_load
    def _as_group_fields(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        models, limits = data["models"], data["limits"]
        data["models"] = None if models is None else tuple(models)
        data["limits"] = UNLIMITED if limits is None else Limits(**limits)
        return data


class GroupSchema(AnswerSchema):
    name = ma.fields.String(metadata={"example": examples.GROUP["name"]})
    note = ma.fields.String(allow_none=True, metadata={"example": examples.GROUP["note"]})
    starts_at = Moment(allow_none=True, metadata={"example": examples.GROUP["starts_at"]})
    expires_at = Moment(allow_none=True, metadata={"example": examples.GROUP["expires_at"]})
    models = ma.fields.List(ma.fields.String(), allow_none=True, metadata={"example": examples.GROUP["models"]})
    limits = ma.fields.Nested(LimitsInForceSchema)
    created_at = Moment(metadata={"example": examples.GROUP["created_at"]})


class GroupListSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(GroupSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})


class RevokedSchema(AnswerSchema):
    revoked = ma.fields.Integer(metadata={"description": "Keys that were active before.", "example": 28})
