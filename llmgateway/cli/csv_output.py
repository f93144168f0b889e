"""CSV as the output of a command: the gateway writes it for a program, or for the spreadsheet of a country."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from .remote import Remote

_READERS = ("excel-en", "excel-de", "excel-fr", "excel-fi")  # those of web/tables.py, whose imports take a while
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def csv_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--csv`` and ``--for`` to *command*; :func:`is_csv` and :func:`print_csv` use their values."""
    return click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for programs.")(reader_option(command))


def reader_option(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--for`` to *command*, which passes it on to the gateway."""
    return click.option(
        "--for",
        "reader",
        type=click.Choice(_READERS),
        help="Print CSV for this spreadsheet: its separator and decimals, money that adds up to the cent.",
    )(command)


def is_csv(*, as_csv: bool, reader: str | None) -> bool:
    """Return whether one of the two options was given."""
    return as_csv or reader is not None


def print_csv(
    gateway: Remote, path: str, query: Mapping[str, Any], *, reader: str | None, most: int | None = None
) -> None:
    """Print what the gateway answers as CSV: all pages as one table.

    Args:
        most: The most lines; None for all. Not for answers that have no pages.
    """
    first = True
    for page in gateway.client.csv_pages(path, query={**query, "format": "csv", "for": reader}, most=most):
        # The file of each page begins with the names of its columns, none of which has a line break.
        click.echo(page if first else page.removeprefix(_BYTE_ORDER_MARK).partition(b"\r\n")[2], nl=False)
        first = False
