"""Schemas of usage reports and usage records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...records import FILTER_GROUPINGS, Outcome, UsageSource
from ...usage.report import REPORT_GROUPINGS
from .. import examples
from .fields import AnswerSchema, Day, Moment, OptionalInteger
from .tables import TableSchema


class UsageSchema(AnswerSchema):
    """Sums of usage records."""

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
        metadata={
            "description": "At Azure's list prices or your own, of the requests whose price is known.",
            "example": 0.00123,
        }
    )
    errors = ma.fields.Integer(metadata={"description": "Requests that did not end well.", "example": 0})
    unpriced_requests = ma.fields.Integer(
        metadata={
            "description": "Requests whose price is not known. They are not in the cost; in CSV, the cost is empty if "
            "there are no other requests.",
            "example": 0,
        }
    )
    estimated_tokens = ma.fields.Integer(
        metadata={
            "description": "The part of the total that Azure did not count, and that was estimated from what was seen.",
            "example": 120,
        }
    )
    bound_tokens = ma.fields.Integer(
        metadata={
            "description": "The part of the total that Azure did not count and nobody saw: the most that the models "
            "can have written.",
            "example": 800,
        }
    )


_CONVERTED = ("currency", "cost", "months_without_rate")


class ConvertedSchema(UsageSchema):
    """Sums of usage records, and their cost in the second currency if it was asked for."""

    currency = ma.fields.String(metadata={"description": "As it was asked for.", "example": "EUR"})
    cost = ma.fields.Float(
        allow_none=True,
        metadata={
            "description": "In this currency, at the rate of each month; null if a month has a cost and no rate.",
            "example": 0.00113,
        },
    )
    months_without_rate = ma.fields.List(
        ma.fields.String(),
        metadata={"description": "The months that have a cost and no rate.", "example": []},
    )

    def on_bind_field(self, field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = field_name not in _CONVERTED


class GroupingsSchema(AnswerSchema):
    day = ma.fields.String(
        metadata={"description": "In the organisation's time zone; in UTC with `tz=utc`.", "example": "2026-10-31"}
    )
    week = ma.fields.String(
        metadata={"description": "As in ISO 8601: from Monday to Sunday of that time zone.", "example": "2026-W44"}
    )
    month = ma.fields.String(metadata={"description": "Of that time zone.", "example": "2026-10"})
    user = ma.fields.String(metadata={"example": "ada"})
    key = ma.fields.String(metadata={"description": "The key's id.", "example": examples.KEY_ID})
    group = ma.fields.String(allow_none=True, metadata={"example": "ml-2026"})
    cost_centre = ma.fields.String(
        allow_none=True, metadata={"description": "Which the group has now; null if it has none.", "example": "4711"}
    )
    model = ma.fields.String(metadata={"description": "As users asked for it.", "example": examples.MODEL})
    deployment = ma.fields.String(
        allow_none=True,
        metadata={
            "description": "Azure's; null in sums that an older version has stored, until `llmgateway rebuild-usage`.",
            "example": examples.MODEL,
        },
    )


class UsageRowSchema(ConvertedSchema, GroupingsSchema):
    """Sums for one value of each grouping that was asked for, which comes first."""

    def on_bind_field(self, field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = field_name not in (*REPORT_GROUPINGS, *_CONVERTED)


class UsageReportSchema(AnswerSchema):
    rows = ma.fields.List(
        ma.fields.Nested(UsageRowSchema), metadata={"description": "Ascending by the groupings; none without `by`."}
    )
    total = ma.fields.Nested(ConvertedSchema)


class FilterRowSchema(AnswerSchema):
    """What was found for one value of each grouping that was asked for."""

    day = ma.fields.String(
        metadata={"description": "In the organisation's time zone; in UTC with `tz=utc`.", "example": "2026-10-31"}
    )
    month = ma.fields.String(metadata={"description": "Of that time zone.", "example": "2026-10"})
    user = ma.fields.String(metadata={"example": "ada"})
    key = ma.fields.String(metadata={"description": "The key's id.", "example": examples.KEY_ID})
    group = ma.fields.String(allow_none=True, metadata={"example": "ml-2026"})
    model = ma.fields.String(metadata={"example": examples.MODEL})
    category = ma.fields.String(metadata={"description": "As Azure names it.", "example": "violence"})
    severity = ma.fields.String(
        metadata={
            "description": "`low`, `medium` or `high`; `found` where a category has none.",
            "example": "medium",
        }
    )
    requests = ma.fields.Integer(required=True, metadata={"description": "In which it found this.", "example": 3})
    fired = ma.fields.Integer(
        required=True, metadata={"description": "Those that it blocked, or flagged as detected.", "example": 1}
    )

    def on_bind_field(self, field_name: str, field_obj: ma.fields.Field[Any]) -> None:
        field_obj.required = field_name not in FILTER_GROUPINGS


class FilterTotalSchema(AnswerSchema):
    requests = ma.fields.Integer(metadata={"example": 3})
    fired = ma.fields.Integer(metadata={"example": 1})


class FilterReportSchema(AnswerSchema):
    rows = ma.fields.List(ma.fields.Nested(FilterRowSchema), metadata={"description": "Ascending by the groupings."})
    total = ma.fields.Nested(
        FilterTotalSchema, metadata={"description": "Each request once, whatever was found in it."}
    )


def names_of(text: str) -> tuple[str, ...]:
    """Return the names in *text*, which are separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


