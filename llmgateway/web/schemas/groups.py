"""Schemas of groups."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...records import Limits
from .. import examples
from .fields import AnswerSchema, Moment, single_line
from .limits import AllowancesSchema, LimitsInForceSchema, LimitsSchema
from .lists import ListSchema, PageSchema, SpentSchema, TrendSchema, include_field, search_field, sort_field
from .raises import RaiseField
from .self_service import SelfServiceInForceSchema, SelfServiceSchema


class GroupChangesSchema(ma.Schema):
    """The fields to change; the others stay as they are.

    So do the parts of ``limits`` and ``member_limits`` that are not sent; a part that is null is removed, and with
    ``"limits": null`` all of them are.
    """

    note = ma.fields.String(
        allow_none=True,
        validate=validate.Length(max=2000),
        metadata={"description": "For admins only.", "example": "Tuesdays, room 101"},
    )
    cost_centre = ma.fields.String(
        allow_none=True,
        validate=single_line(100),
        metadata={"description": "Where accounting books its cost; reports and statements have it.", "example": "4711"},
    )
    starts_at = Moment(
        allow_none=True,
        metadata={
            "description": "Its keys are refused before. A date alone is its beginning.",
            "example": "2026-10-01T00:00:00+02:00",
        },
    )
    expires_at = Moment(
        is_end=True,
        allow_none=True,
        metadata={
            "description": "Its keys are refused from then on; must be in the future. A date alone is the end of that "
            "day.",
            "example": "2027-04-01T00:00:00+02:00",
        },
    )
    models = ma.fields.List(
        ma.fields.String(validate=single_line(128)),
        allow_none=True,
        validate=validate.Length(max=100),
        metadata={
            "description": "Models its keys may use; a key with models of its own may use those that are in both. "
            "null for every one.",
            "example": [examples.MODEL],
        },
    )
    limits = ma.fields.Nested(
        LimitsSchema,
        allow_none=True,
        metadata={"description": "What all its keys together may use, beside the limits that each has of its own."},
    )
    member_limits = ma.fields.Nested(
        LimitsSchema,
        allow_none=True,
        metadata={"description": "What each person may use with all of the keys that this person has in the group."},
    )

    self_service = ma.fields.Nested(
        SelfServiceSchema,
        allow_none=True,
        metadata={
            "description": "What its members may make themselves in the dashboard; null: nothing. Replaced as a whole."
        },
    )

    @ma.post_load
    def _as_group_fields(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if data.get("models") is not None:
            data["models"] = tuple(data["models"])
        return data


class GroupFieldsSchema(GroupChangesSchema):
    """All that a group is; what is left out is nothing."""

    @ma.post_load
    def _as_group_fields(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        data = dict.fromkeys(self.fields) | super()._as_group_fields(data)
        return data | {name: Limits(**(data[name] or {})) for name in ("limits", "member_limits")}


class GroupSchema(AnswerSchema):
    name = ma.fields.String(metadata={"example": examples.GROUP["name"]})
    note = ma.fields.String(allow_none=True, metadata={"example": examples.GROUP["note"]})
    cost_centre = ma.fields.String(allow_none=True, metadata={"example": examples.GROUP["cost_centre"]})
    starts_at = Moment(allow_none=True, metadata={"example": examples.GROUP["starts_at"]})
    expires_at = Moment(is_end=True, allow_none=True, metadata={"example": examples.GROUP["expires_at"]})
    models = ma.fields.List(ma.fields.String(), allow_none=True, metadata={"example": examples.GROUP["models"]})
    limits = ma.fields.Nested(LimitsInForceSchema)
    member_limits = ma.fields.Nested(
        LimitsInForceSchema, metadata={"description": "Of each person, for the keys that this person has in the group."}
    )
    self_service = ma.fields.Nested(
        SelfServiceInForceSchema,
        allow_none=True,
        metadata={"description": "What its members may make themselves; null: nothing."},
    )
    raised = RaiseField()
    created_at = Moment(metadata={"example": examples.GROUP["created_at"]})


class GroupWithAllowancesSchema(GroupSchema):
    remaining = ma.fields.Nested(AllowancesSchema)


INCLUDABLE_OF_GROUPS = ("spent", "trend", "key_count", "user_count")


class ListedGroupSchema(GroupWithAllowancesSchema):
    """A group, with what ``include`` names. Lists that somebody asks for without ``remaining`` have none."""

    spent = ma.fields.Nested(SpentSchema)
    trend = ma.fields.Nested(TrendSchema)
    key_count = ma.fields.Integer(metadata={"description": "Number of its keys.", "example": 28})
    user_count = ma.fields.Integer(metadata={"description": "Number of people who have these keys.", "example": 27})

    def on_bind_field(self, field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = field_name not in (*INCLUDABLE_OF_GROUPS, "remaining")


class GroupListSchema(PageSchema):
    items = ma.fields.List(ma.fields.Nested(ListedGroupSchema))


class GroupIncludeSchema(ma.Schema):
    include = include_field("group", INCLUDABLE_OF_GROUPS)


class GroupQuerySchema(GroupIncludeSchema, ListSchema):
    remaining = ma.fields.Boolean(
        load_default=True,
        metadata={"description": "false leaves out what is used and left of the limits, which takes most of the time."},
    )
    q = search_field("groups", "the name, the cost centre or the note")
    sort = sort_field(("name", "expires_at", "key_count", "user_count", "spent"))
    limit = ma.fields.Integer(
        validate=validate.Range(min=1, max=1000),
        metadata={"description": "The most groups on a page. Without it, all are on one page.", "example": 100},
    )


class RevokedSchema(AnswerSchema):
    revoked = ma.fields.Integer(metadata={"description": "Keys that were active before.", "example": 28})
