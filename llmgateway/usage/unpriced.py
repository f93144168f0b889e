"""Remembers which models were used without a known price."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from ..interfaces import UsageLog, UsageRecorder
from ..records import Bound, ModelSettings, ReportQuery, UsageRecord
from .models import own_settings

_MOST_MODELS = 100


def used_without_price(usage_log: UsageLog, now: datetime, *, promptly: bool = False) -> set[str]:
    """Return the models that all processes have used today or yesterday (UTC) without a known price.

    Raises:
        StoreUnavailable: the usage log does not answer.
    """
    report = usage_log.report(
        ReportQuery(by=("model",), in_utc=True, first_day=now.date() - timedelta(days=1), promptly=promptly)
    )
    return {str(row.by["model"]) for row in report if row.unpriced_requests}


def still_without_price(names: Collection[str], own: Mapping[str, ModelSettings]) -> list[str]:
    """Return those of *names* for which no admin has set a price meanwhile, sorted."""
    return sorted(name for name in names if own_settings(own, (name,)).prices is None)


class UnpricedModels:
    """A :class:`~llmgateway.interfaces.UsageRecorder` that passes everything to another one, and reads it.

    Attributes:
        models: The names, as clients asked for them, of models that this process has used without a known price.
            At most a hundred.
    """

    def __init__(self, recorder: UsageRecorder) -> None:
        self._recorder = recorder
        self.models: frozenset[str] = frozenset()

    def begin(self, record: UsageRecord, bound: Bound) -> None:
        self._recorder.begin(record, bound)

    def amend(self, record: UsageRecord, bound: Bound) -> None:
        self._recorder.amend(record, bound)

    def end(self, record: UsageRecord) -> None:
        if record.cost_usd is None and record.total_tokens:
            self._remember(record.counted_model)
        self._recorder.end(record)

    def _remember(self, model: str) -> None:
        if model not in self.models and len(self.models) < _MOST_MODELS:
            # A new set, because another thread may be reading the old one.
            self.models |= {model}

    def cancel(self, record_id: str) -> None:
        self._recorder.cancel(record_id)
