"""``python -m tests.clients [NAME…]``: try clients against the gateway, and print the table of docs/clients.md.

Needs what the extra ``test`` installs, and node and npm for the clients in JavaScript. The first run takes some
minutes, because every client is installed; the environments are kept in ``~/.cache/llmgateway-clients``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import click

from .catalogue import BY_NAME, CLIENTS, Client
from .environments import Environment
from .trial import Site, Sums, Trial, running

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llmgateway-clients"
HEAD = "| client | version | called | result |\n|---|---|---|---|"


def main() -> None:
    arguments = _arguments()
    clients = [BY_NAME[name] for name in arguments.clients] or CLIENTS
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as site:
        trials = [_tried(site, client, arguments) for client in clients]
    click.echo(f"\n{HEAD}")
    for trial in trials:
        click.echo(row(trial))
    sys.exit(0 if all(trial.passed for trial in trials) else 1)


def row(trial: Trial) -> str:
    """Return the trial as a line of the table."""
    called = _grouped([call.name for call in trial.calls])
    failed = [f"{call.name}: {call.error}" for call in trial.calls if call.error]
    if trial.billed != trial.booked:
        failed.append(f"booked are {_shown(trial.booked)}, but billed {_shown(trial.billed)}")
    result = f"works; booked as billed: {_shown(trial.booked)}" if trial.passed else "; ".join(failed)
    cells = [
        f"[{trial.client.name}](#{anchor(trial.client.section)})",
        trial.version,
        called,
        result or "the program called nothing",
    ]
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _grouped(names: list[str]) -> str:
    """Return the names as text; what stands before a colon, such as a class, is said once."""
    groups: dict[str, list[str]] = {}
    for name in names:
        head, colon, tail = name.rpartition(": ")
        groups.setdefault(head + colon, []).append(tail)
    return "<br>".join(head + "; ".join(tails) for head, tails in groups.items())


def anchor(heading: str) -> str:
    """Return what a link to *heading* names behind ``#``."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _shown(sums: Sums) -> str:
    return f"{sums.requests} requests, {sums.tokens} tokens"


def _tried(site: Site, client: Client, arguments: argparse.Namespace) -> Trial:
    environment = Environment(arguments.folder / client.name, client)
    began = time.monotonic()
    environment.install(newest=arguments.newest)
    installed = time.monotonic()
    trial = site.try_out(client, environment)
    click.echo(
        f"{client.name} {trial.version}: {'passed' if trial.passed else 'FAILED'} "
        f"(installed in {installed - began:.0f} s, ran for {time.monotonic() - installed:.0f} s)",
        err=True,
    )
    if not trial.passed:
        click.echo(trial.errors, err=True)
    return trial


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("clients", nargs="*", metavar="NAME", help=f"of {', '.join(BY_NAME)}; all if none is given")
    parser.add_argument(
        "--newest", action="store_true", help="the newest version of each, not the one of the catalogue"
    )
    parser.add_argument("--folder", type=Path, default=CACHE, help="where the environments are kept (%(default)s)")
    arguments = parser.parse_args()
    if unknown := set(arguments.clients) - BY_NAME.keys():
        parser.error(f"there is no client {', '.join(sorted(unknown))}")
    return arguments


if __name__ == "__main__":
    main()
