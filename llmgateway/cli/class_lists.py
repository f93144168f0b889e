"""The command that imports a class list."""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

from .ending import Exit, confirm, fail
from .options import yes_option
from .remote import Remote, flat, remote
from .tables import counted, plain, table
from .wording import for_terminal

_PATH = "/keys/import"
_LINES_BEFORE_QUESTION = 20
_OPTIONS = frozenset({"map", "dates", "decimal", "sheet", "group", "existing"})
_DONE = {"create": "created", "update": "updated", "skip": "skipped", "refuse": "refused"}


@click.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--group", help="The group of those whose line names none.")
@click.option(
    "--map",
    multiple=True,
    metavar="FIELD=COLUMN",
    help="Which column is which field, like user=Benutzer or user=Vorname+Nachname; repeatable.",
)
@click.option(
    "--existing",
    type=click.Choice(["refuse", "skip", "update", "add"]),
    default="refuse",
    show_default=True,
    help="What happens to people who have a key in the group already; 'add' gives them a further one.",
)
@click.option("--dates", type=click.Choice(["dmy", "mdy"]), help="What comes first in 3/4/2027: day or month.")
@click.option("--decimal", type=click.Choice(["comma", "point"]), help="The decimal sign of amounts.")
@click.option("--sheet", help="The sheet of a workbook. [the first one that is not hidden]")
@click.option("--ignore-other-columns", is_flag=True, help="Do not refuse columns that are not known.")
@click.option("--dry-run", is_flag=True, help="Show what would happen to each line, and store nothing.")
@click.option("--output", type=click.Path(path_type=Path), help="New file for the keys. [standard output]")
@yes_option
@remote
def import_(gateway: Remote, file: IO[bytes], output: Path | None, dry_run: bool, yes: bool, **options: Any) -> None:
    """Create a key for every line of a class list ('-' for standard input). If any line is wrong, create none.

    FILE is CSV or an Excel workbook. Its first line names the columns: 'user', and any other field of a key. Exports
    of Moodle and Canvas are understood as they are. On a terminal you see the plan first, and are asked. The result
    is CSV with the new keys, which are shown only this once.
    """
    from .client import CallFailed

    content, name = file.read(), getattr(file, "name", "-")
    query = {name: value for name, value in options.items() if value not in (None, False, ())}
    query |= {"ignore_other_columns": "true"} if options["ignore_other_columns"] else {}
    try:
        if dry_run:
            _show_plan(gateway, name, _sent(gateway, content, {**query, "dry_run": "true"}))
            return
        if not yes and sys.stdin.isatty():
            _ask(name, _sent(gateway, content, {**query, "dry_run": "true"}))
        with _new_file(output) as new:
            if gateway.as_json:
                new.write(_indented(_sent(gateway, content, {**query, "format": "json"})))
                return
            with _bar(content) as bar:
                made, done = gateway.client.upload(_PATH, _Watched(content, bar.update), query=query)
            new.write(made)
    except CallFailed as error:
        for problem in _by_line(name, error.errors):
            click.echo(problem, err=True)
        fail([for_terminal(str(error), is_about_columns=True)], status=Exit.of(error.status, error.code))
    for note in done.get("notes", ()):
        click.echo(f"llmgateway: warning: {plain(note)}", err=True)
    place = f"They are in {output}" if output else "They are above"
    told = f"{place}, and shown nowhere else: give each user their own." if done["create"] else "No key is new."
    others = "".join(f", {_DONE[name]} {done[name]}" for name in ("update", "skip") if done[name])
    click.echo(f"Created {counted(done['create'], 'key')}{others}. {told}", err=True)


def _bar(content: bytes) -> Any:
    return click.progressbar(length=len(content), label="Sending the file", file=sys.stderr)


