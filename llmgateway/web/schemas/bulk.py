"""Schemas of changes of many keys, and of the end of a group."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...accounts.bulk import Action, KeyFilter, Order
from .. import examples
from .fields import AnswerSchema, Moment, single_line

_EMPTY = 'Must name at least one field, such as {"group": "ml-2026"}; for every key there is, send {"all": true}.'


class KeyFilterSchema(ma.Schema):
    """Selects the keys that match every field that is sent."""

    all = ma.fields.Boolean(
        metadata={"description": "true, alone: every key of the organisation.", "example": False},
    )
    user = ma.fields.String(validate=single_line(200), metadata={"description": "Exactly this user's."})
    group = ma.fields.String(
        validate=single_line(100), metadata={"description": "In this group.", "example": examples.NO_GROUP}
    )
    active = ma.fields.Boolean(metadata={"description": "true: not blocked; false: blocked."})
    expired = ma.fields.Boolean(metadata={"description": "Whether `expires_at` has passed."})
    unused_since = Moment(
        metadata={
            "description": "Not used from then on. A key that was never used counts from its creation.",
            "example": "2026-04-01T00:00:00+00:00",
        }
    )
    created_before = Moment(metadata={"example": "2026-04-01T00:00:00+00:00"})
    created_since = Moment(metadata={"example": "2025-10-01T00:00:00+00:00"})

    @ma.validates_schema
    def _not_empty(self, data: dict[str, Any], **_: Any) -> None:
        if not data or data == {"all": False}:
            raise ma.ValidationError(_EMPTY, field_name="all")
        if data.get("all") and len(data) > 1:
            raise ma.ValidationError("Must stand alone: it selects every key. Leave it out.", field_name="all")

    @ma.post_load
    def _as_filter(self, data: dict[str, Any], **_: Any) -> KeyFilter:
        return KeyFilter(**{name: value for name, value in data.items() if name != "all"})


class BulkChangesSchema(ma.Schema):
    """What `move` and `extend` need."""

    group = ma.fields.String(
        allow_none=True,
        validate=single_line(100),
        metadata={"description": "Of `move`: the new group; null for none.", "example": "ml-2027"},
    )
    expires_at = Moment(
        is_end=True,
        allow_none=True,
        metadata={
            "description": "Of `extend`: the new end; null for none. Keys that end later, or never, stay as they are.",
            "example": "2027-09-30",
        },
    )


_NEEDED = {Action.MOVE: "group", Action.EXTEND: "expires_at"}


class BulkSchema(ma.Schema):
    """Which keys, and what is done with them."""

    filter = ma.fields.Nested(KeyFilterSchema, required=True)
    action = ma.fields.String(
        required=True,
        validate=validate.OneOf(list(Action)),
        metadata={"description": "`block`, `unblock`, `move`, `extend` or `remove`.", "example": "block"},
    )
    changes = ma.fields.Nested(BulkChangesSchema, load_default=dict)
    dry_run = ma.fields.Boolean(
        metadata={"description": "true changes nothing. It is so, too, without a `token`.", "example": True}
    )
    token = ma.fields.String(
        metadata={"description": "That of the preview; with it the change is made. Valid for 10 minutes."}
    )

    @ma.validates_schema(skip_on_field_errors=True)
    def _complete(self, data: dict[str, Any], **_: Any) -> None:
        needed = _NEEDED.get(Action(data["action"]))
        problems: dict[str, list[str]] = {
            f"changes.{name}": ["Belongs to another action. Leave it out."]
            for name in data["changes"]
            if name != needed
        }
        if needed is not None and needed not in data["changes"]:
            problems[f"changes.{needed}"] = [f"Missing: the action {data['action']!r} needs it."]
        if data.get("dry_run") is False and "token" not in data:
            problems["token"] = ["Missing: send 'dry_run': true first. The answer has the token."]
        if problems:
            raise ma.ValidationError(problems)

    @ma.post_load
    def _as_order(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        order = Order(filter=data["filter"], action=Action(data["action"]), changes=data["changes"])
        return {"order": order, "token": None if data.get("dry_run") else data.get("token")}


class BulkItemSchema(AnswerSchema):
    id = ma.fields.String(metadata={"example": examples.KEY_ID})
    user = ma.fields.String(metadata={"example": "ada"})
    name = ma.fields.String(metadata={"example": "thesis"})
    group = ma.fields.String(allow_none=True, metadata={"example": "ml-2026"})
    email = ma.fields.String(allow_none=True, metadata={"example": "ada@example.org"})
    active = ma.fields.Boolean(metadata={"description": "Before the change.", "example": True})
    expires_at = Moment(allow_none=True, metadata={"description": "Before the change."})
    last_used = Moment(
        allow_none=True, metadata={"description": "null: never, or before the oldest sums.", "example": None}
    )
    happens = ma.fields.String(
        metadata={
            "description": "`blocked`, `unblocked`, `moved`, `extended`, `removed`, or `nothing` if it is so already.",
            "example": "blocked",
        }
    )


class BulkAnswerSchema(AnswerSchema):
    count = ma.fields.Integer(metadata={"description": "Keys that match the filter.", "example": 1})
    items = ma.fields.List(ma.fields.Nested(BulkItemSchema))
    token = ma.fields.String(
        allow_none=True, metadata={"description": "Of a preview: send it to make the change. Else null."}
    )
    dry_run = ma.fields.Boolean(metadata={"description": "Whether nothing was changed.", "example": True})


class FateField(ma.fields.Field[Any]):
    """``remove``, ``block``, or an object with ``move_to``."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> tuple[str, str | None]:
        if value in ("remove", "block"):
            return value, None
        if isinstance(value, dict) and value.keys() == {"move_to"} and isinstance(value["move_to"], str):
            if value["move_to"]:
                return "move", value["move_to"]
            raise ma.ValidationError({"move_to": ["Must name a group."]})
        raise ma.ValidationError("Must be 'remove', 'block', or {'move_to': 'GROUP'}.")


