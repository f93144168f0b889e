"""Stores of usage records and refusals, and what reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Protocol

from ..records import (
    ALL_USAGE,
    Batch,
    Bound,
    DaySpread,
    Erasure,
    FilterCount,
    Kept,
    Owned,
    Rebuilding,
    RecordQuery,
    Refusal,
    RefusalCount,
    RefusalQuery,
    ReportQuery,
    UsageRecord,
    UsageRow,
)


class UsageLog(Protocol):
    """Stores the usage records, and their sums by day: of UTC, and of the organisation's time zone.

    Each record is counted in the sums exactly once, also after failures. It stays in the sums when the record itself
    is purged. Its timestamp decides which time zone holds for it, whenever it is appended.

    The tokens and the cost of attempts at several deployments are counted at each of these deployments.
    """

    def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
        """Store *records* and add them to the sums. A record whose identifier exists already is ignored.

        After a normal return everything is durable. After an error any part may be durable. The source must repeat
        the same batch until it is accepted, before it sends a batch with a higher number. A batch whose number is not
        higher than the last accepted number of its source is a repetition, and is ignored.

        Raises:
            StoreUnavailable: also while the sums are being rebuilt.
        """
        ...

    def report(self, query: ReportQuery = ALL_USAGE) -> Iterable[UsageRow]:
        """Add up usage. Reads only the sums, not the records.

        Rows are sorted by the groupings, in the given order, ascending (a missing value first); with ``query.top`` by
        their cost.
        Without groupings there is exactly one row; it contains zeros if nothing matches.
        """
        ...

    def spreads(self, query: ReportQuery = ALL_USAGE) -> Iterable[DaySpread]:
        """Say for each day how long its requests took and at which hour they came. Reads only the sums.

        *query* may name days of the organisation, groups, models and deployments; it has no groupings, and no user and
        no key. Days without requests are missing. Requests that an older version has added up have no spread, until
        somebody rebuilds the sums from records that are still there.
        """
        ...

    def records(self, query: RecordQuery) -> list[UsageRecord]:
        """Return a page of records.

        The page is empty if the record ``query.after`` does not exist: older records have been purged, too, or will
        be purged soon.
        """
        ...

    def horizon(self, query: RecordQuery, *, most: int) -> datetime | None:
        """Return from when on a page of *query* looks at about *most* records; None if no bound is needed.

        Not every filter has an index. If one has none, and few records match, all others would be read to fill a page.
        Records of one key, group and so on are scattered among others, so that it takes longer to look at them: of
        these it is a small part of *most*, and of several groups together, too.
        """
        ...

    def last_used(self, key_ids: Sequence[str]) -> Mapping[str, datetime]:
        """Return when each of these keys was last used: the time of its last record.

        If all its records are purged, it is the end of the last day in its sums. Keys without any usage are missing.
        """
        ...

    def find(self, request_id: str) -> UsageRecord | None:
        """Return the record with this identifier, or that of the request to which Azure has given it.

        Azure gives one to each attempt. None if there is no such record, or if it was purged.
        """
        ...

    def find_stored(self, stored_id: str) -> UsageRecord | None:
        """Return the record of the request that made the response, the item or the container *stored_id*.

        None if there is none, or if it was purged. A container may be in several records, all of the same user. A
        request waits for the answer.
        """
        ...

    def filter_counts(self, query: ReportQuery = ALL_USAGE) -> Iterable[FilterCount]:
        """Count the records in which a content filter found something, by day. ``query.by`` is ignored.

        Reads the records, not the sums: those that were purged are not counted.
        """
        ...

    def purge(self, first_day: date, *, limit: int) -> int:
        """Delete at most *limit* records from before *first_day* (UTC), and return their number. The sums stay."""
        ...

    def kept_of(self, user: str) -> Kept:
        """Return under which keys usage of *user* is stored, and the number of records."""
        ...

    def erase(self, erasure: Erasure) -> None:
        """Replace the name and the address of a person in the records, and the name in the sums. Nothing else changes.

        *erasure* must be in :class:`Erasures` before. Then it also holds for records that another process appends at
        the same moment, and later. It may be called again, also after an error.
        """
        ...

    def rebuild(self) -> Iterator[Rebuilding]:
        """Compute the sums again from the records, UTC day by UTC day, while the gateway runs.

        Days whose records were purged keep their sums. The iteration may be stopped at any point.
        """
        ...


class Spending(Protocol):
    """Says what was used in a period, for budgets whose counters are not initialised."""

    def so_far(
        self, *, first_day: date | None, key_id: str | None = None, user: str | None = None, group: str | None = None
    ) -> UsageRow:
        """Add up the usage from *first_day* on: of one key, of one person, of one group, or of everybody.

        With a person and a group, this is what the person has used with keys of that group. *first_day* is a day of
        the organisation's time zone.

        Days are those of the organisation's time zone.

        A request waits for the answer. So after a failure, StoreUnavailable is raised for a while without asking the
        usage log.
        """
        ...

    def by_name(
        self, groupings: Sequence[str], names: Sequence[tuple[str, ...]], *, first_day: date | None
    ) -> Mapping[tuple[str, ...], UsageRow]:
        """Add up the usage from *first_day* on of each of *names*, which are values of *groupings*.

        One query for all of them. Those without usage are missing.
        """
        ...


class StoredResponses(Protocol):
    """Knows whose the responses are that Azure stores, with their items and containers. All processes share it.

    Azure keeps them for 30 days, and everybody who has the key of the resource can read them: so this decides.
    """

    def remember(self, record: UsageRecord) -> None:
        """Note that what *record* names belongs to its user. Raises nothing: the journal has the record, too."""
        ...

    def find(self, stored_id: str, *, anew: bool = False) -> Owned | None:
        """Return whose *stored_id* is; None if no user of this gateway has made it.

        Args:
            anew: Ask the stores also if this process remembers it.

        Raises:
            StoreUnavailable: it was not found, and one of the stores that may have it did not answer.
        """
        ...

    def of(self, user: str) -> Mapping[str, Owned]:
        """Return what belongs to *user*, by identifier, as far as all processes share it beside the usage log."""
        ...

    def forget(self, owns: Callable[[Owned], bool]) -> None:
        """Forget, in this process and in what all processes share, whose those are for which *owns* is true."""
        ...


class RefusalLog(Protocol):
    """Keeps the requests that the gateway refused, for a while."""

    def append(self, refusals: Sequence[Refusal]) -> None:
        """Store *refusals*. Of one that is stored already, only ``count``, ``last_at`` and ``repeats`` are updated.

        The same call can be repeated after an error. An older state never replaces a newer one.
        """
        ...

    def find(self, request_id: str) -> Refusal | None:
        """Return the refusal with this identifier, or that has it among its ``repeats``; None if there is none."""
        ...

    def list(self, query: RefusalQuery) -> list[Refusal]: ...

    def counts(
        self,
        *,
        since: datetime | None,
        until: datetime | None,
        group: str | None = None,
        groups: tuple[str, ...] | None = None,
    ) -> Iterable[RefusalCount]:
        """Count the refusals of a period that ends before *until*, with their repetitions.

        Args:
            groups: Only those of these groups, if it is not None.
        """
        ...

    def kept_of(self, user: str) -> Kept:
        """Return for which keys requests of *user* were refused, and the number of refusals."""
        ...

    def erase(self, erasure: Erasure) -> None:
        """Replace user and address in the refusals of a person.

        *erasure* must be in :class:`Erasures` before. Then it also holds for what is appended at the same moment, and
        later.
        """
        ...

    def purge(self, before: datetime, *, most: int, limit: int) -> int:
        """Delete what is older than *before*, and the oldest of more than *most*; return the number deleted.

        Args:
            limit: The most that one call deletes.
        """
        ...


class UsageRecorder(Protocol):
    """Records every request that is sent to Azure. A call takes no longer than a write to disk."""

    def begin(self, record: UsageRecord, bound: Bound) -> None:
        """Record that a request is being sent.

        If this process dies, *record* is the final record, with the completion tokens that *bound* allows.
        """
        ...

    def amend(self, record: UsageRecord, bound: Bound) -> None:
        """Replace the record of :meth:`begin` of a request that still runs, because more is known of it now."""
        ...

    def end(self, record: UsageRecord) -> None:
        """Record how the request ended."""
        ...

    def cancel(self, record_id: str) -> None:
        """Record that the request was not sent."""
        ...
