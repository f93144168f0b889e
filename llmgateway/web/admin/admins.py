"""Named admins: create, list, change, rotate and remove them. Only owners do this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ...records import AdminRecord, moment
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.admins import (
    AdminChangesSchema,
    AdminListSchema,
    AdminSchema,
    AdminWithSecretSchema,
    NewAdminSchema,
)
from ..schemas.keys import RotationSchema
from ..schemas.names import problem_of_name
from . import etags
from .audit_helpers import NO_SUCH_GROUP, write_down
from .blueprint import blp

_ID_IN_PATH = {
    "in": "path",
    "name": "admin_id",
    "description": "The `id` of an admin, not the key.",
    "example": examples.ADMIN["id"],
}
_SHOWN_ONCE = "The new key. Only this answer contains `key`, because only its digest is stored."
_TO_END_NOW = "To refuse the key from now on, send 'active': false."

_schema = AdminSchema()


@blp.route("/admins", methods=["GET"])
@blp.operation(
    "List the named admins",
    description="Whoever has the `ADMIN_KEY` is an owner, too, and is not in the list. So there is always an owner.",
)
@blp.response(200, AdminListSchema, description="Oldest first.", example={"items": [examples.ADMIN], "next": None})
def list_admins() -> dict[str, Any]:
    return {"items": services().admins.list(), "next": None}


@blp.route("/admins", methods=["POST"])
@blp.operation(
    "Let another admin in",
    "AdminNameTaken",
    description="Give the `key` of the answer to the admin, who sends it as `AdminKey`: it is shown only this once.",
)
@blp.arguments(NewAdminSchema, example=examples.ADMIN_REQUEST)
@blp.response(201, AdminWithSecretSchema, description=_SHOWN_ONCE, example=examples.NEW_ADMIN)
def create_admin(new: dict[str, Any]) -> dict[str, Any]:
    _check(new)
    record, key = services().admins.create(**new)
    write_down("admin.create", record.id, after=_shown(record))
    return asdict(record) | {"key": key}


@blp.route("/admins/<admin_id>", methods=["GET"], parameters=[_ID_IN_PATH])
@blp.operation("Look an admin up", "UnknownAdmin", description="By the `id`, as `GET /admin/admins` lists it.")
@blp.response(200, AdminSchema, description="The admin, without the key.", example=examples.ADMIN)
def get_admin(admin_id: str) -> AdminRecord:
    record = services().admins.get(admin_id)
    etags.show(_shown(record))
    return record


@blp.route("/admins/<admin_id>", methods=["PATCH"], parameters=[_ID_IN_PATH])
@blp.operation(
    "Change an admin",
    "UnknownAdmin",
    "AdminNameTaken",
    description=(
        "Fields that are sent are set, the others stay. The example changes nothing. In short:\n\n"
        '* `{"active": false}` blocks the admin, `{"active": true}` lets the admin in again\n'
        '* `{"role": "viewer"}` gives another role; groups are removed unless it is `group`\n'
        '* `{"groups": ["ml-2026", "ml-2027"]}` replaces the groups\n'
    ),
)
@blp.arguments(AdminChangesSchema, example={})
@blp.response(200, AdminSchema, description="The admin as it is now.", example=examples.ADMIN)
def update_admin(changes: dict[str, Any], admin_id: str) -> AdminRecord:
    before = services().admins.get(admin_id)
    _check_tag(before)
    _check(changes, before=before)
    if not changes:
        etags.show(_shown(before))
        return before
    before, after = services().admins.update(admin_id, changes, check=_check_tag)
    names = {**changes, **({"groups": ()} if before.groups != after.groups else {})}
    write_down("admin.update", admin_id, before=_fields(before, names), after=_fields(after, names))
    etags.show(_shown(after))
    return after


@blp.route("/admins/<admin_id>/rotate", methods=["POST"], parameters=[_ID_IN_PATH])
@blp.operation(
    "Replace an admin's key by a new one",
    "UnknownAdmin",
    description="As for users' keys: with `overlap_seconds` the old key opens the same until `retires_at`.",
)
@blp.arguments(RotationSchema, example={"overlap_seconds": 3600})
@blp.response(200, AdminWithSecretSchema, description=_SHOWN_ONCE, example=examples.NEW_ADMIN)
def rotate_admin(rotation: dict[str, int], admin_id: str) -> dict[str, Any]:
    before, after, key = services().admins.rotate(
        admin_id, overlap_seconds=rotation["overlap_seconds"], check=_check_tag
    )
    dates = ("retires_at",)
    write_down("admin.rotate", admin_id, before=_fields(before, dates), after=_fields(after, dates))
    etags.show(_shown(after))
    return asdict(after) | {"key": key}


@blp.route("/admins/<admin_id>", methods=["DELETE"], parameters=[_ID_IN_PATH])
@blp.operation(
    "Remove an admin", "UnknownAdmin", description="The next request with the key is refused. The audit log stays."
)
@blp.response(204, description="The admin was removed.")
def delete_admin(admin_id: str) -> None:
    write_down("admin.remove", admin_id, before=_shown(services().admins.remove(admin_id, check=_check_tag)))


def _check(sent: Mapping[str, Any], *, before: AdminRecord | None = None) -> None:
    """Check the name, the groups and the date in *sent*. Raises InvalidFields with the problems by field."""
    problems: dict[str, Any] = {}
    name, expires = sent.get("name"), sent.get("expires_at")
    if name is not None and (before is None or name != before.name) and (problem := problem_of_name(name)):
        problems["name"] = [problem]
    known = services().policy.stored().groups
    kept = before.groups if before is not None else ()
    groups = sent.get("groups") or ()
    unknown = {str(place): [NO_SUCH_GROUP] for place, name in enumerate(groups) if name not in (*known, *kept)}
    if unknown:
        problems["groups"] = unknown
    unchanged = before is not None and expires == before.expires_at
    if expires is not None and not unchanged and expires <= moment(services().clock()):
        problems["expires_at"] = [f"Must be in the future. {_TO_END_NOW}"]
    if problems:
        raise invalid_fields(problems)


def _check_tag(before: AdminRecord) -> None:
    """Check that the admin to change is as the client knows it."""
    etags.check(_shown, before)


def _shown(record: AdminRecord) -> dict[str, Any]:
    shown: dict[str, Any] = _schema.dump(record)
    return shown


def _fields(record: AdminRecord, names: Any) -> dict[str, Any]:
    shown = _shown(record)
    return {name: shown[name] for name in names}
