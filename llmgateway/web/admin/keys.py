"""Keys: create, list, change, rotate and remove them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Response

from ...records import KeyRecord
from .. import examples
from ..context import services
from ..schemas.keys import (
    LONGEST_OVERLAP,
    IncludeSchema,
    KeyChangesSchema,
    KeyPageSchema,
    KeyQuerySchema,
    KeySchema,
    KeyWithSecretSchema,
    KeyWithUsageSchema,
    NewKeySchema,
    RotationSchema,
)
from ..schemas.usage import names_of
from ..tables import csv_table
from . import etags, reach
from .allowances import with_usage
from .audit_helpers import (
    SHOWN_ONCE,
    TO_END_NOW,
    Replaced,
    check_key,
    hand_out,
    refuse_unknown_group,
    shown_key,
    some_limits,
    take_back,
    write_down,
)
from .blueprint import KEY_ID_IN_PATH, blp
from .key_list import key_page
from .key_table import KEY_COLUMNS, key_row
from .names import check_names
from .validity import check_validity


@blp.route("/keys", methods=["GET"])
@blp.operation(
    "List keys page by page",
    description=(
        "The keys themselves are not stored, so they are not listed. `include` adds what each has spent this month, "
        "what is used and left of its limits, what it has used on each of the last days, and when it was used last."
    ),
)
@blp.arguments(KeyQuerySchema, location="query")
@blp.response(200, KeyPageSchema, description="Oldest first, unless `sort` says otherwise.", example=examples.KEY_PAGE)
@blp.alt_response(
    200,
    schema={"type": "string"},
    content_type="text/csv",
    description="Oldest first, unless `sort` says otherwise.",
    example=examples.KEY_LIST_CSV,
    success=True,
)
def list_keys(query: dict[str, Any]) -> dict[str, Any] | Response:
    page = key_page(query)
    if query["format"] == "csv":
        return csv_table(
            map(key_row, page.keys),
            KEY_COLUMNS,
            name="keys.csv",
            verbatim=("id",),
            reader=query.get("reader"),
            next_cursor=page.place["next"],
        )
    return {"items": with_usage(page.keys, names_of(query["include"]))} | page.place


@blp.route("/keys", methods=["POST"])
@blp.operation(
    "Create a key with all its fields",
    "KeyExists",
    "GroupRemoved",
    description="Give the `key` of the answer to its user: it is shown only this once. Only `user` is required.",
)
@blp.arguments(
    NewKeySchema,
    examples={
        "limits": {"summary": "With models and limits", "value": examples.KEY_REQUEST},
        "member": {"summary": "In a group, until a day", "value": examples.MEMBER_REQUEST},
    },
)
@blp.response(201, KeyWithSecretSchema, description=SHOWN_ONCE, example=examples.NEW_KEY)
def create_key(new: dict[str, Any]) -> dict[str, Any]:
    return hand_out(new)


@blp.route("/keys/<key_id>", methods=["GET"], parameters=[KEY_ID_IN_PATH])
@blp.operation("Look a key up", "UnknownKey", description="By its `id`, as `GET /admin/keys` lists it.")
@blp.arguments(IncludeSchema, location="query")
@blp.response(200, KeyWithUsageSchema, description="The key, without the key itself.", example=examples.KEY_LEFT)
def get_key(query: dict[str, str], key_id: str) -> dict[str, Any]:
    record = reach.key(key_id)
    etags.show(shown_key(record))
    (key,) = with_usage([record], names_of(query["include"]))
    return key


@blp.route("/keys/<key_id>", methods=["PATCH"], parameters=[KEY_ID_IN_PATH])
@blp.operation(
    "Change a key",
    "UnknownKeyOrGroupRemoved",
    description=(
        "Fields that are sent are set, `null` clears one, the others stay; the same holds for the parts of `limits`. "
        "The example changes nothing. In short:\n\n"
        '* `{"active": false}` blocks the key, `{"active": true}` lets it in again\n'
        '* `{"expires_at": "2027-10-01"}` prolongs it\n'
        '* `{"models": null}` lets it use every model\n'
        '* `{"limits": {"requests_per_minute": 30, "parallel_requests": null}}` sets one limit and lifts another\n'
        '* `{"limits": {"budget": {"amount": 5, "unit": "usd", "period": "month"}}}` sets its budget\n'
        '* `{"limits": null}` lifts all its limits\n'
    ),
)
@blp.arguments(KeyChangesSchema, example={})
@blp.response(200, KeySchema, description="The key as it is now.", example=examples.BLOCKED_KEY)
def update_key(changes: dict[str, Any], key_id: str) -> KeyRecord:
    keys = services().keys
    before = reach.key(key_id)
    check_key(before)
    if not changes:
        etags.show(shown_key(before))
        return before
    check_names(changes, before=before)
    check_validity(changes, before=before, instead=TO_END_NOW)
    organisation = services().policy.stored()
    names = tuple(changes)
    limits = some_limits(changes)

    def check(present: KeyRecord) -> None:
        check_key(present)
        reach.check_changes(changes, limits, present, organisation)

    check(before)
    if changes.get("group") != before.group:
        refuse_unknown_group(changes, organisation)
    replaced = Replaced(check)
    after = keys.update(key_id, changes, limits=limits, check=replaced)
    before = replaced.state
    groups = (before.group, after.group)
    write_down("key.update", key_id, groups=groups, before=_fields(before, names), after=_fields(after, names))
    etags.show(shown_key(after))
    return after


@blp.route("/keys/<key_id>/rotate", methods=["POST"], parameters=[KEY_ID_IN_PATH])
@blp.operation(
    "Replace a key by a new one",
    "UnknownKey",
    description=(
        "Who holds it, its limits and what it has used stay. With `overlap_seconds` the old key opens the same until "
        "`retires_at`, so that nothing stands still while the new one is put in its place. The key that an earlier "
        "rotation left valid goes at once. In the example both work for 30 days; `{}` ends the old one at once."
    ),
)
@blp.arguments(RotationSchema, example={"overlap_seconds": LONGEST_OVERLAP})
@blp.response(200, KeyWithSecretSchema, description=SHOWN_ONCE, example=examples.ROTATED_KEY)
def rotate_key(rotation: dict[str, int], key_id: str) -> dict[str, Any]:
    keys = services().keys
    reach.key(key_id)
    replaced = Replaced(check_key)
    record, key = keys.rotate(key_id, overlap_seconds=rotation["overlap_seconds"], check=replaced)
    dates = ("retires_at",)
    write_down(
        "key.rotate",
        key_id,
        groups=(record.group,),
        before=_fields(replaced.state, dates),
        after=_fields(record, dates),
    )
    etags.show(shown_key(record))
    return asdict(record) | {"key": key}


@blp.route("/keys/<key_id>", methods=["DELETE"], parameters=[KEY_ID_IN_PATH])
@blp.operation(
    "Take a key back, by its id",
    "UnknownKey",
    description="Its next request is refused, on every host. Its usage stays in the reports.",
)
@blp.response(204, description="The key was removed.")
def delete_key(key_id: str) -> None:
    take_back(key_id)


def _fields(record: KeyRecord, names: tuple[str, ...]) -> dict[str, Any]:
    shown = shown_key(record)
    return {name: shown[name] for name in names}
