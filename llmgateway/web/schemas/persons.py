"""Schemas of people, as admins see them."""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from ...records import Limits
from .. import examples
from .fields import AnswerSchema
from .keys import KeySchema
from .limits import AllowancesSchema, LimitsInForceSchema, LimitsSchema
from .lists import (
    ListSchema,
    PageSchema,
    SpentSchema,
    TrendSchema,
    include_field,
    limit_field,
    search_field,
    sort_field,
)
from .raises import RaiseField
from .users import UsageSoFarSchema

_FOR_ALL = "What all keys of this person together may use, beside the limits of each key."


class PersonChangesSchema(ma.Schema):
    """The limits to change. A part that is null is removed, the others stay; ``"limits": null`` removes all."""

    limits = ma.fields.Nested(LimitsSchema, allow_none=True, metadata={"description": _FOR_ALL})


class PersonFieldsSchema(PersonChangesSchema):
    """All that is set for a person; what is left out is nothing."""

    @ma.post_load
    def _as_limits(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {"limits": Limits(**(data.get("limits") or {}))}


class PersonSettingsSchema(AnswerSchema):
    user = ma.fields.String(metadata={"example": "ada"})
    limits = ma.fields.Nested(LimitsInForceSchema, metadata={"description": _FOR_ALL})
    raised = RaiseField()


INCLUDABLE_OF_PERSONS = ("spent", "remaining", "trend", "groups")


class ListedPersonSchema(PersonSettingsSchema):
    """A person, with what ``include`` names."""

    key_count = ma.fields.Integer(metadata={"description": "Number of keys of this person.", "example": 2})
    spent = ma.fields.Nested(SpentSchema)
    remaining = ma.fields.Nested(AllowancesSchema, metadata={"description": "Of the person's limits."})
    trend = ma.fields.Nested(TrendSchema)
    groups = ma.fields.List(
        ma.fields.String(), metadata={"description": "Those of the person's keys.", "example": ["ml-2026"]}
    )

    def on_bind_field(self, field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = field_name not in INCLUDABLE_OF_PERSONS


class MembershipSchema(AnswerSchema):
    """Limits that a group sets for each of its members."""

    group = ma.fields.String(metadata={"example": examples.GROUP["name"]})
    limits = ma.fields.Nested(LimitsInForceSchema, metadata={"description": "With a raise of this person."})
    remaining = ma.fields.Nested(AllowancesSchema)


class PersonSchema(PersonSettingsSchema):
    keys = ma.fields.List(ma.fields.Nested(KeySchema), metadata={"description": "Oldest first."})
    remaining = ma.fields.Nested(AllowancesSchema, metadata={"description": "Of the person's limits."})
    member_of = ma.fields.List(
        ma.fields.Nested(MembershipSchema), metadata={"description": "Groups of these keys that have `member_limits`."}
    )
    usage = ma.fields.Nested(UsageSoFarSchema, metadata={"description": "Of all keys, also of removed ones."})


class PersonPageSchema(PageSchema):
    items = ma.fields.List(ma.fields.Nested(ListedPersonSchema))


class PersonQuerySchema(ListSchema):
    q = search_field("people", "the name, or the e-mail address of one of the keys")
    sort = sort_field(("user", "key_count", "spent"))
    include = include_field("person", INCLUDABLE_OF_PERSONS)
    limit = limit_field("people")
