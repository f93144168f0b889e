"""Finds out what each file is, and reads all of them into one statement."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from typing import BinaryIO, TextIO, cast

from .exports import is_export, read_export
from .files import Allowance, UnusableFile, reading, texts
from .monitor import is_metrics_table, read_metrics_json, read_metrics_table
from .statement import FileSummary, Statement

_START = 4096
"""Characters by which JSON is recognised, which may be one long line."""

_LINES_ABOVE = 30
"""Spreadsheets and the portal have a title above a table."""


def read_statement(files: Iterable[tuple[str, BinaryIO]], *, most_bytes: int | None = None) -> Statement:
    """Return what Azure has counted, from all *files* together.

    Args:
        files: Names and seekable streams. They are read one after the other, and none is held in memory.
        most_bytes: Of all files together, unpacked; None for any number.

    Raises:
        UnusableFile: one cannot be read, or nothing in them is of Azure's AI services.
    """
    statement, allowance = Statement(), Allowance(most_bytes)
    names = []
    for name, stream in files:
        with closing(texts(name, stream, allowance)) as parts:
            for part, text in parts:
                names.append(part)
                with reading(part):
                    statement.add(_read(part, cast(TextIO, text), allowance))
    if next(statement.amounts(), None) is None:
        others = sum(summary.other_rows for summary in statement.files)
        raise UnusableFile(
            f"{', '.join(names) or 'No file'}: no charge of Azure OpenAI or Foundry is in there ({others} of other "
            "services). Export the subscription, or the resource group, in which these resources are."
        )
    return statement


def _read(name: str, text: TextIO, allowance: Allowance) -> FileSummary:
    start = text.readline(_START).strip() or text.readline(_START).strip()
    text.seek(0)
    if start.startswith(("{", "[")):
        allowance.for_json()
        return read_metrics_json(name, text)
    above: list[str] = []
    for line in islice(text, _LINES_ABOVE):
        for delimiter in ",;\t":
            row = next(csv.reader([line], delimiter=delimiter), [])
            if is_export(row):
                return read_export(name, row, text, delimiter=delimiter)
            if is_metrics_table(row):
                return read_metrics_table(name, row, text, title=" ".join(above), delimiter=delimiter)
        above.append(line)
    raise UnusableFile(
        f"{name}: it is neither an export of costs nor one of metrics; it begins with {start[:60]!r}. Export "
        "'cost and usage details' or 'FOCUS' as CSV, or save token metrics of Azure Monitor as JSON or CSV."
    )
