"""What the commands share that raise limits for a while."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from .dates import in_time
from .ending import fail
from .options import NONE, Command, limit_options, sent
from .remote import Remote
from .tables import cell


def raise_options(command: Command) -> Command:
    """Add the options of a command that raises limits."""
    command = click.option("--end", is_flag=True, help="End the present raise now.")(command)
    command = click.option(
        "--until",
        metavar="END",
        help="today, tomorrow, a date (until the end of that day), a time with its zone, or from now on: 3h, 2d.",
    )(command)
    return limit_options(command)


def raised(gateway: Remote, path: str, whose: str, options: dict[str, Any]) -> None:
    """Raise the limits at *path* as *options* say, or end the raise there, and print what came of it.

    Args:
        whose: Names them in the messages: ``the limits of ada``.
    """
    until, end = options.pop("until"), options.pop("end")
    limits = sent(options).get("limits", {})
    if end:
        if limits or until:
            fail(["--end ends the present raise. Leave the other options out."])
        gateway.call("DELETE", f"{path}/raise")
        gateway.done(f"A raise of {whose} is over.", {"raise": None})
        return
    if not until or not limits:
        fail(["Name the limits to raise and their end, like --requests-per-minute 120 --until tomorrow."])
    if None in limits.values():
        fail([f"{NONE!r} is no limit that ends by itself. Name a higher one."])
    body = in_time(gateway, {"limits": limits, "until": until})
    answer: Mapping[str, Any] = gateway.call("POST", f"{path}/raise", body=body)
    gateway.done(f"Raised {whose} until {cell(answer['raise']['until'])}.", answer)
