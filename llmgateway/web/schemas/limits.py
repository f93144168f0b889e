"""Schemas of limits, and of what remains of them."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...ratelimit.rules import NANODOLLARS
from ...records import Budget, Period, Unit
from .fields import AnswerSchema, Moment

_MOST = 10**12
"""Maximum limit of tokens and requests. Counters are exact up to 2**53, like all numbers in the scripts of Redis."""

_MOST_DOLLARS = 10**6
"""Maximum budget in dollars, which are counted in billionths; see ``_MOST``."""

_BLOCK = "To let nothing through, block the key ('active': false); for no limit, send null."


_PARTS: dict[str, Any] = {
    "required": "Is missing. A budget has an amount, a unit (usd, tokens or requests) and a period (day, week, month "
    "or total)."
}


class Amount(ma.fields.Float):
    """A number; a whole one is written without a point."""

    default_error_messages = {"invalid": "Must be a number, like 12.5."}

    def _serialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        number = super()._serialize(value, *args, **kwargs)
        return int(number) if isinstance(number, float) and number.is_integer() else number


def _whole(description: str, example: int) -> ma.fields.Integer:
    return ma.fields.Integer(
        strict=True,
        allow_none=True,
        error_messages={"invalid": "Must be a whole number."},
        validate=validate.Range(min=1, max=_MOST, error="Must be from {min} to {max}. " + _BLOCK),
        metadata={"description": description, "example": example},
    )


class BudgetSchema(ma.Schema):
    """What may be used within a period; days, weeks (from Monday on) and months are the calendar's, in the
    organisation's time zone (``GET /admin/settings``)."""

    amount = Amount(
        required=True,
        error_messages=_PARTS,
        validate=validate.Range(min=0, min_inclusive=False, error="Must be more than 0. " + _BLOCK),
        metadata={"description": "In the unit below.", "example": 5},
    )
    unit = ma.fields.String(
        required=True,
        error_messages=_PARTS,
        validate=validate.OneOf(list(Unit)),
        metadata={"description": "`usd`, `tokens` or `requests`.", "example": "usd"},
    )
    period = ma.fields.String(
        required=True,
        error_messages=_PARTS,
        validate=validate.OneOf(list(Period)),
        metadata={"description": "`day`, `week`, `month`, or `total` for one that never renews.", "example": "month"},
    )

    @ma.validates_schema
    def _countable(self, data: dict[str, Any], **_: Any) -> None:
        amount, unit = data["amount"], data["unit"]
        if unit == Unit.USD and not 1 / NANODOLLARS <= amount <= _MOST_DOLLARS:
            raise ma.ValidationError(f"Must be more than 0 and at most {_MOST_DOLLARS} dollars.", field_name="amount")
        if unit != Unit.USD and not (amount.is_integer() and amount <= _MOST):
            raise ma.ValidationError(f"Must be a whole number of {unit}, at most {_MOST}.", field_name="amount")

    @ma.post_load
    def _as_budget(self, data: dict[str, Any], **_: Any) -> Budget:
        return Budget(amount=data["amount"], unit=Unit(data["unit"]), period=Period(data["period"]))


class LimitsSchema(ma.Schema):
    """Each part is a limit of its own; what is left out or null is not limited."""

    requests_per_minute = _whole("Requests within any 60 seconds.", 30)
    tokens_per_minute = _whole("Tokens of prompts and answers within any 60 seconds.", 40_000)
    parallel_requests = _whole("Requests that run at the same time.", 4)
    budget = ma.fields.Nested(BudgetSchema, allow_none=True)


class OrganisationLimitsSchema(LimitsSchema):
    """What ``GET /admin/limits`` shows can be sent back: what is left is ignored."""

    @ma.pre_load
    def _without_remaining(self, data: Any, **_: Any) -> Any:
        return {name: data[name] for name in data if name != "remaining"} if isinstance(data, dict) else data


class BudgetInForceSchema(AnswerSchema):
    amount = Amount(metadata={"example": 5})
    unit = ma.fields.String(metadata={"description": "`usd`, `tokens` or `requests`.", "example": "usd"})
    period = ma.fields.String(metadata={"description": "`day`, `week`, `month` or `total`.", "example": "month"})


