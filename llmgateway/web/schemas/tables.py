"""The fields of a query that ask for CSV."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ..tables import READERS

_NAMES = ", ".join(f"`{name}`" for name in READERS)


class TableSchema(ma.Schema):
    """The base of queries whose answer can be CSV."""

    format = ma.fields.String(
        load_default="json",
        validate=validate.OneOf(["json", "csv"]),
        metadata={"description": "`csv` is for spreadsheets and programs.", "example": "json"},
    )
    reader = ma.fields.String(
        data_key="for",
        metadata={
            "description": f"With `format=csv`, who reads it: {_NAMES}. The separator, decimal commas and times are "
            "those of this spreadsheet, the file begins with a byte order mark, and money is rounded to cents that add "
            "up. Without it, the file is for programs.",
            "choices": {"a program": "", **{reader: reader for reader in READERS}},
        },
    )

    @ma.validates("reader")
    def _known_reader(self, value: str, **_: Any) -> None:
        if value not in READERS:
            raise ma.ValidationError(f"Must be one of {_NAMES}.")

    @ma.validates_schema
    def _only_csv(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("reader") and data.get("format") != "csv":
            raise ma.ValidationError("Only with format=csv.", field_name="for")
