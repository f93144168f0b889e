"""Commands for what is set for everybody: limits, time zone, Azure's key."""

from __future__ import annotations

from typing import Any

import click

from .options import NONE, limit_options, self_service_option, sent
from .remote import Remote, remote, secret_from_terminal


@click.group()
def limits() -> None:
    """Show and set the limits of everybody together."""


@limits.command("show")
@remote
def show_limits(gateway: Remote) -> None:
    """Show the organisation's limits, and what is used and left of them."""
    gateway.show(gateway.call("GET", "/limits"))


@limits.command("set")
@limit_options
@remote
def set_limits(gateway: Remote, **options: Any) -> None:
    """Change the given limits and leave the others; 'none' removes a limit."""
    gateway.show(gateway.call("PATCH", "/limits", body=sent(options).get("limits", {})))


@click.group()
def settings() -> None:
    """Show and set what holds for the whole organisation: its time zone, Azure's address, what people may make."""


@settings.command("show")
@remote
def show_settings(gateway: Remote) -> None:
    """Show the time zone, one that will hold, and the address of Azure."""
    gateway.show(gateway.call("GET", "/settings"))


@settings.command("set")
@click.option("--timezone", metavar="NAME", help="A name of the IANA list, like Europe/Berlin.")
@click.option("--base-url", metavar="ADDRESS", help="Of Azure, in any form that the portal shows; none removes it.")
@click.option("--api-version", metavar="VERSION", help="For the classic form of the address; none removes it.")
@click.option("--key-header", metavar="NAME", help="Header of Azure's key, api-key if it is not set; none removes it.")
@remote
def set_settings(gateway: Remote, **options: str | None) -> None:
    """Set the time zone in which days begin (it holds from its next midnight on), or the address of Azure.

    What the environment of the gateway sets, such as LLM_BASE_URL, wins over it, as the answer says.
    """
    body = {name: None if value == "none" else value for name, value in options.items() if value is not None}
    gateway.show(gateway.call("PUT", "/settings", body=body))


@settings.command("self-service")
@self_service_option
@remote
def self_service(gateway: Remote, self_service: Any) -> None:
    """Show what people may make themselves outside of all groups, or set it; 'none' ends it."""
    if self_service is None:
        gateway.show(gateway.call("GET", "/self-service"))
        return
    body = {"without_group": None if self_service == NONE else self_service}
    gateway.show(gateway.call("PUT", "/self-service", body=body))


@click.group("llm-key")
def llm_key() -> None:
    """Set Azure's key."""


@llm_key.command("set")
@remote
def set_llm_key(gateway: Remote) -> None:
    """Store Azure's key. You are asked for it, or it is read from standard input. It can never be read again.

    It is tried at once, with a call that costs nothing, and what Azure answered is shown.
    """
    answer = gateway.call("POST", "/setllmkey", body={"key": secret_from_terminal("Azure's key")})
    azure = answer.get("azure") or {}  # a gateway of an earlier version does not try the key
    gateway.done(f"Azure's key is stored, and in force. {azure.get('message', '')}".rstrip(), answer)
