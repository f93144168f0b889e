"""Schemas of health checks and the status."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...stores.health import DegradationLevel
from .. import examples
from .fields import AnswerSchema, Moment


class LivenessSchema(AnswerSchema):
    status = ma.fields.String(metadata={"example": "ok"})


_RUNG: dict[str, Any] = {
    "description": (
        "What it does without while a store is away. `normal`; `without_redis`: keys are looked up in the "
        "durable store, and each process counts for limits on its own; `without_durable_store`: keys are looked up in "
        "Redis, or in a durable store that is read-only, usage records wait, nothing can be changed, "
        "and budgets whose counters are lost are not checked; "
        "`memory_only`: only keys that this process has seen are known."
    ),
    "example": "normal",
}


class BacklogSchema(AnswerSchema):
    records = ma.fields.Integer(metadata={"description": "Usage records not in the usage log yet.", "example": 0})
    oldest_seconds = ma.fields.Float(metadata={"description": "How long the oldest waits.", "example": 0.0})
    problem = ma.fields.String(
        allow_none=True, metadata={"description": "Why they wait, if something is wrong.", "example": None}
    )


class ReadinessSchema(AnswerSchema):
    status = ma.fields.String(
        validate=validate.OneOf(["ok", "degraded", "unavailable"]),
        metadata={"description": "`degraded`: serves, and something needs an admin.", "example": "ok"},
    )
    rung = ma.fields.String(validate=validate.OneOf(list(DegradationLevel)), metadata=_RUNG)
    checks = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.String(),
        metadata={
            "description": "`ok`, or what is wrong, by store and for Azure's key; `deployments` if some registered "
            "ones cannot be called.",
            "example": {"sqlite": "ok", "azure_key": "ok"},
        },
    )
    journal = ma.fields.Nested(BacklogSchema)


class SlotsSchema(AnswerSchema):
    capacity = ma.fields.Integer(metadata={"description": "Requests this process relays at once.", "example": 124})
    taken = ma.fields.Integer(metadata={"description": "Requests it relays now.", "example": 3})
    streams = ma.fields.Integer(metadata={"description": "How many of these are streams.", "example": 2})
    refused = ma.fields.Integer(
        metadata={"description": "Requests answered with `overloaded` since it started.", "example": 0}
    )


class ProcessSchema(AnswerSchema):
    id = ma.fields.Integer(metadata={"description": "The one that gave this answer.", "example": 17})
    processes = ma.fields.Integer(metadata={"description": "How many there are on this host.", "example": 2})
    threads = ma.fields.Integer(metadata={"description": "Threads of each.", "example": 128})


class QuotaSchema(AnswerSchema):
    """What the headers of Azure's last answer say."""

    limit_requests = ma.fields.Integer(allow_none=True, metadata={"description": "Per minute.", "example": 120})
    remaining_requests = ma.fields.Integer(allow_none=True, metadata={"example": 119})
    limit_tokens = ma.fields.Integer(allow_none=True, metadata={"description": "Per minute.", "example": 120_000})
    remaining_tokens = ma.fields.Integer(allow_none=True, metadata={"example": 119_986})


class LoweredQuotaSchema(AnswerSchema):
    at = Moment(metadata={"description": "When Azure lowered it.", "example": "2026-10-31T09:00:00.000000+00:00"})
    before = ma.fields.Nested(QuotaSchema)


class LastErrorSchema(AnswerSchema):
    at = Moment(metadata={"example": "2026-10-31T09:11:50.000000+00:00"})
    status = ma.fields.Integer(
        allow_none=True, metadata={"description": "Azure's; null where no answer came.", "example": 429}
    )
    code = ma.fields.String(
        allow_none=True, metadata={"description": "As in usage records.", "example": "rate_limit_tokens"}
    )


class DeploymentStateSchema(AnswerSchema):
    """A deployment, and what the process that answers knows of it. Cooldowns are known to all hosts with Redis."""

    model = ma.fields.String(
        allow_none=True, metadata={"description": "null for one of `LLM_BASE_URL`.", "example": examples.MODEL}
    )
    name = ma.fields.String(allow_none=True, metadata={"example": "sweden"})
    base_url = ma.fields.String(metadata={"example": "https://NAME.openai.azure.com/openai/v1"})
    deployment = ma.fields.String(metadata={"description": "Its name at Azure.", "example": examples.MODEL})
    priority = ma.fields.Integer(allow_none=True, metadata={"example": 1})
    weight = ma.fields.Float(allow_none=True, metadata={"example": 1.0})
    problem = ma.fields.String(allow_none=True, metadata={"description": "Why it cannot be called.", "example": None})
    rests_until = Moment(
        allow_none=True,
        metadata={"description": "Until when others are asked in its place.", "example": None},
    )
    rests_because = ma.fields.String(
        allow_none=True,
        validate=validate.OneOf(["limited", "failed"]),
        metadata={"description": "`limited`: a 429. `failed`: its circuit is open.", "example": None},
    )
    failures = ma.fields.Integer(
        metadata={
            "description": "In a row; from 3 on its circuit is open, and one request at a time tests it.",
            "example": 0,
        }
    )
    region = ma.fields.String(allow_none=True, metadata={"example": "Sweden Central"})
    quota = ma.fields.Nested(QuotaSchema, allow_none=True)
    quota_at = Moment(allow_none=True, metadata={"example": "2026-10-31T09:12:07.345000+00:00"})
    quota_lowered = ma.fields.Nested(
        LoweredQuotaSchema, allow_none=True, metadata={"description": "null unless Azure has lowered a limit."}
    )
    last_error = ma.fields.Nested(LastErrorSchema, allow_none=True)


class StatusSchema(AnswerSchema):
    version = ma.fields.String(metadata={"example": "0.1.0"})
    rung = ma.fields.String(validate=validate.OneOf(list(DegradationLevel)), metadata=_RUNG)
    stores = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.String(),
        metadata={"description": "`ok`, or what is wrong.", "example": {"sqlite": "ok"}},
    )
    warnings = ma.fields.List(
        ma.fields.String(),
        metadata={"description": "Settings that should be changed, and unknown ones; as at start.", "example": []},
    )
    azure_key = ma.fields.String(
        metadata={"description": "Of `LLM_BASE_URL`: `ok`, or what is wrong.", "example": "ok"}
    )
    journal = ma.fields.Nested(BacklogSchema)
    slots = ma.fields.Nested(SlotsSchema)
    process = ma.fields.Nested(ProcessSchema)
    deployments = ma.fields.List(
        ma.fields.Nested(DeploymentStateSchema),
        metadata={"description": "The registered ones, and those of `LLM_BASE_URL` that have answered this process."},
    )
    unpriced_models = ma.fields.List(
        ma.fields.String(),
        metadata={
            "description": "Models that were used today or yesterday (UTC) at a price that is not known, at most 20. "
            "Set their prices with `PUT /admin/models/{name}`.",
            "example": [],
        },
    )
