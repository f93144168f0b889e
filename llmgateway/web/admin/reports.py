"""Usage reports."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response

from ...records import ReportQuery
from ...usage.currency import DOLLAR, Currency, decimal_places
from ...usage.filter_report import filter_rows
from ...usage.report import SUMS, report
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.usage import (
    FilterQuerySchema,
    FilterReportSchema,
    UsageQuerySchema,
    UsageReportSchema,
    names_of,
)
from ..tables import csv_table
from . import reach
from .blueprint import blp
from .currency import present_currency

_CONVERTED = ("currency", "cost", "months_without_rate")


@blp.route("/usage", methods=["GET"])
@blp.operation(
    "Report who used what",
    description=(
        "Sums of requests, tokens and cost, by days of the organisation's time zone. A request is in the report a "
        "second or two after its end. With `currency`, costs are also in the second one, at the rate of each month: "
        "`cost` is null where a month has no rate, and `months_without_rate` names it."
    ),
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
    by, currency = names_of(query.get("by", "")), _currency(query.get("currency"))
    reach.check_filter(query.get("group"))
    wanted = ReportQuery(
        by=by,
        first_day=query.get("start"),
        last_day=query.get("end"),
        in_utc=query.get("tz") == "utc",
        user=query.get("user"),
        group=query.get("group"),
        key_id=query.get("key"),
        groups=reach.reach(),
        top=query.get("top"),
    )
    found, total = report(
        services().usage_log.report, wanted, groups=services().policy.stored().groups, currency=currency
    )
    rows = [row.as_json(currency) for row in found]
    if query["format"] == "csv":
        columns = (*by, *SUMS, *(() if currency is None else _CONVERTED))
        return csv_table(
            map(_for_spreadsheet, rows),
            columns,
            name="usage.csv",
            money={"cost_usd": decimal_places(DOLLAR), **({} if currency is None else {"cost": currency.places})},
            reader=query.get("reader"),
        )
    # Without a schema, which would take most of the time for many rows, and would not change them.
    answer = {"rows": rows if by else [], "total": total.as_json(currency)}
    return Response(orjson.dumps(answer), mimetype="application/json")


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
        first_day=query.get("start"),
        last_day=query.get("end"),
        key_id=query.get("key"),
        group=reach.check_filter(query.get("group")),
        groups=reach.reach(),
        in_utc=query.get("tz") == "utc",
    )
    counts = [*services().usage_log.filter_counts(wanted)]
    (total,) = filter_rows(counts, ()) or [{"requests": 0, "fired": 0}]
    return {"rows": filter_rows(counts, names_of(query["by"])), "total": total}


def _currency(code: str | None) -> Currency | None:
    """Return the currency that is asked for; None if costs are in US dollars alone."""
    if code is None:
        return None
    currency = present_currency()
    if currency is not None and currency.code == code:
        return currency
    there = "There is no second currency" if currency is None else f"The second currency is {currency.code}"
    raise invalid_fields({"currency": [f"{there}. PUT /admin/currency sets it, with its rates."]})


def _for_spreadsheet(row: dict[str, Any]) -> dict[str, Any]:
    if "months_without_rate" in row:
        row["months_without_rate"] = " ".join(row["months_without_rate"])
    # In a spreadsheet, 0 would look like a cost that is known.
    nothing_known = 0 < row["requests"] == row["unpriced_requests"]
    unknown = {name: None for name in ("cost_usd", "cost") if name in row}
    return row | unknown if nothing_known else row
