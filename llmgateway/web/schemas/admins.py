"""Schemas of named admins."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...records import FIRST_OWNER, Role
from .. import examples
from .fields import AnswerSchema, Moment, single_line

_ROLES = {
    Role.OWNER: "everything, also admins",
    Role.ADMIN: "everything except admins",
    Role.VIEWER: "reads",
    Role.GROUP: "manages its groups, and sees nothing else",
    Role.METRICS: "reads `/metrics`",
}


class AdminChangesSchema(ma.Schema):
    """The fields to change; the others stay as they are."""

    name = ma.fields.String(
        validate=single_line(200),
        metadata={"description": "Unique. The audit log names the admin by it.", "example": examples.ADMIN["name"]},
    )
    role = ma.fields.String(
        validate=validate.OneOf(list(Role)),
        metadata={
            "description": "; ".join(f"`{role}`: {meaning}" for role, meaning in _ROLES.items()) + ".",
            "example": examples.ADMIN["role"],
        },
    )
    groups = ma.fields.List(
        ma.fields.String(validate=single_line(100)),
        validate=validate.Length(max=1000),
        metadata={
            "description": "What an admin of the role `group` manages; other roles have none.",
            "example": examples.ADMIN["groups"],
        },
    )
    note = ma.fields.String(
        allow_none=True,
        validate=validate.Length(max=2000),
        metadata={"description": "For owners only.", "example": examples.ADMIN["note"]},
    )
    active = ma.fields.Boolean(metadata={"description": "false refuses the admin's key.", "example": True})
    expires_at = Moment(
        is_end=True,
        allow_none=True,
        metadata={
            "description": "The key is refused from then on; must be in the future. A date alone means its end.",
            "example": examples.ADMIN["expires_at"],
        },
    )

    @ma.validates("name")
    def _not_the_first_owner(self, value: str, **_: Any) -> None:
        if value.strip().upper() == FIRST_OWNER:
            raise ma.ValidationError(f"{FIRST_OWNER} is the first owner's. Choose another name.")

    @ma.post_load
    def _as_record_fields(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if "groups" in data:
            data["groups"] = tuple(dict.fromkeys(data["groups"]))
        if "role" in data:
            data["role"] = Role(data["role"])
        return data


class NewAdminSchema(AdminChangesSchema):
    """An admin to create."""

    def on_bind_field(self, field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = field_name in ("name", "role")


class AdminSchema(AnswerSchema):
    """All fields of a named admin except the key."""

    id = ma.fields.String(metadata={"description": "Opens nothing.", "example": examples.ADMIN["id"]})
    name = ma.fields.String(metadata={"example": examples.ADMIN["name"]})
    role = ma.fields.String(metadata={"example": examples.ADMIN["role"]})
    groups = ma.fields.List(ma.fields.String(), metadata={"example": examples.ADMIN["groups"]})
    note = ma.fields.String(allow_none=True, metadata={"example": examples.ADMIN["note"]})
    active = ma.fields.Boolean(metadata={"example": True})
    expires_at = Moment(allow_none=True, metadata={"example": examples.ADMIN["expires_at"]})
    retires_at = Moment(
        allow_none=True,
        metadata={"description": "Until when the key before the last rotation opens the same.", "example": None},
    )
    created_at = Moment(metadata={"example": examples.ADMIN["created_at"]})


class AdminWithSecretSchema(AdminSchema):
    """An admin who was just created, with the key itself."""

    key = ma.fields.String(
        metadata={
            "description": "Send it as `AdminKey`. Shown this once and never again.",
            "example": examples.ADMIN_KEY,
        }
    )


class AdminListSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(AdminSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})
