"""The edges of the gateway as contracts; ``stores/`` and ``upstream.py`` fulfil them.

Every method may be called from any thread. Every method raises
:class:`~llmgateway.errors.StoreUnavailable` when its backend does not answer within its
time-out, whatever the driver calls that; a driver's own exceptions never get out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Protocol

from .records import (
    Batch,
    KeyRecord,
    Lookup,
    Organisation,
    Outcome,
    Prices,
    Prompt,
    Rebuilding,
    UsageRecord,
    UsageRow,
)
from .transmission import Transmission


class KeyStore(Protocol):
    """The keys that were handed out, by identifier and by digest.

    A change is seen by every :meth:`find` that starts after the change has returned, in
    every process and on every host.
    """

    def find(self, digest: str) -> Lookup:
        """Look the key with this *digest* up, together with the present generation. One round trip."""
        ...

    def add(self, record: KeyRecord) -> bool:
        """Store a new key; False if one with the same digest or identifier exists. Atomic."""
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
        values of :class:`KeyRecord` fields, never ``id`` or ``digest``.
        """
        ...

    def remove(self, key_id: str) -> bool:
        """Forget a key; False if there was none."""
        ...


class OrganisationStore(Protocol):
    """What admins set for everybody. Every change makes a new generation, in the same step."""

    def load(self) -> Organisation: ...

    def set_prompt(self, text: str, set_at: datetime) -> Prompt:
        """Make *text* the prompt from the next request on, as a version one above the highest so far.

        Atomic: of two calls at once both versions are kept and the higher one is in force.
        """
        ...

    def prompt_versions(self) -> list[Prompt]:
        """Every version there ever was, newest first."""
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
    ) -> Iterable[UsageRow]:
        """Sum whole UTC days, both included, grouped by any of ``GROUPINGS``. Reads no record.

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
            ClientGone: the transmission was cut.
        """
        ...

    def close(self) -> None:
        """Let the connection go: kept for another request after the end of the body, closed before."""
        ...


class Upstream(Protocol):
    """Azure."""

    def send(
        self, body: bytes, *, deployment: str, credential: str, request_id: str, transmission: Transmission
    ) -> Answer:
        """Send one completion and wait for the head of the answer.

        Args:
            request_id: Goes along as ``x-ms-client-request-id``.
            transmission: Can be cut by another thread, also while the answer is read.

        Raises:
            UpstreamUnreachable: nothing was sent.
            UpstreamTimeout, UpstreamBroken: it was sent, wholly or in part, and no answer came.
            ClientGone: it was cut.
        """
        ...


class Books(Protocol):
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
