"""The fields of queries for lists that can be searched, sorted and read page by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import marshmallow as ma
from marshmallow import validate

from .fields import AnswerSchema, one_line
from .usage import names_of

TREND_DAYS = 14


class ListSchema(ma.Schema):
    """The base of queries for lists."""

    page = ma.fields.Integer(
        validate=validate.Range(min=1, max=1_000_000),
        metadata={"description": "The number of the page, from 1 on; instead of `cursor`.", "example": 1},
    )
    cursor = ma.fields.String(
        metadata={
            "description": "`next` of the page before, with everything else of the query as it was.",
            "choices": {"first page": ""},
        },
    )

    @ma.validates_schema
    def _one_place(self, data: dict[str, Any], **_: Any) -> None:
        if "page" in data and data.get("cursor"):
            raise ma.ValidationError("Only without cursor.", field_name="page")


class PageSchema(AnswerSchema):
    """The base of pages of lists."""

    total = ma.fields.Integer(metadata={"description": "Those that match, on all pages.", "example": 1})
    next = ma.fields.String(
        allow_none=True, metadata={"description": "`cursor` of the next page; null on the last one.", "example": None}
    )


class SpentSchema(AnswerSchema):
    """What was used since the beginning of the month, whether there is a budget or not."""

    requests = ma.fields.Integer(metadata={"example": 12})
    total_tokens = ma.fields.Integer(metadata={"example": 4600})
    cost_usd = ma.fields.Float(metadata={"example": 0.75})


class TrendSchema(AnswerSchema):
    """What was used on each of the last days, the present one included."""

    start = ma.fields.Date(metadata={"description": "The first of these days.", "example": "2026-10-18"})
    requests = ma.fields.List(
        ma.fields.Integer(), metadata={"description": f"Of {TREND_DAYS} days.", "example": [0] * 13 + [12]}
    )
    cost_usd = ma.fields.List(ma.fields.Float(), metadata={"example": [0.0] * 13 + [0.75]})


def search_field(what: str, places: str) -> ma.fields.String:
    """Return the field for a text that is looked for in some *places* of each of *what*."""
    return ma.fields.String(
        validate=[validate.Length(max=200), one_line],
        metadata={
            "description": f"Only {what} where this text occurs, in any case: in {places}.",
            "choices": {"all": "", "a part of a name": "ada"},
        },
    )


def limit_field(what: str, *, default: int = 100) -> ma.fields.Integer:
    return ma.fields.Integer(
        load_default=default,
        validate=validate.Range(min=1, max=1000),
        metadata={"description": f"The most {what} on a page.", "example": default},
    )


def sort_field(orders: Sequence[str]) -> ma.fields.String:
    """Return the field for an order: one of *orders*, the first of which holds without it."""
    shown = ", ".join(f"`{name}`" for name in orders)
    return ma.fields.String(
        validate=validate.OneOf(
            [f"{sign}{name}" for name in orders for sign in ("", "-")],
            error=f"Must be one of {', '.join(orders)}, with - before it for the other direction.",
        ),
        metadata={
            "description": f"One of {shown}; with `-` before it, the largest, latest or last comes first.",
            "choices": {"as without it": orders[0], f"by `{orders[-1]}`": f"-{orders[-1]}"},
        },
    )


def include_field(what: str, includable: Sequence[str]) -> ma.fields.String:
    """Return the field that names what else is said of each of *what*."""

    def check(value: str) -> None:
        if unknown := [name for name in names_of(value) if name not in includable]:
            raise ma.ValidationError(
                f"Any of {', '.join(includable)}, separated by commas; not {', '.join(unknown)[:100]}."
            )

    return ma.fields.String(
        load_default="",
        validate=check,
        metadata={
            "description": f"What else to say of each {what}, separated by commas: any of "
            + ", ".join(f"`{name}`" for name in includable)
            + ".",
            "choices": {"nothing": "", "everything": ",".join(includable)},
        },
    )
