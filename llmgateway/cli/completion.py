"""Completion in the shell, also of the users, groups, keys and models that a gateway has."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class

if TYPE_CHECKING:
    from .client import Client

PROGRAM = "llmgateway"
_VARIABLE = "_LLMGATEWAY_COMPLETE"  # the name that click reads
_SECONDS = 2.0
"""A shell that waits for longer seems to hang."""
_MOST_KEYS = 5_000

COMPLETED = {
    ("", "user"): "users",
    ("", "group"): "groups",
    ("", "key_id"): "keys",
    ("", "key"): "keys",
    ("", "models"): "models",
    ("groups", "move_to"): "groups",
    ("keys", "to"): "groups",
    ("audit", "admin"): "admins",
    ("groups", "name"): "groups",
    ("admins", "admin"): "admins",
    ("admins", "groups"): "groups",
    ("models", "name"): "models",
    ("models", "model"): "models",
}
"""What a parameter names, by the first word of its command (empty: any) and the name of the parameter."""


class Completed(click.types.StringParamType):
    """A text that names something which the gateway has. The shell completes it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        return [CompletionItem(name) for name in sorted(_names(self.kind, ctx)) if name.startswith(incomplete)]


def _names(kind: str, ctx: click.Context) -> set[str]:
    """Return what the gateway has; nothing if it cannot be asked, because nobody wants errors between two words."""
    from .client import CallFailed, Client
    from .remote import DEFAULT_URL, key_from_file

    url = ctx.params.get("url") or os.environ.get("LLMGATEWAY_URL") or DEFAULT_URL
    try:
        key = os.environ.get("ADMIN_KEY") or key_from_file(os.environ.get("ADMIN_KEY_FILE")) or ""
        return {str(name) for name in _of(kind, Client(url, key, seconds=_SECONDS))}
    except (CallFailed, OSError, UnicodeError):
        return set()


def _of(kind: str, client: Client) -> Iterable[Any]:
    if kind == "groups":
        return [group["name"] for group in client.call("GET", "/groups")["items"]]
    if kind == "admins":
        return [admin["name"] for admin in client.call("GET", "/admins")["items"]]
    if kind == "models":
        return [model["name"] for model in client.call("GET", "/models")["items"]]
    keys = list(client.pages("/keys", most=_MOST_KEYS))
    users = {key["user"] for key in keys}
    return users if kind == "users" else users | {key["id"] for key in keys}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script with which a shell completes commands, options, and the names of users and groups."""
    script = get_completion_class(shell)
    if script is None:
        raise click.BadParameter(f"{shell} is not known.")
    click.echo(script(ctx.find_root().command, {}, PROGRAM, _VARIABLE).source())
