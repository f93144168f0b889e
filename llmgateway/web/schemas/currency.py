"""Schemas of the second currency."""

from __future__ import annotations

import math
import re
from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...usage.currency import DOLLAR, MONTH
from .fields import AnswerSchema

_CODE = re.compile("[A-Z]{3}")
_MOST_MONTHS = 1200


def _check_code(code: str) -> None:
    if code == DOLLAR:
        raise ma.ValidationError("Costs are in US dollars already: name another currency, or send null for none.")
    if not _CODE.fullmatch(code):
        raise ma.ValidationError("Must be the code of a currency in ISO 4217, in capitals, like EUR, CHF or SEK.")


def check_month(month: str) -> None:
    if not MONTH.fullmatch(month):
        raise ma.ValidationError("Must be a month like 2026-10.")


class _Rate(ma.fields.Float):
    """A positive number."""

    default_error_messages = {"invalid": "Must be a number, like 0.92.", "special": "Must be a number, like 0.92."}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        # Not a text: that may have a decimal comma, or separators of thousands.
        if isinstance(value, (bool, str)):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, *args, **kwargs)


def _check_rate(rate: float) -> None:
    if not (0 < rate <= 1_000_000 and math.isfinite(rate)):
        raise ma.ValidationError("Must be more than 0, and at most 1000000: how much of the currency a US dollar is.")


def _rates(**options: Any) -> ma.fields.Dict:
    return ma.fields.Dict(
        keys=ma.fields.String(validate=check_month),
        values=_Rate(validate=_check_rate, **options),
        validate=validate.Length(max=_MOST_MONTHS, error="At most {max} months."),
        metadata={
            "description": "By month: how much of the currency a US dollar was.",
            "example": {"2026-09": 0.91, "2026-10": 0.92},
        },
    )


def _code(**options: Any) -> ma.fields.String:
    return ma.fields.String(
        validate=_check_code, metadata={"description": "As in ISO 4217.", "example": "EUR"}, **options
    )


class CurrencyFieldsSchema(ma.Schema):
    """All that the currency is."""

    code = _code(required=True, allow_none=True)
    rates = _rates()

    @ma.validates_schema
    def _no_rates_of_nothing(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("code", "") is None and data.get("rates"):
            raise ma.ValidationError("There are no rates without a currency: name its code.", field_name="rates")


class CurrencyChangesSchema(ma.Schema):
    """The rates to change; the others stay."""

    code = _code()
    rates = _rates(allow_none=True)


class CurrencySchema(AnswerSchema):
    code = ma.fields.String(allow_none=True, metadata={"description": "null: there is none.", "example": "EUR"})
    rates = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.Float(),
        metadata={
            "description": "By month: how much of the currency a US dollar was.",
            "example": {"2026-09": 0.91, "2026-10": 0.92},
        },
    )
