"""The command for monthly statements, and what it shares with that of a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from ..usage.currency import DOLLAR, decimal_places
from .csv_output import reader_option
from .ending import fail
from .remote import Remote, listing

Command = Callable[..., None]

_FORMATS = ("table", "csv", "html")


def month_option(command: Command) -> Command:
    return click.option("--month", required=True, metavar="MONTH", help="Like 2026-10.")(command)


def format_options(command: Command) -> Command:
    command = click.option(
        "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it to this file."
    )(command)
    command = reader_option(command)
    return click.option(
        "--format",
        "as_",
        type=click.Choice(_FORMATS),
        default="table",
        show_default=True,
        help="csv is for spreadsheets, html a page to print.",
    )(command)


@click.command()
@month_option
@format_options
@listing
def statement(gateway: Remote, month: str, as_: str, reader: str | None, output: Path | None) -> None:
    """Show what all groups have used in a month, for accounting.

    The amounts are rounded, and add up to the cent. `llmgateway groups statement` has those of one group's persons.
    """
    from .client import part

    path = f"/statements/{part(month)}"
    print_statement(gateway, path, {}, as_=as_, reader=reader, output=output, table="groups", name="group")


def print_statement(
    gateway: Remote,
    path: str,
    query: Mapping[str, str],
    *,
    as_: str,
    reader: str | None,
    output: Path | None,
    table: str,
    name: str,
) -> None:
    """Print the statement at *path*, or write it to *output*.

    Args:
        table: The field of the answer that has the lines.
        name: The field that names each line.
    """
    as_ = "csv" if reader and as_ == "table" else as_
    if as_ != "table":
        _write(gateway.client.table("GET", path, params={**query, "format": as_, "for": reader}), output)
        return
    if output is not None:
        fail(["A file needs --format csv or --format html: a table is for the terminal."])
    answer = gateway.call("GET", path, query=query)
    if gateway.shows_fields:
        gateway.show(answer)
        return
    lines, total = answer[table], {name: "total", **answer["total"]}
    for line in lines:
        line[name] = line[name] or "(no group)"
    converted = ("cost",) if answer["currency"] else ()
    # Shown only if they say something, so that the table fits a terminal.
    centres = ("cost_centre",) if any(line.get("cost_centre") for line in lines) else ()
    rare = ("unpriced_requests", "unpriced_models") if answer["total"]["unpriced_requests"] else ()
    for line in (*lines, total):
        line["cost_usd"] = _rounded(line["cost_usd"], DOLLAR)
        line["cost"] = _rounded(line["cost"], answer["currency"] or DOLLAR)
    gateway.show_all(lines, name, *centres, "requests", "total_tokens", "cost_usd", *converted, *rare, total=total)
    for remark in _remarks(answer):
        click.echo(remark, err=True)


def _rounded(amount: float | None, code: str) -> str | None:
    return None if amount is None else f"{amount:.{decimal_places(code)}f}"


def _remarks(answer: Mapping[str, Any]) -> list[str]:
    remarks = []
    if answer["currency"] and answer["rate"] is None:
        remarks.append(
            f"{answer['currency']} has no rate for {answer['month']}. "
            f"Set it: llmgateway currency set --rate {answer['month']}=RATE"
        )
    elif answer["currency"]:
        remarks.append(f"Cost is in {answer['currency']}, at {answer['rate']:g} for a US dollar.")
    if not answer["is_final"]:
        remarks.append("The month is not over, or has just ended: amounts can still rise.")
    return remarks


def _write(content: bytes, output: Path | None) -> None:
    if output is None:
        click.echo(content, nl=False)
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        fail([f"{output} cannot be written: {error.strerror or error}."])
    click.echo(f"Written to {output}.", err=True)
