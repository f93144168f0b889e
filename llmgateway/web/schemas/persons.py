"""Schemas of people, as admins see them."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...records import Limits
from .. import examples
from .fields import AnswerSchema
from .keys import KeySchema
from .limits import AllowancesSchema, LimitsInForceSchema, LimitsSchema
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


class ListedPersonSchema(PersonSettingsSchema):
    key_count = ma.fields.Integer(metadata={"description": "Number of keys of this person.", "example": 2})


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


class PersonPageSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(ListedPersonSchema))
    next = ma.fields.String(
        allow_none=True, metadata={"description": "`cursor` of the next page; null on the last one.", "example": None}
    )


class PersonQuerySchema(ma.Schema):
    limit = ma.fields.Integer(
        load_default=100,
        validate=validate.Range(min=1, max=1000),
        metadata={"description": "The most people on a page.", "example": 100},
    )
    cursor = ma.fields.String(
        metadata={"description": "`next` of the page before.", "choices": {"first page": "", "next page": "ada"}}
    )
