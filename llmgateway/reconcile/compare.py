"""Compares what Azure has counted with what the gateway has recorded: by deployment, kind of tokens and UTC day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import Any, BinaryIO

from .meters import CACHED, COMPLETION, KINDS, PROMPT, Meter, meter_of, model_key
from .monitor import INPUT, METRIC_KINDS, METRIC_OF, TOTAL
from .reading import read_statement
from .results import (
    COST,
    DEPLOYMENT,
    EVERYTHING,
    MODEL,
    Comparison,
    NotCompared,
    Reconciliation,
    Subject,
    explain,
    order,
    totals_of,
)
from .statement import BILL, METRICS, Amount, Place, Statement

_EVERYTHING = "all deployments"

UsageReport = Callable[[date, date], Iterable[Mapping[str, Any]]]
"""Returns the rows of ``GET /admin/usage?by=day,deployment,model`` from one day to another, both included."""


def reconcile(
    files: Iterable[tuple[str, BinaryIO]],
    usage: UsageReport,
    *,
    meters: Mapping[str, Meter] | None = None,
    models: Mapping[str, str] | None = None,
    most_bytes: int | None = None,
) -> Reconciliation:
    """Read *files*, and compare them with our usage of the same days.

    Args:
        files: Names and seekable streams of exports of costs, or of Azure Monitor's metrics.
        meters: What is known about further meters, see :func:`~.meters.meter_of`.
        models: Which model a deployment, or a name that users ask for, is; where its name does not tell.
        most_bytes: Of all files together, unpacked; None for any number.

    Raises:
        UnusableFile: a file cannot be read, or they are larger.
    """
    statement = read_statement(files, most_bytes=most_bytes)
    return compare(statement, usage(*statement.days), meters=meters, models=models)


def compare(
    statement: Statement,
    rows: Iterable[Mapping[str, Any]],
    *,
    meters: Mapping[str, Meter] | None = None,
    models: Mapping[str, str] | None = None,
) -> Reconciliation:
    """Compare *statement*, which has at least one day, with the *rows* of our usage."""
    days = statement.days
    books = _Books(meters or {}, {name.lower(): model for name, model in (models or {}).items()})
    books.add_azure(statement)
    for row in rows:
        if days[0].isoformat() <= row["day"] <= days[1].isoformat():
            books.add_ours(row)
    result = Reconciliation(
        first_day=days[0],
        last_day=days[1],
        files=[
            {
                "name": each.name,
                "schema": each.schema,
                "rows": each.rows,
                "rows_of_other_services": each.other_rows,
            }
            for each in statement.files
        ],
        days=sorted(books.finished(), key=order),
        not_compared=sorted(books.not_compared.values(), key=lambda each: (each.source, each.meter)),
    )
    result.totals = totals_of(result.days)
    explain(result)
    return result


class _Books:
    """Both sides, by subject, kind and day."""

    def __init__(self, meters: Mapping[str, Meter], models: Mapping[str, str]) -> None:
        self._meters = meters
        self._models = models
        self.days: dict[tuple[Subject, str, date], Comparison] = {}
        self.not_compared: dict[tuple[str, str, str, str], NotCompared] = {}
        self._named: dict[tuple[str, str, str], Subject] = {}
        """What a source names: deployments in lower case, models by their keys."""
        self._named_on: set[tuple[Subject, date]] = set()
        self._naming: set[str] = set()
        """Sources that name deployments or models."""
        self._kinds: dict[str, set[str]] = defaultdict(set)
        self._currencies: dict[Subject, set[str]] = defaultdict(set)

    def add_azure(self, statement: Statement) -> None:
        metrics = _one_metric_each(statement)
        for place, amount in statement.amounts():
            if place.source == METRICS:
                if place.meter in METRIC_OF and place.meter in metrics[_metric_series(place)]:
                    self._add(place, METRIC_OF[place.meter], amount.quantity, place.model)
                elif place.meter not in METRIC_OF:
                    self._list(place, amount, "this metric does not count tokens that the gateway counts")
            else:
                self._kinds[BILL].update(KINDS)  # also those that the bill has nothing of
                self._add_charge(place, amount)

    def _add_charge(self, place: Place, amount: Amount) -> None:
        meter = meter_of(place.meter, meter_id=place.meter_id, product=place.product, own=self._meters)
        if meter is None:
            self._list(place, amount, "the meter is not known")
        elif place.tokens_per_unit is None:
            self._list(place, amount, "the unit does not count tokens")
        else:
            self._add(place, meter.kind, amount.quantity * place.tokens_per_unit, meter.model)
        if meter is not None or place.deployment:
            subject = self._azure_subject(place, meter.model if meter else None)
            self._cell(subject, COST, place.day).azure += amount.money
            self._currencies[subject].add(place.currency or "unknown")

    def _add(self, place: Place, kind: str, tokens: float, model: str | None) -> None:
        self._kinds[place.source].add(kind)
        self._cell(self._azure_subject(place, model), kind, place.day).azure += tokens

    def _azure_subject(self, place: Place, model: str | None) -> Subject:
        if place.deployment:
            name, key = Subject(place.source, DEPLOYMENT, place.deployment), place.deployment.lower()
        elif model:
            name, key = Subject(place.source, MODEL, model), model_key(model)
        else:
            return Subject(place.source, EVERYTHING, _EVERYTHING)
        subject = self._named.setdefault((place.source, name.by, key), name)
        self._naming.add(place.source)
        self._named_on.add((subject, place.day))
        return subject

    def add_ours(self, row: Mapping[str, Any]) -> None:
        for source in self._sources():
            subject = self._our_subject(source, row)
            day = date.fromisoformat(row["day"])
            not_counted = row.get("estimated_tokens", 0) + row.get("bound_tokens", 0)
            for kind, tokens in _our_tokens(row).items():
                if kind in self._kinds[source]:
                    self._count(subject, kind, day, tokens, min(not_counted, tokens))
            if source == BILL:
                self._count(subject, COST, day, row["cost_usd"])

    def finished(self) -> list[Comparison]:
        """Return what was compared, without what both sides have nothing of."""
        for (subject, kind, _), cell in self.days.items():
            # Exports have quantities with up to 15 digits; their sum has an error in the last ones.
            cell.azure = round(cell.azure, 9 if kind == COST else 3)
            if kind == COST:
                currencies = self._currencies.get(subject, {"USD"})
                cell.currency = ", ".join(sorted(currencies))
                cell.ours = cell.ours if currencies == {"USD"} else None
        return [cell for cell in self.days.values() if cell.azure or cell.ours]

    def _count(self, subject: Subject, kind: str, day: date, amount: float, not_counted: float = 0.0) -> None:
        cell = self._cell(subject, kind, day)
        cell.ours = (cell.ours or 0.0) + amount
        cell.not_counted += not_counted

    def _sources(self) -> Iterator[str]:
        for source in (BILL, METRICS):
            if self._kinds[source]:
                yield source

    def _our_subject(self, source: str, row: Mapping[str, Any]) -> Subject:
        if source not in self._naming:
            return Subject(source, EVERYTHING, _EVERYTHING)
        deployment, model = row.get("deployment") or "", row.get("model") or ""
        day = date.fromisoformat(row["day"])
        keys = [model_key(self._models.get(each.lower(), each)) for each in (deployment, model) if each]
        places = (source, DEPLOYMENT, deployment.lower()), *((source, MODEL, key) for key in keys)
        named = [self._named[place] for place in places if place in self._named]
        # A tag that was set in the middle of a month is missing before: prefer what Azure names on the day.
        on_day = [subject for subject in named if (subject, day) in self._named_on]
        return next(iter(on_day or named), Subject(source, DEPLOYMENT, deployment or model))

    def _cell(self, subject: Subject, kind: str, day: date) -> Comparison:
        where = subject, kind, day
        if where not in self.days:
            self.days[where] = Comparison(subject, kind, day)
        return self.days[where]

    def _list(self, place: Place, amount: Amount, why: str) -> None:
        where = place.source, place.meter, place.unit, place.currency
        listed = self.not_compared.get(where)
        if listed is None:
            listed = self.not_compared[where] = NotCompared(
                place.source, place.meter, place.meter_id, place.unit, why, currency=place.currency
            )
        listed.quantity += amount.quantity
        listed.cost += amount.money
        listed.rows += amount.rows


def _our_tokens(row: Mapping[str, Any]) -> dict[str, float]:
    prompt, completion = row["prompt_tokens"], row["completion_tokens"]
    # Of a model that answers more cached tokens than it has prompt tokens, all were cached.
    cached = min(row["cached_tokens"], prompt)
    return {
        PROMPT: prompt - cached,
        CACHED: cached,
        COMPLETION: completion,
        INPUT: prompt,
        TOTAL: row["total_tokens"],
    }


def _metric_series(place: Place) -> tuple[str, str, str]:
    return (place.deployment or "").lower(), (place.account or "").lower(), place.model or ""


def _one_metric_each(statement: Statement) -> dict[tuple[str, str, str], set[str]]:
    """Return the metrics to use for each series: one for each kind, because two metrics count the same tokens."""
    there: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for place, _ in statement.amounts():
        if place.source == METRICS:
            there[_metric_series(place)].add(place.meter)
    return {
        series: {
            next(metric for metric, of in METRIC_OF.items() if of == kind and metric in found)
            for kind in METRIC_KINDS
            if any(METRIC_OF.get(metric) == kind for metric in found)
        }
        for series, found in there.items()
    }
