"""Schemas of single requests: usage records and refusals."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...records import Outcome, UsageSource
from .. import examples
from .fields import AnswerSchema, Moment, OptionalBoolean, OptionalInteger
from .tables import TableSchema
from .usage import UsageRecordSchema

RECORD, REFUSAL, ALL = "record", "refusal", "all"

_OUTCOMES = ", ".join(f"`{outcome.value}`" for outcome in Outcome)
_SOURCES = ", ".join(f"`{source.value}`" for source in UsageSource)
OF_RECORDS = ("outcome", "usage_source", "deployment", "stream", "region", "min_duration_ms")
"""Filters that refusals cannot match, because nothing was sent to Azure."""
_CURSOR = re.compile(r"(\d{1,14})\.([\w-]{1,64})")


def cursor_of(timestamp: datetime, id_: str) -> str:
    """Return the cursor of the page after this item. It holds when the item is deleted, too."""
    return f"{round(timestamp.timestamp() * 1000)}.{id_}"


def cursor_before(timestamp: datetime) -> str:
    """Return the cursor of the page with what is older than *timestamp*."""
    return cursor_of(timestamp, "-")  # no identifier sorts before it


def place_of(cursor: str) -> tuple[datetime, str] | None:
    """Return what :func:`cursor_of` was given; None for the identifier of a record, which was a cursor once."""
    match = _CURSOR.fullmatch(cursor)
    return None if match is None else (datetime.fromtimestamp(int(match[1]) / 1000, UTC), match[2])


class LogQuerySchema(TableSchema):
    kind = ma.fields.String(
        load_default=RECORD,
        validate=validate.OneOf([RECORD, REFUSAL, ALL]),
        metadata={
            "description": "`record`: what was sent to Azure. `refusal`: what the gateway refused. `all`: both, by "
            "time.",
            "choices": {"what was sent to Azure": RECORD, "what was refused": REFUSAL, "both": ALL},
        },
    )
    id = ma.fields.String(
        validate=validate.Length(max=200),
        metadata={
            "description": "Only the request with this `x-request-id`, or with this id of Azure's.",
            "choices": {"every request": "", "one request": examples.REQUEST_ID},
        },
    )
    key = ma.fields.String(
        metadata={
            "description": "Only the key with this `id`.",
            "choices": {"every key": "", "one key": examples.KEY_ID},
        }
    )
    user = ma.fields.String(
        metadata={"description": "Only this user's.", "choices": {"everybody's": "", "one user's": "ada"}}
    )
    group = ma.fields.String(
        metadata={"description": "Only keys of this group.", "choices": {"every group": "", "one group": "ml-2026"}}
    )
    code = ma.fields.String(
        metadata={
            "description": "Only with this code: `error_code` of a record, `code` of a refusal.",
            "choices": {"with any code or none": "", "a spent budget": "insufficient_quota"},
        }
    )
    since = Moment(
        metadata={
            "description": "Only what was asked from here on. A date alone is its beginning.",
            "choices": {"from the beginning": "", "a day": "2026-10-31", "a moment": "2026-10-31T08:00:00+02:00"},
        }
    )
    until = Moment(
        is_end=True,
        metadata={
            "description": "Only what was asked before this. A date alone is the end of that day.",
            "choices": {"until now": "", "a day": "2026-10-31", "a moment": "2026-10-31T18:00:00+01:00"},
        },
    )
    outcome = ma.fields.String(
        metadata={
            "description": f"Only records that ended like this: {_OUTCOMES}.",
            "choices": {"however it ended": "", **{outcome.value: outcome.value for outcome in Outcome}},
        },
    )
    usage_source = ma.fields.String(
        metadata={
            "description": f"Only records that were counted like this: {_SOURCES}.",
            "choices": {"however it was counted": "", **{source.value: source.value for source in UsageSource}},
        },
    )
    model = ma.fields.String(
        metadata={
            "description": "Only requests for this model, as the user named it.",
            "choices": {"every model": "", "one model": examples.MODEL},
        }
    )
    endpoint = ma.fields.String(
        metadata={
            "description": "Only requests to this endpoint.",
            "choices": {"every endpoint": "", "chat completions": "/v1/chat/completions"},
        }
    )
    status = OptionalInteger(
        validate=validate.Range(min=100, max=599),
        metadata={
            "description": "Only with this status: Azure's of a record, the gateway's of a refusal.",
            "choices": {"every status": "", "over a limit": "429"},
        },
    )
    deployment = ma.fields.String(
        metadata={
            "description": "Only records of this deployment of Azure's.",
            "choices": {"every deployment": "", "one deployment": examples.MODEL},
        }
    )
    stream = OptionalBoolean(
        metadata={
            "description": "Only records of answers that were streamed, or that were not.",
            "choices": {"both": "", "streamed": "true", "in one piece": "false"},
        }
    )
    region = ma.fields.String(
        metadata={
            "description": "Only records that this region of Azure's has answered.",
            "choices": {"every region": "", "one region": "East US 2"},
        }
    )
    min_duration_ms = OptionalInteger(
        validate=validate.Range(min=0, max=10**9),
        metadata={
            "description": "Only records of requests that took at least this long, in milliseconds.",
            "choices": {"however long": "", "a minute and more": "60000"},
        },
    )
    newer_than = ma.fields.String(
        metadata={
            "description": "Only what arrived after this: `newest` of an earlier answer. A request is listed when it "
            "has ended, so one that arrived before may still come.",
            "choices": {"everything": "", "what is new": examples.LOG_CURSOR},
        },
    )
    limit = ma.fields.Integer(
        load_default=100,
        validate=validate.Range(min=1, max=1000),
        metadata={"description": "The most items on a page.", "example": 100},
    )
    cursor = ma.fields.String(
        metadata={
            "description": "`next` of the page before.",
            "choices": {"first page": "", "next page": examples.LOG_CURSOR},
        },
    )

    @ma.validates("outcome")
    def _known_outcome(self, value: str, **_: Any) -> None:
        if value not in Outcome.__members__.values():
            raise ma.ValidationError(f"Must be one of {_OUTCOMES}.")

    @ma.validates("usage_source")
    def _known_source(self, value: str, **_: Any) -> None:
        if value not in UsageSource.__members__.values():
            raise ma.ValidationError(f"Must be one of {_SOURCES}.")

    @ma.validates("newer_than")
    def _known_place(self, value: str, **_: Any) -> None:
        if value and place_of(value) is None:
            raise ma.ValidationError("Must be what an earlier answer has as newest or next.")

    @ma.validates_schema
    def _in_order(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("since") and data.get("until") and data["until"] <= data["since"]:
            raise ma.ValidationError("Must be later than since.", field_name="until")

    @ma.validates_schema
    def _of_records(self, data: dict[str, Any], **_: Any) -> None:
        for name in OF_RECORDS:
            if data.get(name) not in (None, "") and data.get("kind") != RECORD:
                raise ma.ValidationError("Refusals have none: leave it out, or ask for kind=record.", field_name=name)


class LogRecordSchema(UsageRecordSchema):
    """One request that was sent to Azure, among others."""

    kind = ma.fields.Constant(RECORD, metadata={"type": "string", "example": RECORD})


class FoundRecordSchema(LogRecordSchema):
    """One request that was sent to Azure, and what to do about its error."""

    state = ma.fields.String(
        validate=validate.OneOf(["stored", "waiting", "running"]),
        metadata={
            "description": "`running`: it has not ended, and the numbers are estimates. `waiting`: it has ended, and "
            "will be in reports in a moment. `stored`: it is.",
            "example": "stored",
        },
    )
    what_to_do = ma.fields.String(
        allow_none=True, metadata={"description": "For you, the admin; null if it ended well.", "example": None}
    )


class LogRefusalSchema(AnswerSchema):
    """One request that the gateway refused, or several equal ones within a minute."""

    id = ma.fields.String(
        metadata={
            "description": "What the user saw as `x-request-id`; of several requests, that of the first.",
            "example": examples.REFUSAL["id"],
        }
    )
    kind = ma.fields.Constant(REFUSAL, metadata={"type": "string", "example": REFUSAL})
    timestamp = Moment(metadata={"example": examples.REFUSAL["timestamp"]})
    status = ma.fields.Integer(metadata={"example": 429})
    code = ma.fields.String(
        allow_none=True, metadata={"description": "As in the error of the answer.", "example": "insufficient_quota"}
    )
    limit = ma.fields.String(
        allow_none=True,
        metadata={"description": "The limit that was reached; null: none of the gateway's.", "example": "key.budget"},
    )
    key_id = ma.fields.String(
        allow_none=True, metadata={"description": "null: nobody has the key that was sent.", "example": examples.KEY_ID}
    )
    user = ma.fields.String(allow_none=True, metadata={"example": "ada"})
    group = ma.fields.String(allow_none=True, metadata={"example": "ml-2026"})
    endpoint = ma.fields.String(
        allow_none=True,
        metadata={"description": "null: the request could not be read.", "example": "/v1/chat/completions"},
    )
    model = ma.fields.String(
        allow_none=True, metadata={"description": "As the user asked for it, if that was read.", "example": None}
    )
    address = ma.fields.String(allow_none=True, metadata={"example": "192.0.2.17"})
    message = ma.fields.String(
        metadata={"description": "What the user was told.", "example": examples.REFUSAL["message"]}
    )
    count = ma.fields.Integer(
        metadata={
            "description": "How many equal requests this stands for: of the same key (or address), with the same code "
            "and limit, within a minute. Only the first 21 of them can be found by their own id.",
            "example": 3,
        }
    )
    last_at = Moment(
        allow_none=True,
        metadata={"description": "When the last of them was; null if there was one.", "example": None},
    )


class FoundRefusalSchema(LogRefusalSchema):
    """A request that the gateway refused, and what to do about it."""

    first_id = ma.fields.String(
        metadata={
            "description": "The first of several equal ones, under which they are listed.",
            "example": examples.REFUSAL["id"],
        }
    )
    what_to_do = ma.fields.String(metadata={"description": "For you, the admin.", "example": "llmgateway keys show …"})
