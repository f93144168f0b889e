"""Creates the keys of a whole class from a CSV file."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from ...accounts.keys import KeysExist
from ...records import KeyRecord
from .. import examples
from ..body import check_media_type_of_table
from ..context import services
from ..schemas.keys import KeySchema
from ..tables import csv_table
from .audit_helpers import write_down
from .blueprint import blp
from .csv_import import COLUMNS, bad_lines, models_cell, read_lines

_DESCRIPTION = f"""\
The first line of the file names its columns: `user`, and any of {", ".join(f"`{name}`" for name in COLUMNS[1:])}.
An empty cell is a field that is not sent. `models` are separated by spaces or semicolons. A budget needs all three of
its columns, and groups must be there already. The column `id` is ignored, so that the answer of one import can be the
file of another, in another gateway.

The file may be separated by commas, semicolons or tabs, must be UTF-8 (with or without a byte order mark; Excel calls
it *CSV UTF-8*), and has at most 10,000 lines. All its keys are handed out, or none: every line that is not right is
named in `errors`.

On this page, choose the file; or choose `application/csv` to write or paste the lines.

Keep the answer, and give each user the last column of their line: the keys are shown this once.
"""

_schema = KeySchema()


@blp.route("/keys/import", methods=["POST"])
@blp.operation(
    "Create keys for a whole class",
    "BodyTooLarge",
    "NotCSV",
    "InvalidLines",
    "GroupRemoved",
    description=_DESCRIPTION,
    requestBody={
        "required": True,
        "content": {
            # Swagger UI shows a field to choose a file for the first, and one to write in for the second.
            "text/csv": {"schema": {"type": "string", "format": "binary"}, "example": examples.KEYS_CSV},
            "application/csv": {"schema": {"type": "string"}, "example": examples.KEYS_CSV},
        },
    },
)
@blp.doc(
    responses={
        201: {
            "description": "The new keys, in the order of the file.",
            "content": {"text/csv": {"schema": {"type": "string"}, "example": examples.NEW_KEYS_CSV}},
        }
    }
)
def import_keys() -> Response:
    check_media_type_of_table()
    lines = read_lines(request.get_data(cache=False))
    try:
        made = services().keys.create_all([line.fields for line in lines])
    except KeysExist as error:
        taken = {"key": ["This key is handed out already, or stands in the file twice."]}
        raise bad_lines({lines[place].number: taken for place in error.places}) from error
    groups = {record.group for record, _ in made}
    write_down("key.import", "", groups=groups, after={"keys": len(made), "ids": [record.id for record, _ in made]})
    rows = [_row(record, key) for record, key in made]
    return csv_table(rows, ("id", *COLUMNS), name="keys.csv", verbatim=("id", "key"), status=201)


def _row(record: KeyRecord, key: str) -> dict[str, Any]:
    shown = _schema.dump(record)
    limits = shown.pop("limits")
    budget = limits.pop("budget") or {}
    shown |= limits | {f"budget_{part}": value for part, value in budget.items()}
    shown |= {"models": models_cell(record.models or ()), "active": "true" if record.active else "false", "key": key}
    return {column: shown.get(column) for column in ("id", *COLUMNS)}