class LimitsInForceSchema(AnswerSchema):
    """null is no limit."""

    requests_per_minute = ma.fields.Integer(allow_none=True, metadata={"example": 30})
    tokens_per_minute = ma.fields.Integer(allow_none=True, metadata={"example": 40_000})
    parallel_requests = ma.fields.Integer(allow_none=True, metadata={"example": 4})
    budget = ma.fields.Nested(BudgetInForceSchema, allow_none=True)


class RemainingSchema(AnswerSchema):
    """What remains of each limit now; null if there is no limit."""

    requests_per_minute = ma.fields.Integer(allow_none=True, metadata={"example": 29})
    tokens_per_minute = ma.fields.Integer(allow_none=True, metadata={"example": 38_200})
    parallel_requests = ma.fields.Integer(allow_none=True, metadata={"example": 4})
    budget = Amount(
        allow_none=True, metadata={"description": "What is not spent of it, in its own unit.", "example": 4.25}
    )


class AllowanceSchema(AnswerSchema):
    """A limit, what is used and left of it now, and when it renews."""

    limit = Amount(metadata={"example": 30})
    used = Amount(
        allow_none=True,
        metadata={"description": "null: not known, because the usage log is unavailable.", "example": 12},
    )
    left = Amount(allow_none=True, metadata={"example": 18})
    renews_at = Moment(
        allow_none=True,
        metadata={
            "description": "When all of it is free again, if no more is used; null: never, or nothing is used.",
            "example": "2026-10-31T09:13:08.000000+00:00",
        },
    )


class BudgetAllowanceSchema(AllowanceSchema):
    """In the budget's unit; `used` is what is spent. Running requests may hold a part of what is left."""

    limit = Amount(metadata={"example": 5})
    used = Amount(
        allow_none=True,
        metadata={"description": "null: not known, because the usage log is unavailable.", "example": 0.75},
    )
    left = Amount(allow_none=True, metadata={"example": 4.25})
    renews_at = Moment(
        allow_none=True,
        metadata={"description": "When its next period begins; null: never.", "example": "2026-11-01T00:00:00+00:00"},
    )
    unit = ma.fields.String(metadata={"description": "`usd`, `tokens` or `requests`.", "example": "usd"})
    period = ma.fields.String(metadata={"description": "`day`, `month` or `total`.", "example": "month"})


class AllowancesSchema(AnswerSchema):
    """What is used and left of each limit now; null if there is no limit."""

    requests_per_minute = ma.fields.Nested(AllowanceSchema, allow_none=True)
    tokens_per_minute = ma.fields.Nested(AllowanceSchema, allow_none=True)
    parallel_requests = ma.fields.Nested(AllowanceSchema, allow_none=True)
    budget = ma.fields.Nested(BudgetAllowanceSchema, allow_none=True)


class LimitsWithAllowancesSchema(LimitsInForceSchema):
    remaining = ma.fields.Nested(AllowancesSchema)


class ScopeAllowanceSchema(AnswerSchema):
    """Limits, and what remains of them."""

    limits = ma.fields.Nested(LimitsInForceSchema)
    remaining = ma.fields.Nested(RemainingSchema)


class SharedBudgetSchema(BudgetInForceSchema):
    amount = Amount(
        allow_none=True,
        metadata={"description": "null unless the admin shows it (`LLMGATEWAY_SHOW_SHARED`).", "example": None},
    )


class SharedLimitsSchema(LimitsInForceSchema):
    budget = ma.fields.Nested(SharedBudgetSchema, allow_none=True)


class SharedRemainingSchema(RemainingSchema):
    budget = Amount(
        allow_none=True,
        metadata={"description": "null unless the admin shows it (`LLMGATEWAY_SHOW_SHARED`).", "example": None},
    )


class SharedAllowanceSchema(AnswerSchema):
    """Limits that are shared with other people."""

    limits = ma.fields.Nested(SharedLimitsSchema)
    remaining = ma.fields.Nested(SharedRemainingSchema)


class SharedAllowancesSchema(AnswerSchema):
    group = ma.fields.Nested(
        SharedAllowanceSchema,
        allow_none=True,
        metadata={"description": "With the others of your group; null if it has no limits."},
    )
    organisation = ma.fields.Nested(
        SharedAllowanceSchema,
        allow_none=True,
        metadata={"description": "With everybody; null if there are no limits."},
    )
