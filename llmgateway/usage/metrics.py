"""Metrics for Prometheus, for all processes of this host together.

With several processes, each writes its values to its own files, in the folder ``PROMETHEUS_MULTIPROC_DIR``. The
process that answers ``GET /metrics`` adds them up (prometheus-client, "Multiprocess Mode"). The variable must be set
before this module is imported. ``llmgateway serve`` sets it (:mod:`~llmgateway.usage.shared_memory`); with another WSGI
server the operator must set it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ..interfaces import UsageRecorder
from ..records import Bound, BudgetState, Outcome, Quota, UsageRecord, UsageSource
from ..stores.health import DegradationLevel, StoreHealth
from .journal import Backlog
from .shared_memory import FOLDER

_READ_AGAIN = 5

_KINDS = ("prompt", "completion", "cached", "reasoning")  # of tokens
# Seconds. An answer takes from half a second to minutes. A first token takes 0.1 s or more; reasoning models
# can take minutes.
_DURATIONS = (0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
_FIRST_TEXTS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


_DEPLOYMENT_LABELS = ("deployment", "resource")
_QUOTA_LABELS = (*_DEPLOYMENT_LABELS, "unit")
_BUDGET_LABELS = ("scope", "name", "unit", "period")

MOST_DEPLOYMENTS = 200
"""The most deployments that have numbers of their own. More of them have none."""


def forget_process(pid: int) -> None:
    """Remove the gauges of a process that has ended."""
    if FOLDER in os.environ:
        with suppress(FileNotFoundError):  # another process removes them at the same time
            multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one process. Thread-safe."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "llmgateway_requests",
            "Requests that were sent to Azure, by outcome.",
            ["outcome", "stream"],
            registry=registry,
        )
        self._refused = Counter(
            "llmgateway_refused",
            "Requests that the gateway answered with an error of its own, by code.",
            ["code"],
            registry=registry,
        )
        self._refusals_dropped = Counter(
            "llmgateway_refusals_dropped",
            "Refused requests that were not kept for admins, because too many waited for the store.",
            registry=registry,
        )
        self._tokens = Counter(
            "llmgateway_tokens",
            "Tokens used. Cached tokens are part of the prompt, and reasoning tokens of the completion.",
            ["kind"],
            registry=registry,
        )
        self._uncounted = Counter(
            "llmgateway_uncounted_tokens",
            "Tokens of requests that Azure did not count, by the source of the number.",
            ["usage_source"],
            registry=registry,
        )
        self._cost = Counter(
            "llmgateway_cost_usd", "Cost of the tokens in US dollars, if a price is known.", registry=registry
        )
        self._duration = Histogram(
            "llmgateway_duration_seconds",
            "Time from the arrival of a request to the end of its answer.",
            ["stream"],
            buckets=_DURATIONS,
            registry=registry,
        )
        self._first_text = Histogram(
            "llmgateway_first_text_seconds",
            "Time from the arrival of a request to the first text of its stream.",
            buckets=_FIRST_TEXTS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "llmgateway_requests_in_flight",
            "Requests that are at Azure now.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._read_on = Gauge(
            "llmgateway_requests_read_on",
            "Requests that are read on after their client has disconnected, because only their end tells the count.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._slots = Gauge(
            "llmgateway_slots",
            "The most requests that can be at Azure at the same time. More are refused as overloaded.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._waiting = Gauge(
            "llmgateway_journal_records",
            "Usage records that wait for the usage log.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._oldest = Gauge(
            "llmgateway_journal_oldest_seconds",
            "How long the oldest of these records has waited.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._journal_problem = Gauge(
            "llmgateway_journal_problem",
            "1 if the disk or the usage log does not accept these records.",
            multiprocess_mode="livemax",
            registry=registry,
        )

        self._limits = Gauge(
            "llmgateway_deployment_limit",
            "What Azure allows a deployment within a minute, by the headers of its last answer.",
            _QUOTA_LABELS,
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._remaining = Gauge(
            "llmgateway_deployment_remaining",
            "What was left of that when the deployment answered last.",
            _QUOTA_LABELS,
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self._lowered = Gauge(
            "llmgateway_deployment_limit_lowered",
            "1 if Azure has lowered a limit of the deployment, and not raised it again.",
            _DEPLOYMENT_LABELS,
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._rests_until = Gauge(
            "llmgateway_deployment_rests_until_seconds",
            "Until when other deployments are asked in place of this one, in seconds since 1970.",
            _DEPLOYMENT_LABELS,
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._limited = Counter(
            "llmgateway_deployment_limited",
            "Answers with status 429, by the limit that was reached.",
            [*_DEPLOYMENT_LABELS, "limit"],
            registry=registry,
        )
        self._known_deployments: set[tuple[str, str]] = set()

        # To look a label up takes as long as to count. Each request has six labels, so they are looked up here.
        self._tokens_in = {f"{kind}_tokens": self._tokens.labels(kind) for kind in _KINDS}
        self._duration_of = {stream: self._duration.labels(str(stream).lower()) for stream in (False, True)}
        self._requests_of = {
            (outcome, stream): self._requests.labels(outcome, str(stream).lower())
            for outcome in Outcome
            for stream in (False, True)
        }

    def can_hold(self, requests: int) -> None:
        """Set how many requests this process relays at once."""
        self._slots.set(requests)

    def refused(self, code: str | None) -> None:
        """Count a request that the gateway has answered with an error of its own."""
        self._refused.labels(code or "none").inc()

    def refusals_dropped(self, number: int) -> None:
        """Count refused requests that :class:`~llmgateway.usage.refusals.Refusals` does not keep."""
        self._refusals_dropped.inc(number)

    def reads_on(self, change: int) -> None:
        """Add *change* to the number of answers that are read on without their client."""
        self._read_on.inc(change)

    def began(self) -> None:
        self._in_flight.inc()

    def ended(self, record: UsageRecord | None) -> None:
        """Count the end of a request. *record* is None if the request was not sent to Azure."""
        self._in_flight.dec()
        if record is None:
            return
        self._requests_of[record.outcome, record.stream].inc()
        for field, counter in self._tokens_in.items():
            if tokens := getattr(record, field):
                counter.inc(tokens)
        if record.usage_source is not UsageSource.UPSTREAM and record.total_tokens:
            self._uncounted.labels(record.usage_source).inc(record.total_tokens)
        if record.cost_usd:
            self._cost.inc(record.cost_usd)
        self._duration_of[record.stream].observe(record.duration_ms / 1000)
        if record.ttft_ms is not None:
            self._first_text.observe(record.ttft_ms / 1000)

    def waiting(self, backlog: Backlog) -> None:
        """Set how many records the journal has not shipped yet."""
        self._waiting.set(backlog.records)
        self._oldest.set(backlog.oldest_seconds)
        self._journal_problem.set(backlog.problem is not None)

    def quota_of(self, deployment: str, base_url: str, quota: Quota, *, lowered: bool) -> None:
        """Set what Azure says about the limits of a deployment."""
        labels = self._labels_of(deployment, base_url)
        if labels is None:
            return
        for gauge, requests, tokens in (
            (self._limits, quota.limit_requests, quota.limit_tokens),
            (self._remaining, quota.remaining_requests, quota.remaining_tokens),
        ):
            for unit, number in (("requests", requests), ("tokens", tokens)):
                if number is not None:
                    gauge.labels(*labels, unit).set(number)
        self._lowered.labels(*labels).set(lowered)

    def limited(self, deployment: str, base_url: str, limit: str) -> None:
        """Count a 429 of a deployment."""
        if labels := self._labels_of(deployment, base_url):
            self._limited.labels(*labels, limit).inc()

    def rests(self, deployment: str, base_url: str, until: float) -> None:
        """Set until when a deployment is left alone."""
        if labels := self._labels_of(deployment, base_url):
            self._rests_until.labels(*labels).set(until)

    def _labels_of(self, deployment: str, base_url: str) -> tuple[str, str] | None:
        """Return the labels of a deployment; None if there are too many."""
        labels = deployment, urlsplit(base_url).netloc
        if labels not in self._known_deployments:
            if len(self._known_deployments) >= MOST_DEPLOYMENTS:
                return None
            self._known_deployments.add(labels)
        return labels

    def exposition(
        self, stores: StoreHealth, *, azure_key_ok: bool, configured: bool = True, budgets: Sequence[BudgetState] = ()
    ) -> bytes:
        """Return all metrics in Prometheus' text format, with the present state of the stores and of *budgets*."""
        state = CollectorRegistry()
        state.register(_State(stores, azure_key_ok, configured))
        state.register(_Budgets(budgets))
        return self._numbers() + generate_latest(state)

    def _numbers(self) -> bytes:
        folder = os.environ.get(FOLDER)
        if folder is None:
            return generate_latest(self._registry)
        _forget_ended_processes(Path(folder))
        for _ in range(_READ_AGAIN):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            try:
                return generate_latest(registry)
            except FileNotFoundError:  # a worker has replaced another one, and its files have new names
                continue
        raise RuntimeError(f"The files in {folder} do not stay the same.")


