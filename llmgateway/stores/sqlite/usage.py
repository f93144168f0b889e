"""The usage records, in the embedded store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime

from llmgateway.records import UsageRecord, UsageRow
from llmgateway.stores.epoch import to_ms

from .database import SQLiteDatabase

_FIELDS = tuple(field.name for field in fields(UsageRecord))
_COLUMNS = ", ".join(f'"{name}"' for name in _FIELDS)
_GROUPINGS = {
    "day": "strftime('%Y-%m-%d', timestamp / 1000, 'unixepoch')",
    "month": "strftime('%Y-%m', timestamp / 1000, 'unixepoch')",
    "user": "user",
    "key": "key_id",
    "group": '"group"',
    "model": "model",
}
_SUMS = {
    "requests": "count(*)",
    "prompt_tokens": "coalesce(sum(prompt_tokens), 0)",
    "completion_tokens": "coalesce(sum(completion_tokens), 0)",
    "total_tokens": "coalesce(sum(total_tokens), 0)",
    "cached_tokens": "coalesce(sum(cached_tokens), 0)",
    "reasoning_tokens": "coalesce(sum(reasoning_tokens), 0)",
    "cost_usd": "total(cost_usd)",
    "errors": "coalesce(sum(outcome <> 'ok'), 0)",
}

# Only names of our own are put into statements; values are always parameters.
# "ON CONFLICT (id) DO NOTHING" and not "OR IGNORE": that would also swallow a row with a value missing.
_APPEND = f"""
    INSERT INTO logs ({_COLUMNS}) VALUES ({", ".join("?" * len(_FIELDS))})
    ON CONFLICT (id) DO NOTHING
"""  # noqa: S608


class SQLiteUsageLog:
    """A :class:`~llmgateway.interfaces.UsageLog` in the embedded store's file.

    A batch is one transaction: after an error none of it is stored.
    """

    def __init__(self, database: SQLiteDatabase) -> None:
        self._database = database

    def append(self, records: Sequence[UsageRecord]) -> None:
        with self._database.transaction() as connection:
            connection.executemany(_APPEND, map(_row, records))

    def report(
        self,
        *,
        by: Sequence[str] = (),
        start: datetime | None = None,
        end: datetime | None = None,
        key_id: str | None = None,
    ) -> list[UsageRow]:
        filters = {
            "timestamp >= ?": None if start is None else to_ms(start),
            "timestamp < ?": None if end is None else to_ms(end),
            "key_id = ?": key_id,
        }
        wanted = {condition: value for condition, value in filters.items() if value is not None}
        grouped = ", ".join(str(position + 1) for position in range(len(by)))
        rows = self._database.rows(
            f"SELECT {', '.join([*(_GROUPINGS[name] for name in by), *_SUMS.values()])} FROM logs"  # noqa: S608
            + (f" WHERE {' AND '.join(wanted)}" if wanted else "")
            + (f" GROUP BY {grouped} ORDER BY {grouped}" if by else ""),
            list(wanted.values()),
        )
        return [
            UsageRow(by=dict(zip(by, row[: len(by)], strict=True)), **dict(zip(_SUMS, row[len(by) :], strict=True)))
            for row in rows
        ]


def _row(record: UsageRecord) -> list[object]:
    return [_stored(getattr(record, name)) for name in _FIELDS]


def _stored(value: object) -> object:
    if isinstance(value, datetime):
        return to_ms(value)
    if isinstance(value, tuple):
        return json.dumps(value)
    return value
