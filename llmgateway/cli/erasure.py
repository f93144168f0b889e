"""Commands for the data of a person."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from .ending import confirm, fail
from .options import yes_option
from .remote import Remote, remote
from .tables import counted, plain
from .users import users


@users.command()
@click.argument("user", metavar="USER")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="New file for it. [standard output]")
@remote
def export(gateway: Remote, user: str, output: Path | None) -> None:
    """Write everything that is kept of USER as JSON: keys, records, sums, audit. It contains no key."""
    if output is not None and output.exists():
        fail([f"{output.absolute()} exists already. Name another file."])
    found = gateway.client.stream("GET", f"{_path(user)}/export")
    if output is None:
        for piece in found:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    try:
        # Readable by nobody else, and there only when it is complete.
        descriptor, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}-")
    except OSError as error:
        fail([f"{output.absolute()} cannot be written: {error.strerror}."])
    try:
        with open(descriptor, "wb") as new:
            new.writelines(found)
        os.replace(name, output)
    finally:
        Path(name).unlink(missing_ok=True)
    gateway.done(f"What is kept of {plain(user)} is in {output}.")


@users.command()
@click.argument("user", metavar="USER")
@click.option("--dry-run", is_flag=True, help="Only count what would be erased.")
@yes_option
@remote
def erase(gateway: Remote, user: str, dry_run: bool, yes: bool) -> None:
    """Remove the keys of USER, and put a made-up name in place of theirs everywhere. It cannot be undone.

    Records, sums and costs stay, without name, e-mail, note and address.
    """
    path = f"{_path(user)}/erase"
    if dry_run or not yes:
        preview = gateway.call("POST", path, body={"dry_run": True})
        if dry_run:
            gateway.done(f"{_kept(preview)} would be erased.", preview)
            return
        confirm(plain(f"Erase {user}: {_kept(preview)}?"), yes=yes)
    erased = gateway.call("POST", path, body={})
    gateway.done(f"Erased {_kept(erased)}. {erased['erased_as']} stands for the person from now on.", erased)
    for pending in erased["pending"]:
        click.echo(f"Not done yet, and done later: {pending}", err=True)


_NOUNS = {
    "keys": "key",
    "person": "set of own limits",
    "records": "record",
    "refusals": "refusal",
    "sums": "sum of a day",
    "audit": "entry of the audit",
    "alerts": "warning",
    "prompts": "prompt",
    "stored_responses": "stored response",
}
"""What the parts are called that a gateway counts: in the singular."""


def _kept(answer: dict[str, Any]) -> str:
    counts = ((_NOUNS.get(name, name.replace("_", " ")), count) for name, count in answer["counts"].items())
    return ", ".join(counted(count, noun) for noun, count in counts if count) or "no single record"


def _path(user: str) -> str:
    from .client import part

    return f"/users/{part(user)}"
