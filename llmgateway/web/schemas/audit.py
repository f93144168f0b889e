"""Schemas of the audit log."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import validate

from ...records import FIRST_OWNER
from .. import examples
from .fields import AnswerSchema, Moment


class AuditQuerySchema(ma.Schema):
    target = ma.fields.String(
        metadata={
            "description": "Only changes of this: a key's id, or the name of a group or a model.",
            "choices": {"everything": "", "one key": examples.KEY_ID, "one group": examples.GROUP["name"]},
        }
    )
    action = ma.fields.String(
        metadata={
            "description": "Only changes of this kind: an action like `key.update`, or the first word of several.",
            "choices": {"of every kind": "", "raised limits": "key.raise", "of keys": "key"},
        }
    )
    admin = ma.fields.String(
        metadata={
            "description": "Only changes by this admin: the id or the name, or `ADMIN_KEY` for the first owner.",
            "choices": {"everybody": "", "one admin": examples.ADMIN["name"], "the first owner": FIRST_OWNER},
        }
    )
    since = Moment(
        metadata={
            "description": "Only changes from here on.",
            "choices": {"from the beginning": "", "a day": "2026-10-31", "a moment": "2026-10-31T08:00:00+02:00"},
        }
    )
    until = Moment(
        is_end=True,
        metadata={
            "description": "Only changes before this.",
            "choices": {"until now": "", "a day": "2026-10-31", "a moment": "2026-10-31T18:00:00+01:00"},
        },
    )
    limit = ma.fields.Integer(
        load_default=100,
        validate=validate.Range(min=1, max=1000),
        metadata={"description": "The most entries on a page.", "example": 100},
    )
    cursor = ma.fields.String(
        metadata={
            "description": "`next` of the page before.",
            "choices": {"first page": "", "next page": examples.AUDIT_ENTRY["id"]},
        },
    )


class AuditedAdminSchema(AnswerSchema):
    id = ma.fields.String(
        allow_none=True, metadata={"description": "null for the first owner.", "example": examples.ADMIN["id"]}
    )
    name = ma.fields.String(
        metadata={
            "description": "The name at that time; `ADMIN_KEY` for the first owner.",
            "example": examples.ADMIN["name"],
        }
    )


class AuditEntrySchema(AnswerSchema):
    """One change that an admin made. It contains no keys, and not Azure's key."""

    id = ma.fields.String(metadata={"example": examples.AUDIT_ENTRY["id"]})
    timestamp = Moment(metadata={"example": examples.AUDIT_ENTRY["timestamp"]})
    address = ma.fields.String(
        allow_none=True, metadata={"description": "Where the request came from.", "example": "192.0.2.17"}
    )
    admin = ma.fields.Nested(
        AuditedAdminSchema, metadata={"description": "Who made the change.", "example": examples.AUDIT_ENTRY["admin"]}
    )
    admin_key_id = ma.fields.String(
        metadata={"description": "The same for the same admin key; opens nothing.", "example": "5f2b8c0d9a41"}
    )
    action = ma.fields.String(metadata={"description": "Noun and verb.", "example": "key.update"})
    target = ma.fields.String(
        metadata={"description": "What was changed; empty for the organisation.", "example": examples.KEY_ID}
    )
    before = ma.fields.Dict(
        allow_none=True,
        metadata={
            "description": "Of a change, the fields that were sent; null where there was nothing.",
            "example": examples.AUDIT_ENTRY["before"],
        },
    )
    after = ma.fields.Dict(
        allow_none=True,
        metadata={"description": "null where there is nothing any more.", "example": examples.AUDIT_ENTRY["after"]},
    )


class AuditPageSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(AuditEntrySchema))
    next = ma.fields.String(
        allow_none=True, metadata={"description": "`cursor` of the next page; null on the last one.", "example": None}
    )
