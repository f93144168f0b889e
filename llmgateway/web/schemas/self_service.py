"""Schemas of the keys that people may make themselves."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...records import Limits, SelfService
from .. import examples
from .fields import AnswerSchema, Moment, single_line
from .limits import LimitsInForceSchema, LimitsSchema
from .names import problem_of_name

MOST_KEYS = 100
LONGEST_DAYS = 3660


class SelfServiceSchema(ma.Schema):
    """What people may make themselves; what is left out or null is not limited here."""

    keys = ma.fields.Integer(
        strict=True,
        required=True,
        validate=validate.Range(
            min=1, max=MOST_KEYS, error="Must be from {min} to {max}. For none, send null in place of all of this."
        ),
        metadata={"description": "How many keys each person may have at the same time.", "example": 2},
    )
    days = ma.fields.Integer(
        strict=True,
        allow_none=True,
        load_default=None,
        validate=validate.Range(min=1, max=LONGEST_DAYS, error="Must be from {min} to {max}; null for no end."),
        metadata={"description": "How many days such a key is valid at most.", "example": 180},
    )
    models = ma.fields.List(
        ma.fields.String(validate=single_line(128)),
        allow_none=True,
        load_default=None,
        validate=validate.Length(min=1, max=100),
        metadata={"description": "Models that such a key may use; null for all of the group.", "example": None},
    )
    limits = ma.fields.Nested(
        LimitsSchema, allow_none=True, load_default=None, metadata={"description": "What each such key may use."}
    )

    @ma.post_load
    def _as_self_service(self, data: dict[str, Any], **_: Any) -> SelfService:
        models = data["models"]
        return SelfService(
            keys=data["keys"],
            days=data["days"],
            models=None if models is None else tuple(models),
            limits=Limits(**(data["limits"] or {})),
        )


class SelfServiceInForceSchema(AnswerSchema):
    """What people may make themselves; null is not limited here."""

    keys = ma.fields.Integer(metadata={"example": 2})
    days = ma.fields.Integer(allow_none=True, metadata={"example": 180})
    models = ma.fields.List(ma.fields.String(), allow_none=True, metadata={"example": None})
    limits = ma.fields.Nested(LimitsInForceSchema)


def _can_be_read(name: str) -> None:
    if problem := problem_of_name(name):
        raise ma.ValidationError(problem)


class KeyNameSchema(ma.Schema):
    """The name of a key."""

    name = ma.fields.String(required=True, validate=[*single_line(200), _can_be_read])


class OwnKeySchema(KeyNameSchema):
    """A key that somebody makes. Who it is, and everything else, is not for the form to say."""

    group = ma.fields.String(required=True, allow_none=True)
    models = ma.fields.List(ma.fields.String(), required=True, allow_none=True)
    expires_at = Moment(is_end=True, required=True, allow_none=True)


class WithoutGroupSchema(ma.Schema):
    """What people may make outside of all groups."""

    without_group = ma.fields.Nested(
        SelfServiceSchema,
        required=True,
        allow_none=True,
        metadata={"description": "null: nothing.", "example": examples.SELF_SERVICE},
    )


class WithoutGroupInForceSchema(AnswerSchema):
    without_group = ma.fields.Nested(SelfServiceInForceSchema, allow_none=True)
