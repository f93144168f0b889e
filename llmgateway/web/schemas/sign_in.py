"""Schemas of signing in with the identity provider: rules, accounts, sessions."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...accounts.sign_in_rules import ADMITTED, EVERYBODY, MOST_RULES
from ...records import Role
from .. import examples
from .fields import AnswerSchema, Moment, single_line

_CLAIM = (
    "The name of a claim; with dots, a path: `realm_access.roles`. `email` counts only if the provider has verified it."
)
_ADMITS = (
    "`everybody` who has an account at the provider may sign in, or only those whom a rule matches (`matched`). Who "
    "has no role, no group and no keys sees an empty page."
)


class RuleSchema(ma.Schema):
    """Whoever has this value in this claim gets a role, or belongs to a group."""

    claim = ma.fields.String(
        required=True, validate=single_line(200), metadata={"description": _CLAIM, "example": "groups"}
    )
    value = ma.fields.String(
        required=True,
        validate=single_line(500),
        metadata={"description": "Compared exactly. `*`: whatever there is.", "example": "llm-admins"},
    )
    role = ma.fields.String(
        allow_none=True,
        validate=validate.OneOf(list(Role)),
        metadata={"description": "Of several that match, the highest counts.", "example": "admin"},
    )
    groups = ma.fields.List(
        ma.fields.String(validate=single_line(100)),
        validate=validate.Length(max=1000),
        metadata={"description": "What somebody of the role `group` manages.", "example": []},
    )
    group = ma.fields.String(
        allow_none=True,
        validate=single_line(100),
        metadata={"description": "The group that the person belongs to, in place of a role.", "example": None},
    )

    @ma.validates_schema
    def _one_of_both(self, data: dict[str, Any], **_: Any) -> None:
        if (data.get("role") is None) == (data.get("group") is None):
            raise ma.ValidationError("Must have a role or a group: one of the two.", "role")
        if (data.get("role") == Role.GROUP) != bool(data.get("groups")):
            raise ma.ValidationError("The role 'group' has groups, and no other has.", "groups")


class SignInRulesSchema(ma.Schema):
    """The rules; all of them are replaced."""

    rules = ma.fields.List(
        ma.fields.Nested(RuleSchema), required=True, validate=validate.Length(max=MOST_RULES), metadata={}
    )
    admits = ma.fields.String(
        load_default=EVERYBODY,
        validate=validate.OneOf(ADMITTED),
        metadata={"description": _ADMITS, "example": EVERYBODY},
    )


class ShownRuleSchema(AnswerSchema):
    claim = ma.fields.String(metadata={"example": "groups"})
    value = ma.fields.String(metadata={"example": "llm-admins"})
    role = ma.fields.String(allow_none=True, metadata={"description": "Null for a group.", "example": "admin"})
    groups = ma.fields.List(ma.fields.String(), metadata={"description": "Of the role `group`.", "example": []})
    group = ma.fields.String(allow_none=True, metadata={"description": "Null for a role.", "example": None})


class SignInSchema(AnswerSchema):
    """The rules, and the provider, which the settings name."""

    rules = ma.fields.List(ma.fields.Nested(ShownRuleSchema))
    admits = ma.fields.String(metadata={"description": _ADMITS, "example": EVERYBODY})
    issuer = ma.fields.String(
        allow_none=True,
        metadata={"description": "`OIDC_ISSUER`; null if there is none.", "example": "https://id.example.org"},
    )
    user_claim = ma.fields.String(metadata={"description": "`OIDC_USER_CLAIM`.", "example": "preferred_username"})


class IdentityQuerySchema(ma.Schema):
    waiting = ma.fields.Boolean(
        metadata={"description": "Only accounts that have no keys yet because an admin has to decide.", "example": True}
    )
    user = ma.fields.String(
        metadata={"description": "Only the account with the keys of this person.", "example": examples.NO_USER}
    )
    cursor = ma.fields.String(
        validate=validate.Length(max=200),
        metadata={"description": "`next` of the page before.", "example": examples.IDENTITY["id"]},
    )
    limit = ma.fields.Integer(
        load_default=100,
        validate=validate.Range(min=1, max=1000),
        metadata={"description": "Maximum number of accounts.", "example": 100},
    )


class IdentityChangesSchema(ma.Schema):
    """The fields to change; the others stay as they are."""

    user = ma.fields.String(
        allow_none=True,
        validate=single_line(500),
        metadata={"description": "Whose keys the account has; null for nobody's.", "example": "ada"},
    )
    active = ma.fields.Boolean(metadata={"description": "false: it may not sign in.", "example": True})


class IdentitySchema(AnswerSchema):
    """An account at the identity provider."""

    id = ma.fields.String(metadata={"example": examples.IDENTITY["id"]})
    issuer = ma.fields.String(metadata={"example": examples.IDENTITY["issuer"]})
    subject = ma.fields.String(
        metadata={"description": "The provider's identifier of the account.", "example": examples.IDENTITY["subject"]}
    )
    claimed = ma.fields.String(
        metadata={"description": "What the provider called it at the last sign-in.", "example": "ada"}
    )
    user = ma.fields.String(
        allow_none=True, metadata={"description": "Whose keys it has; null if it waits for an admin.", "example": "ada"}
    )
    email = ma.fields.String(
        allow_none=True, metadata={"description": "As the provider says.", "example": "ada@example.org"}
    )
    active = ma.fields.Boolean(metadata={"example": True})
    role = ma.fields.String(
        allow_none=True, metadata={"description": "By the present rules; null for no admin.", "example": None}
    )
    groups = ma.fields.List(
        ma.fields.String(),
        metadata={"description": "The groups that the person belongs to by the rules.", "example": ["ml-2026"]},
    )
    first_at = Moment(metadata={"example": examples.IDENTITY["first_at"]})
    signed_in_at = Moment(metadata={"example": examples.IDENTITY["signed_in_at"]})
    refused_since = Moment(
        allow_none=True,
        metadata={"description": "Since when the provider says that the account has ended.", "example": None},
    )
    left_at = Moment(
        allow_none=True, metadata={"description": "When its keys were blocked because of that.", "example": None}
    )


class IdentityPageSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(IdentitySchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "`cursor` of the next page, or null."})


class SignOutSchema(ma.Schema):
    who = ma.fields.String(
        allow_none=True,
        load_default=None,
        validate=validate.Length(min=1, max=200),
        metadata={
            "description": "The `id` of an admin, an account or a key, or `owner`; null or nothing for everybody.",
            "example": "admin_019b3f2a6b0077c0c2a9d0b1e5f3",
        },
    )
