"""Commands for keys."""

from __future__ import annotations

from typing import Any

import click

from .allowances import INCLUDE, with_columns
from .class_lists import import_
from .csv_output import csv_options, is_csv, print_csv
from .dates import in_time
from .ending import confirm
from .options import field_options, limit_options, sent, yes_option
from .people import a_key, every_key, key_of, keys_of
from .raises import raise_options, raised
from .remote import Remote, listing, remote, secret_from_terminal
from .tables import cell, plain

_FIELDS = ("name", "group", "email", "note", "starts_at", "expires_at")

_EVERY_KEY = 10_000_000


@click.group()
def keys() -> None:
    """Create, list, change and remove keys."""


@keys.command("list")
@click.option("--user", help="Only keys of this user.")
@click.option("--group", help="Only keys of this group.")
@click.option("--active/--blocked", default=None, help="Only active keys, or only blocked ones.")
@click.option(
    "--state",
    type=click.Choice(["active", "expiring", "not_yet_valid", "expired", "blocked"]),
    help="Only keys in this state. Those that expire soon are active, too.",
)
@click.option("--search", metavar="TEXT", help="Only keys with this text in user, name, group, e-mail, note or id.")
@csv_options
@listing
def list_(
    gateway: Remote,
    user: str | None,
    group: str | None,
    active: bool | None,
    state: str | None,
    search: str | None,
    as_csv: bool,
    reader: str | None,
) -> None:
    """List keys, oldest first, with what is spent and left of their budgets and when they were used last.

    Of a key without a budget, 'spent' is what it has cost this month.
    """
    query = {"user": user, "group": group, "active": None if active is None else str(active).lower()}
    query |= {"state": state, "q": search}
    if is_csv(as_csv=as_csv, reader=reader):
        print_csv(gateway, "/keys", query, reader=reader, most=_EVERY_KEY)
        return
    query |= INCLUDE
    found = [*gateway.client.pages("/keys", query=query)]
    rows = found if gateway.shows_fields else with_columns(found)
    columns = ("id", "user", "name", "group", "active", "expires_at", "spent", "left", "last_used", "limits")
    gateway.show_all(rows, *columns)


@keys.command()
@click.argument("user")
@field_options(*_FIELDS)
@limit_options
@click.option("--own-key", is_flag=True, help="Choose the key: you are asked for it, or it is read from stdin.")
@remote
def add(gateway: Remote, user: str, own_key: bool, **options: Any) -> None:
    """Create a key for USER. Only the key goes to standard output; it is shown this once."""
    own = {"key": secret_from_terminal("The new key")} if own_key else {}
    made = gateway.call("POST", "/keys", body={"user": user, **in_time(gateway, sent(options)), **own})
    gateway.secret(f"Created {made['id']} for {user}. Give them the key: it is shown only this once.", made)


@keys.command()
@a_key
@remote
def show(gateway: Remote, key_id: str) -> None:
    """Show all fields of a key, what is used and left of its limits, and when it was used last."""
    gateway.show(gateway.call("GET", _path(key_of(gateway, key_id)), query=INCLUDE))


@keys.command("set")
@a_key
@field_options("user", *_FIELDS)
@limit_options
@remote
def set_(gateway: Remote, key_id: str, **options: Any) -> None:
    """Change the given fields and leave the others. An empty value clears a field, 'none' removes a limit."""
    gateway.show(gateway.call("PATCH", _path(key_of(gateway, key_id)), body=in_time(gateway, sent(options))))


@keys.command("raise")
@a_key
@raise_options
@remote
def raise_(gateway: Remote, key_id: str, **options: Any) -> None:
    """Raise the limits of a key for a while. They are as before when it ends."""
    found = key_of(gateway, key_id)
    raised(gateway, _path(found), f"the limits of {found}", options)


@keys.command()
@a_key
@every_key
@yes_option
@remote
def remove(gateway: Remote, key_id: str, every: bool, yes: bool) -> None:
    """Remove a key for good, or the keys of a user. What they have used stays in the reports."""
    for each in keys_of(gateway, key_id, what="Remove", every=every):
        if not yes:
            key = gateway.call("GET", _path(each))
            confirm(plain(f"Remove the key {key['name']!r} of {key['user']}?"), yes=yes)
        gateway.call("DELETE", _path(each))
        gateway.done(f"{each} is removed, and refused from now on.", {"id": each, "removed": True})


@keys.command()
@a_key
@click.option("--overlap", type=click.IntRange(min=0), default=0, help="Seconds for which the old key still works. [0]")
@remote
def rotate(gateway: Remote, key_id: str, overlap: int) -> None:
    """Replace a key by a new one. Only the new key goes to standard output; it is shown this once."""
    made = gateway.call("POST", f"{_path(key_of(gateway, key_id))}/rotate", body={"overlap_seconds": overlap})
    until = f"works until {cell(made['retires_at'])}" if made["retires_at"] else "is refused from now on"
    gateway.secret(f"The old key {until}. Give the new one to {made['user']}: it is shown only this once.", made)


@keys.command()
@a_key
@every_key
@remote
def block(gateway: Remote, key_id: str, every: bool) -> None:
    """Refuse a key, or the keys of a user, from the next request on, until they are unblocked."""
    for each in keys_of(gateway, key_id, what="Block", every=every):
        key = gateway.call("PATCH", _path(each), body={"active": False})
        gateway.done(plain(f"{each} of {key['user']} is blocked."), key)


@keys.command()
@a_key
@every_key
@remote
def unblock(gateway: Remote, key_id: str, every: bool) -> None:
    """Accept a blocked key, or the keys of a user, again."""
    for each in keys_of(gateway, key_id, what="Unblock", every=every):
        key = gateway.call("PATCH", _path(each), body={"active": True})
        gateway.done(plain(f"{each} of {key['user']} is active."), key)


keys.add_command(import_)


def _path(key_id: str) -> str:
    from .client import part

    return f"/keys/{part(key_id)}"