class ClosingSchema(ma.Schema):
    """What happens to the keys of the group."""

    keys = FateField(
        required=True,
        metadata={
            "description": '`remove`, `block`, or `{"move_to": "GROUP"}`.',
            "oneOf": [
                {"type": "string", "enum": ["remove", "block"]},
                {"type": "object", "properties": {"move_to": {"type": "string"}}, "required": ["move_to"]},
            ],
            "example": "remove",
        },
    )
    dry_run = ma.fields.Boolean(
        load_default=False, metadata={"description": "true shows the same and changes nothing.", "example": True}
    )


class ClosingQuerySchema(ma.Schema):
    format = ma.fields.String(
        validate=validate.OneOf(["json", "csv"]),
        metadata={"description": "`csv` for a spreadsheet; `Accept: text/csv` does the same.", "example": "json"},
    )


class MemberSchema(AnswerSchema):
    id = ma.fields.String(metadata={"description": "Of the key.", "example": examples.KEY_ID})
    user = ma.fields.String(metadata={"example": "ada"})
    name = ma.fields.String(metadata={"example": "thesis"})
    email = ma.fields.String(allow_none=True, metadata={"example": "ada@example.org"})
    happened = ma.fields.String(
        metadata={
            "description": "`removed`, `blocked`, `moved`, or `was blocked already`.",
            "example": "removed",
        }
    )


class ClosedSchema(AnswerSchema):
    name = ma.fields.String(metadata={"example": "ml-2026"})
    group = ma.fields.String(
        metadata={"description": "`removed`, or `closed`: it stays, and takes no requests.", "example": "removed"}
    )
    count = ma.fields.Integer(metadata={"description": "Its keys.", "example": 1})
    items = ma.fields.List(ma.fields.Nested(MemberSchema))
    dry_run = ma.fields.Boolean(metadata={"description": "Whether nothing was changed.", "example": False})
