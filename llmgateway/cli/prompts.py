"""Prompts, from a terminal."""

from __future__ import annotations

from typing import IO, Any

import click

from .options import Command
from .remote import Remote, remote
from .tables import plain


def _whose(command: Command) -> Command:
    command = click.option("--key", metavar="ID", help="Of the key with this id.")(command)
    return click.option("--group", help="Of this group.")(command)


@click.group()
def prompt() -> None:
    """Prompts of the organisation, or with --group or --key of one of these."""


@prompt.command()
@_whose
@remote
def show(gateway: Remote, **whose: str | None) -> None:
    """Show the prompt in force."""
    gateway.show(gateway.call("GET", "/prompt", query=whose))


@prompt.command("set")
@click.argument("file", type=click.File("r", encoding="utf-8"), default="-")
@click.option("--text", help="The prompt itself, instead of a file.")
@_whose
@remote
def set_(gateway: Remote, file: IO[str], text: str | None, **whose: str | None) -> None:
    """Put the text in FILE (standard input if there is none) in force from the next request on."""
    text = file.read().strip() if text is None else text
    told = gateway.call("PUT", "/prompt", query=whose, body={"prompt": text})
    gateway.done(f"Version {told['version']} is in force." if text else "No prompt is in force.", told)


@prompt.command()
@_whose
@remote
def clear(gateway: Remote, **whose: str | None) -> None:
    """Take a prompt away; the one behind it comes into force."""
    told = gateway.call("DELETE", "/prompt", query=whose)
    gateway.done(f"In force now: {_named(told)}.", told)


@prompt.command()
@_whose
@remote
def versions(gateway: Remote, **whose: str | None) -> None:
    """List every prompt there ever was, newest first."""
    gateway.show_all(gateway.call("GET", "/prompt/versions", query=whose)["items"], "version", "set_at", "prompt")


@prompt.command()
@click.argument("message")
@click.option("--model", help="As a client names it.")
@_whose
@remote
def preview(gateway: Remote, message: str, model: str | None, **whose: str | None) -> None:
    """Show what would go to Azure if somebody sent MESSAGE. Nothing is sent."""
    body: dict[str, Any] = {name: value for name, value in {"model": model, **whose}.items() if value}
    told = gateway.call("POST", "/prompt/preview", body=body | {"messages": [{"role": "user", "content": message}]})
    if gateway.as_json:
        gateway.show(told)
        return
    click.echo(f"Prompt: {_named(told)}.", err=True)
    for sent in told["sent"]["messages"]:
        click.echo(plain(f"{sent['role']}: {sent['content']}"))


def _named(told: dict[str, Any]) -> str:
    if not told["version"]:
        return "none"
    return f"version {told['version']} of {told['scope'].replace(':', ' ', 1) or 'the organisation'}"
