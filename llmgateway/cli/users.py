"""Commands for people: the limits of all keys of one person together."""

from __future__ import annotations

from typing import Any

import click

from .options import limit_options, sent
from .raises import raise_options, raised
from .remote import Remote, listing, remote
from .tables import cell, counted, plain


@click.group()
def users() -> None:
    """List people, and limit each of them with all of their keys."""


@users.command("list")
@click.option("--search", metavar="TEXT", help="Only people with this text in their name, or in the e-mail of a key.")
@listing
def list_(gateway: Remote, search: str | None) -> None:
    """List those who have keys, and those for whom limits are set, by name."""
    gateway.show_all([*gateway.client.pages("/users", query={"q": search})], "user", "key_count", "limits", "raise")


@users.command()
@click.argument("user")
@remote
def show(gateway: Remote, user: str) -> None:
    """Show the keys, limits and usage of a person, and what is left of the limits."""
    person = gateway.call("GET", _path(user))
    gateway.show(person if gateway.as_json else _short(person))


@users.command("limits")
@click.argument("user")
@limit_options
@remote
def limits(gateway: Remote, user: str, **options: Any) -> None:
    """Change the given limits of a person, and leave the others; 'none' lifts a limit."""
    gateway.show(gateway.call("PATCH", _path(user), body=sent(options)))


@users.command("raise")
@click.argument("user")
@raise_options
@remote
def raise_(gateway: Remote, user: str, **options: Any) -> None:
    """Raise the limits of a person for a while, in place of own limits and those of each member of a group."""
    raised(gateway, _path(user), f"the limits of {plain(user)}", options)


@users.command("reset")
@click.argument("user")
@remote
def reset(gateway: Remote, user: str) -> None:
    """Lift all limits of a person, and end a raise. The keys stay, with the limits of each."""
    gateway.call("DELETE", _path(user))
    gateway.done(f"No limits are set for {plain(user)}.", {"user": user, "removed": True})


def _short(person: dict[str, Any]) -> dict[str, Any]:
    keys = [f"{key['id']} ({key['name']})" for key in person["keys"]]
    usage = [
        f"{period}: {counted(sums['requests'], 'request')}, {counted(sums['total_tokens'], 'token')}, "
        f"{sums['cost_usd']:.4f} USD"
        for period, sums in person["usage"].items()
    ]
    member_of = [
        f"{each['group']}: {line}" for each in person["member_of"] for line in cell(each["remaining"]).splitlines()
    ]
    return person | {"keys": "\n".join(keys), "usage": "\n".join(usage), "member_of": "\n".join(member_of)}


def _path(user: str) -> str:
    from .client import part

    return f"/users/{part(user)}"
