"""The table: what was measured of whom, as Markdown."""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

NOTHING = "–"  # noqa: RUF001 - the dash of a table


@dataclass(frozen=True)
class Row:
    """One kind of work."""

    label: str
    aim: str = NOTHING
    better: Literal["less", "more"] | None = None
    """Which way a comparison goes; None where there is nothing to compare."""


@dataclass(frozen=True)
class Figure:
    """What came out for one row of one column."""

    shown: str = NOTHING
    value: float | None = None


@dataclass
class Table:
    """Filled row by row and column by column, in any order.

    Args:
        rows: In the order in which they are shown.
        columns: The same.
        compared: Two of the columns: how many times better the first is than the second.
    """

    rows: Sequence[Row]
    columns: Sequence[str]
    compared: tuple[str, str] | None = None
    _figures: dict[tuple[str, str], Figure] = field(default_factory=dict)

    def put(self, row: Row, column: str, figure: Figure) -> None:
        self._figures[row.label, column] = figure

    def markdown(self) -> str:
        head = ["work", "aim", *self.columns]
        if self.compared:
            head.append("{} : {}".format(*self.compared))
        return "\n".join([_line(head), _line(["---"] * len(head)), *(_line(self._cells(row)) for row in self.rows)])

    def _cells(self, row: Row) -> list[str]:
        cells = [row.label, row.aim, *(self._figure(row, column).shown for column in self.columns)]
        if self.compared:
            cells.append(self._times_better(row, *self.compared))
        return cells

    def _times_better(self, row: Row, ours: str, theirs: str) -> str:
        values = self._figure(row, ours).value, self._figure(row, theirs).value
        if row.better is None or not all(values):
            return NOTHING
        mine, other = values if row.better == "more" else reversed(values)
        return f"{(mine or 0) / (other or 1):.3g} ×"  # noqa: RUF001 - the sign

    def _figure(self, row: Row, column: str) -> Figure:
        return self._figures.get((row.label, column), Figure())


def machine() -> str:
    """What it was measured on, and when."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    today = datetime.datetime.now(datetime.UTC).date()
    return (
        f"{today}, {os.cpu_count()} processors ({model}), Linux {platform.release()}, "
        f"Python {platform.python_version()}. Clients, upstream and databases ran on the same processors."
    )


def busy_processors(seconds: float = 1.0) -> float:
    """How many processors everybody together keeps busy now."""
    busy_before, all_before = _ticks()
    time.sleep(seconds)
    busy, total = _ticks()
    return (busy - busy_before) / (total - all_before) * (os.cpu_count() or 1)


def _ticks() -> tuple[int, int]:
    """Of all processors since the start of the machine: those that were not idle, and all."""
    # user, nice, system, idle, iowait, irq, softirq, steal (proc(5)); guests are in the first two.
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _cpuinfo() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
