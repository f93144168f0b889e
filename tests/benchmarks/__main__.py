"""``python -m tests.benchmarks``: start everything, measure, print the table.

Needs what the extra ``test`` installs, and nginx and openssl for the part behind TLS. Takes some nine minutes,
a minute with ``--quick`` (whose figures prove nothing), and six more with ``--litellm``.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from .measures import MEASURES, QUICK, Bench, Scale
from .report import Table, busy_processors, machine
from .sites import Alone, BareFlask, Gateway, LiteLLM, Site, TLSServer, UpstreamServer, databases, running

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llmgateway-benchmarks" / "litellm"
EMBEDDED = "embedded"


def main() -> None:
    arguments = _arguments()
    scale = QUICK if arguments.quick else Scale()
    if arguments.seconds:
        scale = replace(scale, seconds=arguments.seconds)
    _allow_descriptors()
    # Not at once: a million keys in a temporary folder are to be removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    others = busy_processors()
    with ExitStack() as stack:
        bench, sites = _sites(stack, arguments, scale)
        table = measure(bench, sites, arguments.only)
    others = max(others, busy_processors())
    if others > 0.2:
        bench.note(f"Other programs kept up to {others:.1f} processors busy: what is not CPU time is worse for it.")
    click.echo(f"Measured {machine()}\n\n{table.markdown()}\n")
    for note in bench.notes:
        click.echo(f"* {note}")


def measure(bench: Bench, sites: Sequence[Site], groups: Sequence[str]) -> Table:
    """Take the figures of *groups* from all *sites*; of one group after each other, so that they compare."""
    measures = {name: MEASURES[name] for name in groups}
    rows = [row for one in measures.values() for row in one.rows(bench.scale)]
    names = [site.name for site in sites]
    table = Table(rows, names, compared=(EMBEDDED, LiteLLM.name) if LiteLLM.name in names else None)
    for name, one in measures.items():
        for site in sites:
            if isinstance(site, one.sites):
                bench.say(f"{name}: {site.name}")
                for row, figure in zip(one.rows(bench.scale), one.take(bench, site), strict=True):
                    bench.say(f"  {row.label}: {figure.shown}")
                    table.put(row, site.name, figure)
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it works")
    parser.add_argument("--seconds", type=float, help=f"that count of each load (default: {Scale().seconds:g})")
    parser.add_argument("--only", type=_groups, default=[*MEASURES], metavar=",".join(MEASURES), help="these groups")
    parser.add_argument(
        "--litellm",
        nargs="?",
        type=Path,
        const=CACHE,
        metavar="FOLDER",
        help=f"measure LiteLLM's proxy too, from a virtual environment that is made there (default: {CACHE})",
    )
    parser.add_argument(
        "--before", type=Path, metavar="PYTHON", help="measure the build that this interpreter has, too"
    )
    return parser.parse_args()


def _groups(text: str) -> list[str]:
    groups = text.split(",")
    if unknown := set(groups) - MEASURES.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return [name for name in MEASURES if name in groups]


def _sites(stack: ExitStack, arguments: argparse.Namespace, scale: Scale) -> tuple[Bench, list[Site]]:
    upstream = UpstreamServer()
    stack.enter_context(running(upstream))
    alone = Alone(upstream)
    bench = Bench(scale, alone, say=lambda text: click.echo(text, err=True))
    tls = None
    if "tls" in arguments.only:
        if missing := TLSServer.missing():
            bench.notes.append(f"Not measured behind TLS: {' and '.join(missing)} not installed.")
            arguments.only.remove("tls")
        else:
            tls = TLSServer(upstream)
            stack.enter_context(running(tls))
    stores = stack.enter_context(databases())
    bench.note("MongoDB's part is played by SecantusDB, which the tests use: what it costs itself is not MongoDB's.")
    sites: list[Site] = [
        alone,
        BareFlask(),
        Gateway(EMBEDDED, upstream, tls, {}, bench.notes),
        Gateway("Redis + MongoDB", upstream, tls, stores, bench.notes),
    ]
    if arguments.before:
        python = str(arguments.before)
        sites += [
            Gateway("before, embedded", upstream, tls, {}, bench.notes, python=python),
            Gateway("before, Redis + MongoDB", upstream, tls, stores, bench.notes, python=python),
        ]
    if arguments.litellm:
        sites.append(LiteLLM(upstream, arguments.litellm, bench.notes))
    return bench, sites


def _allow_descriptors() -> None:
    # nginx needs two for each stream.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
