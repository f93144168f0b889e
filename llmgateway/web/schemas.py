"""The bodies of requests and answers, checked and documented. Chat bodies have none: they are Azure's."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Any

import marshmallow as ma
from marshmallow import validate

from ..keys import is_usable_key
from ..ladder import Rung
from ..records import GROUPINGS, Outcome, UsageSource
from . import examples

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OUTCOMES = ", ".join(f"`{outcome.value}`" for outcome in Outcome)
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def _one_line(text: str) -> None:
    # Not a pattern: Python's and JavaScript's mean different things, and clients are generated from these.
    if _CONTROL.search(text):
        raise ma.ValidationError("Must be one line, without control characters.")


def _single_line(limit: int) -> list[Any]:
    return [validate.Length(min=1, max=limit), _one_line]


class Moment(ma.fields.AwareDateTime):
    """A point in time with a zone, kept in UTC to the millisecond. A date alone is its first moment, in UTC."""

    default_error_messages = {
        "invalid": "Must be a time like 2027-03-31T22:00:00Z, or a date like 2027-03-31 (from midnight, UTC).",
        "invalid_awareness": "Must say its zone, like 2027-03-31T22:00:00Z or 2027-04-01T00:00:00+02:00.",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(format="iso", default_timezone=None, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> datetime:
        if isinstance(value, str) and _DAY.fullmatch(value):
            value += "T00:00:00Z"
        parsed = super()._deserialize(value, *args, **kwargs)
        try:
            parsed = parsed.astimezone(UTC)
        except OverflowError as error:  # the first and the last day of the calendar, in zones beyond it
            raise self.make_error("invalid") from error
        return parsed.replace(microsecond=parsed.microsecond // 1000 * 1000)


class Day(ma.fields.Date):
    """A whole day, in UTC."""

    default_error_messages = {
        "invalid": "Must be a whole day in UTC, like 2026-10-31. Both start and end are included."
    }

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> date:
        if not (isinstance(value, str) and _DAY.fullmatch(value)):
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE)
        return super()._deserialize(value, *args, **kwargs)


class AnswerSchema(ma.Schema):
    """What the gateway says. Every field is always there; clients must expect more of them one day."""

    class Meta:
        unknown = ma.EXCLUDE

    def on_bind_field(self, _field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = True


class UsageSchema(AnswerSchema):
    """Sums over usage records."""

    requests = ma.fields.Integer(metadata={"example": 12})
    prompt_tokens = ma.fields.Integer(metadata={"example": 3400})
    completion_tokens = ma.fields.Integer(metadata={"example": 1200})
    total_tokens = ma.fields.Integer(metadata={"example": 4600})
    cached_tokens = ma.fields.Integer(
        metadata={"description": "The part of the prompt tokens that Azure had in its cache.", "example": 1024}
    )
    reasoning_tokens = ma.fields.Integer(
        metadata={"description": "The part of the completion tokens that was thought and not said.", "example": 0}
    )
    cost_usd = ma.fields.Float(
        metadata={"description": "At Azure's list prices; models without a known price count as 0.", "example": 0.00123}
    )
    errors = ma.fields.Integer(metadata={"description": "Requests that did not end well.", "example": 0})


class GroupingsSchema(AnswerSchema):
    day = ma.fields.String(metadata={"description": "In UTC.", "example": "2026-10-31"})
    month = ma.fields.String(metadata={"description": "In UTC.", "example": "2026-10"})
    user = ma.fields.String(metadata={"example": "ada"})
    key = ma.fields.String(metadata={"description": "The key's id.", "example": examples.KEY_ID})
    group = ma.fields.String(allow_none=True, metadata={"example": "ml-2026"})
    model = ma.fields.String(metadata={"description": "As users asked for it.", "example": examples.MODEL})


class UsageRowSchema(UsageSchema, GroupingsSchema):
    """Sums for one value of each grouping that was asked for, which comes first."""

    def on_bind_field(self, field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = field_name not in GROUPINGS


class UsageReportSchema(AnswerSchema):
    rows = ma.fields.List(
        ma.fields.Nested(UsageRowSchema), metadata={"description": "Ascending by the groupings; none without `by`."}
    )
    total = ma.fields.Nested(UsageSchema)


class UsageQuerySchema(ma.Schema):
    start = Day(
        metadata={
            "description": "The first day, in UTC.",
            "choices": {"from the beginning": "", "a month": "2026-10-01"},
        }
    )
    end = Day(
        metadata={
            "description": "The last day, in UTC; it is included.",
            "choices": {"until now": "", "a month": "2026-10-31"},
        }
    )
    by = ma.fields.String(
        metadata={
            "description": "What to have a row for, separated by commas: any of "
            + ", ".join(f"`{name}`" for name in GROUPINGS)
            + ".",
            "choices": {
                "every user's months": "month,user",
                "every day": "day",
                "courses and models": "group,model",
                "the total alone": "",
            },
        },
    )
    format = ma.fields.String(
        load_default="json",
        validate=validate.OneOf(["json", "csv"]),
        metadata={"description": "`csv` is for spreadsheets, and has no total if there are rows.", "example": "json"},
    )

    @ma.validates("by")
    def _known_groupings(self, value: str, **_: Any) -> None:
        names = [name.strip() for name in value.split(",") if name.strip()]
        unknown = sorted(set(names) - set(GROUPINGS))
        if unknown or len(names) != len(set(names)):
            raise ma.ValidationError("Each of " + ", ".join(GROUPINGS) + " at most once, separated by commas.")

    @ma.validates_schema
    def _in_order(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("start") and data.get("end") and data["end"] < data["start"]:
            raise ma.ValidationError("Must not be before start.", field_name="end")


class LogQuerySchema(ma.Schema):
    key = ma.fields.String(
        metadata={
            "description": "Only the key with this `id`.",
            "choices": {"every key": "", "one key": examples.KEY_ID},
        }
    )
    user = ma.fields.String(
        metadata={"description": "Only this user's.", "choices": {"everybody's": "", "one user's": "ada"}}
    )
    since = Moment(
        metadata={
            "description": "Only what was asked from here on.",
            "choices": {"from the beginning": "", "a day": "2026-10-31", "a moment": "2026-10-31T08:00:00+02:00"},
        }
    )
    until = Moment(
        metadata={
            "description": "Only what was asked before this.",
            "choices": {"until now": "", "a day": "2026-11-01", "a moment": "2026-10-31T18:00:00+01:00"},
        }
    )
    outcome = ma.fields.String(
        metadata={
            "description": f"Only what ended like this: {_OUTCOMES}.",
            "choices": {"however it ended": "", **{outcome.value: outcome.value for outcome in Outcome}},
        },
    )
    limit = ma.fields.Integer(
        load_default=100,
        validate=validate.Range(min=1, max=1000),
        metadata={"description": "The most records on a page.", "example": 100},
    )
    cursor = ma.fields.String(
        metadata={
            "description": "`next` of the page before.",
            "choices": {"first page": "", "next page": examples.REQUEST_ID},
        },
    )

    @ma.validates("outcome")
    def _known_outcome(self, value: str, **_: Any) -> None:
        if value not in Outcome.__members__.values():
            raise ma.ValidationError(f"Must be one of {_OUTCOMES}.")

    @ma.validates_schema
    def _in_order(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("since") and data.get("until") and data["until"] <= data["since"]:
            raise ma.ValidationError("Must be later than since.", field_name="until")


class UsageRecordSchema(AnswerSchema):
    """One request that was sent to Azure, and what came of it."""

    id = ma.fields.String(
        metadata={
            "description": "Azure knows it as `x-ms-client-request-id`.",
            "example": examples.REQUEST_ID,
        }
    )
    timestamp = Moment(metadata={"description": "When it arrived.", "example": "2026-10-31T09:12:07.345000+00:00"})
    key_id = ma.fields.String(metadata={"example": examples.KEY_ID})
    user = ma.fields.String(metadata={"example": "ada"})
    group = ma.fields.String(allow_none=True, metadata={"example": "ml-2026"})
    model = ma.fields.String(metadata={"description": "As the user asked for it.", "example": examples.MODEL})
    deployment = ma.fields.String(metadata={"description": "Azure's.", "example": examples.MODEL})
    endpoint = ma.fields.String(metadata={"example": "/v1/chat/completions"})
    stream = ma.fields.Boolean(metadata={"example": True})
    status = ma.fields.Integer(
        allow_none=True, metadata={"description": "Azure's; null where no answer came.", "example": 200}
    )
    outcome = ma.fields.String(
        validate=validate.OneOf([outcome.value for outcome in Outcome]),
        metadata={"description": "How it ended.", "example": "ok"},
    )
    prompt_tokens = ma.fields.Integer(metadata={"example": 310})
    completion_tokens = ma.fields.Integer(metadata={"example": 90})
    total_tokens = ma.fields.Integer(metadata={"example": 400})
    cached_tokens = ma.fields.Integer(metadata={"description": "A part of the prompt tokens.", "example": 0})
    reasoning_tokens = ma.fields.Integer(metadata={"description": "A part of the completion tokens.", "example": 0})
    usage_source = ma.fields.String(
        validate=validate.OneOf([source.value for source in UsageSource]),
        metadata={"description": "Who counted the tokens: Azure, or nobody exactly.", "example": "upstream"},
    )
    cost_usd = ma.fields.Float(
        allow_none=True, metadata={"description": "null where no price is known.", "example": 0.0001005}
    )
    prompt_version = ma.fields.Integer(metadata={"description": "0: there was no prompt.", "example": 3})
    content_filter = ma.fields.List(
        ma.fields.String(), metadata={"description": "Categories of Azure's filter that fired.", "example": []}
    )
    ttft_ms = ma.fields.Float(
        allow_none=True, metadata={"description": "Until the first text of a stream.", "example": 412.5}
    )
    duration_ms = ma.fields.Float(metadata={"example": 1630.25})
    upstream_request_id = ma.fields.String(
        allow_none=True, metadata={"description": "Azure's own.", "example": "0f2c7a51-6d1e-4f0a-9c55-3b0f4e6f9a10"}
    )
    region = ma.fields.String(allow_none=True, metadata={"example": "East US 2"})
    client_address = ma.fields.String(allow_none=True, metadata={"example": "192.0.2.17"})


class LogPageSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(UsageRecordSchema))
    next = ma.fields.String(
        allow_none=True, metadata={"description": "`cursor` of the next page; null on the last one.", "example": None}
    )


class UsageSoFarSchema(AnswerSchema):
    today = ma.fields.Nested(UsageSchema, metadata={"description": "Since midnight, UTC."})
    month = ma.fields.Nested(UsageSchema, metadata={"description": "Since the first of this month, UTC."})
    total = ma.fields.Nested(UsageSchema)


class MeSchema(AnswerSchema):
    id = ma.fields.String(metadata={"description": "Names the key and opens nothing.", "example": examples.KEY_ID})
    user = ma.fields.String(metadata={"example": "ada"})
    name = ma.fields.String(metadata={"example": "thesis"})
    group = ma.fields.String(allow_none=True, metadata={"example": "ml-2026"})
    expires_at = Moment(allow_none=True, metadata={"description": "null: never.", "example": "2027-03-31T22:00:00Z"})
    models = ma.fields.List(
        ma.fields.String(),
        allow_none=True,
        metadata={"description": "Models the key may use; null for every one.", "example": [examples.MODEL]},
    )
    limits = ma.fields.Dict(metadata={"description": "What the key is limited to; empty for nothing.", "example": {}})
    remaining = ma.fields.Dict(metadata={"description": "What is left of that.", "example": {}})
    usage = ma.fields.Nested(UsageSoFarSchema)


class ModelSchema(AnswerSchema):
    id = ma.fields.String(metadata={"description": "What to send as `model`.", "example": examples.MODEL})
    object = ma.fields.String(metadata={"example": "model"})
    created = ma.fields.Integer(metadata={"description": "Not known here: 0.", "example": 0})
    owned_by = ma.fields.String(metadata={"example": "organisation"})


class ModelListSchema(AnswerSchema):
    object = ma.fields.String(metadata={"example": "list"})
    data = ma.fields.List(ma.fields.Nested(ModelSchema))


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
    note = ma.fields.String(
        allow_none=True,
        validate=validate.Length(max=2000),
        metadata={"description": "For admins only.", "example": "until June"},
    )
    active = ma.fields.Boolean(
        metadata={"description": "false refuses the key and keeps everything about it.", "example": True}
    )
    starts_at = Moment(
        allow_none=True, metadata={"description": "Refused before.", "example": "2026-10-01T00:00:00+02:00"}
    )
    expires_at = Moment(
        allow_none=True,
        metadata={
            "description": "Refused from then on. A date alone is its midnight in UTC.",
            "example": "2027-04-01T00:00:00+02:00",
        },
    )
    models = ma.fields.List(
        ma.fields.String(validate=_single_line(128)),
        allow_none=True,
        validate=validate.Length(max=100),
        metadata={"description": "Models the key may use; null for every one.", "example": [examples.MODEL]},
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


class AddKeySchema(ma.Schema):
    """The body that existing scripts send."""

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
        metadata={
            "description": "A key of your own, up to 512 visible ASCII characters. Leave it out to have one made up.",
            "example": examples.SECRET_KEY,
        },
    )

    @ma.validates("key")
    def _usable(self, value: str, **_: Any) -> None:
        # The value is not repeated in the error: it may be somebody's key.
        if not is_usable_key(value):
            raise ma.ValidationError("Must be 1 to 512 visible ASCII characters without spaces.")
        _not_from_the_documentation(value)


class NewKeySchema(AddKeySchema, KeyFieldsSchema):
    """A key to hand out."""


class IdentitySchema(AnswerSchema):
    id = ma.fields.String(metadata={"description": "Names the key and opens nothing.", "example": examples.KEY_ID})


class KeySchema(KeyFieldsSchema, IdentitySchema):
    """A key as admins see it: everything but the key."""

    created_at = Moment(metadata={"example": "2026-10-01T08:15:30.250000+00:00"})


class SecretSchema(AnswerSchema):
    key = ma.fields.String(
        metadata={
            "description": "The key itself: give it to its user. Shown this once and never again.",
            "example": examples.SECRET_KEY,
        }
    )


class KeyWithSecretSchema(KeySchema, SecretSchema):
    """A key that has just been handed out."""


class KeyPageSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(KeySchema))
    next = ma.fields.String(
        allow_none=True, metadata={"description": "`cursor` of the next page; null on the last one.", "example": None}
    )


class KeyQuerySchema(ma.Schema):
    user = ma.fields.String(
        metadata={"description": "Only this user's.", "choices": {"everybody's": "", "one user's": "ada"}}
    )
    group = ma.fields.String(
        metadata={"description": "Only this group's.", "choices": {"every group's": "", "one group's": "ml-2026"}}
    )
    active = ma.fields.Boolean(metadata={"description": "Only those that are active, or only those that are not."})
    limit = ma.fields.Integer(
        load_default=100,
        validate=validate.Range(min=1, max=1000),
        metadata={"description": "The most keys on a page.", "example": 100},
    )
    cursor = ma.fields.String(
        metadata={
            "description": "`next` of the page before.",
            "choices": {"first page": "", "next page": examples.KEY_ID},
        },
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
        if not re.fullmatch(r"[\x21-\x7e]{1,4096}", value):
            raise ma.ValidationError("Must be visible ASCII characters without spaces. Copy the key again.")
        _not_from_the_documentation(value)


def _not_from_the_documentation(key: str) -> None:
    if key in (examples.SECRET_KEY, examples.AZURE_KEY):
        raise ma.ValidationError("This is the documentation's example. Put your own in its place.")


class CredentialStoredSchema(AnswerSchema):
    stored = ma.fields.Boolean(metadata={"example": True})


class NewPromptSchema(ma.Schema):
    prompt = ma.fields.String(
        required=True,
        validate=validate.Length(max=100_000),
        metadata={
            "description": "Goes in front of every conversation as a system message; empty for none.",
            "example": examples.PROMPT["prompt"],
        },
    )


class PromptSchema(AnswerSchema):
    version = ma.fields.Integer(
        metadata={"description": "One more with every change; 0 if none was ever set.", "example": 3}
    )
    prompt = ma.fields.String(attribute="text", metadata={"example": examples.PROMPT["prompt"]})
    set_at = Moment(allow_none=True, metadata={"example": examples.PROMPT["set_at"]})


class PromptVersionsSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(PromptSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})


class LivenessSchema(AnswerSchema):
    status = ma.fields.String(metadata={"example": "ok"})


_RUNG: dict[str, Any] = {
    "description": (
        "What it does without while a store is away. `normal`; `without_redis`: keys are looked up in the "
        "durable store; `without_durable_store`: keys are looked up in Redis, usage records wait, nothing can be "
        "changed; `memory_only`: only keys that this process has seen are known."
    ),
    "example": "normal",
}


class ReadinessSchema(AnswerSchema):
    status = ma.fields.String(
        validate=validate.OneOf(["ok", "degraded", "unavailable"]),
        metadata={"description": "`degraded`: serves, and something needs an admin.", "example": "ok"},
    )
    rung = ma.fields.String(validate=validate.OneOf(list(Rung)), metadata=_RUNG)
    checks = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.String(),
        metadata={
            "description": "`ok`, or what is wrong, by store and for Azure's key.",
            "example": {"sqlite": "ok", "azure_key": "ok"},
        },
    )


class BacklogSchema(AnswerSchema):
    records = ma.fields.Integer(metadata={"description": "Usage records not in the usage log yet.", "example": 0})
    oldest_seconds = ma.fields.Float(metadata={"description": "How long the oldest waits.", "example": 0.0})
    problem = ma.fields.String(
        allow_none=True, metadata={"description": "Why they wait, if something is wrong.", "example": None}
    )


class SlotsSchema(AnswerSchema):
    capacity = ma.fields.Integer(metadata={"description": "Requests this process relays at once.", "example": 124})
    taken = ma.fields.Integer(metadata={"description": "Requests it relays now.", "example": 3})


class ProcessSchema(AnswerSchema):
    id = ma.fields.Integer(metadata={"description": "The one that gave this answer.", "example": 17})
    processes = ma.fields.Integer(metadata={"description": "How many there are on this host.", "example": 2})
    threads = ma.fields.Integer(metadata={"description": "Threads of each.", "example": 128})


class StatusSchema(AnswerSchema):
    version = ma.fields.String(metadata={"example": "0.1.0"})
    rung = ma.fields.String(validate=validate.OneOf(list(Rung)), metadata=_RUNG)
    stores = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.String(),
        metadata={"description": "`ok`, or what is wrong.", "example": {"sqlite": "ok"}},
    )
    azure_key = ma.fields.String(metadata={"description": "`ok`, or what is wrong.", "example": "ok"})
    journal = ma.fields.Nested(BacklogSchema)
    slots = ma.fields.Nested(SlotsSchema)
    process = ma.fields.Nested(ProcessSchema)


def _price(meaning: str, example: float) -> ma.fields.Float:
    return ma.fields.Float(
        required=True,
        validate=validate.Range(min=0, max=1_000_000),
        metadata={"description": f"US dollars per million {meaning}.", "example": example},
    )


class PricesSchema(ma.Schema):
    prompt = _price("prompt tokens", 2.5)
    cached = _price("prompt tokens that Azure had in its cache", 1.25)
    completion = _price("completion tokens", 10.0)


class ModelSettingsSchema(ma.Schema):
    """What is the organisation's own about a model."""

    prices = ma.fields.Nested(PricesSchema, required=True)


