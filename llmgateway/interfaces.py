"""The edges of the gateway as contracts; ``stores/`` and ``azure/client.py`` fulfil them.

Every method may be called from any thread. Every method raises
:class:`~llmgateway.errors.StoreUnavailable` when its backend does not answer within its
time-out, whatever the driver calls that; a driver's own exceptions never get out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Protocol

from .azure.cancellation import CancellationToken
from .ratelimit.reservations import Commit, CounterRequest, Decision
from .records import (
    AuditEntry,
    Batch,
    Group,
    KeyRecord,
    Limits,
    Lookup,
    Organisation,
    Outcome,
    Prices,
    Prompt,
    Rebuilding,
    UsageRecord,
    UsageRow,
)


class KeyStore(Protocol):
    """The keys that were handed out, by identifier and by digest.

    A change is seen by every :meth:`find` that starts after the change has returned, in
    every process and on every host.
    """

    def find(self, digest: str) -> Lookup:
        """Look the key with this *digest* up, together with the present generation. One round trip.

        A key that is being replaced is found by its ``retiring_digest`` too; whether it still opens
        anything is for the caller to say.
        """
        ...

    def add(self, record: KeyRecord) -> bool:
        """Store a new key; False if one with the same digest (retiring, too) or identifier exists. Atomic."""
        ...

    def add_all(self, records: Sequence[KeyRecord]) -> set[str]:
        """Store all of these new keys, or none.

        Returns:
            The digests that exist already; if it is not empty, nothing was stored.
        """
        ...

    def get(self, key_id: str) -> KeyRecord | None: ...

    def list(
        self,
        *,
        user: str | None = None,
        group: str | None = None,
        active: bool | None = None,
        after: str = "",
        limit: int | None = None,
    ) -> list[KeyRecord]:
        """Those that match every given filter, oldest identifier first, behind identifier *after*."""
        ...

    def update(self, key_id: str, changes: Mapping[str, object]) -> KeyRecord | None:
        """Set the named fields of one key and return it as it is now; None if there is no such key.

        Atomic: two updates of different fields at once both hold. *changes* has names and
        values of :class:`KeyRecord` fields, never ``id``, ``digest`` or ``retiring_digest``.
        """
        ...

    def rotate(self, key_id: str, digest: str, *, retires_at: datetime | None) -> KeyRecord | None:
        """Let the key with this *digest* take the place of the one there is; None if there is no such key.

        The one there was is found until *retires_at*; None lets it go at once. One that was retiring
        before goes at once in any case. Atomic.
        """
        ...

    def revoke_group(self, group: str) -> Sequence[KeyRecord]:
        """Make every active key of *group* inactive, and return those that were active, as they are now."""
        ...

    def remove(self, key_id: str) -> bool:
        """Forget a key; False if there was none."""
        ...


class OrganisationStore(Protocol):
    """What admins set for everybody. Every change makes a new generation, in the same step."""

    def load(self) -> Organisation: ...

    def set_prompt(self, text: str, set_at: datetime) -> Prompt:
        """Make *text* the organisation's prompt from the next request on, as a version above every other so far.

        Atomic: of two calls at once both versions are kept and the higher one is in force.
        """
        ...

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        """Keep *text* as a version above every other so far, of a group or a key.

        It comes into force when it is put into the group (:meth:`set_group`) or the key
        (:meth:`KeyStore.update`), so it begins no generation.
        """
        ...

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        """Every version there ever was, newest first; with *scope* (empty for the organisation) those of one."""
        ...

    def set_limits(self, limits: Limits) -> None:
        """Keep what everybody together may use."""
        ...

    def set_group(self, group: Group) -> None:
        """Keep *group*, in place of the one of its name if there is one. Leaves other groups as they are."""
        ...

    def remove_group(self, name: str) -> bool:
        """Forget a group; False if there was none. Its keys keep its name."""
        ...

    def set_credential(self, credential: bytes) -> None:
        """Keep Azure's key, which comes encrypted."""
        ...

    def set_prices(self, model: str, prices: Prices | None) -> None:
        """Keep what *model* costs; None goes back to its list price. Leaves other models as they are."""
        ...


class UsageLog(Protocol):
    """The usage records, and their sums by day.

    Each record is in the sums exactly once, whatever fails on the way, and stays in them when
    the record itself is purged.
    """

    def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
        """Store *records* and add them to the sums; one whose identifier is there already is left as it was.

        After a normal return all is durable. After an error any part of it may be, and the
        source repeats the same batch until it is accepted, before it comes with a higher number.
        A number that is not above the last one accepted of its source is known, and nothing happens.

        Raises:
            StoreUnavailable: the sums are being rebuilt, too.
        """
        ...

    def report(
        self,
        *,
        by: Sequence[str] = (),
        first_day: date | None = None,
        last_day: date | None = None,
        key_id: str | None = None,
        group: str | None = None,
        promptly: bool = False,
    ) -> Iterable[UsageRow]:
        """Sum whole UTC days, both included, grouped by any of ``GROUPINGS``. Reads no record.

        With *promptly* it gives up after a few seconds, because a request waits for it.

        Rows come in ascending order of the groupings as given (a missing value first).
        Without groupings there is exactly one row, all zeros if nothing matches.
        """
        ...

    def records(
        self,
        *,
        key_id: str | None = None,
        user: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        outcome: Outcome | None = None,
        after: str = "",
        limit: int,
    ) -> list[UsageRecord]:
        """Those that match every given filter, newest first, behind identifier *after*.

        From *since* up to, not including, *until*. Nothing if *after* is not there (any more:
        then what is behind it has been purged or soon will be).
        """
        ...

    def purge(self, first_day: date, *, limit: int) -> int:
        """Remove at most *limit* records from before *first_day*, and say how many. The sums stay."""
        ...

    def rebuild(self) -> Iterator[Rebuilding]:
        """Count the sums again from the records, day by day, while everything else goes on.

        Days of which records were purged are kept. To stop in the middle does no harm.
        """
        ...


