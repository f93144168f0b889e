"""Schemas of alerts."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from marshmallow import validate

from ...alerts.addresses import LONGEST_URL, problem_of_mail_address, problem_of_sender
from ...alerts.settings import Event, Format
from ...records import DeliveryState
from .. import examples
from .fields import AnswerSchema, Moment

MOST_TARGETS = 20
MOST_THRESHOLDS = 10

_URL_OF_SMTP = (
    "`smtp://USER:PASSWORD@HOST:587` (STARTTLS is required, but on the same machine) or `smtps://…:465`. In an answer "
    "without its password, which stays if the URL is sent back like this."
)
_URL_OF_WEBHOOK = (
    "`https://` or `http://`. In an answer, `***` stands for what may be secret in it; sent back like this, the stored "
    "URL stays."
)


def _address(value: str) -> None:
    if problem := problem_of_mail_address(value):
        raise ma.ValidationError(problem)


def _sender(value: str) -> None:
    if problem := problem_of_sender(value):
        raise ma.ValidationError(problem)


def _distinct(values: list[Any]) -> None:
    if len(set(values)) < len(values):
        raise ma.ValidationError("Something is there twice.")


def _secret(value: str) -> None:
    if any(ord(letter) < 0x20 or ord(letter) == 0x7F or 0xD800 <= ord(letter) < 0xE000 for letter in value):
        raise ma.ValidationError("Must be one line, without control characters.")


class WebhookSchema(ma.Schema):
    """A URL to which alerts are posted."""

    id = ma.fields.String(
        allow_none=True, metadata={"description": "Of one that is there; made up for a new one.", "example": "hook_1f"}
    )
    url = ma.fields.String(
        required=True,
        validate=validate.Length(min=1, max=LONGEST_URL),
        metadata={"description": _URL_OF_WEBHOOK, "example": "https://example.org/hook"},
    )
    secret = ma.fields.String(
        allow_none=True,
        load_only=True,
        validate=[validate.Length(max=500), _secret],
        metadata={
            "description": "Bodies are signed with it: `X-LLMGateway-Signature: sha256=` and the HMAC in hex. Never "
            "shown. If it is not sent, the stored one stays; `null` removes it.",
            "example": "a long random text",
        },
    )
    format = ma.fields.String(
        load_default=str(Format.JSON),
        validate=validate.OneOf([str(each) for each in Format]),
        metadata={"description": "What the server understands.", "example": "json"},
    )


class AlertSettingsSchema(ma.Schema):
    """Where alerts go, and what they are about."""

    smtp_url = ma.fields.String(
        allow_none=True,
        validate=validate.Length(max=LONGEST_URL),
        metadata={"description": _URL_OF_SMTP, "example": "smtp://gateway:PASSWORD@mail.example.org:587"},
    )
    sender = ma.fields.String(
        data_key="from",
        attribute="from",
        allow_none=True,
        validate=_sender,
        metadata={"description": "The sender of e-mails.", "example": "LLMGateway <llmgateway@example.org>"},
    )
    webhooks = ma.fields.List(ma.fields.Nested(WebhookSchema), validate=validate.Length(max=MOST_TARGETS))
    emails = ma.fields.List(
        ma.fields.String(validate=_address),
        validate=[validate.Length(max=MOST_TARGETS), _distinct],
        metadata={"description": "Each gets a mail of its own.", "example": ["admin@example.org"]},
    )
    thresholds = ma.fields.List(
        ma.fields.Integer(strict=True, validate=validate.Range(min=1, max=100, error="Must be from {min} to {max} %.")),
        validate=[validate.Length(max=MOST_THRESHOLDS), _distinct],
        metadata={"description": "Per cent of a budget; 50, 80 and 100 if not sent.", "example": [50, 80, 100]},
    )
    events = ma.fields.List(
        ma.fields.String(validate=validate.OneOf([str(each) for each in Event])),
        validate=_distinct,
        metadata={"description": "All if not sent.", "example": ["budget", "store"]},
    )


class ShownWebhookSchema(AnswerSchema):
    id = ma.fields.String(metadata={"example": "hook_1f2e3d4c"})
    url = ma.fields.String(metadata={"description": _URL_OF_WEBHOOK, "example": "https://example.org/hook"})
    has_secret = ma.fields.Boolean(metadata={"description": "Whether bodies are signed."})
    format = ma.fields.String(metadata={"example": "json"})


class DeliverySchema(AnswerSchema):
    """What has become of an alert at one target."""

    target = ma.fields.String(metadata={"description": "A webhook's `id`, or an address.", "example": "hook_1f2e3d4c"})
    state = ma.fields.String(
        validate=validate.OneOf([str(each) for each in DeliveryState]),
        metadata={
            "description": "`failed`: given up after a day. `dropped`: the target was removed, or too many waited.",
            "example": "delivered",
        },
    )
    attempts = ma.fields.Integer(metadata={"example": 1})
    tried_at = Moment(allow_none=True, metadata={"example": "2026-10-31T09:12:07.345000+00:00"})
    due_at = Moment(allow_none=True, metadata={"description": "When it is tried next.", "example": None})
    status = ma.fields.Integer(allow_none=True, metadata={"description": "Of HTTP or SMTP.", "example": 200})
    reason = ma.fields.String(
        allow_none=True, metadata={"description": "What failed, and what to do.", "example": None}
    )


class AlertSchema(AnswerSchema):
    """An alert that was announced."""

    id = ma.fields.String(metadata={"example": "alert_5f2b8c0d9a41e7f3b6c2d8a0"})
    event = ma.fields.String(metadata={"example": "budget"})
    text = ma.fields.String(metadata={"example": examples.ALERTS["alerts"][0]["text"]})
    scope = ma.fields.String(
        metadata={"description": "What it is about: `organisation`, `group:NAME`, `key:ID`, …", "example": "group:ml"}
    )
    threshold = ma.fields.Integer(allow_none=True, metadata={"description": "Per cent of a budget.", "example": 80})
    used = ma.fields.Float(allow_none=True, metadata={"description": "In the budget's unit.", "example": 120.5})
    limit = ma.fields.Float(allow_none=True, metadata={"example": 150})
    at = Moment(metadata={"example": "2026-10-31T09:12:07.345000+00:00"})
    deliveries = ma.fields.List(ma.fields.Nested(DeliverySchema))


class AlertsSchema(AnswerSchema):
    """What is set, without secrets, and the last alerts."""

    smtp_url = ma.fields.String(
        allow_none=True, metadata={"description": _URL_OF_SMTP, "example": "smtp://gateway@mail.example.org:587"}
    )
    has_smtp_password = ma.fields.Boolean()
    sender = ma.fields.String(
        data_key="from", attribute="from", allow_none=True, metadata={"example": "llmgateway@example.org"}
    )
    webhooks = ma.fields.List(ma.fields.Nested(ShownWebhookSchema))
    emails = ma.fields.List(ma.fields.String(), metadata={"example": ["admin@example.org"]})
    thresholds = ma.fields.List(ma.fields.Integer(), metadata={"example": [50, 80, 100]})
    events = ma.fields.List(ma.fields.String(), metadata={"example": ["budget", "store"]})
    problems = ma.fields.List(
        ma.fields.String(), metadata={"description": "What keeps alerts from arriving, and what to do.", "example": []}
    )
    alerts = ma.fields.List(
        ma.fields.Nested(AlertSchema), metadata={"description": "The last 50 that were announced, newest first."}
    )


class FiredQuerySchema(ma.Schema):
    limit = ma.fields.Integer(
        load_default=50,
        validate=validate.Range(min=1, max=1000),
        metadata={"description": "The most alerts on a page.", "example": 50},
    )
    cursor = ma.fields.String(
        validate=validate.Length(max=100),
        metadata={
            "description": "`next` of the page before.",
            "choices": {"first page": "", "next page": "1793437927345.alert_5f2b8c0d9a41e7f3b6c2d8a0"},
        },
    )


class FiredAlertsSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(AlertSchema))
    next = ma.fields.String(
        allow_none=True, metadata={"description": "`cursor` of the next page; null on the last one.", "example": None}
    )


class TestedTargetSchema(AnswerSchema):
    """What happened at one target."""

    target = ma.fields.String(metadata={"description": "A webhook's `id`, or an address.", "example": "hook_1f2e3d4c"})
    delivered = ma.fields.Boolean()
    status = ma.fields.Integer(allow_none=True, metadata={"description": "Of HTTP or SMTP.", "example": 200})
    reason = ma.fields.String(allow_none=True, metadata={"description": "Why it failed.", "example": None})
    remedy = ma.fields.String(allow_none=True, metadata={"description": "What to do.", "example": None})


class AlertTestSchema(AnswerSchema):
    targets = ma.fields.List(ma.fields.Nested(TestedTargetSchema))
