"""What all commands that call a gateway share: its address, the admin key, and how answers are printed."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .ending import Exit, fail
from .tables import plain, record, sorted_by, table
from .wording import for_terminal, option_for

if TYPE_CHECKING:
    from .client import CallFailed, Client

key_file_option = click.option(
    "--admin-key-file",
    envvar="ADMIN_KEY_FILE",
    type=click.Path(),
    help="File with the admin key, if ADMIN_KEY is not set. [ADMIN_KEY_FILE]",
)
DEFAULT_URL = "http://127.0.0.1:8080"
_IN_THE_CLEAR = (
    "The admin key travels to {} without encryption, and everybody on the way can read it. Use https, or a tunnel."
)


class Remote:
    """A gateway that a command calls, and the format in which it prints the answers."""

    def __init__(
        self, client: Client, *, as_json: bool, columns: Sequence[str] | None = None, sort: str | None = None
    ) -> None:
        self.client = client
        self.call = client.call
        self.as_json = as_json
        self._columns = columns
        self._sort = sort

    @property
    def shows_fields(self) -> bool:
        """Whether lists are printed as the API has answered them: as JSON, and with all fields."""
        return self.as_json and not self._columns

    def show(self, document: Mapping[str, Any]) -> None:
        """Print one object, a line for each field."""
        self._print(document, lambda: record(document))

    def show_all(
        self, items: Sequence[Mapping[str, Any]], *columns: str, total: Mapping[str, Any] | None = None
    ) -> None:
        """Print *items* as a table; *columns* are the names of the fields to show, if ``--columns`` names no others.

        Args:
            total: A last row, wherever the others are sorted to.
        """
        shown = self._columns or columns
        self._check_names([*(self._columns or ()), *([self._sort.removeprefix("-")] if self._sort else [])], items)
        if self._sort:
            items = sorted_by(items, self._sort.removeprefix("-"), descending=self._sort.startswith("-"))
        if self._columns and self.as_json:
            items = [{name: item.get(name) for name in shown} for item in items]
        self._print(items, lambda: table([*items, *([total] if total else ())], shown))

    @staticmethod
    def _check_names(names: Sequence[str], items: Sequence[Mapping[str, Any]]) -> None:
        known = {name: None for item in items for name in item}
        unknown = [name for name in names if name not in known]
        if items and unknown:
            fail([f"There is no column {plain(', '.join(unknown))}. There are: {', '.join(known)}."])

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
        text = json.dumps(document, indent=2, ensure_ascii=False) if self.as_json else as_text()
        # https://no-color.org: any value that is not empty. Elsewhere click colours terminals only.
        click.echo(text, color=False if os.environ.get("NO_COLOR") else None)


def listing(command: Callable[..., None]) -> Callable[..., None]:
    """As :func:`remote`, for a command that prints a table: with options that choose its columns and their order."""
    command = click.option("--sort", metavar="COLUMN", help="Sort by this column; -COLUMN: from the largest one.")(
        command
    )
    return remote(
        click.option("--columns", metavar="NAMES", help="The columns, like user,limits. --json has them all.")(command)
    )


def remote(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a gateway to *command*, and pass it a :class:`Remote`."""

    @click.option(
        "--url",
        envvar="LLMGATEWAY_URL",
        default=DEFAULT_URL,
        help=f"Address of the gateway. [LLMGATEWAY_URL, {DEFAULT_URL}]",
    )
    @key_file_option
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        url: str,
        as_json: bool,
        admin_key_file: str | None,
        columns: str | None = None,
        sort: str | None = None,
        **options: Any,
    ) -> None:
        from .client import CallFailed, Client

        names = [name.strip() for name in (columns or "").split(",") if name.strip()]
        try:
            client = Client(url, _admin_key(admin_key_file))
            if client.is_in_the_clear:
                click.echo(f"llmgateway: warning: {_IN_THE_CLEAR.format(client.url)}", err=True)
            command(Remote(client, as_json=as_json, columns=names, sort=sort), *args, **options)
        except CallFailed as error:
            fail(problems_of(error), status=Exit.of(error.status, error.code))

    return wrapped


def problems_of(error: CallFailed) -> list[str]:
    """Return a line for each problem: first the message, then one for each option, field or line."""
    options = _options()
    lines = (f"{option_for(where, options)}: {for_terminal(what)}" for where, what in flat(error.errors))
    return [for_terminal(str(error)), *map(plain, lines)]


def _options() -> dict[str, str]:
    """Return the options of the command that runs, by the names of their parameters and by their own."""
    context = click.get_current_context(silent=True)
    if context is None or context.params.get("file") is not None:  # whose writer knows the fields
        return {}
    options = {
        each.name or "": max(each.opts, key=len) for each in context.command.params if each.param_type_name == "option"
    }
    return {option.removeprefix("--").replace("-", "_"): option for option in options.values()} | options


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


def key_from_file(path: str | None) -> str | None:
    """Return the first line of the file; None if there is no *path*."""
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        return file.readline().strip()


def _admin_key(path: str | None) -> str:
    try:
        key = os.environ.get("ADMIN_KEY", "").strip() or key_from_file(path)
    except (OSError, UnicodeError) as error:
        fail([f"The file with the admin key cannot be read: {error}."])
    if not key and sys.stdin.isatty():
        key = secret_from_terminal("Admin key")
    if not key:
        fail(["ADMIN_KEY is missing. Export the one of the gateway, or name a file that has it: --admin-key-file."])
    return key
