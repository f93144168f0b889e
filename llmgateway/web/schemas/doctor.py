"""Schemas of the doctor, and of the import of deployments."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...azure.endpoint import Endpoint
from .. import examples
from .fields import AnswerSchema
from .health import QuotaSchema
from .organisation import KEY_HEADERS, check_api_version, check_base_url, check_deployment_name, check_key


class DoctorSchema(ma.Schema):
    model = ma.fields.String(
        validate=validate.Length(max=256),
        metadata={
            "description": "Only this model or deployment; all if it is not given. With `base_url` the deployment to "
            "try there; without it any name will do, and only address and key are tried.",
            "example": examples.MODEL,
        },
    )
    base_url = ma.fields.String(
        validate=[validate.Length(max=1000), check_base_url],
        metadata={
            "description": "An address to try as it is typed, before it is stored. Nothing is stored.",
            "example": "https://NAME.openai.azure.com/openai/v1",
        },
    )
    api_version = ma.fields.String(
        validate=check_api_version,
        metadata={"description": "For the classic form of this address.", "example": "2024-10-21"},
    )
    key = ma.fields.String(
        load_only=True,
        validate=[validate.Length(min=1, max=1000), check_key],
        metadata={
            "description": "The key for this address. If it is not given, the stored one is sent, where it may be.",
            "example": "the key of the resource",
        },
    )
    key_header = ma.fields.String(
        validate=validate.OneOf(KEY_HEADERS),
        metadata={"description": "The header in force if it is not given.", "example": "api-key"},
    )

    @ma.validates_schema
    def _whole(self, data: dict[str, Any], **_: Any) -> None:
        if "base_url" not in data:
            for name in ("api_version", "key", "key_header"):
                if name in data:
                    raise ma.ValidationError("Send it with the base_url that it is for.", field_name=name)
            return
        try:
            Endpoint.parse(data["base_url"], data.get("api_version"))
        except ValueError as error:
            raise ma.ValidationError(f"The address {error}.", field_name="base_url") from None


class ExaminedSchema(AnswerSchema):
    """What came of trying one endpoint of one deployment."""

    model = ma.fields.String(
        allow_none=True, metadata={"description": "null for one of `LLM_BASE_URL`.", "example": examples.MODEL}
    )
    name = ma.fields.String(allow_none=True, metadata={"example": "sweden"})
    deployment = ma.fields.String(metadata={"example": examples.MODEL})
    endpoint = ma.fields.String(metadata={"example": "chat/completions"})
    ok = ma.fields.Boolean(metadata={"example": True})
    url = ma.fields.String(
        allow_none=True,
        metadata={
            "description": "Where the call went.",
            "example": "https://NAME.openai.azure.com/openai/v1/chat/completions",
        },
    )
    header = ma.fields.String(
        allow_none=True, metadata={"description": "That carries the key or the token.", "example": "api-key"}
    )
    identity = ma.fields.Boolean(metadata={"description": "Whether it is a token.", "example": False})
    api_version = ma.fields.String(allow_none=True, metadata={"example": None})
    status = ma.fields.Integer(
        allow_none=True,
        metadata={"description": "Azure's. 400 is right where the body is wrong on purpose.", "example": 200},
    )
    code = ma.fields.String(allow_none=True, metadata={"description": "Of Azure's error.", "example": None})
    problem = ma.fields.String(allow_none=True, metadata={"description": "What is wrong.", "example": None})
    remedy = ma.fields.String(allow_none=True, metadata={"description": "What to change.", "example": None})
    stream_options = ma.fields.Boolean(
        allow_none=True,
        metadata={
            "description": "Whether its streams can be asked for their count; null if that is not known. Without it, "
            "the gateway estimates the tokens of streams.",
            "example": True,
        },
    )
    quota = ma.fields.Nested(QuotaSchema, allow_none=True)
    region = ma.fields.String(allow_none=True, metadata={"example": "Sweden Central"})
    latency_ms = ma.fields.Float(
        allow_none=True, metadata={"description": "Until the head of the first answer.", "example": 212.4}
    )


class DiagnosisSchema(AnswerSchema):
    ok = ma.fields.Boolean(
        metadata={"description": "False if anything fails, or there is nothing to try.", "example": True}
    )
    items = ma.fields.List(ma.fields.Nested(ExaminedSchema))


class ImportSchema(ma.Schema):
    base_url = ma.fields.String(
        required=True,
        validate=[validate.Length(max=1000), check_base_url],
        metadata={
            "description": "Of the resource, as `LLM_BASE_URL`. The deployments get it.",
            "example": "https://NAME.openai.azure.com/openai/v1",
        },
    )
    api_version = ma.fields.String(
        validate=check_api_version,
        metadata={"description": "For the classic form of the address.", "example": "2024-10-21"},
    )
    key = ma.fields.String(
        load_only=True,
        validate=[validate.Length(min=1, max=1000), check_key],
        metadata={
            "description": "Of the resource; it is stored with each deployment, and can never be read again. If it is "
            "not given, that of `LLM_BASE_URL` is sent, to its own host only.",
            "example": "the key of the resource",
        },
    )
    identity = ma.fields.Boolean(load_default=False, metadata={"description": "Must be false.", "example": False})
    key_header = ma.fields.String(
        validate=validate.OneOf(KEY_HEADERS),
        metadata={"description": "`LLM_KEY_HEADER` if it is not given.", "example": "api-key"},
    )
    name = ma.fields.String(
        validate=[validate.Length(min=1, max=100), check_deployment_name],
        metadata={"description": "What the deployments are called here; that of the resource.", "example": "sweden"},
    )
    add = ma.fields.Boolean(
        load_default=False,
        metadata={"description": "Also add them to models that have other deployments.", "example": False},
    )
    dry_run = ma.fields.Boolean(
        load_default=False, metadata={"description": "Only say what would be done.", "example": True}
    )

    @ma.validates_schema
    def _whole(self, data: dict[str, Any], **_: Any) -> None:
        try:
            Endpoint.parse(data["base_url"], data.get("api_version"))
        except ValueError as error:
            raise ma.ValidationError(f"The address {error}.", field_name="base_url") from None


class ImportedDeploymentSchema(AnswerSchema):
    model = ma.fields.String(metadata={"description": "As users ask for it.", "example": examples.MODEL})
    name = ma.fields.String(metadata={"description": "Of the deployment, here.", "example": "sweden"})
    azure_model = ma.fields.String(
        allow_none=True, metadata={"description": "The model that is deployed.", "example": examples.MODEL}
    )
    action = ma.fields.String(
        validate=validate.OneOf(["register", "add", "exists", "not_ready"]),
        metadata={
            "description": "`register`: a new model. `add`: one more deployment. `exists`: left alone. `not_ready`: "
            "Azure has not finished to create it.",
            "example": "register",
        },
    )


class ImportedSchema(AnswerSchema):
    dry_run = ma.fields.Boolean(metadata={"example": True})
    items = ma.fields.List(ma.fields.Nested(ImportedDeploymentSchema))
