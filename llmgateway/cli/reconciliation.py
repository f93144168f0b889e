"""The command that compares Azure's bill with the usage that the gateway has recorded."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

import click

from .csv_output import csv_options, is_csv
from .ending import fail
from .reconciliation_text import text_of
from .remote import Remote, problems_of, remote

_ENDINGS = (".csv", ".csv.gz", ".json", ".json.gz", ".zip")
_COLUMNS = ("source", "by", "name", "day", "kind", "azure", "ours", "gap", "percent", "currency", "where")


def _percent(value: str) -> float:
    # click.FloatRange accepts nan, which no gap is beyond.
    try:
        percent = float(value)
    except ValueError:
        percent = math.nan
    if not 0 <= percent < math.inf:
        raise click.BadParameter(f"{value!r} is not a number of per cent, from 0 on.")
    return percent


@click.command()
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--threshold",
    type=_percent,
    metavar="PERCENT",
    help="End with status 1 if the tokens of a day differ by more.",
)
@click.option(
    "--model", "models", multiple=True, metavar="NAME=MODEL", help="The model of a deployment or of a name; repeatable."
)
@click.option(
    "--meter",
    "meters",
    multiple=True,
    metavar="METER=MODEL:KIND",
    help="What a meter counts, by name or id; repeatable.",
)
@csv_options
@remote
def reconcile(
    gateway: Remote,
    paths: tuple[Path, ...],
    threshold: float | None,
    models: tuple[str, ...],
    meters: tuple[str, ...],
    as_csv: bool,
    reader: str | None,
) -> None:
    """Compare Azure's bill, or its token metrics, with the gateway's usage.

    FILE is an export of costs (cost and usage details, or FOCUS; CSV, also with gzip or in parts), or metrics of Azure
    Monitor (JSON or CSV), or a folder of these. Ends with status 1 if there is a gap beyond the threshold, and with 2
    if a file cannot be used or the gateway does not answer.
    """
    from ..reconcile.compare import reconcile as compared
    from ..reconcile.files import UnusableFile
    from ..reconcile.meters import own_meter
    from ..reconcile.results import own_model
    from .client import CallFailed

    def usage(first: date, last: date) -> Iterable[Mapping[str, Any]]:
        query = {"by": "day,deployment,model", "tz": "utc", "start": first.isoformat(), "end": last.isoformat()}
        rows: list[Mapping[str, Any]] = gateway.call("GET", "/usage", query=query)["rows"]
        return rows

    try:
        own_meters, own_models = dict(map(own_meter, meters)), dict(map(own_model, models))
    except ValueError as error:
        fail([str(error)])
    with ExitStack() as opened:
        try:
            result = compared(_files(paths, opened), usage, meters=own_meters, models=own_models)
        except (UnusableFile, OSError) as error:
            fail([str(error)])
        except CallFailed as error:
            fail(problems_of(error))
    beyond = [] if threshold is None else result.beyond(threshold)
    if gateway.as_json:
        document = result.as_json() | {"threshold": threshold, "beyond": [each.as_json() for each in beyond]}
        gateway.show(document)
    elif is_csv(as_csv=as_csv, reader=reader):
        click.echo(_csv(result.as_json(), reader), nl=False)
    else:
        click.echo(text_of(result, threshold=threshold, encoding=sys.stdout.encoding))
    sys.exit(1 if beyond else 0)


def _files(paths: Iterable[Path], opened: ExitStack) -> Iterator[tuple[str, BinaryIO]]:
    for path in paths:
        for file in _in_folder(path) if path.is_dir() else [path]:
            # One after the other, because an export can have more parts than a process may have open files.
            opened.close()
            yield str(file), opened.enter_context(file.open("rb"))


def _in_folder(folder: Path) -> list[Path]:
    found = [
        path
        for path in sorted(folder.rglob("*"))
        # Azure writes a list of the parts beside them.
        if path.name.lower().endswith(_ENDINGS) and path.name.lower() != "manifest.json"
    ]
    if not found:
        from ..reconcile.files import UnusableFile

        raise UnusableFile(f"{folder}: there is no file in it that ends with {', '.join(_ENDINGS)}.")
    return found


def _csv(document: Mapping[str, Any], reader: str | None) -> str:
    from ..web.tables import csv_text

    not_compared = [
        {
            "source": meter["source"],
            "by": "meter",
            "name": meter["meter"],
            "kind": f"not compared ({meter['unit']})",
            "azure": meter["quantity"],
            "currency": meter["currency"],
            "where": meter["why"],
        }
        for meter in document["not_compared"]
    ]
    return csv_text([*document["days"], *not_compared], _COLUMNS, reader=reader)
