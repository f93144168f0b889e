"""Fields and base classes of the schemas."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

import marshmallow as ma
from marshmallow import validate

from ..dates import DAY, instant, shown

_INTEGER = re.compile(r"-?[0-9]{1,12}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def one_line(text: str) -> None:
    # Not a pattern: Python and JavaScript read patterns differently, and clients are generated from the schemas.
    if _CONTROL.search(text):
        raise ma.ValidationError("Must be one line, without control characters.")


def single_line(limit: int) -> list[Any]:
    return [validate.Length(min=1, max=limit), one_line]


class Moment(ma.fields.AwareDateTime):
    """A time with a zone, converted to UTC and whole milliseconds. Answers have it with the organisation's offset.

    Args:
        is_end: Whether a date without a time means the end of its day, which is the next midnight of the organisation,
            exclusive. Otherwise it means the beginning.
    """

    def __init__(self, *, is_end: bool = False, **kwargs: Any) -> None:
        whole = "until the end of that day" if is_end else "from the beginning of that day"
        messages: dict[str, str | list[Any] | dict[Any, Any]] = {
            "invalid": f"Must be a time like 2027-03-31T22:00:00Z, or a date like 2027-03-31 ({whole}).",
            "invalid_awareness": "Must say its zone, like 2027-03-31T22:00:00Z or 2027-04-01T00:00:00+02:00.",
        }
        super().__init__(format="iso", default_timezone=None, error_messages=messages, **kwargs)
        self._is_end = is_end

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> datetime:
        try:
            if isinstance(value, str) and DAY.fullmatch(value):
                return instant(value, is_end=self._is_end)
            parsed = super()._deserialize(value, *args, **kwargs).astimezone(UTC)
        except (ValueError, OverflowError) as error:  # no such day, or one at an end of the calendar
            if isinstance(error, ma.ValidationError):
                raise
            raise self.make_error("invalid") from error
        return parsed.replace(microsecond=parsed.microsecond // 1000 * 1000)

    def _serialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._serialize(None if value is None else shown(value), *args, **kwargs)


class Day(ma.fields.Date):
    """A whole day. Sums are kept by day, so a report never has a part of one."""

    default_error_messages = {"invalid": "Must be a whole day, like 2026-10-31. Both start and end are included."}

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> date:
        if not (isinstance(value, str) and DAY.fullmatch(value)):
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE)
        return super()._deserialize(value, *args, **kwargs)


class OptionalInteger(ma.fields.String):
    """A whole number in a query. It is documented as text, so that the page of the documentation can leave it out."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, *args, **kwargs)
        if not _INTEGER.fullmatch(text):
            raise ma.ValidationError("Must be a whole number.")
        return int(text)


class OptionalBoolean(ma.fields.String):
    """``true`` or ``false`` in a query; documented as :class:`OptionalInteger` is."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, *args, **kwargs)
        if text not in ("true", "false"):
            raise ma.ValidationError("Must be true or false.")
        return text == "true"


class AnswerSchema(ma.Schema):
    """A response. All fields are always present. Clients must accept additional fields of later versions."""

    class Meta:
        unknown = ma.EXCLUDE

    def on_bind_field(self, _field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = True
