"""Commands for a key that may be given the name of its user instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .ending import confirm, fail
from .tables import plain, table

if TYPE_CHECKING:
    from .remote import Remote

a_key = click.argument("key_id", metavar="ID|USER")
every_key = click.option("--all", "every", is_flag=True, help="Of a user with several keys, take all and do not ask.")

_KEY = "key_"
"""What begins like this is always the id of a key."""


def key_of(gateway: Remote, text: str) -> str:
    """Return the id of the key that *text* names: its id, or the name of a user who has only this key."""
    if text.startswith(_KEY):
        return text
    keys = _keys_of_user(gateway, text)
    if len(keys) > 1:
        _show(keys)
        fail([f"{plain(text)} has {len(keys)} keys, listed above: name one by its id."])
    return str(keys[0]["id"])


def keys_of(gateway: Remote, text: str, *, what: str, every: bool) -> list[str]:
    """Return the ids of the keys that *text* names: an id, or a user. Of several keys, ask whether all are meant.

    Args:
        what: What is going to be done, as the beginning of the question.
        every: Whether ``--all`` was given.
    """
    if text.startswith(_KEY):
        return [text]
    keys = _keys_of_user(gateway, text)
    if len(keys) > 1 and not every:
        _show(keys)
        confirm(f"{what} all {len(keys)} keys of {plain(text)}?", yes=False, option="--all")
    return [str(key["id"]) for key in keys]


def _keys_of_user(gateway: Remote, user: str) -> list[dict[str, Any]]:
    keys = [*gateway.client.pages("/keys", query={"user": user})]
    if not keys:
        fail([f"{plain(user)} has no key. 'llmgateway keys list' shows who has."])
    return keys


def _show(keys: list[dict[str, Any]]) -> None:
    click.echo(table(keys, ("id", "user", "name", "group", "active", "expires_at")), err=True)
