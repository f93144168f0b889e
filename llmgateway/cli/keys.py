"""Commands for keys."""

from __future__ import annotations

import csv
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from .allowances import INCLUDE, with_columns
from .ending import Exit, confirm, fail
from .options import field_options, limit_options, sent, yes_option
from .people import a_key, every_key, key_of, keys_of
from .raises import raise_options, raised
from .remote import Remote, flat, listing, remote, secret_from_terminal
from .tables import plain
from .wording import for_terminal

_FIELDS = ("name", "group", "email", "note", "starts_at", "expires_at")


@click.group()
def keys() -> None:
    """Create, list, change and remove keys."""


@keys.command("list")
@click.option("--user", help="Only keys of this user.")
@click.option("--group", help="Only keys of this group.")
@click.option("--active/--blocked", default=None, help="Only active keys, or only blocked ones.")
@listing
def list_(gateway: Remote, user: str | None, group: str | None, active: bool | None) -> None:
    """List keys, oldest first, with what is spent and left of their budgets and when they were used last.

    Of a key without a budget, 'spent' is what it has cost this month.
    """
    query = {"user": user, "group": group, "active": None if active is None else str(active).lower(), **INCLUDE}
    found = [*gateway.client.pages("/keys", query=query)]
    rows = found if gateway.shows_fields else with_columns(found)
    columns = ("id", "user", "name", "group", "active", "expires_at", "spent", "left", "last_used", "limits")
    gateway.show_all(rows, *columns)


@keys.command()
@click.argument("user")
@field_options(*_FIELDS)
@limit_options
@click.option("--own-key", is_flag=True, help="Choose the key: you are asked for it, or it is read from stdin.")
@remote
def add(gateway: Remote, user: str, own_key: bool, **options: Any) -> None:
    """Create a key for USER. Only the key goes to standard output; it is shown this once."""
    own = {"key": secret_from_terminal("The new key")} if own_key else {}
    made = gateway.call("POST", "/keys", body={"user": user, **sent(options), **own})
    gateway.secret(f"Created {made['id']} for {user}. Give them the key: it is shown only this once.", made)


@keys.command()
@a_key
@remote
def show(gateway: Remote, key_id: str) -> None:
    """Show all fields of a key, what is used and left of its limits, and when it was used last."""
    gateway.show(gateway.call("GET", _path(key_of(gateway, key_id)), query=INCLUDE))


@keys.command("set")
@a_key
@field_options("user", *_FIELDS)
@limit_options
@remote
def set_(gateway: Remote, key_id: str, **options: Any) -> None:
    """Change the given fields and leave the others. An empty value clears a field, 'none' removes a limit."""
    gateway.show(gateway.call("PATCH", _path(key_of(gateway, key_id)), body=sent(options)))


@keys.command("raise")
@a_key
@raise_options
@remote
def raise_(gateway: Remote, key_id: str, **options: Any) -> None:
    """Raise the limits of a key for a while. They are as before when it ends."""
    found = key_of(gateway, key_id)
    raised(gateway, _path(found), f"the limits of {found}", options)


@keys.command()
@a_key
@every_key
@yes_option
@remote
def remove(gateway: Remote, key_id: str, every: bool, yes: bool) -> None:
    """Remove a key for good, or the keys of a user. What they have used stays in the reports."""
    for each in keys_of(gateway, key_id, what="Remove", every=every):
        if not yes:
            key = gateway.call("GET", _path(each))
            confirm(plain(f"Remove the key {key['name']!r} of {key['user']}?"), yes=yes)
        gateway.call("DELETE", _path(each))
        gateway.done(f"{each} is removed, and refused from now on.", {"id": each, "removed": True})


@keys.command()
@a_key
@click.option("--overlap", type=click.IntRange(min=0), default=0, help="Seconds for which the old key still works. [0]")
@remote
def rotate(gateway: Remote, key_id: str, overlap: int) -> None:
    """Replace a key by a new one. Only the new key goes to standard output; it is shown this once."""
    made = gateway.call("POST", f"{_path(key_of(gateway, key_id))}/rotate", body={"overlap_seconds": overlap})
    until = f"works until {made['retires_at']}" if made["retires_at"] else "is refused from now on"
    gateway.secret(f"The old key {until}. Give the new one to {made['user']}: it is shown only this once.", made)


@keys.command()
@a_key
@every_key
@remote
def block(gateway: Remote, key_id: str, every: bool) -> None:
    """Refuse a key, or the keys of a user, from the next request on, until they are unblocked."""
    for each in keys_of(gateway, key_id, what="Block", every=every):
        key = gateway.call("PATCH", _path(each), body={"active": False})
        gateway.done(plain(f"{each} of {key['user']} is blocked."), key)


@keys.command()
@a_key
@every_key
@remote
def unblock(gateway: Remote, key_id: str, every: bool) -> None:
    """Accept a blocked key, or the keys of a user, again."""
    for each in keys_of(gateway, key_id, what="Unblock", every=every):
        key = gateway.call("PATCH", _path(each), body={"active": True})
        gateway.done(plain(f"{each} of {key['user']} is active."), key)


@keys.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--output", type=click.Path(path_type=Path), help="New file for the keys. [standard output]")
@remote
def import_(gateway: Remote, file: IO[bytes], output: Path | None) -> None:
    """Create a key for every line of a CSV FILE ('-' for standard input). If any line is wrong, create none.

    The first line names the columns: 'user', and any other field of a key. The result is CSV with the new keys,
    which are shown only this once.
    """
    from .client import CallFailed

    content = file.read()
    with _new_file(output) as new:
        try:
            with click.progressbar(length=len(content), label="Sending the file", file=sys.stderr) as bar:
                made = gateway.client.upload("/keys/import", _Watched(content, bar.update))
        except CallFailed as error:
            for problem in _by_line(file.name, error.errors):
                click.echo(problem, err=True)
            fail([for_terminal(str(error))], status=Exit.of(error.status, error.code))
        new.write(made)
    count = sum(1 for _ in csv.reader(io.StringIO(made.decode()))) - 1
    place = f"They are in {output}" if output else "They are above"
    click.echo(f"Created {count} keys. {place}, and shown nowhere else: give each user their own.", err=True)


class _Watched(io.BytesIO):
    """A file in memory that reports how many of its bytes were read."""

    def __init__(self, content: bytes, update: Callable[[int], None]) -> None:
        super().__init__(content)
        self._update = update

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        self._update(len(piece))
        return piece


@contextmanager
def _new_file(path: Path | None) -> Iterator[IO[bytes]]:
    """Open a file that appears only when it is complete. That it can be written is checked first."""
    if path is None:
        yield sys.stdout.buffer
        return
    if path.exists():
        where = path.absolute()
        fail([f"{where} exists already, perhaps with keys in it that are shown nowhere else. Name another file."])
    try:
        # Readable by nobody else.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        fail([f"{path.absolute()} cannot be written: {error.strerror}."])
    try:
        with open(descriptor, "wb") as new:
            yield new
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _by_line(name: str, errors: dict[str, Any]) -> list[str]:
    """Format each problem as FILE:LINE: PROBLEM, as compilers do, so that editors find the line."""
    places = ((where.removeprefix("line ").replace(".", ": ", 1), problem) for where, problem in flat(errors))
    return [plain(f"{name}:{place}: {problem}") for place, problem in places]


def _path(key_id: str) -> str:
    from .client import part

    return f"/keys/{part(key_id)}"
