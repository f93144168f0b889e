"""Schemas of users' keys and of Azure's key."""

from __future__ import annotations

import re
from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...accounts.keys import flaw_of, is_usable_key
from ...records import EXPIRES_SOON, KEY_ORDERS, KeyState, Limits
from .. import examples
from .fields import AnswerSchema, Moment, single_line
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
from .tables import TableSchema

SHORTEST_OWN_KEY = 20
"""Minimum length of a key that an admin chooses. A generated key has 49 characters; a short key can be guessed."""

_STATES = (
    f"`active`; `expiring` (active, and ends within {EXPIRES_SOON.days} days); `not_yet_valid`; `expired`; `blocked`."
)

LONGEST_OVERLAP = 30 * 86_400
"""Seconds for which the old key and the new one both work."""


class KeyFieldsSchema(ma.Schema):
    """The fields of a key that admins can set."""

    user = ma.fields.String(
        validate=single_line(200), metadata={"description": "Who holds it; reports go by it.", "example": "ada"}
    )
    name = ma.fields.String(
        validate=single_line(200), metadata={"description": "Tells a user's keys apart.", "example": "thesis"}
    )
    group = ma.fields.String(
        allow_none=True,
        validate=single_line(100),
        metadata={
            "description": "A course or team: `PUT /admin/groups/{name}` makes one.",
            "example": "ml-2026",
        },
    )
    email = ma.fields.Email(allow_none=True, validate=validate.Length(max=254), metadata={"example": "ada@example.org"})
    note = ma.fields.String(
        allow_none=True,
        validate=validate.Length(max=2000),
        metadata={"description": "For admins only.", "example": "until June"},
    )
    active = ma.fields.Boolean(
        metadata={"description": "false refuses the key and keeps everything about it.", "example": True}
    )
    starts_at = Moment(
        allow_none=True,
        metadata={
            "description": "Refused before. A date alone is its beginning.",
            "example": "2026-10-01T00:00:00+02:00",
        },
    )
    expires_at = Moment(
        is_end=True,
        allow_none=True,
        metadata={
            "description": "Refused from then on; must be in the future. A date alone is the end of that day.",
            "example": "2027-04-01T00:00:00+02:00",
        },
    )
    models = ma.fields.List(
        ma.fields.String(validate=single_line(128)),
        allow_none=True,
        validate=validate.Length(max=100),
        metadata={"description": "Models the key may use; null for every one.", "example": [examples.MODEL]},
    )
    limits = ma.fields.Nested(
        LimitsSchema, allow_none=True, metadata={"description": "What the key may use; null for no limits."}
    )

    @ma.post_load
    def _as_record_fields(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if data.get("models") is not None:
            data["models"] = tuple(data["models"])
        return data


class KeyChangesSchema(KeyFieldsSchema):
    """The fields to change; the others stay as they are.

    So do the parts of ``limits`` that are not sent; a part that is null is removed, and with
    ``"limits": null`` all of them are.
    """


class AddKeySchema(ma.Schema):
    """The body that existing scripts send."""

    user = ma.fields.String(
        required=True,
        validate=single_line(200),
        metadata={"description": "Who holds it; reports go by it.", "example": "ada"},
    )
    name = ma.fields.String(
        load_default="default",
        validate=single_line(200),
        metadata={"description": "Tells a user's keys apart.", "example": "thesis"},
    )
    key = ma.fields.String(
        load_only=True,
        metadata={
            "description": "A key of your own, 20 to 512 visible ASCII characters. Leave it out to have one made up.",
            "example": examples.SECRET_KEY,
        },
    )

    @ma.validates("key")
    def _usable(self, value: str, **_: Any) -> None:
        # The error does not quote the value, because it may be a key.
        if len(value) < SHORTEST_OWN_KEY or not is_usable_key(value):
            raise ma.ValidationError(
                f"Must be {SHORTEST_OWN_KEY} to 512 visible ASCII characters without spaces. "
                "Leave it out to have one made up."
            )
        _not_from_the_documentation(value)


class NewKeySchema(AddKeySchema, KeyFieldsSchema):
    """A key to create."""

    @ma.post_load
    def _with_limits(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if "limits" in data:
            data["limits"] = Limits(**(data["limits"] or {}))
        return data


class IdentitySchema(AnswerSchema):
    id = ma.fields.String(metadata={"description": "Names the key and opens nothing.", "example": examples.KEY_ID})


class KeySchema(KeyFieldsSchema, IdentitySchema):
    """All fields of a key except the key itself."""

    limits = ma.fields.Nested(LimitsInForceSchema)
    raised = RaiseField()
    self_made = ma.fields.Boolean(
        metadata={"description": "Whether its user has made it in the dashboard.", "example": False}
    )
    retires_at = Moment(
        allow_none=True,
        metadata={"description": "Until when the key that this one has replaced opens the same.", "example": None},
    )
    created_at = Moment(metadata={"example": "2026-10-01T08:15:30.250000+00:00"})


class SecretSchema(AnswerSchema):
    key = ma.fields.String(
        metadata={
            "description": "The key itself: give it to its user. Shown this once and never again.",
            "example": examples.SECRET_KEY,
        }
    )


class KeyWithSecretSchema(KeySchema, SecretSchema):
    """A key that was just created, with the key itself."""


INCLUDABLE = ("spent", "remaining", "last_used", "trend", "state")
"""What is read only if somebody asks for it, because it is not stored with the key."""

SORTABLE = (*KEY_ORDERS, "last_used", "spent")


class KeyWithUsageSchema(KeySchema):
    """All fields of a key, and those that ``include`` names."""

    spent = ma.fields.Nested(SpentSchema)
    remaining = ma.fields.Nested(AllowancesSchema)
    trend = ma.fields.Nested(TrendSchema)
    state = ma.fields.String(
        metadata={
            "description": _STATES + " The dates of the group are not part of it.",
            "example": "active",
        }
    )
    last_used = Moment(
        allow_none=True,
        metadata={
            "description": "When its latest request arrived; the end of that day if the record is gone; null: never.",
            "example": "2026-10-31T09:12:07.345000+00:00",
        },
    )

    def on_bind_field(self, field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = field_name not in INCLUDABLE


class KeyPageSchema(PageSchema):
    items = ma.fields.List(ma.fields.Nested(KeyWithUsageSchema))


class IncludeSchema(ma.Schema):
    include = include_field("key", INCLUDABLE)


class KeyQuerySchema(TableSchema, IncludeSchema, ListSchema):
    q = search_field("keys", "the user, the name, the group, the e-mail address, the note or the id")
    user = ma.fields.String(
        metadata={"description": "Only this user's.", "choices": {"everybody's": "", "one user's": "ada"}}
    )
    group = ma.fields.String(
        metadata={"description": "Only this group's.", "choices": {"every group's": "", "one group's": "ml-2026"}}
    )
    active = ma.fields.Boolean(metadata={"description": "Only those that are active, or only those that are not."})
    state = ma.fields.String(
        validate=validate.OneOf(["", *KeyState]),
        metadata={"description": f"Only keys in this state: {_STATES}", "choices": {"any": "", "blocked": "blocked"}},
    )
    sort = sort_field(SORTABLE)
    limit = limit_field("keys")


class RotationSchema(ma.Schema):
    overlap_seconds = ma.fields.Integer(
        strict=True,
        load_default=0,
        validate=validate.Range(
            min=0, max=LONGEST_OVERLAP, error="Must be from 0 (the old key goes at once) to {max} (30 days)."
        ),
        metadata={"description": "How long the old key opens the same; at most 30 days.", "example": 3600},
    )


class RemoveKeySchema(ma.Schema):
    """The key itself, or its id."""

    key = ma.fields.String(load_only=True, metadata={"example": examples.SECRET_KEY})
    id = ma.fields.String(metadata={"example": examples.KEY_ID})

    @ma.validates_schema
    def _one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        if len(data) != 1:
            raise ma.ValidationError("Send either 'key' or 'id'.")


class RemovedKeySchema(AnswerSchema):
    id = ma.fields.String(metadata={"example": examples.KEY_ID})
    removed = ma.fields.Boolean(metadata={"example": True})


class CredentialSchema(ma.Schema):
    """Azure's key."""

    key = ma.fields.String(
        required=True,
        load_only=True,
        metadata={"description": "Stored encrypted; never readable again.", "example": examples.AZURE_KEY},
    )

    @ma.validates("key")
    def _usable(self, value: str, **_: Any) -> None:
        if flaw := flaw_of(value):
            raise ma.ValidationError(f"The key is malformed: {flaw}.")
        if not re.fullmatch(r"[\x21-\x7e]{1,4096}", value):
            raise ma.ValidationError("Must be visible ASCII characters without spaces. Copy the key again.")
        _not_from_the_documentation(value)


def _not_from_the_documentation(key: str) -> None:
    if key in (examples.SECRET_KEY, examples.AZURE_KEY):
        raise ma.ValidationError("This is the documentation's example. Put your own in its place.")


class CredentialTrialSchema(AnswerSchema):
    status = ma.fields.Integer(
        allow_none=True,
        metadata={
            "description": "Azure's status: 401 and 403 refuse the key, 400 accepts it; null without an answer.",
            "example": 400,
        },
    )
    message = ma.fields.String(metadata={"description": "What that means.", "example": "Azure accepts the key."})


class CredentialStoredSchema(AnswerSchema):
    stored = ma.fields.Boolean(metadata={"example": True})
    azure = ma.fields.Nested(CredentialTrialSchema, metadata={"description": "What came of trying the key."})
