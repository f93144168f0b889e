"""Keys, from a terminal."""

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

from .ending import fail
from .options import field_options, limit_options, sent
from .remote import Remote, flat, remote, secret_from_terminal
from .tables import plain

_FIELDS = ("name", "group", "email", "note", "starts_at", "expires_at")


@click.group()
def keys() -> None:
    """Hand out, list, change and take back keys."""


@keys.command("list")
@click.option("--user", help="Only this user's.")
@click.option("--group", help="Only this group's.")
@click.option("--active/--blocked", default=None, help="Only those that are active, or only those that are not.")
@remote
def list_(gateway: Remote, user: str | None, group: str | None, active: bool | None) -> None:
    """List keys, oldest first."""
    query = {"user": user, "group": group, "active": None if active is None else str(active).lower()}
    found = [*gateway.client.pages("/keys", query=query)]
    gateway.show_all(found, "id", "user", "name", "group", "active", "expires_at", "limits")


@keys.command()
@click.argument("user")
@field_options(*_FIELDS)
@limit_options
@click.option("--own-key", is_flag=True, help="Hand out a key of your own: it is asked for, or read from stdin.")
@remote
def add(gateway: Remote, user: str, own_key: bool, **options: Any) -> None:
    """Hand out a key to USER. The key alone goes to standard output, this once."""
    own = {"key": secret_from_terminal("The key to hand out")} if own_key else {}
    made = gateway.call("POST", "/keys", body={"user": user, **sent(options), **own})
    gateway.secret(f"Handed out {made['id']} to {user}. Give them the key: it is shown this once.", made)


@keys.command()
@click.argument("key_id", metavar="ID")
@remote
def show(gateway: Remote, key_id: str) -> None:
    """Show all that is known of a key."""
    gateway.show(gateway.call("GET", _path(key_id)))


@keys.command("set")
@click.argument("key_id", metavar="ID")
@field_options("user", *_FIELDS)
@limit_options
@remote
def set_(gateway: Remote, key_id: str, **options: Any) -> None:
    """Change what is given, and leave the rest. An empty value clears a field, 'none' lifts a limit."""
    gateway.show(gateway.call("PATCH", _path(key_id), body=sent(options)))


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote
def remove(gateway: Remote, key_id: str, yes: bool) -> None:
    """Take a key back for good. What it used stays in the reports."""
    if not yes:
        told = gateway.call("GET", _path(key_id))
        click.confirm(f"Take back the key {told['name']!r} of {told['user']}?", abort=True, err=True)
    gateway.call("DELETE", _path(key_id))
    gateway.done(f"{key_id} opens nothing any more.", {"id": key_id, "removed": True})


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--overlap", type=click.IntRange(min=0), default=0, help="Seconds in which the old key works, too. [0]")
@remote
def rotate(gateway: Remote, key_id: str, overlap: int) -> None:
    """Replace a key by a new one, which alone goes to standard output, this once."""
    made = gateway.call("POST", f"{_path(key_id)}/rotate", body={"overlap_seconds": overlap})
    until = f"works until {made['retires_at']}" if made["retires_at"] else "is refused from now on"
    gateway.secret(f"The old key {until}. Give the new one to {made['user']}: it is shown this once.", made)


@keys.command()
@click.argument("key_id", metavar="ID")
@remote
def block(gateway: Remote, key_id: str) -> None:
    """Refuse a key from the next request on, until it is unblocked."""
    told = gateway.call("PATCH", _path(key_id), body={"active": False})
    gateway.done(f"{key_id} of {told['user']} is blocked.", told)


@keys.command()
@click.argument("key_id", metavar="ID")
@remote
def unblock(gateway: Remote, key_id: str) -> None:
    """Let a blocked key in again."""
    told = gateway.call("PATCH", _path(key_id), body={"active": True})
    gateway.done(f"{key_id} of {told['user']} is active.", told)


@keys.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--output", type=click.Path(path_type=Path), help="New file for the keys. [standard output]")
@remote
def import_(gateway: Remote, file: IO[bytes], output: Path | None) -> None:
    """Hand out a key for every line of a CSV FILE ('-' for standard input), or none at all.

    The first line names the columns: 'user', and any other field of a key. The new keys come back as CSV,
    shown this once.
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
            fail([str(error)], status=1)
        new.write(made)
    count = sum(1 for _ in csv.reader(io.StringIO(made.decode()))) - 1
    place = f"They are in {output}" if output else "They are above"
    click.echo(f"Keys handed out: {count}. {place}, and shown nowhere else: give each user theirs.", err=True)


class _Watched(io.BytesIO):
    """Bytes that say how many of them were read."""

    def __init__(self, content: bytes, update: Callable[[int], None]) -> None:
        super().__init__(content)
        self._update = update

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        self._update(len(piece))
        return piece


@contextmanager
def _new_file(path: Path | None) -> Iterator[IO[bytes]]:
    """A file that appears whole or not at all, and is known to be writable before there is anything to write."""
    if path is None:
        yield sys.stdout.buffer
        return
    if path.exists():
        fail([f"{path} is there already, perhaps with keys in it that are shown nowhere else. Name another."])
    try:
        # Readable by nobody else.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        fail([f"{path} cannot be written: {error.strerror}."])
    try:
        with open(descriptor, "wb") as new:
            yield new
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _by_line(name: str, errors: dict[str, Any]) -> list[str]:
    """As compilers say it, so that editors find the place."""
    places = ((where.removeprefix("line ").replace(".", ": ", 1), problem) for where, problem in flat(errors))
    return [plain(f"{name}:{place}: {problem}") for place, problem in places]


def _path(key_id: str) -> str:
    from .client import part

    return f"/keys/{part(key_id)}"
