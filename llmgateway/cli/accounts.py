"""Commands for the accounts with which people sign in at the organisation's identity provider."""

from __future__ import annotations

import click

from .ending import confirm
from .options import yes_option
from .remote import Remote, listing, remote
from .tables import plain

an_account = click.argument("account", metavar="ID")


@click.group()
def accounts() -> None:
    """Say whose keys the accounts at your identity provider have, and keep some out."""


@accounts.command("list")
@click.option("--waiting", is_flag=True, help="Only those that have no keys until an admin has said whose.")
@click.option("--user", help="Only the account that has the keys of this person.")
@listing
def list_(gateway: Remote, waiting: bool, user: str | None) -> None:
    """List the accounts that have signed in."""
    found = gateway.client.pages("/identities", query={"waiting": "true" if waiting else None, "user": user})
    gateway.show_all([*found], "id", "claimed", "user", "email", "role", "groups", "active", "signed_in_at")


@accounts.command()
@an_account
@remote
def show(gateway: Remote, account: str) -> None:
    """Show everything about an account."""
    gateway.show(gateway.call("GET", _path(account)))


@accounts.command("set")
@an_account
@click.option("--user", required=True, help="The person whose keys it has; empty for nobody.")
@remote
def set_(gateway: Remote, account: str, user: str) -> None:
    """Say whose keys an account has."""
    gateway.show(gateway.call("PATCH", _path(account), body={"user": user or None}))


@accounts.command()
@an_account
@remote
def block(gateway: Remote, account: str) -> None:
    """End an account's sessions, and let it in no more until it is unblocked. The keys go on working."""
    changed = gateway.call("PATCH", _path(account), body={"active": False})
    gateway.done(f"The account of {plain(changed['claimed'])} is blocked.", changed)


@accounts.command()
@an_account
@remote
def unblock(gateway: Remote, account: str) -> None:
    """Let a blocked account sign in again."""
    changed = gateway.call("PATCH", _path(account), body={"active": True})
    gateway.done(f"The account of {plain(changed['claimed'])} may sign in again.", changed)


@accounts.command()
@an_account
@yes_option
@remote
def remove(gateway: Remote, account: str, yes: bool) -> None:
    """Forget an account. The keys stay; if it signs in again, it is a new one."""
    confirm(f"Forget the account {plain(account)}?", yes=yes)
    gateway.call("DELETE", _path(account))
    gateway.done(f"{plain(account)} is forgotten, and its sessions have ended.", {"id": account, "removed": True})


def _path(account: str) -> str:
    from .client import part

    return f"/identities/{part(account)}"
