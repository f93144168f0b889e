"""Commands for what is set for everybody: limits, prices, Azure's key."""

from __future__ import annotations

from typing import Any

import click

from .options import limit_options, sent
from .remote import Remote, remote, secret_from_terminal


@click.group()
def limits() -> None:
    """Show and set the limits of everybody together."""


@limits.command("show")
@remote
def show_limits(gateway: Remote) -> None:
    """Show the organisation's limits."""
    gateway.show(gateway.call("GET", "/limits"))


@limits.command("set")
@limit_options
@remote
def set_limits(gateway: Remote, **options: Any) -> None:
    """Change the given limits and leave the others; 'none' removes a limit."""
    present = gateway.call("GET", "/limits")
    gateway.show(gateway.call("PUT", "/limits", body={**present, **sent(options).get("limits", {})}))


@click.group("llm-key")
def llm_key() -> None:
    """Set Azure's key."""


@llm_key.command("set")
@remote
def set_llm_key(gateway: Remote) -> None:
    """Store Azure's key. You are asked for it, or it is read from standard input. It can never be read again."""
    answer = gateway.call("POST", "/setllmkey", body={"key": secret_from_terminal("Azure's key")})
    gateway.done("Azure's key is stored, and in force.", answer)


@click.group()
def models() -> None:
    """Set prices of your own for models; any other model costs its list price."""


@models.command("list")
@remote
def list_models(gateway: Remote) -> None:
    """List your own prices, in US dollars per million tokens."""
    found = [{"name": model["name"], **model["prices"]} for model in gateway.call("GET", "/models")["items"]]
    gateway.show_all(found, "name", "prompt", "cached", "completion")


@models.command("set")
@click.argument("name")
@click.option("--prompt", type=float, required=True, help="US dollars per million prompt tokens.")
@click.option("--cached", type=float, help="The same for prompt tokens from Azure's cache. [as --prompt]")
@click.option("--completion", type=float, required=True, help="The same for completion tokens.")
@remote
def set_model(gateway: Remote, name: str, prompt: float, cached: float | None, completion: float) -> None:
    """Set what a model costs from now on."""
    prices = {"prompt": prompt, "cached": prompt if cached is None else cached, "completion": completion}
    gateway.show(gateway.call("PUT", _path(name), body={"prices": prices}))


@models.command("remove")
@click.argument("name")
@remote
def remove_model(gateway: Remote, name: str) -> None:
    """Remove your own price of a model, so that its list price applies."""
    gateway.call("DELETE", _path(name))
    gateway.done(f"{name} costs its list price from now on.", {"name": name, "removed": True})


def _path(name: str) -> str:
    from .client import part

    return f"/models/{part(name)}"
