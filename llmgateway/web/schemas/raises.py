"""Schemas of limits that are raised for a while."""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from ...records import LIMIT_PARTS, Limits, moment
from .. import examples
from ..context import services
from .fields import AnswerSchema, Moment
from .limits import LimitsInForceSchema, LimitsSchema


class NewRaiseSchema(ma.Schema):
    """Which limits are raised, to what, and for how long. The others stay as they are."""

    limits = ma.fields.Nested(
        LimitsSchema,
        required=True,
        metadata={"description": "The higher limits. A budget has the unit and the period of the one that it raises."},
    )
    until = Moment(
        is_end=True,
        required=True,
        metadata={
            "description": "When they end by themselves: a time, or a day, at whose end they do.",
            "example": examples.RAISE["until"],
        },
    )

    @ma.post_load
    def _as_limits(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        named = {part: value for part, value in data["limits"].items() if value is not None}
        if not named:
            parts = ", ".join(LIMIT_PARTS)
            raise ma.ValidationError({"limits": [f"Must name what is raised: one or more of {parts}."]})
        return {"limits": Limits(**named), "until": data["until"]}


class RaiseSchema(AnswerSchema):
    """Limits that are raised for a while."""

    limits = ma.fields.Nested(
        LimitsInForceSchema, metadata={"description": "null is not raised.", "example": examples.RAISE["limits"]}
    )
    until = Moment(metadata={"description": "When the raise ends by itself.", "example": examples.RAISE["until"]})


class RaiseField(ma.fields.Nested):
    """The raise of an object that has ``raised``; null if there is none, or if it has ended."""

    def __init__(self) -> None:
        super().__init__(
            RaiseSchema,
            attribute="raised",
            data_key="raise",
            allow_none=True,
            metadata={"description": "Limits that are raised for a while; null if none are.", "example": None},
        )

    def _serialize(  # type: ignore[override]
        self, nested_obj: Any, attr: Any, obj: Any, **kwargs: Any
    ) -> Any:
        until = nested_obj["until"] if isinstance(nested_obj, dict) else getattr(nested_obj, "until", None)
        if until is None or until <= moment(services().clock()):
            return None
        return super()._serialize(nested_obj, attr, obj, **kwargs)  # type: ignore[no-untyped-call]