class Spending(Protocol):
    """What was used in a period, for budgets whose counters do not know."""

    def so_far(self, *, first_day: date | None, key_id: str | None = None, group: str | None = None) -> UsageRow:
        """Sum what the usage log has from *first_day* on: of one key, of one group, or of everybody.

        Somebody waits for the answer: after a failure, StoreUnavailable comes at once for a while.
        """
        ...


class CounterStore(Protocol):
    """The counters behind limits, shared by everybody who shares the store.

    Time is the store's own where it has one. Counters that nobody uses disappear.
    """

    def reserve(self, reservation: str, counter_requests: Sequence[CounterRequest], *, lease: float) -> Decision:
        """Reserve the amounts of all of *counter_requests*, or none. Atomic, and one round trip.

        Args:
            reservation: The request's identifier, new.
            counter_requests: Each of another counter.
            lease: Seconds until what is held of gauges and budget totals comes back if the reservation is neither
                committed nor renewed. Windows forget by themselves.
        """
        ...

    def commit(self, commits: Sequence[Commit]) -> None:
        """Replace the reserved amounts by the true ones, in the second in which they were reserved. Gauges go back.

        If that second has left the window, what exceeds the reserved amount is added now: the rest has been counted.
        If the reservation is not there any more (the lease ran out, the store was emptied), the true amounts are added:
        a caller commits once. A budget total that is not initialised is left alone: it begins with what the usage log
        says. What was reserved and is not committed goes back, but not in windows, which keep it. Each commit is
        atomic.
        """
        ...

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        """Let the leases of these run *lease* seconds from now; one that is not there any more stays so."""
        ...

    def look(self, counter_requests: Sequence[CounterRequest]) -> Decision:
        """What :meth:`reserve` would say now without those who share a window. Nothing is reserved."""
        ...

    def initialise(self, counter: str, used: int, *, until: int | None) -> None:
        """Begin a budget total with what was *used* so far, if nobody has done so lately; else nothing happens.

        When its initialisation is older than ``TRUSTED_SECONDS`` and nothing is held of it, or older than
        ``TRUSTED_AT_MOST_SECONDS``, a total has to be initialised again: :meth:`reserve` and :meth:`look` say so. What
        running requests hold of the total before is added when they are committed.
        """
        ...

    def confirm(self, counter: str) -> bool:
        """Trust an old initialisation for longer; False if there is none.

        For when the usage log is away, from which the total would be initialised.
        """
        ...

    def forget(self, counters: Sequence[str]) -> None:
        """Make budget totals uninitialised. What running requests hold of them is added when they are committed."""
        ...

    def flush(self) -> None:
        """Write down what this process has counted in memory, before it ends. Raises nothing."""
        ...


class AuditLog(Protocol):
    """What admins changed. Entries are never changed and never removed."""

    def append(self, entry: AuditEntry) -> None: ...

    def entries(self, *, target: str | None = None, after: str = "", limit: int) -> list[AuditEntry]:
        """Newest first, behind identifier *after*; with *target* those that changed it."""
        ...


class Answer(Protocol):
    """Azure's answer: its head, and its body as it arrives. Used by one thread at a time."""

    status: int
    headers: list[tuple[str, str]]
    """Those that the client gets, lower case."""
    region: str | None
    upstream_request_id: str | None
    is_event_stream: bool

    def read(self) -> bytes:
        """Return what has arrived, waiting for at least one byte; nothing at the end.

        Raises:
            UpstreamTimeout: silence for longer than the time between bytes may be.
            UpstreamBroken: the answer ended before its end.
            ClientGone: the request was cut.
        """
        ...

    def close(self) -> None:
        """Let the connection go: kept for another request after the end of the body, closed before."""
        ...


class Upstream(Protocol):
    """Azure."""

    def send(
        self, body: bytes, *, deployment: str, credential: str, request_id: str, cancellation: CancellationToken
    ) -> Answer:
        """Send one completion and wait for the head of the answer.

        Args:
            request_id: Goes along as ``x-ms-client-request-id``.
            cancellation: Lets another thread cut the request, also while the answer is read.

        Raises:
            UpstreamUnreachable: nothing was sent.
            UpstreamTimeout, UpstreamBroken: it was sent, wholly or in part, and no answer came.
            ClientGone: it was cut.
        """
        ...


class UsageRecorder(Protocol):
    """Where every request that goes to Azure is written down. Takes no longer than a write to disk."""

    def begin(self, record: UsageRecord) -> None:
        """Write down that a request is being sent, with the record it leaves if our process dies."""
        ...

    def end(self, record: UsageRecord) -> None:
        """Write down how it ended."""
        ...

    def cancel(self, record_id: str) -> None:
        """Write down that it was not sent after all."""
        ...


class Pingable(Protocol):
    """A backend that can be asked whether it is there."""

    name: str
    """What operators call it: ``sqlite``, ``redis``, ``mongodb``."""

    def ping(self) -> None:
        """Do the least that proves the backend serves; cheap enough for a probe every second."""
        ...
