"""Commands for groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .allowances import with_columns
from .dates import in_time
from .ending import confirm
from .options import field_options, limit_options, member_limit_options, self_service_option, sent, yes_option
from .raises import raise_options, raised
from .remote import Remote, listing, remote
from .statements import format_options, month_option, print_statement
from .tables import counted, plain


@click.group()
def groups() -> None:
    """Create, change and revoke groups: courses and teams."""


@groups.command("list")
@listing
def list_(gateway: Remote) -> None:
    """List the groups, by name, with what is spent and left of their budgets."""
    found = gateway.call("GET", "/groups")["items"]
    rows = found if gateway.shows_fields else with_columns(found)
    columns = ("cost_centre", "starts_at", "expires_at", "spent", "left", "models", "limits", "member_limits", "note")
    gateway.show_all(rows, "name", *columns)


@groups.command()
@click.argument("name")
@remote
def show(gateway: Remote, name: str) -> None:
    """Show everything that is set for a group, and what is used and left of its limits."""
    gateway.show(gateway.call("GET", _path(name)))


@groups.command("set")
@click.argument("name")
@field_options("note", "cost_centre", "starts_at", "expires_at")
@limit_options
@member_limit_options
@self_service_option
@remote
def set_(gateway: Remote, name: str, **options: Any) -> None:
    """Create a group, or change the given fields of one and leave the others.

    An empty value clears a field, 'none' removes a limit.
    """
    from .client import CallFailed

    body = in_time(gateway, sent(options))
    try:
        group = gateway.call("PATCH", _path(name), body=body)
    except CallFailed as error:
        if error.status != 404:
            raise
        group = gateway.call("PUT", _path(name), body=body)
    gateway.show(group)


@groups.command("raise")
@click.argument("name")
@raise_options
@remote
def raise_(gateway: Remote, name: str, **options: Any) -> None:
    """Raise the limits of a group for a while. Those of each member stay."""
    raised(gateway, _path(name), f"the limits of the group {plain(name)}", options)


@groups.command()
@click.argument("name")
@remote
def remove(gateway: Remote, name: str) -> None:
    """Remove a group that no key belongs to."""
    gateway.call("DELETE", _path(name))
    gateway.done(f"The group {name} is removed.", {"name": name, "removed": True})


@groups.command()
@click.argument("name")
@yes_option
@remote
def revoke(gateway: Remote, name: str, yes: bool) -> None:
    """Block every key of a group, from the next request on."""
    confirm(plain(f"Block every key of the group {name}?"), yes=yes)
    answer = gateway.call("POST", f"{_path(name)}/revoke")
    gateway.done(f"Blocked {counted(answer['revoked'], 'key')} of the group {name}.", answer)


@groups.command("statement")
@click.argument("name")
@month_option
@format_options
@listing
def statement_(gateway: Remote, name: str, month: str, as_: str, reader: str | None, output: Path | None) -> None:
    """Show what the persons of a group have used in a month, for accounting."""
    path = f"{_path(name)}/statement"
    print_statement(
        gateway, path, {"month": month}, as_=as_, reader=reader, output=output, table="persons", name="user"
    )


def _path(name: str) -> str:
    from .client import part

    return f"/groups/{part(name)}"
