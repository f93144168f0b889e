"""Commands for prompts."""

from __future__ import annotations

from typing import IO, Any

import click

from .options import Command
from .remote import Remote, listing, remote
from .tables import plain


def _whose(command: Command) -> Command:
    command = click.option("--key", metavar="ID", help="The prompt of the key with this id.")(command)
    return click.option("--group", help="The prompt of this group.")(command)


@click.group()
def prompt() -> None:
    """Show and set the prompt of the organisation, or of a --group or a --key."""


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
    """Use the text in FILE (standard input by default) as the prompt, from the next request on."""
    text = file.read().strip() if text is None else text
    answer = gateway.call("PUT", "/prompt", query=whose, body={"prompt": text})
    gateway.done(f"Version {answer['version']} is in force." if text else "No prompt is in force.", answer)


@prompt.command()
@_whose
@remote
def clear(gateway: Remote, **whose: str | None) -> None:
    """Remove a prompt, so that the next more general one applies."""
    answer = gateway.call("DELETE", "/prompt", query=whose)
    gateway.done(f"In force now: {_named(answer)}.", answer)


@prompt.command()
@_whose
@listing
def versions(gateway: Remote, **whose: str | None) -> None:
    """List every prompt that the organisation has had, or a group or a key, newest first."""
    found = gateway.call("GET", "/prompt/versions", query=whose)["items"]
    gateway.show_all(found, "version", "set_at", "set_by", "prompt")


@prompt.command()
@click.argument("message")
@click.option("--model", help="The model, as a client names it.")
@_whose
@remote
def preview(gateway: Remote, message: str, model: str | None, **whose: str | None) -> None:
    """Show what would go to Azure if somebody sent MESSAGE. Nothing is sent."""
    body: dict[str, Any] = {name: value for name, value in {"model": model, **whose}.items() if value}
    answer = gateway.call("POST", "/prompt/preview", body=body | {"messages": [{"role": "user", "content": message}]})
    if gateway.as_json:
        gateway.show(answer)
        return
    click.echo(f"Prompt: {_named(answer)}.", err=True)
    for sent in answer["sent"]["messages"]:
        click.echo(plain(f"{sent['role']}: {sent['content']}"))


def _named(answer: dict[str, Any]) -> str:
    if not answer["version"]:
        return "none"
    return f"version {answer['version']} of {answer['scope'].replace(':', ' ', 1) or 'the organisation'}"
