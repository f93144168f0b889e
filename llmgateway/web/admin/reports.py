"""Usage reports."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import orjson
from flask import Response

from ...records import ReportQuery, UsageRow
from ...usage.filter_report import filter_rows
from .. import examples
from ..context import services
from ..schemas.usage import (
    FilterQuerySchema,
    FilterReportSchema,
    UsageQuerySchema,
    UsageReportSchema,
    names_of,
)
from ..tables import csv_table
from .blueprint import blp

_SUMS = tuple(field.name for field in fields(UsageRow) if field.name != "by")


@blp.route("/usage", methods=["GET"])
@blp.operation(
    "Report who used what",
    description="Sums of requests, tokens and cost. A request is in the report a second or two after its end.",
)
@blp.arguments(UsageQuerySchema, location="query")
@blp.response(200, UsageReportSchema, description="The sums.", example=examples.REPORT)
@blp.alt_response(
    200,
    schema={"type": "string"},
    content_type="text/csv",
    description="The sums.",
    example=examples.CSV,
    success=True,
)
def report_usage(query: dict[str, Any]) -> Response:
    by = names_of(query.get("by", ""))
    found = services().usage_log.report(ReportQuery(by=by, first_day=query.get("start"), last_day=query.get("end")))
    rows = [row.by | _sums(row) for row in found]
    if query["format"] == "csv":
        return csv_table(map(_without_unknown_cost, rows), (*by, *_SUMS), name="usage.csv")
    total = {name: sum(row[name] for row in rows) for name in _SUMS}
    # Without a schema, which would take most of the time for many rows, and would not change them.
    return Response(orjson.dumps({"rows": rows if by else [], "total": total}), mimetype="application/json")


@blp.route("/usage/filters", methods=["GET"])
@blp.operation(
    "Report what content filters found",
    description="By category and severity, also what Azure let pass; never any text. Counts single usage records, so "
    "those that are older than `LLMGATEWAY_LOG_DAYS` are not in it.",
)
@blp.arguments(FilterQuerySchema, location="query")
@blp.response(200, FilterReportSchema, description="The counts.", example=examples.FILTER_REPORT)
def report_filters(query: dict[str, Any]) -> dict[str, Any]:
    wanted = ReportQuery(
        first_day=query.get("start"), last_day=query.get("end"), key_id=query.get("key"), group=query.get("group")
    )
    counts = [*services().usage_log.filter_counts(wanted)]
    (total,) = filter_rows(counts, ()) or [{"requests": 0, "fired": 0}]
    return {"rows": filter_rows(counts, names_of(query["by"])), "total": total}


def _sums(row: UsageRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _SUMS}


def _without_unknown_cost(row: dict[str, Any]) -> dict[str, Any]:
    # In a spreadsheet, 0 would look like a cost that is known.
    nothing_known = 0 < row["requests"] == row["unpriced_requests"]
    return row | {"cost_usd": None} if nothing_known else row
