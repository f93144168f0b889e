"""Commands for single requests."""

from __future__ import annotations

from typing import Any

import click

from .csv_output import csv_options, is_csv, print_csv
from .dates import AGO, in_time
from .remote import Remote, listing, remote

_RECORD = ("timestamp", "user", "model", "outcome", "status", "error_code", "total_tokens", "cost_usd", "id")
_REFUSAL = ("timestamp", "user", "key_id", "status", "code", "limit", "count", "address", "id")
_BOTH = ("timestamp", "kind", "user", "model", "status", "code", "count", "id")


class ListedByDefault(click.Group):
    """A group of commands that lists if no command is named: ``logs --user ada``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx)):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ListedByDefault)
def logs() -> None:
    """Look at single requests, and find a user's error. Without a command, list."""


@logs.command("list")
@click.option("--id", "request_id", metavar="ID", help="Only the request with this x-request-id, or Azure's id.")
@click.option("--key", metavar="ID", help="Only requests of the key with this id.")
@click.option("--user", help="Only requests of this user.")
@click.option("--group", help="Only requests of this group.")
@click.option("--code", help="Only requests with this error code: insufficient_quota, content_filter, …")
@click.option("--status", metavar="STATUS", help="Only requests with this HTTP status: 429, 400, …")
@click.option("--model", help="Only requests for this model, as the user named it.")
@click.option("--outcome", help="Only requests that ended like this: ok, upstream_error, client_closed, …")
@click.option("--usage-source", help="Only requests counted like this: upstream, estimated, bound, none.")
@click.option("--since", help=f"Only requests from this day or time on. {AGO}")
@click.option("--until", help=f"Only requests until the end of this day, or before this time. {AGO}")
@click.option("--refusals", "kind", flag_value="refusal", help="List what the gateway refused, not what Azure got.")
@click.option("--everything", "kind", flag_value="all", help="List both.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Show at most this many.")
@csv_options
@listing
def list_(
    gateway: Remote,
    limit: int,
    request_id: str | None,
    kind: str | None,
    as_csv: bool,
    reader: str | None,
    **query: str | None,
) -> None:
    """List the requests that were sent to Azure, or with --refusals those that were refused; newest first."""
    asked = {"id": request_id, "kind": kind, **in_time(gateway, query, ago=True)}
    if is_csv(as_csv=as_csv, reader=reader):
        print_csv(gateway, "/logs", asked, reader=reader, most=limit)
        return
    found = [*gateway.client.pages("/logs", query=asked, most=limit)]
    if kind == "all":
        found = [_with_code(each) for each in found]
    columns = {None: _RECORD, "refusal": _REFUSAL, "all": _BOTH}[kind]
    gateway.show_all(found, *columns)


def _with_code(item: dict[str, Any]) -> dict[str, Any]:
    """Return *item* with its code under one name, so that a table has one column for both kinds."""
    return {"code": item.get("error_code"), "count": 1, **item}


@logs.command()
@click.argument("request_id", metavar="ID")
@remote
def show(gateway: Remote, request_id: str) -> None:
    """Show one request, and what to do about its error. ID is what the user saw as x-request-id, or Azure's id."""
    from .client import part

    gateway.show(gateway.call("GET", f"/logs/{part(request_id)}"))
