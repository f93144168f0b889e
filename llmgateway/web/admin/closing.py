"""The end of a group: of a course when its term is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import request

from ...accounts.closing import Closing, Fate, Member
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.bulk import ClosedSchema, ClosingQuerySchema, ClosingSchema
from ..tables import csv_table
from . import reach
from .audit_helpers import NO_SUCH_GROUP, write_down
from .blueprint import blp

COLUMNS = ("id", "user", "name", "email", "happened")

_answer_schema = ClosedSchema()


@blp.route(
    "/groups/<name>/close",
    methods=["POST"],
    parameters=[{"in": "path", "name": "name", "description": "The group.", "example": examples.NO_GROUP}],
)
@blp.operation(
    "End a group",
    "UnknownGroup",
    "GroupInUse",
    description=(
        "`remove` removes its keys and the group, `move_to` moves its keys and removes the group, and `block` blocks "
        "its keys and keeps the group, which takes no requests from then on: its `expires_at` is now. Running answers "
        "of keys that are removed or blocked end. Usage records and sums stay. The answer names everybody, so that "
        "you can tell them; as JSON, or as CSV. If the call fails in between, repeat it: it does the rest, and names "
        "those whose keys were still there. With `dry_run` it shows the same and changes nothing."
    ),
)
@blp.arguments(ClosingQuerySchema, location="query")
@blp.arguments(ClosingSchema, example={"keys": "remove", "dry_run": True})
@blp.response(200, ClosedSchema, description="The members, oldest key first.", example=examples.CLOSED_GROUP)
@blp.alt_response(
    200,
    schema={"type": "string"},
    content_type="text/csv",
    description="The members, oldest key first.",
    example=examples.CLOSED_GROUP_CSV,
    success=True,
)
def close_group(query: dict[str, Any], sent: dict[str, Any], name: str) -> Any:
    closing = _closing(name, *sent["keys"])
    if closing.move_to is not None and reach.reach() is not None:
        keys = (member.key for member in services().closings.preview(closing))
        reach.check_moved(keys, closing.move_to, field="keys.move_to")
    if sent["dry_run"]:
        members = services().closings.preview(closing)
    else:
        members = services().closings.close(closing)
        _write_down(closing, members)
    rows = [{part: getattr(one.key, part) for part in COLUMNS[:-1]} | {"happened": one.happened} for one in members]
    if _wants_csv(query):
        return csv_table(rows, COLUMNS, name="members.csv", verbatim=("id",))
    fate = "closed" if closing.fate is Fate.BLOCK else "removed"
    return {"name": name, "group": fate, "count": len(rows), "items": rows, "dry_run": sent["dry_run"]}


def _closing(name: str, fate: str, move_to: str | None) -> Closing:
    """Return what is wanted. Raises NotFound, or InvalidFields."""
    groups = services().groups
    reach.check_group(name)
    groups.get(name)
    if move_to == name:
        raise invalid_fields({"keys.move_to": ["Must be another group than the one that ends."]})
    if move_to is not None and (groups.find(move_to) is None or not reach.reaches(move_to)):
        raise invalid_fields({"keys.move_to": [NO_SUCH_GROUP]})
    return Closing(group=name, fate=Fate(fate), move_to=move_to)


def _wants_csv(query: dict[str, Any]) -> bool:
    wanted = query.get("format")
    if wanted is not None:
        return bool(wanted == "csv")
    return request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv"


def _write_down(closing: Closing, members: Sequence[Member]) -> None:
    """Record the end in one entry, without names: these may have to be erased some day."""
    moved = {} if closing.move_to is None else {"move_to": closing.move_to}
    ids = [one.key.id for one in members]
    groups = {closing.group} if closing.move_to is None else {closing.group, closing.move_to}
    write_down(
        "group.close",
        closing.group,
        groups=groups,
        after={"keys": closing.fate, **moved, "count": len(ids), "ids": ids},
    )