class PeriodSchema(ma.Schema):
    """From which day to which."""

    start = Day(
        metadata={
            "description": "The first day, in the organisation's time zone; in UTC with `tz=utc`.",
            "choices": {"from the beginning": "", "a month": "2026-10-01"},
        }
    )
    end = Day(
        metadata={
            "description": "The last day; it is included.",
            "choices": {"until now": "", "a month": "2026-10-31"},
        }
    )
    tz = ma.fields.String(
        metadata={
            "description": "`utc`: days are those of UTC, as on Azure's bill.",
            "choices": {"the organisation's days": "", "UTC days": "utc"},
        },
    )

    @ma.validates("tz")
    def _known_zone(self, value: str, **_: Any) -> None:
        if value != "utc":
            raise ma.ValidationError("Must be utc. Without it, days are those of the organisation's time zone.")

    @ma.validates_schema
    def _in_order(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("start") and data.get("end") and data["end"] < data["start"]:
            raise ma.ValidationError("Must not be before start.", field_name="end")


class FilterQuerySchema(PeriodSchema):
    by = ma.fields.String(
        load_default="category,severity",
        metadata={
            "description": "What to have a row for, separated by commas: any of "
            + ", ".join(f"`{name}`" for name in FILTER_GROUPINGS)
            + ".",
            "choices": {
                "what was found": "category,severity",
                "every key": "key,category,severity",
                "every group": "group,category,severity",
            },
        },
    )
    key = ma.fields.String(
        metadata={
            "description": "Only the key with this `id`.",
            "choices": {"every key": "", "one key": examples.KEY_ID},
        }
    )
    group = ma.fields.String(
        metadata={"description": "Only keys of this group.", "choices": {"every group": "", "one group": "ml-2026"}}
    )

    @ma.validates("by")
    def _known_groupings(self, value: str, **_: Any) -> None:
        _check_groupings(names_of(value), FILTER_GROUPINGS)


def _check_groupings(names: Sequence[str], known: Sequence[str]) -> None:
    if set(names) - set(known) or len(names) != len(set(names)):
        raise ma.ValidationError("Each of " + ", ".join(known) + " at most once, separated by commas.")


class UsageQuerySchema(TableSchema, PeriodSchema):
    by = ma.fields.String(
        metadata={
            "description": "What to have a row for, separated by commas: any of "
            + ", ".join(f"`{name}`" for name in REPORT_GROUPINGS)
            + ". Weeks begin on Monday.",
            "choices": {
                "every user's months": "month,user",
                "every day": "day",
                "every week": "week",
                "cost centres": "month,cost_centre",
                "courses and models": "group,model",
                "the total alone": "",
            },
        },
    )
    user = ma.fields.String(
        metadata={"description": "Only this user's.", "choices": {"everybody's": "", "one user's": "ada"}}
    )
    group = ma.fields.String(
        metadata={"description": "Only keys of this group.", "choices": {"every group": "", "one group": "ml-2026"}}
    )
    key = ma.fields.String(
        metadata={
            "description": "Only the key with this `id`.",
            "choices": {"every key": "", "one key": examples.KEY_ID},
        }
    )
    top = OptionalInteger(
        validate=validate.Range(1, 1000),
        metadata={
            "description": "Only this many rows: those with the highest cost, the highest first. The total is that of "
            "all rows.",
            "choices": {"every row": "", "the ten highest": "10"},
        },
    )
    currency = ma.fields.String(
        metadata={
            "description": "The second currency, which `PUT /admin/currency` sets: costs are also in it.",
            "choices": {"US dollars alone": "", "euros, too": "EUR"},
        },
    )

    @ma.validates("by")
    def _known_groupings(self, value: str, **_: Any) -> None:
        _check_groupings(names_of(value), REPORT_GROUPINGS)


class AttemptSchema(AnswerSchema):
    """One of several requests to Azure for one request of a client."""

    azure_deployment = ma.fields.String(
        allow_none=True,
        metadata={"description": "Its name at Azure; null in records of older versions.", "example": examples.MODEL},
    )
    resource = ma.fields.String(
        allow_none=True,
        metadata={"description": "The address of its resource at Azure.", "example": "https://NAME.openai.azure.com"},
    )

    deployment = ma.fields.String(metadata={"example": "gpt-4o-west"})
    status = ma.fields.Integer(allow_none=True, metadata={"example": 429})
    upstream_request_id = ma.fields.String(allow_none=True, metadata={"example": None})
    prompt_tokens = ma.fields.Integer(metadata={"example": 0})
    completion_tokens = ma.fields.Integer(metadata={"example": 0})
    cost_usd = ma.fields.Float(allow_none=True, metadata={"example": 0.0})
    error_code = ma.fields.String(allow_none=True, metadata={"example": "rate_limit_tokens"})
    sent_ms = ma.fields.Float(
        allow_none=True,
        metadata={
            "description": "When it was sent, after the arrival of the request; null in records of older versions.",
            "example": 14.2,
        },
    )


class UsageRecordSchema(AnswerSchema):
    """One request that was sent to Azure, and how it ended."""

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
    model_known = ma.fields.Boolean(
        metadata={"description": "If false, reports count the model as `unknown`.", "example": True}
    )
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
        metadata={
            "description": "`upstream`: Azure counted the tokens. `estimated`: the gateway estimated what it saw. "
            "`bound`: the most that the model can have written. `none`: the request cost nothing.",
            "example": "upstream",
        },
    )
    cost_usd = ma.fields.Float(
        allow_none=True, metadata={"description": "null where the price is not known.", "example": 0.0001005}
    )
    prompt_version = ma.fields.Integer(metadata={"description": "0: there was no prompt.", "example": 3})
    content_filter = ma.fields.List(
        ma.fields.String(), metadata={"description": "Categories of Azure's filter that fired.", "example": []}
    )
    filter_severities = ma.fields.List(
        ma.fields.String(),
        metadata={
            "description": "What the filter found, also where it let it pass: category and severity (`low`, `medium`, "
            "`high`; `found` where a category has none).",
            "example": ["violence:low"],
        },
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
    attempts = ma.fields.List(
        ma.fields.Nested(AttemptSchema),
        metadata={
            "description": "What was sent to registered deployments, in order. Tokens and cost of the record are the "
            "sums. Empty for requests to `LLM_BASE_URL`.",
            "example": [],
        },
    )
    response_id = ma.fields.String(
        allow_none=True, metadata={"description": "Of a response that Azure stores.", "example": None}
    )
    stored_ids = ma.fields.List(
        ma.fields.String(), metadata={"description": "Of the items and containers of that response.", "example": []}
    )
    stored_at = ma.fields.String(
        allow_none=True,
        metadata={"description": "The resource that has the response; null: that of `LLM_BASE_URL`.", "example": None},
    )
    service_tier = ma.fields.String(
        allow_none=True, metadata={"description": "The tier that served it.", "example": "default"}
    )
    spilled_over = ma.fields.Boolean(
        metadata={"description": "Whether a provisioned deployment passed it on to another one.", "example": False}
    )
    error_code = ma.fields.String(
        allow_none=True,
        metadata={
            "description": "Of Azure's error, or of the gateway's. Of a 429: `rate_limit_requests`, "
            "`rate_limit_tokens`, `rate_limit_lowered` (Azure lowered the limit), `rate_limit_estimate` (`max_tokens` "
            "is too large for what is left), `capacity` (Azure has none), `rate_limit` (it does not say).",
            "example": None,
        },
    )
    tool_uses = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.Integer(),
        metadata={"description": "How often Azure ran tools that it bills by use.", "example": {}},
    )
    admitted_ms = ma.fields.Float(
        allow_none=True,
        metadata={
            "description": "From its arrival until all its limits allowed it. null, as the next one, in records of "
            "older versions, and if the gateway died meanwhile.",
            "example": 11.9,
        },
    )
    sent_ms = ma.fields.Float(
        allow_none=True,
        metadata={"description": "From its arrival until it was sent to Azure for the first time.", "example": 12.4},
    )
    limits = ma.fields.List(
        ma.fields.String(),
        metadata={
            "description": "The limits that it was checked against, as in `x-llmgateway-limit`.",
            "example": ["key.requests_per_minute", "group.budget"],
        },
    )
