"""What all commands have in common that ask a gateway: which one, with which key, and how they show its answer."""

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
    """A gateway, and the reader of its answers."""

    def __init__(self, client: Client, *, as_json: bool) -> None:
        self.client = client
        self.call = client.call
        self.as_json = as_json

    def show(self, document: Mapping[str, Any]) -> None:
        """Print one thing, field by field."""
        self._print(document, lambda: record(document))

    def show_all(self, items: Sequence[Mapping[str, Any]], *columns: str) -> None:
        """Print a table of *columns*, named by the fields in them."""
        self._print(items, lambda: table(items, columns))

    def done(self, message: str, document: Any = None) -> None:
        """Say what has been done; scripts get *document* instead, if there is one."""
        if self.as_json and document is not None:
            self._print(document, str)
        else:
            click.echo(message, err=True)

    def secret(self, message: str, document: Mapping[str, Any]) -> None:
        """Print the key of *document* alone, so that it can be passed on; the *message* goes beside it."""
        if not self.as_json:
            click.echo(message, err=True)
        self._print(document, lambda: str(document["key"]))

    def _print(self, document: Any, as_text: Callable[[], str]) -> None:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False) if self.as_json else as_text())


def remote(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* a :class:`Remote`, and the options that say which one."""

    @click.option(
        "--url", envvar="LLMGATEWAY_URL", default=DEFAULT_URL, help=f"The gateway. [LLMGATEWAY_URL, {DEFAULT_URL}]"
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
    """A line for each thing that is wrong, the whole first."""
    return [str(error), *(plain(f"{where}: {what}") for where, what in flat(error.errors))]


def flat(errors: Any, where: str = "") -> list[tuple[str, str]]:
    """Pairs of a place and what is wrong there, of errors by field or line, nested or not."""
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
    """Read a secret without showing it, or from standard input: a command line is read by everybody."""
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
