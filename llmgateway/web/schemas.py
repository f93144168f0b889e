"""The bodies of requests and answers, checked and documented. Chat bodies have none: they are Azure's."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
from marshmallow import validate

from ..keys import is_usable_key
from ..records import GROUPINGS

_TEXT = re.compile(r"[^\x00-\x1f\x7f]*\Z")
_EXAMPLE_KEY = "llmgw-bEr2vX0example0only0Zk9w"


def _single_line(limit: int) -> list[Any]:
    return [
        validate.Length(min=1, max=limit),
        validate.Regexp(_TEXT, error="Must be one line, without control characters."),
    ]


class Moment(ma.fields.AwareDateTime):
    """A point in time with a zone, kept in UTC to the millisecond."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", default_timezone=None, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> datetime:
        parsed = super()._deserialize(value, *args, **kwargs).astimezone(UTC)
        return parsed.replace(microsecond=parsed.microsecond // 1000 * 1000)


class UsageSchema(ma.Schema):
    """Sums over usage records."""

    requests = ma.fields.Integer(metadata={"example": 12})
    prompt_tokens = ma.fields.Integer(metadata={"example": 3400})
    completion_tokens = ma.fields.Integer(metadata={"example": 1200})
    total_tokens = ma.fields.Integer(metadata={"example": 4600})
    cached_tokens = ma.fields.Integer(metadata={"description": "Part of the prompt tokens.", "example": 1024})
    reasoning_tokens = ma.fields.Integer(metadata={"description": "Part of the completion tokens.", "example": 0})
    cost_usd = ma.fields.Float(metadata={"description": "At list prices.", "example": 0.0012})
    errors = ma.fields.Integer(metadata={"description": "Requests that did not end well.", "example": 0})


class UsageRowSchema(UsageSchema):
    """Sums for one value of each grouping asked for."""

    day = ma.fields.String(metadata={"example": "2026-01-31"})
    month = ma.fields.String(metadata={"example": "2026-01"})
    user = ma.fields.String(metadata={"example": "ada"})
    key = ma.fields.String(metadata={"description": "The key's id."})
    group = ma.fields.String(allow_none=True)
    model = ma.fields.String(metadata={"example": "gpt-4o-mini"})


class UsageReportSchema(ma.Schema):
    rows = ma.fields.List(ma.fields.Nested(UsageRowSchema), required=True)
    total = ma.fields.Nested(UsageSchema, required=True)


class UsageQuerySchema(ma.Schema):
    start = Moment(metadata={"description": "From here on.", "example": "2026-01-01T00:00:00Z"})
    end = Moment(metadata={"description": "Up to here, not included.", "example": "2026-02-01T00:00:00Z"})
    by = ma.fields.String(
        load_default="",
        metadata={
            "description": "Comma-separated: any of " + ", ".join(GROUPINGS) + ".",
            "example": "day,user",
        },
    )
    format = ma.fields.String(load_default="json", validate=validate.OneOf(["json", "csv"]))

    @ma.validates("by")
    def _known_groupings(self, value: str, **_: Any) -> None:
        names = [name.strip() for name in value.split(",") if name.strip()]
        unknown = sorted(set(names) - set(GROUPINGS))
        if unknown or len(names) != len(set(names)):
            raise ma.ValidationError("Each of " + ", ".join(GROUPINGS) + " at most once, separated by commas.")

    @ma.validates_schema
    def _in_order(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("start") and data.get("end") and data["end"] <= data["start"]:
            raise ma.ValidationError("Must be later than start.", field_name="end")


class MeSchema(ma.Schema):
    id = ma.fields.String(required=True, metadata={"example": "key_0199aabbccdd0011223344556677"})
    user = ma.fields.String(required=True, metadata={"example": "ada"})
    name = ma.fields.String(required=True, metadata={"example": "thesis"})
    group = ma.fields.String(required=True, allow_none=True)
    expires_at = Moment(required=True, allow_none=True)
    models = ma.fields.List(ma.fields.String(), required=True, allow_none=True)
    limits = ma.fields.Dict(required=True)
    remaining = ma.fields.Dict(required=True)
    usage = ma.fields.Dict(
        keys=ma.fields.String(validate=validate.OneOf(["today", "month", "total"])),
        values=ma.fields.Nested(UsageSchema),
        required=True,
        metadata={"description": "`today`, `month` (both UTC) and `total`, each the sums of a usage report."},
    )


class ModelSchema(ma.Schema):
    id = ma.fields.String(required=True, metadata={"example": "gpt-4o-mini"})
    object = ma.fields.String(required=True, metadata={"example": "model"})
    created = ma.fields.Integer(required=True)
    owned_by = ma.fields.String(required=True)


class ModelListSchema(ma.Schema):
    object = ma.fields.String(required=True, metadata={"example": "list"})
    data = ma.fields.List(ma.fields.Nested(ModelSchema), required=True)


class KeyFieldsSchema(ma.Schema):
    """What an admin says of a key."""

    user = ma.fields.String(
        validate=_single_line(200), metadata={"description": "Who holds it; reports go by it.", "example": "ada"}
    )
    name = ma.fields.String(
        validate=_single_line(200), metadata={"description": "Tells a user's keys apart.", "example": "thesis"}
    )
    group = ma.fields.String(
        allow_none=True, validate=_single_line(200), metadata={"description": "A course or team.", "example": "ml-2026"}
    )
    email = ma.fields.Email(allow_none=True, validate=validate.Length(max=254), metadata={"example": "ada@example.org"})
    note = ma.fields.String(allow_none=True, validate=validate.Length(max=2000), metadata={"example": "until June"})
    active = ma.fields.Boolean(metadata={"description": "False refuses the key and keeps its history."})
    starts_at = Moment(allow_none=True, metadata={"description": "Refused before.", "example": "2026-10-01T00:00:00Z"})
    expires_at = Moment(
        allow_none=True, metadata={"description": "Refused from then on.", "example": "2027-03-31T22:00:00Z"}
    )
    models = ma.fields.List(
        ma.fields.String(validate=_single_line(128)),
        allow_none=True,
        validate=validate.Length(max=100),
        metadata={"description": "Models the key may use; null for every one.", "example": ["gpt-4o-mini"]},
    )

    @ma.validates_schema
    def _season(self, data: dict[str, Any], **_: Any) -> None:
        starts, expires = data.get("starts_at"), data.get("expires_at")
        if starts and expires and expires <= starts:
            raise ma.ValidationError("Must be later than starts_at.", field_name="expires_at")

    @ma.post_load
    def _as_record_fields(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if data.get("models") is not None:
            data["models"] = tuple(data["models"])
        return data


class KeyChangesSchema(KeyFieldsSchema):
    """The fields to change; the others stay as they are."""


class NewKeySchema(KeyFieldsSchema):
    """A key to hand out."""

    user = ma.fields.String(
        required=True,
        validate=_single_line(200),
        metadata={"description": "Who holds it; reports go by it.", "example": "ada"},
    )
    name = ma.fields.String(
        load_default="default",
        validate=_single_line(200),
        metadata={"description": "Tells a user's keys apart.", "example": "thesis"},
    )
    key = ma.fields.String(
        load_only=True,
        metadata={"description": "A key of your own. Leave it out to have one made up.", "example": _EXAMPLE_KEY},
    )

    @ma.validates("key")
    def _usable(self, value: str, **_: Any) -> None:
        # The value is not repeated in the error: it may be somebody's key.
        if not is_usable_key(value):
            raise ma.ValidationError("Must be 1 to 512 visible ASCII characters without spaces.")


class AddKeySchema(ma.Schema):
    """The body that existing scripts send."""

    user = NewKeySchema._declared_fields["user"]
    name = NewKeySchema._declared_fields["name"]
    key = NewKeySchema._declared_fields["key"]

    _usable = NewKeySchema._usable


class KeySchema(KeyFieldsSchema):
    """A key as admins see it: everything but the key."""

    id = ma.fields.String(required=True, metadata={"example": "key_0199aabbccdd0011223344556677"})
    created_at = Moment(required=True)


class KeyWithSecretSchema(KeySchema):
    """A key that has just been handed out."""

    key = ma.fields.String(
        required=True,
        metadata={"description": "The key itself. Shown this once and never again.", "example": _EXAMPLE_KEY},
    )


class KeyPageSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(KeySchema), required=True)
    next = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "`cursor` of the next page; null on the last one."}
    )


