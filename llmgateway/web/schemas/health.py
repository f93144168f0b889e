"""Schemas of health checks and the status."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...stores.health import DegradationLevel
from .fields import AnswerSchema


class LivenessSchema(AnswerSchema):
    status = ma.fields.String(metadata={"example": "ok"})


_RUNG: dict[str, Any] = {
    "description": (
        "What it does without while a store is away. `normal`; `without_redis`: keys are looked up in the "
        "durable store, and each process counts for limits on its own; `without_durable_store`: keys are looked up in "
        "Redis, usage records wait, nothing can be changed, and budgets whose counters are lost are not checked; "
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
            "description": "`ok`, or what is wrong, by store and for Azure's key.",
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


class StatusSchema(AnswerSchema):
    version = ma.fields.String(metadata={"example": "0.1.0"})
    rung = ma.fields.String(validate=validate.OneOf(list(DegradationLevel)), metadata=_RUNG)
    stores = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.String(),
        metadata={"description": "`ok`, or what is wrong.", "example": {"sqlite": "ok"}},
    )
    azure_key = ma.fields.String(metadata={"description": "`ok`, or what is wrong.", "example": "ok"})
    journal = ma.fields.Nested(BacklogSchema)
    slots = ma.fields.Nested(SlotsSchema)
    process = ma.fields.Nested(ProcessSchema)
