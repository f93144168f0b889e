"""Monthly statements for accounting: of a group, and of the organisation. As JSON, CSV, and a page to print."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import marshmallow as ma
from flask import Response, render_template

from ...errors import NotFound
from ...local_time import TimeZones
from ...records import ReportQuery, moment
from ...usage.statements import Line, Statement, statement
from .. import examples
from ..context import services
from ..dates import time_zones
from ..errors import invalid_fields
from ..schemas.currency import check_month
from ..schemas.statements import (
    FormatSchema,
    GroupStatementQuerySchema,
    GroupStatementSchema,
    StatementSchema,
)
from ..tables import csv_table
from . import reach
from .blueprint import blp
from .currency import present_currency

_LATE = timedelta(days=1)
"""How long after its end a month may still get records: of requests that ran on, and of hosts that were away."""

# The page is saved and sent on, so it loads nothing and runs nothing.
_POLICY = "default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'{only_in_headers}"
_ONLY_IN_HEADERS = "; frame-ancestors 'none'"

_NO_GROUP = "keys without a group"
_COUNTS = ("requests", "prompt_tokens", "completion_tokens", "total_tokens")
_COLUMNS = (*_COUNTS, "cost_usd", "currency", "cost", "unpriced_requests", "unpriced_models")
_MONTH_IN_PATH = {
    "in": "path",
    "name": "month",
    "description": "A month of the organisation's time zone.",
    "example": "2026-10",
}
_GROUP_IN_PATH = {
    "in": "path",
    "name": "name",
    "description": "Of a group, also of one that has been removed since.",
    "example": examples.NO_GROUP,
}
_ROUNDED = (
    "Amounts are rounded so that they add up: persons to their group, groups and keys without a group to the "
    "organisation's total, to the cent. Models without a known price are named, and their cost is in no sum."
)


def _other_formats(view: Any) -> Any:
    """Document the answers that are not JSON."""
    for kind, example in (("text/csv", examples.STATEMENT_CSV), ("text/html", "<!DOCTYPE html>…")):
        view = blp.alt_response(
            200, schema={"type": "string"}, content_type=kind, description="The same.", example=example, success=True
        )(view)
    return view


@blp.route("/statements/<month>", methods=["GET"], parameters=[_MONTH_IN_PATH])
@blp.operation("Read the statement of a month", description=f"Of all groups, with the organisation's total. {_ROUNDED}")
@blp.arguments(FormatSchema, location="query")
@blp.response(200, StatementSchema, description="The statement.", example=examples.STATEMENT)
@_other_formats
def get_statement(query: dict[str, Any], month: str) -> Any:
    try:
        check_month(month)
    except ma.ValidationError as error:
        raise invalid_fields({"month": error.messages}) from None
    zones, found = time_zones(), _statement(month)
    groups = [
        {"group": name, "cost_centre": group.cost_centre, **_line(group.total)} for name, group in found.groups.items()
    ]
    if query["format"] == "csv":
        rows = ({"month": month, **row} for row in _rows(groups, found))
        return csv_table(
            rows,
            ("month", "group", "cost_centre", *_COLUMNS),
            name=f"statement-{month}.csv",
            reader=query.get("reader"),
        )
    if query["format"] == "html":
        return _page(
            "statement.html",
            found,
            zones,
            total=found.total,
            groups=[(name or _NO_GROUP, group.cost_centre, group.total) for name, group in found.groups.items()],
            centres=[(line.name or "none", None, line) for line in found.cost_centres if len(found.cost_centres) > 1],
        )
    centres = [{"cost_centre": line.name, **_line(line)} for line in found.cost_centres]
    return _head(found, zones) | {"groups": groups, "cost_centres": centres, "total": _line(found.total)}


@blp.route("/groups/<name>/statement", methods=["GET"], parameters=[_GROUP_IN_PATH])
@blp.operation(
    "Read the statement of a group", "UnknownGroup", description=f"What its persons have used in a month. {_ROUNDED}"
)
@blp.arguments(GroupStatementQuerySchema, location="query")
@blp.response(200, GroupStatementSchema, description="The statement.", example=examples.GROUP_STATEMENT)
@_other_formats
def get_group_statement(query: dict[str, Any], name: str) -> Any:
    reach.check_group(name)
    month, zones = query["month"], time_zones()
    found = _statement(month, group=name)
    group = found.groups.get(name)
    if group is None:
        raise NotFound(
            f"There is no such group, and it has used nothing in {month}. GET /admin/groups lists those there are.",
            param="name",
        )
    named = {"group": name, "cost_centre": group.cost_centre}
    persons = [{"user": line.name, **_line(line)} for line in group.persons]
    if query["format"] == "csv":
        rows = ({"month": month, **named, **row} for row in _rows(persons, found))
        return csv_table(
            rows, ("month", *named, "user", *_COLUMNS), name=f"statement-{month}.csv", reader=query.get("reader")
        )
    if query["format"] == "html":
        return _page(
            "group_statement.html",
            found,
            zones,
            total=group.total,
            name=name,
            cost_centre=group.cost_centre,
            persons=[(line.name, None, line) for line in group.persons],
            models=[(line.name, None, line) for line in group.models],
        )
    models = [{"model": line.name, **_line(line)} for line in group.models]
    return _head(found, zones) | named | {"persons": persons, "models": models, "total": _line(group.total)}


def _statement(month: str, *, group: str | None = None) -> Statement:
    """Return the statement of a month, with the persons of *group* alone: there may be very many in all."""
    first = date.fromisoformat(f"{month}-01")
    if first > time_zones().day(moment(services().clock())):
        raise invalid_fields({"month": [f"{month} has not begun."]})
    organisation, report = services().policy.stored(), services().usage_log.report
    whole = ReportQuery(by=("group", "model"), first_day=first, last_day=_next_month(first) - timedelta(days=1))
    persons = {} if group is None else {group: [*report(replace(whole, by=("user", "model"), group=group))]}
    return statement(month, report(whole), groups=organisation.groups, currency=present_currency(), persons=persons)


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


def _head(found: Statement, zones: TimeZones) -> dict[str, Any]:
    first = date.fromisoformat(f"{found.month}-01")
    end = zones.start(_next_month(first))
    return {
        "month": found.month,
        "timezone": zones.at(zones.start(first)).key,
        "is_final": moment(services().clock()) >= end + _LATE,
        "currency": found.currency,
        "rate": found.rate,
    }


def _line(line: Line) -> dict[str, Any]:
    names = (*_COUNTS, "cost_usd", "cost", "unpriced_requests", "unpriced_models")
    return {name: getattr(line, name) for name in names}


def _rows(lines: Iterable[dict[str, Any]], found: Statement) -> Iterable[dict[str, Any]]:
    for line in lines:
        yield {**line, "currency": found.currency, "unpriced_models": " ".join(line["unpriced_models"])}


def _page(template: str, found: Statement, zones: TimeZones, **values: Any) -> Response:
    nonce = secrets.token_urlsafe(16)
    text = render_template(
        template,
        nonce=nonce,
        policy=_POLICY.format(nonce=nonce, only_in_headers=""),
        head=_head(found, zones),
        printed=zones.day(moment(services().clock())),
        **values,
    )
    return Response(
        text,
        mimetype="text/html",
        headers={
            "Content-Security-Policy": _POLICY.format(nonce=nonce, only_in_headers=_ONLY_IN_HEADERS),
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
        },
    )