class KeyQuerySchema(ma.Schema):
    user = ma.fields.String()
    group = ma.fields.String()
    active = ma.fields.Boolean()
    limit = ma.fields.Integer(load_default=100, validate=validate.Range(min=1, max=1000))
    cursor = ma.fields.String(load_default="", metadata={"description": "`next` of the page before."})


class RemoveKeySchema(ma.Schema):
    """The key itself, or its id."""

    key = ma.fields.String(load_only=True, metadata={"example": _EXAMPLE_KEY})
    id = ma.fields.String(metadata={"example": "key_0199aabbccdd0011223344556677"})

    @ma.validates_schema
    def _one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        if len(data) != 1:
            raise ma.ValidationError("Send either 'key' or 'id'.")


class RemovedKeySchema(ma.Schema):
    id = ma.fields.String(required=True)
    removed = ma.fields.Boolean(required=True)


class CredentialSchema(ma.Schema):
    """Azure's key."""

    key = ma.fields.String(
        required=True, load_only=True, metadata={"description": "Stored encrypted; never readable again."}
    )

    @ma.validates("key")
    def _usable(self, value: str, **_: Any) -> None:
        if not re.fullmatch(r"[\x21-\x7e]{1,4096}", value):
            raise ma.ValidationError("Must be visible ASCII characters without spaces. Copy the key again.")


