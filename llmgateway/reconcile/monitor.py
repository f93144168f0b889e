"""Reads Azure Monitor's token metrics: answers of its API, and tables of the portal.

Metrics and their dimensions: "Supported metrics for Microsoft.CognitiveServices/accounts" (2026-07-31). Metrics do not
tell which tokens were in the cache, except for provisioned throughput.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, TextIO

from .cells import account_in, number, utc_day
from .files import UnusableFile
from .statement import METRICS, FileSummary, Place

INPUT, OUTPUT, TOTAL = METRIC_KINDS = ("input", "completion", "total")
"""What metrics count: all prompt tokens, completion tokens, and both."""

METRIC_OF: dict[str, str] = {
    "ProcessedPromptTokens": INPUT,
    "InputTokens": INPUT,
    "GeneratedTokens": OUTPUT,
    "OutputTokens": OUTPUT,
    "TokenTransaction": TOTAL,
    "TotalTokens": TOTAL,
}
"""The kind of each metric, the preferred one first: two metrics count the same tokens."""

_TITLES = {
    # As the portal shows them, without separators.
    "processedprompttokens": "ProcessedPromptTokens",
    "generatedcompletiontokens": "GeneratedTokens",
    "generatedtokens": "GeneratedTokens",
    "processedinferencetokens": "TokenTransaction",
    "tokentransaction": "TokenTransaction",
    "inputtokens": "InputTokens",
    "outputtokens": "OutputTokens",
    "totaltokens": "TotalTokens",
}
_DEPLOYMENT = ("modeldeploymentname", "deployment", "deploymentname")
_MODEL = ("modelname", "model")
_DIMENSIONS = {
    *(*_DEPLOYMENT, *_MODEL),
    *("modelversion", "apiname", "operationname", "region", "statuscode", "streamtype", "isspillover"),
    *("servicetierrequest", "servicetierresponse", "resourceid", "resource", "featurename", "usagechannel"),
}
_VALUES = ("total", "sum", "value")
_METRIC_COLUMNS = ("metricname", "metric")
_DAYS = ("time", "timestamp", "timegenerated", "date", "timeutc", "timestamputc", "timegeneratedutc")
_ASK_FOR_TOTALS = "Ask for the aggregation Total (Sum)."
_SPLIT = "Choose ProcessedPromptTokens and GeneratedTokens, split by ModelDeploymentName."


def read_metrics_json(name: str, text: TextIO) -> FileSummary:
    """Add up an answer of the metrics API, of its batch API or of ``az monitor metrics list``; or several in a list.

    Raises:
        UnusableFile: it is something else.
    """
    summary = FileSummary(name, "Azure Monitor (JSON)")
    try:
        document = json.load(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UnusableFile(f"{name}: it is not JSON ({error}). Save the answer of the metrics API again.") from error
    metrics = [*_metrics(document)]
    if not metrics:
        raise UnusableFile(f"{name}: there are no metrics in this JSON. {_SPLIT}")
    try:
        for account, metric in metrics:
            _add_metric(summary, account, metric)
    except (KeyError, TypeError, AttributeError) as error:
        raise UnusableFile(f"{name}: it is not an answer of the metrics API ({error!r}). {_SPLIT}") from error
    except ValueError as error:
        raise UnusableFile(f"{name}: {error}. Save the answer of the metrics API again.") from error
    return summary


def _metrics(document: Any) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    if isinstance(document, list):
        for part in document:
            yield from _metrics(part)
    elif isinstance(document, dict) and isinstance(document.get("values"), list):
        yield from _metrics(document["values"])
    elif isinstance(document, dict) and isinstance(document.get("value"), list):
        for metric in document["value"]:
            if isinstance(metric, dict) and "timeseries" in metric:
                yield account_in(str(document.get("resourceid") or metric.get("id") or "")), metric


def _add_metric(summary: FileSummary, account: str | None, metric: Mapping[str, Any]) -> None:
    metric_name = metric["name"]["value"] if isinstance(metric["name"], dict) else str(metric["name"])
    for series in metric["timeseries"]:
        found = series.get("metadatavalues") or ()
        dimensions = {str(each["name"]["value"]).lower(): str(each["value"]) for each in found}
        for point in series["data"]:
            summary.rows += 1
            if "total" in point:
                value = point["total"]
                if value is not None:
                    day = utc_day(str(point["timeStamp"] if "timeStamp" in point else point["timestamp"]))
                    _add(summary, day, metric_name, dimensions, account, float(value))
            elif set(point) & {"average", "maximum", "minimum", "count"}:
                raise UnusableFile(f"{summary.name}: {metric_name} has no totals. {_ASK_FOR_TOTALS}")


def is_metrics_table(row: Sequence[str]) -> bool:
    """Return whether this row is the header of a table of metrics: it begins with a time, or has one and a metric."""
    names = [_letters(name) for name in row]
    if len(names) < 2 or not {*names} & {*_DAYS}:
        return False
    return names[0] in _DAYS or bool({*names} & {*_METRIC_COLUMNS}) or any(name in _TITLES for name in names)


def read_metrics_table(
    name: str, header: Sequence[str], lines: Iterable[str], *, title: str, delimiter: str = ","
) -> FileSummary:
    """Add up a table with a column for the name of the metric, or with one or more columns for each metric.

    Args:
        title: The lines above the table. The portal names the metric there if all columns are of one.

    Raises:
        UnusableFile: no column names a metric, or a line cannot be read.
    """
    summary = FileSummary(name, "Azure Monitor (CSV)")
    table = _Table(name, header, title)
    rows = csv.reader(lines, delimiter=delimiter)
    try:
        for row in rows:
            if not row or not "".join(row).strip():
                continue
            summary.rows += 1
            day = utc_day(row[table.day])
            for metric, dimensions, cell in table.values(row):
                if cell.strip() not in ("", "--", "-"):
                    value = number(cell, decimal_comma=delimiter == ";")
                    _add(summary, day, metric, dimensions, account_in(dimensions.get("resourceid", "")), value)
    except (csv.Error, ValueError, IndexError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        where = f"{name}, line {rows.line_num} below the header"
        raise UnusableFile(f"{where}: {error}. Correct it, or export again.") from error
    return summary


class _Table:
    """Which columns of a table have the day, the dimensions and the values."""

    def __init__(self, name: str, header: Sequence[str], title: str) -> None:
        self._names = [_letters(column) for column in header]
        self.day = _find(self._names, _DAYS)
        self._metric = _find(self._names, _METRIC_COLUMNS)
        self._dimensions = {each: at for at, each in enumerate(self._names) if each in _DIMENSIONS}
        self._columns: list[tuple[int, str, str]] = []
        """Position, metric and deployment of each column with values, if no column has the name of the metric."""
        if self._metric < len(header):
            self._value = _find(self._names, _VALUES)
            if self._value == len(header):
                raise UnusableFile(f"{name}: there is no column Total. {_ASK_FOR_TOTALS}")
            return
        whole = _metric_in(title)
        for at, column in enumerate(header):
            if at != self.day and self._names[at] not in self._dimensions and column.strip():
                metric = _metric_in(column) or whole or (column.strip() if self._dimensions else None)
                if metric is None:
                    raise UnusableFile(f"{name}: the column {column!r} does not say which metric it is. {_SPLIT}")
                self._columns.append((at, metric, _series_name(column)))

    def values(self, row: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str], str]]:
        """Yield the metric, the dimensions and the value of each cell."""
        dimensions = {name: row[at] for name, at in self._dimensions.items()}
        if not self._columns:
            metric = row[self._metric].strip()
            yield _TITLES.get(_letters(metric), metric), dimensions, row[self._value]
        for at, metric, deployment in self._columns:
            if at < len(row):
                yield metric, dimensions or ({"deployment": deployment} if deployment else {}), row[at]


def _add(
    summary: FileSummary, day: date, metric: str, dimensions: Mapping[str, str], account: str | None, value: float
) -> None:
    place = Place(
        source=METRICS,
        day=day,
        deployment=_first(dimensions, _DEPLOYMENT),
        account=account,
        model=_first(dimensions, _MODEL),
        meter=metric,
        meter_id="",
        product="",
        unit="Count",
        tokens_per_unit=1.0,
        currency="",
    )
    amount = summary.amount(place)
    amount.rows += 1
    amount.quantity += value


def _first(dimensions: Mapping[str, str], names: Sequence[str]) -> str | None:
    # Azure writes <empty> or unknown where a call has no value of a dimension.
    found = (dimensions.get(name, "").strip() for name in names)
    return next((value for value in found if value and value.lower() not in ("<empty>", "__empty", "undefined")), None)


def _find(names: Sequence[str], wanted: Sequence[str]) -> int:
    return next((position for position, name in enumerate(names) if name in wanted), len(names))


def _metric_in(text: str) -> str | None:
    letters = _letters(text)
    return next((metric for title, metric in _TITLES.items() if title in letters), None)


def _series_name(column: str) -> str:
    """Return the deployment in the name of a column: what is left without the metric and its aggregation."""
    left = column
    for title in ("processed prompt tokens", "generated completion tokens", "processed inference tokens", *METRIC_OF):
        left = re.sub(title.replace(" ", r"\s*"), "", left, flags=re.IGNORECASE)
    left = re.sub(r"\(?\b(sum|total)\b\)?", "", left, flags=re.IGNORECASE)
    left = re.sub(r"\b(modeldeploymentname|deployment)\s*[=:]\s*", "", left, flags=re.IGNORECASE)
    return left.strip(" ,;:|/-\u2013()[]\"'")


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
