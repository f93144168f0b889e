"""Fields and base classes of the schemas."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

import marshmallow as ma
from marshmallow import validate

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def _one_line(text: str) -> None:
    # Not a pattern: Python and JavaScript read patterns differently, and clients are generated from the schemas.
    if _CONTROL.search(text):
        raise ma.ValidationError("Must be one line, without control characters.")


def single_line(limit: int) -> list[Any]:
    return [validate.Length(min=1, max=limit), _one_line]


class Moment(ma.fields.AwareDateTime):
    """A time with a zone, converted to UTC and whole milliseconds. A date without a time means its start in UTC."""

    default_error_messages = {
        "invalid": "Must be a time like 2027-03-31T22:00:00Z, or a date like 2027-03-31 (from midnight, UTC).",
        "invalid_awareness": "Must say its zone, like 2027-03-31T22:00:00Z or 2027-04-01T00:00:00+02:00.",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", default_timezone=None, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> datetime:
        if isinstance(value, str) and _DAY.fullmatch(value):
            value += "T00:00:00Z"
        parsed = super()._deserialize(value, *args, **kwargs)
        try:
            parsed = parsed.astimezone(UTC)
        except OverflowError as error:  # the first and the last day of the calendar, in zones beyond it
            raise self.make_error("invalid") from error
        return parsed.replace(microsecond=parsed.microsecond // 1000 * 1000)


class Day(ma.fields.Date):
    """A whole day, in UTC."""

    default_error_messages = {
        "invalid": "Must be a whole day in UTC, like 2026-10-31. Both start and end are included."
    }

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> date:
        if not (isinstance(value, str) and _DAY.fullmatch(value)):
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE)
        return super()._deserialize(value, *args, **kwargs)


class AnswerSchema(ma.Schema):
    """A response. All fields are always present. Clients must accept additional fields of later versions."""

    class Meta:
        unknown = ma.EXCLUDE

    def on_bind_field(self, _field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = True
