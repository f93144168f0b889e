"""Schemas of the settings of the organisation."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...local_time import problem_of_zone
from .. import examples
from .fields import AnswerSchema
from .organisation import KEY_HEADERS, check_api_version, check_base_url


def _is_zone(name: str) -> None:
    if problem := problem_of_zone(name):
        raise ma.ValidationError(problem)


class SettingsSchema(ma.Schema):
    """The settings to change."""

    timezone = ma.fields.String(
        validate=_is_zone,
        metadata={
            "description": "A name of the IANA list, like Europe/Berlin. Days, weeks and months begin in it.",
            "example": examples.SETTINGS["timezone"],
        },
    )

    base_url = ma.fields.String(
        allow_none=True,
        validate=[validate.Length(max=1000), check_base_url],
        metadata={
            "description": "The address of Azure, in any form that the portal shows, as `LLM_BASE_URL`. null removes "
            "it.",
            "example": "https://NAME.openai.azure.com/openai/v1",
        },
    )
    api_version = ma.fields.String(
        allow_none=True,
        validate=check_api_version,
        metadata={"description": "For the classic form of the address.", "example": "2024-10-21"},
    )
    key_header = ma.fields.String(
        allow_none=True,
        validate=validate.OneOf(KEY_HEADERS),
        metadata={
            "description": "The header that carries Azure's key; `api-key` if it is not set.",
            "example": "api-key",
        },
    )

    @ma.validates_schema
    def _something(self, data: dict[str, Any], **_: Any) -> None:
        if not data:
            raise ma.ValidationError("Send at least one setting to change.", field_name="timezone")


class StoredAddressSchema(AnswerSchema):
    """What an admin has stored, whether it is in force or not."""

    base_url = ma.fields.String(allow_none=True, metadata={"example": "https://NAME.openai.azure.com/openai/v1"})
    api_version = ma.fields.String(allow_none=True, metadata={"example": None})
    key_header = ma.fields.String(allow_none=True, metadata={"example": None})


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
    base_url = ma.fields.String(
        allow_none=True,
        metadata={
            "description": "The address of Azure in force, without its query; null if there is none: then only models "
            "with deployments of their own can be used.",
            "example": "https://NAME.openai.azure.com/openai/v1",
        },
    )
    api_version = ma.fields.String(allow_none=True, metadata={"example": None})
    key_header = ma.fields.String(metadata={"example": "api-key"})
    stored = ma.fields.Nested(StoredAddressSchema)
    from_environment = ma.fields.List(
        ma.fields.String(),
        metadata={
            "description": "The fields that the environment sets: it wins over what is stored.",
            "example": ["base_url"],
        },
    )
    overridden = ma.fields.List(
        ma.fields.String(),
        metadata={
            "description": "A sentence for each field that is stored and not used.",
            "example": ["LLM_BASE_URL in the environment wins over what is stored."],
        },
    )
    azure_key = ma.fields.String(
        metadata={"description": "`ok`, or what is wrong with the key for this address.", "example": "ok"}
    )
