"""Reads from the usage log what was used so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from llmgateway.interfaces import UsageLog
from llmgateway.records import ReportQuery, UsageRow

from .circuit import Circuit


class LoggedSpending:
    """A :class:`~llmgateway.interfaces.Spending` that reads the sums of *usage_log*, with a circuit breaker."""

    def __init__(self, usage_log: UsageLog, *, circuit: Circuit) -> None:
        self._usage_log = usage_log
        self._circuit = circuit

    def so_far(
        self, *, first_day: date | None, key_id: str | None = None, user: str | None = None, group: str | None = None
    ) -> UsageRow:
        query = ReportQuery(first_day=first_day, key_id=key_id, user=user, group=group, promptly=True)
        (row,) = self._circuit.call(lambda: self._usage_log.report(query))
        return row

    def by_name(
        self, groupings: Sequence[str], names: Sequence[tuple[str, ...]], *, first_day: date | None
    ) -> Mapping[tuple[str, ...], UsageRow]:
        among = {by: [*dict.fromkeys(name[place] for name in names)] for place, by in enumerate(groupings)}
        query = ReportQuery(by=tuple(groupings), among=among, first_day=first_day, promptly=True)
        rows = self._circuit.call(lambda: [*self._usage_log.report(query)])
        found = {tuple(row.by[by] or "" for by in groupings): row for row in rows}
        return {name: found[name] for name in names if name in found}
