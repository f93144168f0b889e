"""Questions to the usage log, and its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple

from .usage import Outcome, UsageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuery:
    """Selects the usage records that match every given field, newest first."""

    key_id: str | None = None
    user: str | None = None
    group: str | None = None
    error_code: str | None = None
    groups: tuple[str, ...] | None = None
    """Only records that were made in these groups. The record of ``after`` has to be one of them, too."""
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    outcome: Outcome | None = None
    usage_source: UsageSource | None = None
    status: int | None = None
    model: str | None = None
    """As the client named it."""
    deployment: str | None = None
    endpoint: str | None = None
    stream: bool | None = None
    region: str | None = None
    min_duration_ms: float | None = None
    after: str = ""
    """Only records after this identifier, which is the last one of the page before."""
    before: tuple[datetime, str] | None = None
    """Like ``after``, with the time of that record, which need not exist any more."""
    newer_than: tuple[datetime, str] | None = None
    """Only records that arrived after this time, or then with a higher identifier."""
    limit: int
    """Maximum number of records."""


GROUPINGS = ("day", "week", "month", "user", "key", "group", "model", "deployment")
"""Possible groupings of a usage report. ``key`` is the record's ``key_id``; weeks begin on Monday. ``deployment`` is
missing in sums that an older version has stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportQuery:
    """Selects the usage to add up: whole days, inclusive; of one key, one user or some groups if they are given."""

    by: Sequence[str] = ()
    """Elements of ``GROUPINGS``."""
    in_utc: bool = False
    """Whether the days, also those to group by, are those of UTC, as on Azure's bill. Otherwise they are those of the
    organisation's time zone. Usage that an older version has added up counts on its UTC day in both."""
    first_day: date | None = None
    last_day: date | None = None
    key_id: str | None = None
    user: str | None = None
    group: str | None = None
    among: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By grouping: only these values of it. So one query adds up the usage of a whole page of keys."""
    groups: tuple[str, ...] | None = None
    """Only usage in these groups."""
    top: int | None = None
    """Only this many rows: those with the highest cost, the highest first."""
    promptly: bool = False
    """If true, the store gives up after a few seconds, because a request waits for the answer."""


ALL_USAGE = ReportQuery()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums of the usage records that have the values in ``by``."""

    by: dict[str, str | None]
    """Value of each grouping: ``day`` like ``2026-01-31``, ``week`` like ``2026-W05`` (ISO 8601), ``month`` like
    ``2026-01``."""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float = 0.0
    """Sum of the known costs."""
    errors: int = 0
    """Number of records whose outcome is not ``ok``."""
    unpriced_requests: int = 0
    """Number of records with tokens whose cost is not known."""
    estimated_tokens: int = 0
    """The part of ``total_tokens`` that is from records with :attr:`UsageSource.ESTIMATED`."""
    bound_tokens: int = 0
    """The part of ``total_tokens`` that is from records with :attr:`UsageSource.BOUND`."""


FILTER_GROUPINGS = ("day", "month", "user", "key", "group", "model", "category", "severity")
"""Possible groupings of a report about content filters."""


class FilterCount(NamedTuple):
    """How many records have the same fields and findings of the content filter."""

    day: str
    """Like ``2026-01-31``."""
    user: str
    key_id: str
    group: str | None
    model: str
    fired: tuple[str, ...]
    severities: tuple[str, ...]
    """As in :attr:`UsageRecord.filter_severities`."""
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilding:
    """The progress of :meth:`~llmgateway.interfaces.UsageLog.rebuild`."""

    done: int
    """Number of days whose sums have been computed."""
    days: int
    """Number of all days to compute."""
    kept_before: date | None
    """The sums of earlier days are kept, because their records have been purged. None if nothing was purged."""