def adds_up() -> bool:
    """Return whether :meth:`Metrics.exposition` has the numbers of all processes, if there are several."""
    return FOLDER in os.environ


def _forget_ended_processes(folder: Path) -> None:
    # llmgateway serve does this when a worker ends. Other servers need not know of it.
    for name in folder.glob("gauge_live*.db"):
        pid = name.stem.rpartition("_")[2]
        if pid.isdigit() and not _is_running(int(pid)):
            forget_process(int(pid))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


class MeteredUsageRecorder:
    """A :class:`~llmgateway.interfaces.UsageRecorder` that passes records on to another one, and updates metrics."""

    def __init__(self, recorder: UsageRecorder, metrics: Metrics) -> None:
        self._recorder = recorder
        self._metrics = metrics

    def begin(self, record: UsageRecord, bound: Bound) -> None:
        self._metrics.began()
        self._recorder.begin(record, bound)

    def amend(self, record: UsageRecord, bound: Bound) -> None:
        self._recorder.amend(record, bound)

    def end(self, record: UsageRecord) -> None:
        self._recorder.end(record)
        self._metrics.ended(record)

    def cancel(self, record_id: str) -> None:
        self._recorder.cancel(record_id)
        self._metrics.ended(None)


class _State(Collector):
    def __init__(self, stores: StoreHealth, azure_key_ok: bool, configured: bool) -> None:
        self._stores = stores
        self._configured = configured
        self._azure_key_ok = azure_key_ok

    def collect(self) -> Iterator[GaugeMetricFamily]:
        problems = self._stores.problems()
        up = GaugeMetricFamily("llmgateway_store_up", "1 if the store answers.", labels=["store"])
        for name, problem in problems.items():
            up.add_metric([name], problem is None)
        yield up
        present = self._stores.level(problems)
        levels = GaugeMetricFamily("llmgateway_rung", "1 for the present level of degradation.", labels=["rung"])
        for level in DegradationLevel:
            levels.add_metric([level], level is present)
        yield levels
        yield GaugeMetricFamily(
            "llmgateway_azure_key_ok", "1 if there is a key for Azure and Azure accepts it.", value=self._azure_key_ok
        )
        yield GaugeMetricFamily(
            "llmgateway_azure_configured",
            "1 if an address of Azure is set and can be used, or models have deployments.",
            value=self._configured,
        )


class _Budgets(Collector):
    """Not gauges of the processes: all processes of a host know the same numbers, and a removed group has none."""

    def __init__(self, budgets: Sequence[BudgetState]) -> None:
        self._budgets = budgets

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, meaning in (
            ("limit", "The budget of a group or of the organisation, in its unit."),
            ("spent", "What is spent of it in the present period."),
            ("left", "What is left of it in the present period."),
        ):
            gauge = GaugeMetricFamily(f"llmgateway_budget_{name}", meaning, labels=_BUDGET_LABELS)
            for state in self._budgets:
                if (number := getattr(state, name)) is not None:
                    gauge.add_metric([state.scope, state.name, state.unit, state.period], number)
            yield gauge
