"""Schemas of the import of class lists."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...accounts.class_import import Action, Existing
from .. import examples
from .fields import AnswerSchema

DECIMAL_SIGNS = {"comma": ",", "point": "."}


class ImportQuerySchema(ma.Schema):
    """What is said about the file."""

    group = ma.fields.String(
        metadata={
            "description": "The group of those whose line names none.",
            "choices": {"as the file says": "", "one group": "ml-2026"},
        },
    )
    map = ma.fields.List(
        ma.fields.String(),
        validate=validate.Length(max=50),
        metadata={
            "description": "Which column is which field: `user=Benutzer`. Several columns are joined: "
            "`user=Vorname+Nachname`. With nothing behind the sign the field stays empty: `group=`. May be repeated.",
            "example": [],
        },
    )
    existing = ma.fields.String(
        load_default=Existing.REFUSE.value,
        validate=validate.OneOf([each.value for each in Existing], error="Must be refuse, skip, update or add."),
        metadata={
            "description": "What happens to people who have a key in the same group already: `refuse` the file, `skip` "
            "them, `update` the fields that their line names and keep the key, or `add` a further key.",
            "example": "refuse",
        },
    )
    dry_run = ma.fields.Boolean(
        load_default=False,
        metadata={"description": "true answers with the plan, in JSON. Nothing is stored, and no key is made up."},
    )
    dates = ma.fields.String(
        metadata={
            "description": "Whether 3/4/2027 is 3 April (`dmy`) or 4 March (`mdy`), if the file does not show it.",
            "choices": {"as the file shows": "", "the day first": "dmy", "the month first": "mdy"},
        },
    )
    decimal = ma.fields.String(
        metadata={
            "description": "Whether 1.234 is 1234 (`comma`) or a little more than 1 (`point`), if the file does not "
            "show it.",
            "choices": {"as the file shows": "", "1.234,56": "comma", "1,234.56": "point"},
        },
    )
    sheet = ma.fields.String(
        metadata={
            "description": "The sheet of a workbook; the first one that is not hidden if it is not given.",
            "choices": {"the first one": "", "one of them": "Sheet1"},
        }
    )
    ignore_other_columns = ma.fields.Boolean(
        load_default=False,
        metadata={
            "description": "Whether columns that are not known may be there. In exports of Moodle and Canvas they may."
        },
    )
    format = ma.fields.String(
        load_default="csv",
        validate=validate.OneOf(("csv", "json"), error="Must be csv or json."),
        metadata={
            "description": "`csv`: the new keys alone. `json`: what was done with each line, keys included.",
            "example": "csv",
        },
    )

    # Not in the documentation, where an empty text stands for none.
    @ma.validates("dates")
    def _known_order(self, value: str, **_: Any) -> None:
        if value not in ("", "dmy", "mdy"):
            raise ma.ValidationError("Must be dmy (day first) or mdy (month first).")

    @ma.validates("decimal")
    def _known_sign(self, value: str, **_: Any) -> None:
        if value not in ("", *DECIMAL_SIGNS):
            raise ma.ValidationError("Must be comma or point.")


class ImportedFileSchema(AnswerSchema):
    """How the file was understood."""

    format = ma.fields.String(metadata={"description": "`csv` or `xlsx`.", "example": "csv"})
    encoding = ma.fields.String(allow_none=True, metadata={"example": "cp1252"})
    separator = ma.fields.String(allow_none=True, metadata={"example": ";"})
    sheet = ma.fields.String(allow_none=True, metadata={"example": None})
    decimal = ma.fields.String(allow_none=True, metadata={"description": "The decimal sign.", "example": ","})
    dates = ma.fields.String(
        allow_none=True, metadata={"description": "What comes first in 3/4/2027; null: not known.", "example": "dmy"}
    )
    export = ma.fields.String(
        allow_none=True,
        metadata={
            "description": "`moodle`, `canvas`, `names` for another list with first and last names; null for a list "
            "with the columns named above.",
            "example": "moodle",
        },
    )
    columns = ma.fields.Dict(
        metadata={
            "description": "The columns of the file, by field.",
            "example": examples.IMPORT_PLAN["file"]["columns"],
        }
    )
    ignored = ma.fields.List(ma.fields.String(), metadata={"description": "Columns that were not used."})
    left_out = ma.fields.List(
        ma.fields.Dict(), metadata={"description": "Lines that are not about people, and why.", "example": []}
    )
    notes = ma.fields.List(ma.fields.String(), metadata={"description": "What was guessed, for you to check."})


class ImportCountsSchema(AnswerSchema):
    create = ma.fields.Integer(metadata={"example": 1})
    skip = ma.fields.Integer(metadata={"example": 1})
    update = ma.fields.Integer(metadata={"example": 0})
    refuse = ma.fields.Integer(metadata={"example": 0})


class ImportedLineSchema(AnswerSchema):
    """What happens to one line, or has happened."""

    line = ma.fields.Integer(metadata={"description": "Its number in the file.", "example": 2})
    action = ma.fields.Enum(Action, by_value=True, metadata={"example": "create"})
    user = ma.fields.String(allow_none=True, metadata={"example": "Ada Lovelace"})
    group = ma.fields.String(allow_none=True, metadata={"example": "ml-2026"})
    id = ma.fields.String(
        allow_none=True, metadata={"description": "Of the key; null before it is made.", "example": None}
    )
    key = ma.fields.String(
        allow_none=True, metadata={"description": "The new key, shown this once; null otherwise.", "example": None}
    )
    changes = ma.fields.List(
        ma.fields.String(), metadata={"description": "The fields of a key that are updated.", "example": []}
    )
    reason = ma.fields.String(allow_none=True, metadata={"description": "Why the line is skipped.", "example": None})
    problems = ma.fields.Dict(metadata={"description": "Why the line is refused, by column.", "example": {}})


class ImportAnswerSchema(AnswerSchema):
    dry_run = ma.fields.Boolean(metadata={"description": "Whether this is a plan.", "example": True})
    file = ma.fields.Nested(ImportedFileSchema)
    counts = ma.fields.Nested(ImportCountsSchema)
    lines = ma.fields.List(ma.fields.Nested(ImportedLineSchema))
