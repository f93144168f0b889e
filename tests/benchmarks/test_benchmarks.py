"""The benchmark runs from end to end; what it finds is not judged here."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests import ROOT

from .__main__ import measure
from .measures import MEASURES, QUICK, Bench
from .report import Figure, Row, Table
from .sites import Alone, Gateway, UpstreamServer, running

pytestmark = pytest.mark.slow


def cells(output: str) -> dict[str, list[str]]:
    """The table's rows by their labels."""
    rows = [line.strip("|").split("|") for line in output.splitlines() if line.startswith("|")]
    return {label.strip(): [cell.strip() for cell in others] for label, *others in rows}


def labels(*groups: str) -> list[str]:
    """Of the rows that are expected."""
    return [row.label for group in groups for row in MEASURES[group].rows(QUICK)]


def test_prints_every_row():
    """Each row of the groups that were asked for has a figure of the gateway on both kinds of stores."""
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "plain,streams"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert 0 == done.returncode, done.stderr
    head, _, *table = cells(done.stdout).items()
    assert ("work", ["aim", "no gateway", "bare Flask view", "embedded", "Redis + MongoDB"]) == head
    assert labels("plain", "streams") == [label for label, _ in table]
    for label, (_, _, _, *gateways) in table:
        assert all(re.match(r"all|[\d.,]+", figure) for figure in gateways), label


def test_fills_the_embedded_store():
    """Keys and records that were put into the store in bulk are valid and counted."""
    upstream = UpstreamServer()
    with running(upstream):
        bench = Bench(QUICK, Alone(upstream))
        embedded = Gateway("embedded", upstream, None, {}, bench.notes)

        table = measure(bench, [embedded], ["keys", "usage"])

    shown = cells(table.markdown())
    assert all(re.match(r"[\d.,]+", shown[label][-1]) for label in labels("keys", "usage"))
    assert not [note for note in bench.notes if "status" in note], bench.notes


def test_says_how_many_times_better():
    """The comparison goes the right way for costs and for rates, and is left out where there is nothing to compare."""
    cost, rate, other = Row("cost", better="less"), Row("rate", better="more"), Row("other")
    table = Table([cost, rate, other], ["ours", "theirs"], compared=("ours", "theirs"))
    for row in (cost, rate, other):
        table.put(row, "ours", Figure("2", 2.0))
        table.put(row, "theirs", Figure("8", 8.0))

    shown = cells(table.markdown())

    assert ["4 ×", "0.25 ×", "–"] == [shown[name][-1] for name in ("cost", "rate", "other")]  # noqa: RUF001