class NamedModelSettingsSchema(AnswerSchema):
    name = ma.fields.String(metadata={"example": examples.MODEL})
    prices = ma.fields.Nested(PricesSchema)


class ModelSettingsListSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(NamedModelSettingsSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})


CHAT_REQUEST: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["messages"],
                "additionalProperties": True,
                "properties": {
                    "model": {
                        "type": "string",
                        "description": "One of `GET /v1/models`. May be missing if the gateway has only one.",
                        "example": examples.MODEL,
                    },
                    "messages": {
                        "type": "array",
                        "description": "The conversation so far.",
                        "items": {"type": "object", "additionalProperties": True},
                    },
                    "stream": {"type": "boolean", "description": "Send the answer as it is written."},
                },
            },
            "examples": {
                "plain": {"summary": "One answer", "value": examples.CONVERSATION},
                "streamed": {"summary": "An answer as it is written", "value": examples.STREAMED_CONVERSATION},
            },
        }
    },
}

CHAT_ANSWER: dict[str, Any] = {
    "description": "Azure's answer as it came.",
    "content": {
        "application/json": {
            "schema": {"type": "object", "additionalProperties": True},
            "example": examples.COMPLETION,
        },
        "text/event-stream": {"schema": {"type": "string"}, "example": examples.EVENTS},
    },
}
