"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .dates import AHEAD

Command = TypeVar("Command", bound=Callable[..., Any])

NONE = "none"


def whole_number(value: str) -> int | str:
    """Convert for click: a whole number, or ``none``."""
    if value != NONE and not re.fullmatch(r"\d+", value, re.ASCII):
        raise click.BadParameter(f"{value!r} is neither a whole number nor 'none'.")
    return value if value == NONE else int(value)


def budget(value: str) -> dict[str, Any] | str:
    """Convert for click: an amount, its unit and its period, or ``none``."""
    if value == NONE:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(usd|tokens|requests)/(day|week|month|total)", value, re.ASCII)
    if match is None:
        raise click.BadParameter(
            f"{value!r} is not a budget. "
            "Write one like 5usd/month, 2usd/week, 100000tokens/day, 50requests/total, or 'none'."
        )
    return {"amount": float(match[1]), "unit": match[2], "period": match[3]}


def self_service(value: str) -> dict[str, Any] | str:
    """Convert for click: a number of keys and for how many days, or ``none``."""
    if value == NONE:
        return value
    match = re.fullmatch(r"(\d+) ?keys?(?:/(\d+) ?days?)?", value, re.ASCII)
    if match is None:
        raise click.BadParameter(f"{value!r} says not how many keys. Write it like 2keys/180days, 1key, or 'none'.")
    return {"keys": int(match[1]), "days": int(match[2]) if match[2] else None}


self_service_option = click.option(
    "--self-service",
    type=self_service,
    metavar="KEYS|none",
    help="How many keys people may make themselves, and for how long: like 2keys/180days.",
)

_MEMBER = "member_"
_LIMITS = {
    "requests_per_minute": (whole_number, "N|none", "Requests within any minute."),
    "tokens_per_minute": (whole_number, "N|none", "Tokens within any minute."),
    "parallel_requests": (whole_number, "N|none", "Requests at the same time."),
    "budget": (budget, "BUDGET|none", "Like 5usd/month, 2usd/week, 100000tokens/day, 50requests/total."),
}
_FIELDS = {
    "user": "The person who uses the key.",
    "name": "Distinguishes the keys of one user.",
    "group": "The group that the key belongs to.",
    "email": "E-mail address of the user.",
    "note": "A note that only admins see.",
    "cost_centre": "Where accounting books its cost.",
    "starts_at": f"Refuse requests before this day or time: 2026-10-01. {AHEAD}",
    "expires_at": f"Refuse requests from the end of this day on, or from this time on. {AHEAD}",
}


yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def limit_options(command: Command) -> Command:
    """Add an option for each limit."""
    return _limit_options(command, "", "")


def member_limit_options(command: Command) -> Command:
    """Add an option for each limit of each member of a group."""
    return _limit_options(command, _MEMBER, "Of each person in the group: ")


def _limit_options(command: Command, prefix: str, whose: str) -> Command:
    for name, (kind, metavar, meaning) in reversed(_LIMITS.items()):
        option = f"--{(prefix + name).replace('_', '-')}"
        text = whose + (meaning[0].lower() + meaning[1:] if whose else meaning)
        command = click.option(option, type=kind, metavar=metavar, help=text)(command)
    return command


def field_options(*names: str) -> Callable[[Command], Command]:
    """Add an option for each of these text fields. An empty value clears the field."""

    def decorate(command: Command) -> Command:
        command = click.option("--model", "models", multiple=True, help="A model that may be used; repeatable.")(
            command
        )
        for name in reversed(names):
            command = click.option(f"--{name.replace('_', '-')}", help=_FIELDS[name])(command)
        return command

    return decorate


def sent(options: dict[str, Any]) -> dict[str, Any]:
    """Return the body that *options* describe. It has only the fields that were given."""
    limits = _parts(options, "")
    members = _parts(options, _MEMBER)
    body = {
        name: None if value == NONE and name == "self_service" else value or None
        for name, value in options.items()
        if value is not None and name != "models"
    }
    if options.get("models"):
        body["models"] = [name for name in options["models"] if name] or None
    return body | ({"limits": limits} if limits else {}) | ({"member_limits": members} if members else {})


def _parts(options: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Take the limits out of *options* that were given; None for ``none``."""
    values = {name: options.pop(prefix + name, None) for name in _LIMITS}
    return {name: None if value == NONE else value for name, value in values.items() if value is not None}