def _sent(gateway: Remote, content: bytes, query: Mapping[str, Any]) -> dict[str, Any]:
    """Send the file, and return the answer, which is JSON."""
    with _bar(content) as bar:
        answer, _ = gateway.client.upload(_PATH, _Watched(content, bar.update), query=query)
    document: dict[str, Any] = json.loads(answer)
    return document


def _indented(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _show_plan(gateway: Remote, name: str, plan: dict[str, Any]) -> None:
    """Print the plan of a dry run; end the program with an error if a line is refused."""
    if gateway.as_json:
        click.echo(_indented(plan), nl=False)
    else:
        _explain(plan)
        click.echo(_table(plan["lines"]))
        click.echo(f"{_summary(plan)} Nothing was stored.", err=True)
        _name_refused(name, plan)
    if plan["counts"]["refuse"]:
        fail([f"{name}: {_not_right(plan)}, so that nothing of it would be imported."], status=Exit.REFUSED)


def _ask(name: str, plan: dict[str, Any]) -> None:
    """Show the plan, and return if the person wants it."""
    _explain(plan)
    _name_refused(name, plan)
    if plan["counts"]["refuse"]:
        fail([f"{_not_right(plan)}. Nothing was stored: correct the file."], status=Exit.REFUSED)
    click.echo(_table(plan["lines"][:_LINES_BEFORE_QUESTION]), err=True)
    more = len(plan["lines"]) - _LINES_BEFORE_QUESTION
    if more > 0:
        click.echo(f"… and {more} more; --dry-run shows all of them.", err=True)
    confirm(f"{_summary(plan)} Do it?", yes=False)


def _name_refused(name: str, plan: dict[str, Any]) -> None:
    """Say what is wrong with each line that is refused; in the table there is no room for it."""
    errors = {f"line {line['line']}": line["problems"] for line in plan["lines"] if line["action"] == "refuse"}
    for problem in _by_line(name, errors):
        click.echo(problem, err=True)


def _not_right(plan: dict[str, Any]) -> str:
    refused = plan["counts"]["refuse"]
    return f"{counted(refused, 'line')} {'is' if refused == 1 else 'are'} not right"


def _explain(plan: dict[str, Any]) -> None:
    """Say how the file was understood."""
    file = plan["file"]
    columns = ", ".join(f"{field} from {' + '.join(names)}" for field, names in file["columns"].items())
    click.echo(plain(f"Columns: {columns}."), err=True)
    if file["ignored"]:
        click.echo(plain(f"Ignored: {', '.join(file['ignored'])}."), err=True)
    for line in file["left_out"]:
        click.echo(plain(f"Line {line['line']} is left out: {line['reason']}"), err=True)
    for note in file["notes"]:
        click.echo(f"llmgateway: warning: {plain(note)}", err=True)


def _summary(plan: dict[str, Any]) -> str:
    counts = plan["counts"]
    parts = [f"{action} {counts[action]}" for action in ("create", "update", "skip", "refuse") if counts[action]]
    return f"{', '.join(parts).capitalize() or 'Nothing to do'}."


def _table(lines: list[dict[str, Any]]) -> str:
    rows = [{**line, "why": _why(line)} for line in lines]
    return table(rows, ("line", "action", "user", "group", "why"))


def _why(line: dict[str, Any]) -> str | None:
    if line["problems"]:
        return ", ".join({where.partition(".")[0]: None for where, _ in flat(line["problems"])})
    return ", ".join(line["changes"]) or line["reason"]


def _by_line(name: str, errors: Mapping[str, Any]) -> list[str]:
    """Format each problem as FILE:LINE: PROBLEM, as compilers do, so that editors find the line."""
    return [plain(f"{_place(name, where)}: {_explained(problem)}") for where, problem in flat(errors)]


def _explained(problem: str) -> str:
    return for_terminal(problem, is_about_columns=True)


def _place(name: str, where: str) -> str:
    if where in _OPTIONS:
        return f"--{where}"
    if where == "file":
        return name
    return f"{name}:{where.removeprefix('line ').replace('.', ': ', 1)}"


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
