"""Commands for named admins."""

from __future__ import annotations

from typing import Any

import click

from .dates import AHEAD, in_time
from .ending import confirm, fail
from .options import yes_option
from .remote import Remote, listing, remote
from .tables import cell, plain

_ROLES = click.Choice(["owner", "admin", "viewer", "group", "metrics"])
_ID = "admin_"
"""What begins like this is always an id."""

an_admin = click.argument("admin", metavar="ID|NAME")
_a_role = "owner: everything; admin: all but admins; viewer: reads; group: manages its groups; metrics: /metrics."
_groups = click.option("--group", "groups", multiple=True, help="A group to manage, for the role group; repeatable.")
_expires_at = click.option("--expires-at", help=f"Refuse the admin's key after this day, or from this time on. {AHEAD}")
_note = click.option("--note", help="A note that only owners see.")


@click.group()
def admins() -> None:
    """Let other admins in, each with a key and a role of their own."""


@admins.command("list")
@listing
def list_(gateway: Remote) -> None:
    """List the named admins, oldest first. Whoever has ADMIN_KEY is an owner, too, and not in the list."""
    found = gateway.call("GET", "/admins")["items"]
    gateway.show_all(found, "id", "name", "role", "groups", "active", "expires_at")


@admins.command()
@click.argument("name")
@click.option("--role", type=_ROLES, required=True, help=_a_role)
@_groups
@_expires_at
@_note
@remote
def add(gateway: Remote, name: str, **options: Any) -> None:
    """Let NAME in as an admin. Only the key goes to standard output; it is shown this once."""
    made = gateway.call("POST", "/admins", body={"name": name, **_sent(gateway, options)})
    gateway.secret(f"Created {made['id']}. Give {plain(name)} the key: it is shown only this once.", made)


@admins.command()
@an_admin
@remote
def show(gateway: Remote, admin: str) -> None:
    """Show everything about an admin except the key."""
    gateway.show(gateway.call("GET", _path(_id_of(gateway, admin))))


@admins.command("set")
@an_admin
@click.option("--name", help="The new name.")
@click.option("--role", type=_ROLES, help=_a_role)
@_groups
@_expires_at
@_note
@remote
def set_(gateway: Remote, admin: str, **options: Any) -> None:
    """Change the given fields and leave the others. An empty date or note clears it; groups are replaced."""
    gateway.show(gateway.call("PATCH", _path(_id_of(gateway, admin)), body=_sent(gateway, options)))


@admins.command()
@an_admin
@remote
def block(gateway: Remote, admin: str) -> None:
    """Refuse an admin's key from the next request on, until it is unblocked."""
    changed = gateway.call("PATCH", _path(_id_of(gateway, admin)), body={"active": False})
    gateway.done(f"{plain(changed['name'])} is blocked.", changed)


@admins.command()
@an_admin
@remote
def unblock(gateway: Remote, admin: str) -> None:
    """Accept the key of a blocked admin again."""
    changed = gateway.call("PATCH", _path(_id_of(gateway, admin)), body={"active": True})
    gateway.done(f"{plain(changed['name'])} is let in again.", changed)


@admins.command()
@an_admin
@click.option("--overlap", type=click.IntRange(min=0), default=0, help="Seconds for which the old key still works. [0]")
@remote
def rotate(gateway: Remote, admin: str, overlap: int) -> None:
    """Replace an admin's key by a new one. Only the new key goes to standard output; it is shown this once."""
    made = gateway.call("POST", f"{_path(_id_of(gateway, admin))}/rotate", body={"overlap_seconds": overlap})
    until = f"works until {cell(made['retires_at'])}" if made["retires_at"] else "is refused from now on"
    gateway.secret(f"The old key {until}. Give the new one to {plain(made['name'])}: it is shown only this once.", made)


@admins.command()
@an_admin
@yes_option
@remote
def remove(gateway: Remote, admin: str, yes: bool) -> None:
    """Remove an admin for good. What the audit log says stays."""
    admin_id = _id_of(gateway, admin)
    confirm(f"Remove the admin {plain(admin)}?", yes=yes)
    gateway.call("DELETE", _path(admin_id))
    gateway.done(f"{plain(admin)} is removed, and refused from now on.", {"id": admin_id, "removed": True})


def _id_of(gateway: Remote, text: str) -> str:
    """Return the id of the admin whom *text* names: by the id, or by the name, which is unique."""
    if text.startswith(_ID):
        return text
    found = [each for each in gateway.call("GET", "/admins")["items"] if each["name"] == text]
    if not found:
        fail([f"There is no admin {plain(text)}. 'llmgateway admins list' shows all of them."])
    return str(found[0]["id"])


def _sent(gateway: Remote, options: dict[str, Any]) -> dict[str, Any]:
    groups = [name for name in options.pop("groups") if name]
    body = {name: value or None for name, value in options.items() if value is not None}
    return in_time(gateway, body) | ({"groups": groups} if groups else {})


def _path(admin_id: str) -> str:
    from .client import part

    return f"/admins/{part(admin_id)}"
