"""The limits of the organisation."""

from __future__ import annotations

from typing import Any

from ...records import Limits
from .. import examples
from ..context import services
from ..schemas.limits import LimitsInForceSchema, LimitsSchema
from .audit_helpers import write_down
from .blueprint import blp

_schema = LimitsInForceSchema()


@blp.route("/limits", methods=["GET"])
@blp.operation(
    "Read the organisation's limits",
    description="They apply to all keys together.",
)
@blp.response(200, LimitsInForceSchema, description="In force.", example=examples.ORGANISATION_LIMITS)
def get_limits() -> Limits:
    return services().policy.stored().limits


@blp.route("/limits", methods=["PUT"])
@blp.operation(
    "Set the organisation's limits",
    description=(
        "All of them are replaced: a part that is not sent is no limit afterwards. When the tokens per minute run "
        "short, keys that have used less than an equal share of them are let in first."
    ),
)
@blp.arguments(
    LimitsSchema,
    examples={
        "limits": {
            "summary": "Azure's quota, and a budget",
            "value": {name: value for name, value in examples.ORGANISATION_LIMITS.items() if value},
        },
        "none": {"summary": "No limits", "value": {}},
    },
)
@blp.response(200, LimitsInForceSchema, description="In force.", example=examples.ORGANISATION_LIMITS)
def set_limits(parts: dict[str, Any]) -> Limits:
    policy, limits = services().policy, Limits(**parts)
    before = policy.stored().limits
    policy.set_limits(limits)
    write_down("limits.set", "", before=_schema.dump(before), after=_schema.dump(limits))
    return limits


@blp.route("/limits", methods=["PATCH"])
@blp.operation(
    "Change some of the organisation's limits",
    description="Limits that are sent are set; `null` removes a limit; the others do not change.",
)
@blp.arguments(
    LimitsSchema,
    example={"budget": examples.ORGANISATION_LIMITS["budget"], "parallel_requests": None},
)
@blp.response(200, LimitsInForceSchema, description="In force.", example=examples.ORGANISATION_LIMITS)
def update_limits(parts: dict[str, Any]) -> Limits:
    policy = services().policy
    before = policy.stored().limits
    after = policy.update_limits(parts)
    write_down("limits.set", "", before=_schema.dump(before), after=_schema.dump(after))
    return after
