"""Commands for the second currency of reports."""

from __future__ import annotations

import re
from typing import Any

import click

from .ending import confirm
from .options import NONE, yes_option
from .remote import Remote, remote


def _rate(value: str) -> tuple[str, float | None]:
    match = re.fullmatch(r"(\d{4}-\d\d)=(\d+(?:\.\d+)?|none)", value, re.ASCII)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a rate. Write one like 2026-10=0.92, or 2026-10=none to remove it.")
    return match[1], None if match[2] == NONE else float(match[2])


@click.group()
def currency() -> None:
    """Show and set the second currency of reports, with its rates by month."""


@currency.command("show")
@remote
def show(gateway: Remote) -> None:
    """Show the second currency and its rates."""
    _show(gateway, gateway.call("GET", "/currency"))


@currency.command("set")
@click.argument("code", required=False)
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=_rate,
    metavar="MONTH=RATE",
    help="How much of it a US dollar was, like 2026-10=0.92; repeatable.",
)
@click.option("--replace", is_flag=True, help="Forget the currency and all rates that there were.")
@remote
def set_(gateway: Remote, code: str | None, rates: tuple[tuple[str, float | None], ...], replace: bool) -> None:
    """Set the rates of months, and leave the others: `llmgateway currency set EUR --rate 2026-10=0.92`.

    CODE is needed the first time, and to change the currency, with --replace.
    """
    given: dict[str, Any] = {} if code is None else {"code": code}
    if rates or replace:
        given["rates"] = dict(rates)
    _show(gateway, gateway.call("PUT" if replace else "PATCH", "/currency", body=given))


@currency.command()
@yes_option
@remote
def remove(gateway: Remote, yes: bool) -> None:
    """Remove the second currency, and its rates."""
    confirm("Remove the second currency with all its rates?", yes=yes)
    answer = gateway.call("PUT", "/currency", body={"code": None})
    gateway.done("There is no second currency any more.", answer)


def _show(gateway: Remote, answer: dict[str, Any]) -> None:
    if gateway.as_json:
        gateway.show(answer)
    elif answer["code"] is None:
        click.echo("There is no second currency. Set one: llmgateway currency set EUR --rate 2026-10=0.92", err=True)
    else:
        rows = [{"month": month, "rate": rate, "currency": answer["code"]} for month, rate in answer["rates"].items()]
        gateway.show_all(rows, "month", "rate", "currency")
