"""Remembers which models were used without a known price."""

from __future__ import annotations

from ..interfaces import UsageRecorder
from ..records import Bound, UsageRecord

_MOST_MODELS = 100


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
