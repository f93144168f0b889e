"""Commands for reports."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import click

from .csv_output import csv_options, is_csv, print_csv
from .dates import AGO, in_time
from .ending import fail
from .remote import Remote, listing, remote
from .tables import cell
from .trends import MOST_ROWS, with_trends

_MOST = click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show at most this many."
)


@click.command()
@click.option(
    "--by",
    default="month,user",
    show_default=True,
    help="Any of day, week, month, user, key, group, cost_centre, model, deployment.",
)
@click.option("--start", help="The first day, like 2026-10-01, in the organisation's time zone.")
@click.option("--end", help="The last day; it is included.")
@click.option("--this-month", "month", flag_value=0, type=int, help="From the first day of this month on.")
@click.option("--last-month", "month", flag_value=1, type=int, help="The whole month before this one.")
@click.option("--user", help="Only what this user has used, with all keys.")
@click.option("--group", help="Only what this group has used.")
@click.option("--key", metavar="ID", help="Only what the key with this id has used.")
@click.option("--tz", type=click.Choice(["utc"]), help="Count by days of UTC, as on Azure's bill.")
@click.option("--currency", metavar="CODE", help="Show costs in the second currency, too, like EUR.")
@csv_options
@click.option("--trend/--no-trend", default=None, help="Show the tokens of each day as a row of bars. [on a terminal]")
@listing
def usage(
    gateway: Remote,
    by: str,
    month: int | None,
    as_csv: bool,
    reader: str | None,
    trend: bool | None,
    **query: str | None,
) -> None:
    """Report who used what."""
    query["by"] = by
    if month is not None:
        if query["start"] or query["end"]:
            fail(["Give --start and --end, or a month."])
        query["start"], query["end"] = _month(gateway, month)
    if is_csv(as_csv=as_csv, reader=reader):
        print_csv(gateway, "/usage", query, reader=reader)
        return
    report = gateway.call("GET", "/usage", query=query)
    if gateway.shows_fields:
        gateway.show(report)
        return
    names = [name.strip() for name in by.split(",") if name.strip()]
    total = {**dict.fromkeys(names[1:], ""), **({names[0]: "total"} if names else {}), **report["total"]}
    rows = [_without_unknown_cost(row) for row in report["rows"]]
    columns = ["requests", "total_tokens", "cost_usd", *(("cost", "currency") if "cost" in total else ()), "errors"]
    wanted = sys.stdout.isatty() and len(rows) <= MOST_ROWS if trend is None else trend
    if wanted and rows and names and "day" not in names:
        rows = with_trends(gateway, rows, names, query)
        columns.append("trend")
    # Shown only if they say something, so that the table fits a terminal.
    seldom = ("months_without_rate", "unpriced_requests", "estimated_tokens", "bound_tokens")
    rare = [name for name in seldom if total.get(name)]
    gateway.show_all(rows, *names, *columns, *rare, total=_without_unknown_cost(total))


def _month(gateway: Remote, before: int, *, now: datetime | None = None) -> tuple[str, str]:
    """Return the first and the last day of a month of the organisation's calendar.

    Args:
        before: How many months before the present one.
    """
    # The organisation's day, which may be another one than here.
    zone = ZoneInfo(gateway.call("GET", "/settings")["timezone"])
    first = (now or datetime.now(UTC)).astimezone(zone).date().replace(day=1)
    for _ in range(before):
        first = (first - timedelta(days=1)).replace(day=1)
    after = (first + timedelta(days=31)).replace(day=1)
    return first.isoformat(), (after - timedelta(days=1)).isoformat()


def _without_unknown_cost(row: dict[str, Any]) -> dict[str, Any]:
    if not 0 < row["requests"] == row["unpriced_requests"]:
        return row
    return row | {name: None for name in ("cost_usd", "cost") if name in row}


@click.command()
@click.option(
    "--by",
    default="group,category,severity",
    show_default=True,
    help="Any of day, month, user, key, group, model, category, severity.",
)
@click.option("--start", help="The first day, like 2026-10-01, in the organisation's time zone.")
@click.option("--end", help="The last day; it is included.")
@click.option("--tz", type=click.Choice(["utc"]), help="Count by days of UTC.")
@click.option("--key", metavar="ID", help="Only requests of the key with this id.")
@click.option("--group", help="Only requests of this group.")
@listing
def filters(gateway: Remote, by: str, **query: str | None) -> None:
    """Report what Azure's content filters found, without any text; `fired` counts what they blocked or detected."""
    report = gateway.call("GET", "/usage/filters", query={"by": by, **query})
    if gateway.shows_fields:
        gateway.show(report)
        return
    names = [name.strip() for name in by.split(",") if name.strip()]
    total = {**dict.fromkeys(names, ""), **({names[0]: "total"} if names else {}), **report["total"]}
    gateway.show_all(report["rows"] if names else (), *names, "requests", "fired", total=total)


@click.command()
@click.option("--target", help="Only changes of this: the id of a key, the name of a group or a model.")
@click.option("--admin", help="Only changes by this admin: the id or the name, or ADMIN_KEY for the first owner.")
@click.option("--since", help=f"Only changes from this day or time on. {AGO}")
@click.option("--until", help=f"Only changes up to this day, or before this time. {AGO}")
@_MOST
@listing
def audit(gateway: Remote, limit: int, **query: str | None) -> None:
    """Show who changed what, newest first: of a change, the fields that are another value now. --json shows all."""
    found = [*gateway.client.pages("/audit", query=in_time(gateway, query, ago=True), most=limit)]
    named = found if gateway.as_json else [{**each, "admin": _name_in(each), **_difference(each)} for each in found]
    gateway.show_all(named, "timestamp", "address", "admin", "action", "target", "before", "after")


def _name_in(entry: dict[str, Any]) -> str:
    # A gateway of an earlier version has one admin.
    return str((entry.get("admin") or {}).get("name") or entry["admin_key_id"])


def _difference(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the change has changed, without what is the same before and after."""
    before, after = entry["before"], entry["after"]
    if not isinstance(before or {}, Mapping) or not isinstance(after or {}, Mapping):
        return {}
    old, new = before or {}, after or {}
    names = [name for name in {**old, **new} if cell(old.get(name)) != cell(new.get(name))]
    return {"before": {name: old[name] for name in names if name in old}} | {
        "after": {name: new[name] for name in names if name in new}
    }


@click.command()
@remote
def status(gateway: Remote) -> None:
    """Show how the gateway is doing."""
    gateway.show(gateway.call("GET", "/status"))
