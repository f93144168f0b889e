"""Commands that change many keys at once, and that end a group."""

from __future__ import annotations

import csv
import io
import sys
from typing import Any

import click

from .dates import in_time
from .ending import confirm, fail
from .groups import groups
from .keys import keys
from .options import Command, yes_option
from .remote import Remote, remote
from .tables import counted, plain, table

_COLUMNS = ("id", "user", "name", "group", "active", "expires_at", "last_used", "happens")


def filter_options(command: Command) -> Command:
    """Add the options that select keys."""
    for option in reversed(
        (
            click.option("--user", help="Only keys of exactly this user."),
            click.option("--group", help="Only keys of this group."),
            click.option("--active/--blocked", default=None, help="Only active keys, or only blocked ones."),
            click.option("--expired/--not-expired", default=None, help="Only keys whose end has passed, or has not."),
            click.option("--unused", "unused_since", metavar="AGE|DATE", help="Not used for 180d, or since a date."),
            click.option("--created-before", metavar="DATE", help="Created before this day or time."),
            click.option("--created-since", metavar="DATE", help="Created on this day or later."),
            click.option("--all", "all_", is_flag=True, help="Every key of the organisation."),
        )
    ):
        command = option(command)
    return command


@keys.command()
@click.argument("action", type=click.Choice(["block", "unblock", "move", "extend", "remove"]))
@filter_options
@click.option("--to", "to", metavar="GROUP|DATE", help="For move: the new group. For extend: the new end. Or 'none'.")
@click.option("--dry-run", is_flag=True, help="Only show what would be changed.")
@yes_option
@remote
def bulk(gateway: Remote, action: str, to: str | None, dry_run: bool, yes: bool, **filters: Any) -> None:
    """Block, unblock, move, extend or remove all keys that match. They are listed first."""
    field = {"move": "group", "extend": "expires_at"}.get(action)
    if (field is None) != (to is None):
        fail([f"{action} takes no --to." if field is None else f"{action} needs --to."])
    changes = {} if field is None else in_time(gateway, {field: None if to == "none" else to})
    change(gateway, action, _filter(gateway, **filters), changes=changes, dry_run=dry_run, yes=yes)


@keys.command()
@click.option("--unused", "unused_since", metavar="AGE|DATE", required=True, help="Not used for 180d, or since a date.")
@click.option("--group", help="Only keys of this group.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@yes_option
@remote
def prune(gateway: Remote, unused_since: str, group: str | None, dry_run: bool, yes: bool) -> None:
    """Remove the keys that nobody has used for a while. Keys that were never used count from their creation."""
    filters = in_time(gateway, {"unused_since": unused_since}) | ({"group": group} if group else {})
    change(gateway, "remove", filters, changes={}, dry_run=dry_run, yes=yes)


def change(
    gateway: Remote, action: str, filters: dict[str, Any], *, changes: dict[str, Any], dry_run: bool, yes: bool
) -> None:
    """Show what *filters* select, ask, and make the change."""
    body = {"filter": filters, "action": action, "changes": changes}
    preview = gateway.call("POST", "/keys/bulk", body=body)
    concerned = [item for item in preview["items"] if item["happens"] != "nothing"]
    if dry_run or not concerned:
        if gateway.as_json:
            gateway.show(preview)
        else:
            _list(preview["items"])
            click.echo(
                f"{counted(len(concerned), 'key')} would be changed." if dry_run else "Nothing has to be changed.",
                err=True,
            )
        return
    if not yes:
        _list(preview["items"], err=True)
    confirm(f"{action.capitalize()} {counted(len(concerned), 'key')}?", yes=yes)
    answer = gateway.call("POST", "/keys/bulk", body=body | {"token": preview["token"]})
    happened = concerned[0]["happens"]
    gateway.done(f"{counted(len(concerned), 'key')} {happened}.", answer)


@groups.command()
@click.argument("name")
@click.option("--keys", "fate", type=click.Choice(["remove", "block"]), help="Remove its keys, or block them.")
@click.option("--move-to", metavar="GROUP", help="Move its keys to this group.")
@click.option("--dry-run", is_flag=True, help="Print the same, and change nothing.")
@yes_option
@remote
def close(gateway: Remote, name: str, fate: str | None, move_to: str | None, dry_run: bool, yes: bool) -> None:
    """End a group, and print its members as CSV, so that you can tell them. What they have used stays in the reports.

    With --keys remove or --move-to, the group is removed. With --keys block it stays, and takes no requests.
    """
    from .client import part

    if (fate is None) == (move_to is None):
        fail(["Give either --keys remove, or --keys block, or --move-to GROUP."])
    path = f"/groups/{part(name)}/close"
    body = {"keys": fate or {"move_to": move_to}, "dry_run": dry_run}
    if not dry_run and not yes:
        members = gateway.call("POST", path, body=body | {"dry_run": True})
        what = (
            f"move {counted(members['count'], 'key')} to {move_to}"
            if move_to
            else (f"{fate} {counted(members['count'], 'key')}")
        )
        confirm(plain(f"End the group {name}, and {what}?"), yes=yes)
    if gateway.as_json:
        gateway.show(gateway.call("POST", path, body=body))
        return
    found = gateway.client.table("POST", path, params={"format": "csv"}, json=body)
    sys.stdout.buffer.write(found)
    sys.stdout.buffer.flush()
    count = sum(1 for _ in csv.reader(io.StringIO(found.decode()))) - 1
    done = "Nothing was changed" if dry_run else ("The group is closed" if fate == "block" else "The group is removed")
    click.echo(f"{done}. {counted(count, 'key')} above.", err=True)


def _filter(gateway: Remote, *, all_: bool, unused_since: str | None, **filters: Any) -> dict[str, Any]:
    given = {name: value for name, value in filters.items() if value is not None}
    if unused_since is not None:
        given["unused_since"] = unused_since
    if all_:
        given["all"] = True
    if not given:
        fail(["Say which keys: --group, --user, --unused …; for every key there is, --all."])
    return in_time(gateway, given)


def _list(items: list[dict[str, Any]], *, err: bool = False) -> None:
    click.echo(table(items, _COLUMNS), err=err)