class CredentialStoredSchema(ma.Schema):
    stored = ma.fields.Boolean(required=True)


class NewPromptSchema(ma.Schema):
    prompt = ma.fields.String(
        required=True,
        validate=validate.Length(max=100_000),
        metadata={
            "description": "Goes in front of every conversation as a system message; empty for none.",
            "example": "You are the assistant of the Institute of Physics. Answer in the language of the question.",
        },
    )


class PromptSchema(ma.Schema):
    version = ma.fields.Integer(required=True, metadata={"description": "0: never set.", "example": 3})
    prompt = ma.fields.String(required=True, attribute="text")
    set_at = Moment(required=True, allow_none=True)


class PromptVersionsSchema(ma.Schema):
    items = ma.fields.List(ma.fields.Nested(PromptSchema), required=True)
    next = ma.fields.String(required=True, allow_none=True)


class HealthSchema(ma.Schema):
    status = ma.fields.String(required=True, metadata={"example": "ok"})
    checks = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.String(),
        metadata={"example": {"sqlite": "ok", "azure_key": "ok"}},
    )


def _errors(*statuses: int) -> dict[str, Any]:
    reference = {"$ref": "#/components/schemas/Error"}
    return {
        str(status): {"description": _STATUS[status], "content": {"application/json": {"schema": reference}}}
        for status in statuses
    }


_STATUS = {
    400: "The body is not what the API takes, or Azure objected to it.",
    401: "The key is missing, malformed, unknown, revoked, not yet valid or expired.",
    403: "The key may not use this model.",
    404: "The model does not exist here, or Azure has no such deployment.",
    413: "The body is too large.",
    415: "The body is compressed or not JSON.",
    429: "Azure's own limit is reached; `Retry-After` says when to come back.",
    502: "Azure cannot be reached or refused the gateway's key.",
    503: "The gateway is at its capacity or cannot look keys up; `Retry-After` says when to come back.",
    504: "Azure was silent for too long.",
}

_EXAMPLE_CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is a black hole?"}]}

CHAT_REQUEST: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["messages"],
                "additionalProperties": True,
                "properties": {
                    "model": {"type": "string"},
                    "messages": {"type": "array", "items": {"type": "object", "additionalProperties": True}},
                    "stream": {"type": "boolean"},
                },
            },
            "examples": {
                "plain": {"summary": "One answer", "value": _EXAMPLE_CHAT},
                "streamed": {"summary": "An answer as it is written", "value": {**_EXAMPLE_CHAT, "stream": True}},
            },
        }
    },
}

CHAT_RESPONSES: dict[str, Any] = {
    "200": {
        "description": "Azure's answer as it came: JSON, or server-sent events.",
        "content": {
            "application/json": {
                "schema": {"type": "object", "additionalProperties": True},
                "example": {
                    "id": "chatcmpl-abc",
                    "object": "chat.completion",
                    "created": 1774890000,
                    "model": "gpt-4o-mini-2024-07-18",
                    "choices": [
                        {
                            "index": 0,
                            "finish_reason": "stop",
                            "message": {"role": "assistant", "content": "A region of space…"},
                        }
                    ],
                    "usage": {"prompt_tokens": 12, "completion_tokens": 40, "total_tokens": 52},
                },
            },
            "text/event-stream": {"schema": {"type": "string"}},
        },
    },
    **_errors(*_STATUS),
}
