"""Creates the keys of a whole class from a class list."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from flask import Response, jsonify, request

from ...accounts.class_import import Action, ClassImport, Existing, ImportRefused, Step
from ...class_lists.reading import Options
from ...records import KeyRecord
from .. import examples
from ..body import check_media_type_of_table
from ..context import services
from ..errors import invalid_fields
from ..schemas.imports import DECIMAL_SIGNS, ImportAnswerSchema, ImportQuerySchema
from ..schemas.keys import KeySchema
from ..tables import csv_table
from . import reach
from .audit_helpers import NO_SUCH_GROUP, write_down
from .blueprint import blp
from .csv_import import COLUMNS, CheckedLine, bad_lines, check_lines, models_cell, read

_DESCRIPTION = f"""\
The first line of the file names its columns: `user`, and any of {", ".join(f"`{name}`" for name in COLUMNS[1:])}.
Exports of Moodle and Canvas, and lists with the columns' names in English, German, French or Finnish, are taken as they
are; for others, `map` says which column is which field. An empty cell is a field that is not sent. `models` are
separated by spaces or semicolons. A budget needs all three of its columns, and groups must be there already. The column
`id` is ignored, so that the answer of one import can be the file of another, in another gateway.

The file may be separated by commas, semicolons or tabs, in UTF-8, UTF-16 or Windows-1252, or be an Excel workbook
(`.xlsx`), and has at most 10,000 lines. All its keys are handed out, or none: every line that is not right is named in
`errors`. `dry_run=true` shows what would happen to each line.

On this page, choose the file, also a workbook; or choose `application/csv` to write or paste the lines.

