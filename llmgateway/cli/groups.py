"""Commands for groups."""

from __future__ import annotations

from typing import Any

import click

from .options import field_options, limit_options, sent
from .remote import Remote, remote


@click.group()
def groups() -> None:
    """Create, change and revoke groups: courses and teams."""


@groups.command("list")
@remote
def list_(gateway: Remote) -> None:
    """List the groups, by name."""
    found = gateway.call("GET", "/groups")["items"]
    gateway.show_all(found, "name", "starts_at", "expires_at", "models", "limits", "note")


@groups.command()
@click.argument("name")
@remote
def show(gateway: Remote, name: str) -> None:
    """Show everything that is set for a group."""
    gateway.show(gateway.call("GET", _path(name)))


@groups.command("set")
@click.argument("name")
@field_options("note", "starts_at", "expires_at")
@limit_options
@remote
def set_(gateway: Remote, name: str, **options: Any) -> None:
    """Create a group, or change the given fields of one and leave the others.

    An empty value clears a field, 'none' removes a limit.
    """
    gateway.show(gateway.call("PUT", _path(name), body=_changed(_present(gateway, name), sent(options))))


@groups.command()
@click.argument("name")
@remote
def remove(gateway: Remote, name: str) -> None:
    """Remove a group that no key belongs to."""
    gateway.call("DELETE", _path(name))
    gateway.done(f"The group {name} is removed.", {"name": name, "removed": True})


@groups.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote
def revoke(gateway: Remote, name: str, yes: bool) -> None:
    """Block every key of a group, from the next request on."""
    if not yes:
        click.confirm(f"Block every key of the group {name}?", abort=True, err=True)
    answer = gateway.call("POST", f"{_path(name)}/revoke")
    gateway.done(f"Blocked {answer['revoked']} keys of the group {name}.", answer)


def _present(gateway: Remote, name: str) -> dict[str, Any]:
    """Return the fields of the group, as they can be sent back; empty if there is no such group."""
    from .client import CallFailed

    try:
        group: dict[str, Any] = gateway.call("GET", _path(name))
    except CallFailed as error:
        if error.status == 404:
            return {}
        raise
    return {field: value for field, value in group.items() if field not in ("name", "created_at")}


def _changed(present: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    limits = {**present.get("limits", {}), **changes.get("limits", {})}
    return {**present, **changes, "limits": limits}


def _path(name: str) -> str:
    from .client import part

    return f"/groups/{part(name)}"
