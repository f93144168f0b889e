"""What all commands that call a gateway share: its address, the admin key, and how answers are printed."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .ending import fail
from .tables import plain, record, table

if TYPE_CHECKING:
    from .client import CallFailed, Client

DEFAULT_URL = "http://127.0.0.1:8080"


class Remote:
    """A gateway that a command calls, and the format in which it prints the answers."""

    def __init__(self, client: Client, *, as_json: bool) -> None:
        self.client = client
        self.call = client.call
        self.as_json = as_json

    def show(self, document: Mapping[str, Any]) -> None:
        """Print one object, a line for each field."""
        self._print(document, lambda: record(document))

    def show_all(self, items: Sequence[Mapping[str, Any]], *columns: str) -> None:
        """Print *items* as a table; *columns* are the names of the fields to show."""
        self._print(items, lambda: table(items, columns))

    def done(self, message: str, document: Any = None) -> None:
        """Say what was done. With ``--json``, print *document* instead, if there is one."""
        if self.as_json and document is not None:
            self._print(document, str)
        else:
            click.echo(message, err=True)

    def secret(self, message: str, document: Mapping[str, Any]) -> None:
        """Print only the key of *document* to standard output, for pipes; *message* goes to standard error."""
        if not self.as_json:
            click.echo(message, err=True)
        self._print(document, lambda: str(document["key"]))

    def _print(self, document: Any, as_text: Callable[[], str]) -> None:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False) if self.as_json else as_text())


def remote(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a gateway to *command*, and pass it a :class:`Remote`."""

    @click.option(
        "--url",
        envvar="LLMGATEWAY_URL",
        default=DEFAULT_URL,
        help=f"Address of the gateway. [LLMGATEWAY_URL, {DEFAULT_URL}]",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
    @functools.wraps(command)
    def wrapped(*args: Any, url: str, as_json: bool, **options: Any) -> None:
        from .client import CallFailed, Client

        try:
            command(Remote(Client(url, _admin_key()), as_json=as_json), *args, **options)
        except CallFailed as error:
            fail(problems_of(error), status=1)

    return wrapped


def problems_of(error: CallFailed) -> list[str]:
    """Return a line for each problem: first the message, then one for each field or line."""
    return [str(error), *(plain(f"{where}: {what}") for where, what in flat(error.errors))]


def flat(errors: Any, where: str = "") -> list[tuple[str, str]]:
    """Flatten errors by field or line, nested or not, into pairs of a place and a problem."""
    if isinstance(errors, Mapping):
        return [
            pair
            for name, problem in errors.items()
            for pair in flat(problem, f"{where}.{name}" if where else str(name))
        ]
    if isinstance(errors, list):
        return [(where, str(problem)) for problem in errors]
    return [(where, str(errors))]


def secret_from_terminal(what: str) -> str:
    """Ask for a secret without showing it, or read it from standard input: everybody can see a command line."""
    if sys.stdin.isatty():
        return str(click.prompt(what, hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()


def _admin_key() -> str:
    key = os.environ.get("ADMIN_KEY", "").strip()
    if not key and sys.stdin.isatty():
        key = secret_from_terminal("Admin key")
    if not key:
        fail(["ADMIN_KEY is missing. Export the one that the gateway was started with."])
    return key