Keep the answer, and give each user the last column of their line: the keys are shown this once.
"""

_SUMMARY = "X-LLMGateway-Import"
"""The header of a CSV answer that says in JSON what was done, and how the file was understood."""

_schema = KeySchema()
_answer_schema = ImportAnswerSchema()


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
@blp.arguments(ImportQuerySchema, location="query")
@blp.doc(
    responses={
        200: {
            "description": "The plan of a dry run, or an import without new keys.",
            "content": {
                "application/json": {"schema": ImportAnswerSchema, "example": examples.IMPORT_PLAN},
                "text/csv": {"schema": {"type": "string"}, "example": examples.NO_NEW_KEYS_CSV},
            },
        },
        201: {
            "description": "The new keys, in the order of the file.",
            "content": {
                "text/csv": {"schema": {"type": "string"}, "example": examples.NEW_KEYS_CSV},
                "application/json": {"schema": ImportAnswerSchema, "example": examples.IMPORT_ANSWER},
            },
        },
    }
)
def import_keys(query: dict[str, Any]) -> Response:
    check_media_type_of_table()
    _check_group(query.get("group") or None)
    found = read(request.get_data(cache=False), _options(query))
    lines = check_lines(found.lines)
    right = [line for line in lines if not line.problems]
    planned = ClassImport(services().keys, {line.number: line.fields for line in right}, Existing(query["existing"]))
    if query["dry_run"]:
        return _shown(found.about, lines, planned.plan(), dry_run=True)
    if len(right) < len(lines):
        # The plan has more to say about the lines that are right.
        raise bad_lines(_problems(lines, planned.plan()))
    try:
        steps = planned.run()
    except ImportRefused as error:
        raise bad_lines(_problems(lines, error.steps)) from error
    _write_down(steps)
    if query["format"] == "json":
        return _shown(found.about, lines, steps, dry_run=False)
    return _table(found.about, steps)


def _options(query: Mapping[str, Any]) -> Options:
    mapping = []
    for entry in query.get("map", ()):
        field, sign, column = entry.partition("=")
        if not sign:
            raise invalid_fields({"map": [f"Must be FIELD=COLUMN, like user=Benutzer, not {entry[:100]!r}."]})
        mapping.append((field.strip().lower(), column))
    return Options(
        mapping=mapping,
        group=query.get("group") or None,
        dates=query.get("dates") or None,
        decimal=DECIMAL_SIGNS.get(query.get("decimal", "")),
        sheet=query.get("sheet") or None,
        ignore_other_columns=query["ignore_other_columns"],
    )


def _check_group(name: str | None) -> None:
    """Check the group of the query, so that it is named once and not by each line."""
    if name is not None and (services().groups.find(name) is None or not reach.reaches(name)):
        raise invalid_fields({"group": [NO_SUCH_GROUP]})


def _steps_by_line(lines: Sequence[CheckedLine], steps: Sequence[Step]) -> list[Step]:
    """Return a step for each line. *steps* has those of the lines that are right."""
    planned = iter(steps)
    return [Step(action=Action.REFUSE, problems=line.problems) if line.problems else next(planned) for line in lines]


def _problems(lines: Sequence[CheckedLine], steps: Sequence[Step]) -> dict[int, Any]:
    both = zip(lines, _steps_by_line(lines, steps), strict=True)
    return {line.number: step.problems for line, step in both if step.action is Action.REFUSE}


def _counts(steps: Sequence[Step]) -> dict[str, int]:
    counted = Counter(step.action for step in steps)
    return {action.value: counted[action] for action in Action}


def _shown(about: dict[str, Any], lines: Sequence[CheckedLine], steps: Sequence[Step], *, dry_run: bool) -> Response:
    every = _steps_by_line(lines, steps)
    answer = {
        "dry_run": dry_run,
        "file": about,
        "counts": _counts(every),
        "lines": [_line(line, step) for line, step in zip(lines, every, strict=True)],
    }
    response = jsonify(_answer_schema.dump(answer))
    response.status_code = 201 if any(step.key for step in steps) else 200
    return response


def _line(line: CheckedLine, step: Step) -> dict[str, Any]:
    return {
        "line": line.number,
        "action": step.action,
        "user": line.user,
        "group": line.fields.get("group"),
        "id": None if step.record is None else step.record.id,
        "key": step.key,
        "changes": [*step.changes, *(f"limits.{name}" for name in step.limits)],
        "reason": step.reason,
        "problems": step.problems,
    }


def _table(about: dict[str, Any], steps: Sequence[Step]) -> Response:
    rows = [_row(step.record, step.key) for step in steps if step.record is not None and step.key is not None]
    status = 201 if rows else 200
    table = csv_table(rows, ("id", *COLUMNS), name="keys.csv", verbatim=("id", "key"), status=status)
    told = {name: about[name] for name in ("format", "encoding", "separator", "sheet", "decimal", "dates", "export")}
    told |= {"notes": about["notes"], "ignored": len(about["ignored"]), "left_out": len(about["left_out"])}
    table.headers[_SUMMARY] = json.dumps({**_counts(steps), **told}, ensure_ascii=True)
    return table


def _row(record: KeyRecord, key: str) -> dict[str, Any]:
    shown = _schema.dump(record)
    limits = shown.pop("limits")
    budget = limits.pop("budget") or {}
    shown |= limits | {f"budget_{part}": value for part, value in budget.items()}
    shown |= {"models": models_cell(record.models or ()), "active": "true" if record.active else "false", "key": key}
    return {column: shown.get(column) for column in ("id", *COLUMNS)}


def _write_down(steps: Sequence[Step]) -> None:
    """Leave one entry in the audit log for the whole file, with the fields that it has changed."""
    made = [step.record.id for step in steps if step.key is not None and step.record is not None]
    changed = [step for step in steps if step.action is Action.UPDATE and step.before is not None]
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for step in changed:
        if step.before is not None and step.record is not None:
            names = [*step.changes, *(["limits"] if step.limits else [])]
            for fields, record in ((before, step.before), (after, step.record)):
                dumped = _schema.dump(record)
                fields[record.id] = {name: dumped[name] for name in names}
    told: dict[str, Any] = {"keys": len(made), "ids": made}
    groups = {step.record.group for step in steps if step.record is not None and step.action is not Action.SKIP}
    if changed:
        write_down("key.import", "", groups=groups, before={"updated": before}, after=told | {"updated": after})
    elif made:
        write_down("key.import", "", groups=groups, after=told)
