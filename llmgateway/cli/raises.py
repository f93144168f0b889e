"""What the commands share that raise limits for a while."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import click

from .ending import fail
from .options import NONE, Command, limit_options, sent
from .remote import Remote

_SPANS = {"h": "hours", "d": "days", "w": "weeks"}
_DAYS = {"today": 0, "tomorrow": 1}


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
    body = {"limits": limits, "until": end_of(gateway, until)}
    answer: Mapping[str, Any] = gateway.call("POST", f"{path}/raise", body=body)
    gateway.done(f"Raised {whose} until {answer['raise']['until']}.", answer)


def end_of(gateway: Remote, text: str, *, now: datetime | None = None) -> str:
    """Return what the gateway is sent for ``--until``. It reads dates and times itself."""
    now = now or datetime.now(UTC)
    span = re.fullmatch(r"(\d{1,4}) ?([hdw])", text.strip(), re.ASCII)
    if span is not None:
        return (now + timedelta(**{_SPANS[span[2]]: int(span[1])})).isoformat(timespec="milliseconds")
    days = _DAYS.get(text.strip().lower())
    if days is None:
        return text.strip()
    # The organisation's day, which may be another one than here.
    zone = ZoneInfo(gateway.call("GET", "/settings")["timezone"])
    return (now.astimezone(zone).date() + timedelta(days=days)).isoformat()
