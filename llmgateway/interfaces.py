"""The interfaces between the gateway and its backends. ``stores/``, ``azure/`` and ``usage/`` implement them.

Every method may be called from any thread. Every method raises
:class:`~llmgateway.errors.StoreUnavailable` when its backend fails or does not answer within the timeout.
The exceptions of a driver are translated and never leave the implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple, Protocol

from .azure.cancellation import CancellationToken
from .azure.deployments import Target
from .azure.endpoint import Endpoint
from .azure.failures import Failure
from .ratelimit.reservations import Commit, CounterRequest, Decision
from .records import (
    ALL_KEYS,
    ALL_USAGE,
    AdminRecord,
    Alert,
    AuditEntry,
    AuditQuery,
    Batch,
    Bound,
    Erasure,
    FilterCount,
    Group,
    Imported,
    Kept,
    KeyChange,
    KeyQuery,
    KeyRecord,
    Limits,
    Lookup,
    ModelSettings,
    Organisation,
    Outage,
    Owned,
    Person,
    Prompt,
    Quota,
    Rebuilding,
    RecordQuery,
    Refusal,
    RefusalQuery,
    ReportQuery,
    UsageRecord,
    UsageRow,
    User,
)


class KeyStore(Protocol):
    """Stores the keys of users, by identifier and by digest.

    Every :meth:`find` that starts after a change has returned sees that change, in every process and on every host.

    A key cannot be put into a group that does not exist. If one call puts a key into a group and another call removes
    the group at the same time, at least one of them fails, even if a process dies in between.
    """

    def find(self, digest: str) -> Lookup:
        """Look up the key with this *digest*, together with the current version of the organisation.

        A key that is being replaced is also found by its ``retiring_digest``. The caller must check whether that
        digest is still valid.
        """
        ...

    def add(self, record: KeyRecord) -> bool:
        """Store a new key. Return False if its identifier or one of its digests exists already. Atomic.

        Raises:
            NoSuchGroup: the key's group does not exist, or is being removed.
        """
        ...

    def add_all(self, records: Sequence[KeyRecord]) -> set[str]:
        """Store all of these new keys, or none.

        Returns:
            The digests that exist already. If there are any, nothing was stored.

        Raises:
            NoSuchGroup: the group of one of the keys does not exist, or is being removed. Nothing was stored.
        """
        ...

    def import_all(self, records: Sequence[KeyRecord], changes: Sequence[KeyChange], *, alone: bool) -> Imported:
        """Store all of these new keys and make all of these changes, or none.

        A key that no longer exists is not changed.

        Args:
            records: New keys, no two of which share a digest.
            changes: Of keys that exist. They never change the group.
            alone: Whether nothing is stored if a user of *records* has a key in the same group already. Of two calls
                at the same time the second one finds the keys of the first.

        Raises:
            NoSuchGroup: as :meth:`add_all`.
            StoreUnavailable: also if another import has not ended in time.
        """
        ...

    def of_users(self, users: Collection[str]) -> list[KeyRecord]:
        """Return all keys of these users, whose names are compared exactly."""
        ...

    def get(self, key_id: str) -> KeyRecord | None: ...

    def get_all(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        """Return those of these keys that exist, sorted by identifier."""
        ...

    def list(self, query: KeyQuery = ALL_KEYS) -> list[KeyRecord]: ...

    def users(self, *, after: str = "", limit: int) -> Sequence[User]:
        """Return people who have keys, by name in the order of code points, behind the name *after*."""
        ...

    def update(
        self,
        key_id: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        """Set the named fields of one key and return the changed key; None if there is no such key.

        Atomic: if two calls update different fields at the same time, both updates are kept.

        Args:
            changes: Names and values of :class:`KeyRecord` fields; never ``id``, ``digest`` or ``retiring_digest``.
            limits: Fields of :class:`Limits` to set; the value ``None`` removes a limit. Other fields do not change.
            check: Called with the key as it is before, and may be called several times. Nobody changes the key between
                its last call and this change, which is not made if it raises an error. It must not use a store.

        Raises:
            NoSuchGroup: the new group of the key does not exist, or is being removed.
        """
        ...

    def rotate(
        self,
        key_id: str,
        digest: str,
        *,
        retires_at: datetime | None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        """Give the key a new *digest* and return the changed key; None if there is no such key. Atomic.

        The old digest becomes the ``retiring_digest`` until *retires_at*. If *retires_at* is None, the old digest
        stops working at once. A digest that was retiring before stops working at once in any case.

        Args:
            check: As for :meth:`update`.
        """
        ...

    def revoke_group(self, group: str) -> Sequence[KeyRecord]:
        """Deactivate every active key of *group*, and return the changed keys."""
        ...

    def remove(self, key_id: str, *, check: Callable[[KeyRecord], None] | None = None) -> KeyRecord | None:
        """Delete a key, and return the deleted key; None if there is no such key. Atomic.

        Args:
            check: As for :meth:`update`.
        """
        ...

    def update_all(
        self, key_ids: Sequence[str], changes: Mapping[str, object], *, where: KeyQuery = ALL_KEYS
    ) -> Sequence[KeyRecord]:
        """Set the named fields of these keys, and return the changed keys, sorted by identifier.

        Identifiers that are not known are ignored. Each key changes atomically. After an error any of them may have
        changed; a repetition has the same result.

        Args:
            changes: As for :meth:`update`. ``limits`` replaces all limits.
            where: Only keys that match it at the moment of their change are changed; ``after`` and ``limit`` are
                ignored.

        Raises:
            NoSuchGroup: the new group does not exist, or is being removed. No key was put into it.
        """
        ...

    def remove_all(self, key_ids: Sequence[str], *, where: KeyQuery = ALL_KEYS) -> Sequence[KeyRecord]:
        """Delete these keys, and return the deleted keys, sorted by identifier.

        Identifiers that are not known are ignored. After an error any of them may be deleted.

        Args:
            where: As for :meth:`update_all`.
        """
        ...


class AdminStore(Protocol):
    """Stores the named admins. There are few of them, so they are listed all at once.

    Every :meth:`find` that starts after a change has returned sees that change, in every process and on every host.
    """

    def find(self, digest: str) -> AdminRecord | None:
        """Return the admin with this *digest*, or ``retiring_digest``. The caller checks whether it is still valid."""
        ...

    def get(self, admin_id: str) -> AdminRecord | None: ...

    def list(self) -> list[AdminRecord]:
        """Return all admins, oldest first."""
        ...

    def add(self, record: AdminRecord) -> bool:
        """Store a new admin. Return False if the identifier, the name or the digest exists already. Atomic."""
        ...

    def change(
        self, admin_id: str, change: Callable[[AdminRecord], AdminRecord | None]
    ) -> tuple[AdminRecord, AdminRecord | None] | None:
        """Replace an admin, and return it as it was before and as it is after; None if there is no such admin. Atomic.

        Args:
            change: Returns the admin after the change, or None to delete it. It may be called several times. Nobody
                changes the admin between its last call and this change, which is not made if it raises an error. It
                must not use a store.

        Raises:
            NameTaken: another admin has the new name.
        """
        ...


class OrganisationStore(Protocol):
    """Stores what admins set for everybody. Every change also changes the version, in the same transaction."""

    def load(self) -> Organisation: ...

    def set_prompt(self, text: str, set_at: datetime, *, check: Callable[[Prompt], None] | None = None) -> Prompt:
        """Make *text* the organisation's prompt from the next request on, under the next version number.

        Atomic: if two calls run at the same time, both versions are kept, and the higher one is used.

        Args:
            check: As for :meth:`set_model`, with the organisation's prompt.
        """
        ...

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        """Store *text* under the next version number, as a prompt of a group or a key.

        The prompt is used when it is set in the group (:meth:`update_group`) or the key (:meth:`KeyStore.update`).
        So this method does not change the version of the organisation.
        """
        ...

    def erase_prompts(self, scopes: Collection[str], text: str) -> int:
        """Replace the text of all versions of the prompts of these keys (``key:ID``), and return their number.

        No prompt in force changes: the keys no longer exist.
        """
        ...

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        """Return every version that was ever set, newest first. *scope* selects one scope (empty: the organisation)."""
        ...

    def set_limits(self, limits: Limits, *, check: Callable[[Limits], None] | None = None) -> None:
        """Replace the limits of the organisation.

        Args:
            check: As for :meth:`set_model`, with the organisation's limits.
        """
        ...

    def update_limits(self, parts: Mapping[str, object], *, check: Callable[[Limits], None] | None = None) -> Limits:
        """Set some limits of the organisation (``None`` removes a limit), and return all of them. Atomic.

        Args:
            check: As for :meth:`set_limits`.
        """
        ...

    def set_group(self, group: Group, *, check: Callable[[Group | None], None] | None = None) -> Group:
        """Create a group, or replace the fields of the group with the same name; return the stored group. Atomic.

        An existing group keeps its ``created_at``, its ``prompt`` and its ``raised``. Other groups do not change.

        Args:
            check: As for :meth:`set_model`, with the group; None if there is no such group.
        """
        ...

    def update_group(
        self,
        name: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        member_limits: Mapping[str, object] | None = None,
        check: Callable[[Group], None] | None = None,
    ) -> Group | None:
        """Set the named fields of one group and return the changed group; None if there is no such group. Atomic.

        Args:
            changes: Names and values of :class:`Group` fields; never ``name`` or ``created_at``.
            limits: As for :meth:`KeyStore.update`.
            member_limits: The same for the limits of each member.
            check: As for :meth:`set_model`, with the group.
        """
        ...

    def remove_group(self, name: str, *, check: Callable[[Group], None] | None = None) -> Group | None:
        """Delete a group without keys, and return the deleted group; None if there is no such group.

        Args:
            check: As for :meth:`set_model`, with the group.

        Raises:
            InUse: the group has keys, or a key is being put into it.
        """
        ...

    def set_credential(self, credential: bytes) -> None:
        """Store Azure's key. The caller has encrypted it."""
        ...

    def set_model(
        self,
        model: str,
        parts: Mapping[str, object] | None,
        *,
        check: Callable[[Mapping[str, ModelSettings]], None] | None = None,
    ) -> ModelSettings:
        """Set the named fields of the settings of *model*, and return all of its settings. Atomic.

        Other models do not change. A model all of whose settings are ``None`` is forgotten.

        Args:
            model: Name of a model or a deployment.
            parts: Names and values of :class:`~llmgateway.records.ModelSettings` fields; None forgets all of them.
            check: Called with the settings of all models as they are before, and may be called several times. Nobody
                changes them between its last call and this change, which is not made if it raises an error.
        """
        ...

    def document(self, name: str) -> Mapping[str, Any]:
        """Return one of :attr:`~llmgateway.records.Organisation.documents`; empty if there is none.

        Costs less than :meth:`load`.
        """
        ...

    def update_document(self, name: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Replace one of :attr:`~llmgateway.records.Organisation.documents`, and return the new one. Atomic.

        Args:
            change: Returns the new document, from the one before; empty if there is none. It may be called several
                times. Nobody changes the document between its last call and this change, which is not made if it raises
                an error. An empty document is removed.
        """
        ...


class PersonStore(Protocol):
    """Stores what is set for people. :meth:`OrganisationStore.load` returns all of it, so requests need no look-up.

    Names are compared exactly: case, Unicode form and blanks make a difference.
    """

    def get(self, user: str) -> Person | None: ...

    def change(self, user: str, change: Callable[[Person | None], Person | None]) -> Person | None:
        """Replace what is set for one person, and return it. Atomic. This begins a new version of the organisation.

        After an error the change may be stored without a new version. A repetition of the call begins one.

        Args:
            change: Returns what is set from now on, from what was set before; None for nothing. It may be called
                several times. Nobody changes the person between its last call and this change, which is not made if
                it raises an error. It must not use a store.
        """
        ...


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

        Rows are sorted by the groupings, in the given order, ascending (a missing value first).
        Without groupings there is exactly one row; it contains zeros if nothing matches.
        """
        ...

    def records(self, query: RecordQuery) -> list[UsageRecord]:
        """Return a page of records.

        The page is empty if the record ``query.after`` does not exist: older records have been purged, too, or will
        be purged soon.
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


class CounterStore(Protocol):
    """The counters for limits. All processes that use the same store share them.

    The store's own clock is used if it has one. Counters that are no longer used are deleted.
    """

    def reserve(self, reservation: str, counter_requests: Sequence[CounterRequest], *, lease: float) -> Decision:
        """Reserve the amounts of all of *counter_requests*, or none. Atomic, and one round trip.

        If the amount of a budget total does not fit, but its ``at_least`` does and nothing is held of the total, all
        that is left of it is reserved.

        Args:
            reservation: The identifier of the request; it must be new.
            counter_requests: One at most for each counter.
            lease: Seconds after which gauges and budget totals get the reserved amounts back, if the reservation is
                neither committed nor renewed. Amounts in windows expire in any case.
        """
        ...

    def commit(self, commits: Sequence[Commit]) -> None:
        """Replace the reserved amounts by the true amounts. Each commit is atomic; a caller commits once.

        - Windows: the amount is replaced in the second in which it was reserved. If that second has left the window,
          only the part that exceeds the reserved amount is added, in the present second.
        - Gauges: the reserved amount is given back.
        - Budget totals: a total that is not initialised does not change. The usage log will initialise it.
        - A counter that was reserved but has no true amount in the commit gets its reserved amount back.
        - If the reservation does not exist (its lease ran out, or the store was emptied), the true amounts are added.
        """
        ...

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        """Extend the leases of *reservations* to *lease* seconds from now. A reservation that is gone is ignored."""
        ...

    def look(self, counter_requests: Sequence[CounterRequest]) -> Decision:
        """Return what :meth:`reserve` would return, without regard to fair shares. Nothing is reserved."""
        ...

    def initialise(self, counter: str, used: int, *, until: int | None) -> None:
        """Set a budget total to what was *used* so far, unless it was initialised recently.

        A total must be initialised again when its last initialisation is older than ``TRUSTED_SECONDS`` and running
        requests hold nothing of it, or older than ``TRUSTED_AT_MOST_SECONDS``. :meth:`reserve` and :meth:`look` report
        this. The amounts that running requests had reserved before are added when they are committed.
        """
        ...

    def confirm(self, counter: str) -> bool:
        """Treat an old initialisation as recent; False if there is none.

        This is used if the usage log is unavailable, so that the total cannot be initialised.
        """
        ...

    def forget(self, counters: Sequence[str]) -> None:
        """Make budget totals uninitialised. The amounts of running requests are added when they are committed."""
        ...

    def flush(self) -> None:
        """Store what this process has counted in memory, before it ends. Raises nothing."""
        ...


class AuditLog(Protocol):
    """Records the changes that admins make. Entries are never deleted, and only :meth:`erase` changes them."""

    def append(self, entry: AuditEntry) -> None: ...

    def entries(self, query: AuditQuery) -> list[AuditEntry]:
        """Return a page of entries."""
        ...

    def about(self, user: str | None, key_ids: Collection[str]) -> Sequence[AuditEntry]:
        """Return the entries whose target is *user* or one of *key_ids*, or that name *user*; oldest first."""
        ...

    def replace(self, user: str | None, key_ids: Collection[str], change: Callable[[AuditEntry], AuditEntry]) -> None:
        """Store the result of *change* for each of the entries of :meth:`about`, oldest first.

        Only targets and documents may change. This is for the erasure of a person, who is in :class:`Erasures` before
        the entries about *key_ids* are replaced: then an entry about them that is appended later loses the person's
        data, too.
        """
        ...


class Erasures(Protocol):
    """Remembers which persons were erased. What is kept contains no names."""

    def begin(self, erasure: Erasure) -> None:
        """Store *erasure*. After that it holds for everything that is stored later.

        If there is one with this pseudonym, it gets the other keys, too.
        """
        ...

    def of(self, key_ids: Collection[str]) -> Sequence[Erasure]:
        """Return the erasures, finished or not, of these keys."""
        ...

    def unfinished(self) -> Sequence[Erasure]:
        """Return the erasures that have to be carried out, oldest first."""
        ...

    def finish(self, pseudonym: str) -> None:
        """Note that the erasure is carried out. The digest of the name goes, unless there are shared keys."""
        ...

    def since(self, time: datetime) -> Sequence[Erasure]:
        """Return the erasures that began at *time* or later, oldest first."""
        ...


class Scrubbing(Protocol):
    """Removes from a file what was deleted, but may still be in it."""

    def rewrite(self) -> None:
        """Write the whole file anew, with nothing but what is stored. Other writers wait meanwhile."""
        ...

    def empty_wal(self) -> bool:
        """Make the write-ahead log empty; return False if a reader of an old snapshot is in the way. Try again then."""
        ...


class AlertStore(Protocol):
    """Warnings for admins with their deliveries, and what is wrong at present. All processes and hosts share it.

    So each warning is announced by one of them, and delivered also if that one dies. The time is passed in.
    """

    def add(self, alert: Alert) -> bool:
        """Store a new alert. Return False if its identifier exists already. Atomic."""
        ...

    def take(self, *, now: datetime, until: datetime) -> Alert | None:
        """Return an alert with a delivery that is due, the one that waits longest; None if there is none. Atomic.

        No other call returns it until *until*, unless :meth:`save` gives it back. So it is delivered later if the
        caller dies.
        """
        ...

    def save(self, alert: Alert, *, held_until: datetime | None = None) -> bool:
        """Store the deliveries of an alert that :meth:`take` has returned.

        Args:
            held_until: Until when the caller keeps it; None to give it back.

        Returns:
            False if the caller has kept it for too long, so that it belongs to another one. Nothing was stored.
        """
        ...

    def waiting(self) -> int:
        """Return the number of alerts with deliveries that wait."""
        ...

    def recent(self, *, limit: int) -> Sequence[Alert]:
        """Return alerts, newest first."""
        ...

    def observe(self, outage: Outage, *, until: datetime) -> Outage:
        """Note that *outage* is seen now, and return it with the time since which it is seen. Atomic.

        Args:
            until: Until when it lasts if nobody sees it again.
        """
        ...

    def clear(self, name: str, *, until: datetime) -> None:
        """Note that the outage *name* is not seen any more. It is over at *until* if nobody sees it again."""
        ...

    def outages(self) -> Sequence[Outage]:
        """Return those that have not ended."""
        ...

    def end(self, name: str, *, now: datetime) -> bool | None:
        """End the outage *name* if nobody has seen it for long enough. Atomic: one caller ends it.

        Returns:
            True if it was cleared, False if nobody knows what has become of it, None if it has not ended.
        """
        ...

    def claim(self, name: str, *, now: datetime, until: datetime) -> bool:
        """Return whether the caller may do what *name* stands for. No other one may until *until*. Atomic."""
        ...

    def purge(self, now: datetime) -> None:
        """Forget alerts and claims whose time is over. Those with a delivery that waits stay."""
        ...

    def forget_person(self, user: str) -> None:
        """Delete all alerts that name this person."""
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


class Cooldown(NamedTuple):
    """A deployment is left alone."""

    until: float
    """Seconds since the epoch."""
    limited: bool
    """Whether it is at its limit; else it has failed."""


class Cooldowns(Protocol):
    """Remembers which deployments are left alone for a while. Raises nothing: it is never worth an error."""

    def current(self) -> Mapping[str, Cooldown]:
        """Return those that are left alone now. Nearly always from memory."""
        ...

    def rest(self, deployment: str, seconds: float, *, limited: bool) -> None:
        """Leave a deployment alone. Other processes that share the store notice it within a second or two."""
        ...


class Answer(Protocol):
    """Azure's answer: its status and headers, and its body as it arrives. Used by one thread at a time."""

    status: int
    headers: list[tuple[str, str]]
    """The headers for the client, with names in lower case."""
    location: str | None
    """Where a redirect points to, for the operator: without the query, which may contain a secret."""
    region: str | None
    upstream_request_id: str | None
    is_event_stream: bool
    quota: Quota
    """What Azure says about the limits of the deployment that has answered."""
    spilled_to: str | None
    """The deployment that has answered in place of a provisioned one that was full; None if it did not spill over."""

    def arrived(self) -> bytes:
        """Return the part of the body that has arrived with the head, and do not wait. It can be read again."""
        ...

    def read(self) -> bytes:
        """Wait for at least one byte and return what has arrived; empty at the end of the body.

        Raises:
            UpstreamTimeout: nothing arrived for longer than ``LLMGATEWAY_BETWEEN_BYTES_TIMEOUT``.
            UpstreamBroken: the connection ended before the body was complete.
            ClientGone: the request was cancelled.
        """
        ...

    def close(self) -> None:
        """Release the connection. It is reused if the body was read to its end, and closed otherwise."""
        ...


class Upload(Protocol):
    """A body that is not in memory, such as a form with a recording. It can be sent several times."""

    content_type: str
    """The value of the header ``Content-Type``."""

    def __len__(self) -> int:
        """Return the number of bytes."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """Yield all bytes, from the first one on."""
        ...


class Upstream(Protocol):
    """Sends requests to Azure."""

    def send(
        self,
        body: bytes | Upload,
        *,
        target: Target,
        operation: str,
        in_path: bool = True,
        accept: str | None = None,
        request_id: str,
        cancellation: CancellationToken,
        seconds: float = math.inf,
    ) -> Answer:
        """Send one request and wait for the status and headers of the answer.

        Args:
            operation: The end of the path, such as ``chat/completions``.
            in_path: Whether the classic form of the URL names the deployment for this operation.
            accept: The header ``Accept``; None for JSON and streams of events.
            request_id: Sent as ``x-ms-client-request-id``.
            cancellation: With it another thread can cancel the request, also while the answer is read.
            seconds: The most seconds until the answer begins, besides the time-out in the settings.

        Raises:
            UpstreamCredentials: there is nothing to authenticate with.
            UpstreamUnreachable: nothing was sent.
            UpstreamTimeout, UpstreamBroken: the request was sent, at least in part, and no answer arrived.
            ClientGone: the request was cancelled.
        """
        ...

    def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        target: Target,
        request_id: str,
        cancellation: CancellationToken,
    ) -> Answer:
        """Send one request without a body about something that Azure stores; otherwise like :meth:`send`.

        Args:
            path: The end of the path, such as ``responses/resp_1``.
            query: Names and values that are added to the query.
        """
        ...

    def explain(self, error: BaseException, endpoint: Endpoint) -> Failure:
        """Return why a call has raised *error*, for admins."""
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


class Pingable(Protocol):
    """A backend whose availability can be checked."""

    name: str
    """``sqlite``, ``redis`` or ``mongodb``."""

    def ping(self) -> None:
        """Return if the backend is available. Cheap enough to be called every second."""
        ...
