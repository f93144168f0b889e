"""Schemas of the settings of the organisation."""

from __future__ import annotations

import marshmallow as ma

from ...local_time import problem_of_zone
from .. import examples
from .fields import AnswerSchema


def _is_zone(name: str) -> None:
    if problem := problem_of_zone(name):
        raise ma.ValidationError(problem)


class SettingsSchema(ma.Schema):
    """The settings to change."""

    timezone = ma.fields.String(
        required=True,
        validate=_is_zone,
        metadata={
            "description": "A name of the IANA list, like Europe/Berlin. Days, weeks and months begin in it.",
            "example": examples.SETTINGS["timezone"],
        },
    )


class PendingZoneSchema(AnswerSchema):
    timezone = ma.fields.String(metadata={"example": "Europe/Berlin"})
    since = ma.fields.String(
        metadata={"description": "When it begins to hold.", "example": "2026-12-01T00:00:00+01:00"}
    )


class SettingsInForceSchema(AnswerSchema):
    timezone = ma.fields.String(
        metadata={"description": "The time zone that holds now.", "example": examples.SETTINGS["timezone"]}
    )
    pending = ma.fields.Nested(
        PendingZoneSchema,
        allow_none=True,
        metadata={"description": "The time zone that holds from its next midnight on; null if none was set."},
    )
