"""The journal: usage records are written to disk first, and then shipped to the usage log, so that none is lost.

Each process writes to its own folder, ``journal/<name>/`` (:mod:`~llmgateway.usage.segments`): one line when a request
is sent, and one when it has ended. A thread seals the open segment, ships its records to the usage log, and deletes it
when the log has accepted them. A segment may be shipped twice. The name of a batch consists of the folder, the segment
and the position in it, so it is the same each time, and the log counts the batch once. Another process ships the folder
of a process that died (:mod:`~llmgateway.usage.abandoned`).
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ..clock import Clock
from ..errors import StoreUnavailable
from ..interfaces import UsageLog
from ..records import Batch, Bound, UsageRecord, moment
from .abandoned import AbandonedJournals
from .batches import BATCH_RECORDS, Shipment, shipments
from .locks import ShortLock
from .segments import (
    Line,
    Segment,
    SegmentFolder,
    Started,
    ended_in,
    find_request,
    find_stored,
    line_of,
    mentions,
    number_of,
)

log = logging.getLogger(__name__)

SHIP_SECONDS = 0.25
"""The pause before each shipment, in which records collect."""

FLUSH_SOON_SECONDS = 1.0
"""How long :meth:`Journal.flush_soon` waits for a running shipment before it gives up."""

SYNC_SECONDS = 1.0
"""How often segments are synced to disk. A power failure can lose the records of this time."""

STALLED_SECONDS = 1.0
"""The disk counts as stalled if a line takes longer than this. Normally it takes microseconds."""

ABANDONED_SECONDS = 10.0
"""How often a process looks for abandoned journals."""

LOOK_AFTER_SECONDS = 10.0
"""How often :class:`Journal` calls its ``look_after``."""

PURGE_SECONDS = 3600.0
"""How often a process looks for records that are too old."""

PURGED_AT_ONCE = 5000
"""The most records that one step removes. Between two steps, other users of the usage log get access, and new records
are shipped."""

KEPT_IN_MEMORY = 10_000
"""The most records that wait in memory while the disk does not accept them; about 10 MB."""

_DISK, _USAGE_LOG = "journal on disk", "usage log"  # the places of a problem
_NO_REQUEST = ""  # the id under which the beginning of a segment is written


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The ended records of this process that are not in the usage log yet."""

    records: int
    oldest_seconds: float
    problem: str | None
    """The reason why the last attempt to write or ship failed; None if it succeeded."""


class Journal:
    """The :class:`~llmgateway.interfaces.UsageRecorder` of one process. Thread-safe.

    The first request creates the folder and starts the thread. So the application may be created before a fork.
    :meth:`start` starts the thread earlier.

    Args:
        folder: The folder that contains the journals of all processes of the instance.
        price, on_left, on_ended: See :class:`~llmgateway.usage.abandoned.AbandonedJournals`.
        on_turn: Called about once a second with the backlog.
        log_days: How many whole days before today stay in the usage log; None to keep all records.
        look_after: Called every :data:`LOOK_AFTER_SECONDS`, for work that some process has to do now and then.
    """

    def __init__(
        self,
        folder: Path,
        usage_log: UsageLog,
        *,
        clock: Clock,
        price: Callable[[UsageRecord], UsageRecord],
        on_left: Callable[[UsageRecord], None] = lambda _: None,
        on_ended: Callable[[Iterable[UsageRecord]], None] = lambda _: None,
        on_turn: Callable[[Backlog], None] = lambda _: None,
        log_days: int | None = None,
        look_after: Callable[[], object] = lambda: None,
    ) -> None:
        self._folder = folder
        self._log = usage_log
        self._clock = clock
        self._on_turn = on_turn
        self._log_days = log_days
        self._look_after = look_after
        self.abandoned = AbandonedJournals(folder, self._append, price=price, on_left=on_left, on_ended=on_ended)
        # Protects _running and which segment is the present one. No line of a request is written while it is held.
        self._lock = ShortLock()
        self._shipping = threading.Lock()  # held during a shipment
        self._running: dict[str, Started] = {}
        self._unwritten: deque[UsageRecord] = deque(maxlen=KEPT_IN_MEMORY)
        self._memory_shipment: Shipment | None = None  # taken from _unwritten; kept until the log has accepted it
        self._last_batch = Batch("", 0)  # of the records from _unwritten
        self._owner: SegmentFolder | None = None
        self._sealing: Segment | None = None  # the previous segment; threads may still write to it
        self._pid = 0
        self._in_memory = _Count()
        self._ended = _Count()
        self._sealed = _Count()
        self._cancelled = False  # whether the open segment has requests that were not sent
        self._problems: dict[str, str] = {}  # by place, _DISK or _USAGE_LOG
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, record: UsageRecord, bound: Bound) -> None:
        self.start()
        self.update(record, bound)

    def update(self, record: UsageRecord, bound: Bound) -> None:
        started = Started(record, bound)
        line = started.line()
        with self._lock:
            # Add the request before its line is written. A segment that begins meanwhile repeats the line.
            self._running[record.id] = started
            segment = self._enter(record.id)
        self._write(segment, record.id, line)

    def amend(self, record: UsageRecord, bound: Bound) -> None:
        started = Started(record, bound)
        line = started.line()
        with self._lock:
            if record.id not in self._running:
                return  # it has ended meanwhile
            self._running[record.id] = started
            segment = self._enter(record.id)
        self._write(segment, record.id, line)

    def end(self, record: UsageRecord) -> None:
        line = line_of("end", record)
        with self._lock:
            self._running.pop(record.id, None)
            segment = self._enter(record.id)
            count = self._ended  # the count of this segment, even if the next one begins meanwhile
            count.add(self._clock())
        if not self._write(segment, record.id, line):
            with self._lock:
                count.number -= 1
                self._keep_in_memory(record)
        if not self._due.is_set():  # set() takes a lock, even if the event is already set
            self._due.set()

    def cancel(self, record_id: str) -> None:
        with self._lock:
            started = self._running.pop(record_id, None)
            if started is None:
                return
            segment = self._enter(record_id)
            self._cancelled = True
        self._write(segment, record_id, line_of("cancel", started.record))

    def find_stored(self, stored_id: str) -> UsageRecord | None:
        """Return the record of the request that made what has this identifier, from the journals of this host.

        It is in one of them from before its first byte goes to the client until the usage log has it. So if this finds
        nothing, ask the usage log next, and not before. An error of the disk counts as nothing found.
        """
        return find_stored(self._folder, stored_id)

    def mentions(self, key_ids: Collection[str]) -> bool:
        """Return whether a journal of this host has a line about one of these keys."""
        return mentions(self._folder, key_ids)

    def find(self, request_id: str) -> Line | None:
        """Return what the journals of this host say about a request; otherwise like :meth:`find_stored`.

        Args:
            request_id: Its identifier here, or at Azure. It consists of letters, digits, ``_`` and ``-``.
        """
        return find_request(self._folder, request_id)

    def start(self) -> None:
        """Start the thread, which ships this journal and abandoned ones; no effect if it already runs."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._last_batch = Batch(f"memory-{secrets.token_hex(8)}", 0)
            self._stopping.clear()
            self._due.set()
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()

    def backlog(self) -> Backlog:
        """Return what waits to be shipped. This never blocks, because operators need it when the disk is stalled."""
        # The counts are read in the order in which records move through them. If a count moves in between, it is found
        # twice, as the same object, and counted once.
        counts = {id(count): count for count in (self._ended, self._sealed, self._in_memory) if count.number}
        since = [count.since for count in counts.values() if count.since is not None]
        problems = [f"{place}: {problem}" for place, problem in [*self._problems.items()]]
        if _DISK not in self._problems and (stalled := self._stalled()):
            problems.append(f"{_DISK}: {stalled}")
        return Backlog(
            records=sum(count.number for count in counts.values()),
            oldest_seconds=max(0.0, self._clock() - min(since)) if since else 0.0,
            problem="; ".join(problems) or None,
        )

    def flush(self) -> bool:
        """Ship all ended records; return False if the usage log did not accept them."""
        with self._shipping:
            return self._ship_own()

    def flush_soon(self) -> None:
        """Ship the ended records, unless there is a problem or another shipment takes too long.

        A request waits for this call, so it must not take long.
        """
        if _USAGE_LOG in self._problems or self._stalled() or not self._shipping.acquire(timeout=FLUSH_SOON_SECONDS):
            return
        try:
            self._ship_own()
        finally:
            self._shipping.release()

    def close(self) -> None:
        """Stop the thread and ship the ended records. What cannot be shipped now stays on disk for another process."""
        self._stopping.set()
        self._due.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join()
        self.flush()
        with self._lock:
            if self._in_memory.number:
                log.error(
                    "%d usage records are lost: neither the disk nor the usage log accepted them.",
                    self._in_memory.number,
                )
            owner, self._owner = self._owner, None
            self._pid = 0
        # If a thread still waits for the disk, the folder stays locked until the process ends.
        if owner is not None and self._sealing is None and (owner.segment is None or owner.segment.quiet()):
            owner.close(nothing_left=not self._running and not self._ended.number)

    # The thread

    def _run(self) -> None:
        next_abandoned = next_purge = next_look = 0.0
        while not self._stopping.is_set():
            try:
                now = self._clock()
                if now >= next_abandoned:
                    next_abandoned = now + ABANDONED_SECONDS
                    self.abandoned.ship()
                if stalled := self._stalled():
                    self._report(_DISK, stalled)  # do not ship: this thread would wait for the disk, too
                else:
                    self._touch()
                    self.flush()
                    self._sync()
                self._on_turn(self.backlog())
                if now >= next_look:
                    next_look = now + LOOK_AFTER_SECONDS
                    self._look_after()
                if now >= next_purge and not self._purge(now):
                    next_purge = now + PURGE_SECONDS
            except Exception:
                # A bug must not end the thread.
                log.exception("Shipping usage records failed; it is tried again.")
            self._due.wait(SYNC_SECONDS)
            self._stopping.wait(SHIP_SECONDS)
            self._due.clear()

    def _ship_own(self) -> bool:
        # Seal a segment only if no sealed one is left. So during an outage there are one sealed and one open segment,
        # and not a new one for each attempt.
        return self._ship_sealed() and (not self._seal() or self._ship_sealed()) and self._ship_unwritten()

    def _ship_sealed(self) -> bool:
        if self._owner is not None:
            for segment in self._owner.sealed():
                if not self._append(shipments(self._owner.name, number_of(segment), ended_in(segment))):
                    return False
                segment.unlink()
        if self._sealing is None:
            self._sealed = _Count()
        return True

    def _seal(self) -> bool:
        """Begin a new segment and seal the present one; return False if there is nothing to ship or it failed."""
        try:
            if self._owner is None or (self._sealing is None and not self._begin_segment(self._owner)):
                return False
            if self._sealing is not None:
                if not self._sealing.quiet():
                    return False
                segment, self._sealing = self._sealing, None
                self._owner.seal(segment)
        except OSError as error:
            self._report_disk(error)
            return False
        return True

    def _begin_segment(self, owner: SegmentFolder) -> bool:
        # What was not sent has to go, too: it names a person, who may be erased.
        if not self._ended.number and not self._cancelled:
            return False
        prepared = owner.prepare()
        with self._lock:
            present = self._enter(_NO_REQUEST)
            try:
                self._sealing = owner.next_segment(prepared, self._running.values())
            finally:
                if present is not None:
                    del present.writing[_NO_REQUEST]
            self._sealed, self._ended, self._cancelled = self._ended, _Count(), False
        return True

    def _ship_unwritten(self) -> bool:
        while shipment := self._memory_shipment or self._take_unwritten():
            self._memory_shipment = shipment
            if not self._append(iter([shipment])):
                return False
            self._memory_shipment = None
            with self._lock:
                self._in_memory.number -= len(shipment.records)
        return True

    def _take_unwritten(self) -> Shipment | None:
        with self._lock:
            records = [self._unwritten.popleft() for _ in range(min(BATCH_RECORDS, len(self._unwritten)))]
            if not records:
                self._in_memory = _Count()
                return None
        self._last_batch = self._last_batch._replace(number=self._last_batch.number + 1)
        return Shipment(self._last_batch, records)

    def _append(self, shipments: Iterator[Shipment]) -> bool:
        try:
            for batch, records in shipments:
                self._log.append(records, batch=batch)
                self._recovered(_USAGE_LOG)
                self._touch()  # to ship the journal of a long outage takes minutes
        except StoreUnavailable as error:
            self._report(_USAGE_LOG, str(error))
            return False
        return True

    def _purge(self, now: float) -> bool:
        """Remove some of the records that are too old; return True if there may be more."""
        if self._log_days is None:
            return False
        first_day = moment(now).date() - timedelta(days=self._log_days)
        try:
            return self._log.purge(first_day, limit=PURGED_AT_ONCE) == PURGED_AT_ONCE
        except StoreUnavailable:
            return False  # shipping reports the problem

    # The disk

    def _enter(self, record_id: str) -> Segment | None:
        """Return the present segment, or None if the disk does not accept one.

        The segment is not sealed before :meth:`_write` has written the line of this request.
        """
        try:
            if self._owner is None:
                self._owner = SegmentFolder.create(self._folder)
                self._owner.touch(self._clock())
        except OSError as error:
            self._report_disk(error)
            return None
        segment = self._owner.segment
        if segment is not None:
            segment.writing[record_id] = time.monotonic()
        return segment

    def _write(self, segment: Segment | None, record_id: str, line: bytes) -> bool:
        # A problem with the disk is reported, but the request does not fail: its record waits in memory.
        if segment is None:
            return False
        try:
            segment.append(line)
        except OSError as error:
            self._report_disk(error)
            return False
        finally:
            del segment.writing[record_id]
        self._recovered(_DISK)
        return True

    def _stalled(self) -> str | None:
        """Return how long a line has waited for the disk, as text; None if the disk is not stalled."""
        segments = (self._owner.segment if self._owner else None, self._sealing)
        since = min((began for one in segments if one is not None for began in [*one.writing.values()]), default=None)
        if since is None or (seconds := time.monotonic() - since) < STALLED_SECONDS:
            return None
        return f"a line has waited {seconds:.0f} s for it"

    def _keep_in_memory(self, record: UsageRecord) -> None:
        if len(self._unwritten) == KEPT_IN_MEMORY:
            log.error("A usage record is lost: neither the disk nor the usage log accepts records.")
            self._in_memory.number -= 1
        self._unwritten.append(record)
        self._in_memory.add(self._clock())

    def _touch(self) -> None:
        """Note that this process lives. Should it die, its requests are booked up to this time."""
        if self._owner is not None:
            try:
                self._owner.touch(self._clock())
            except OSError as error:
                self._report_disk(error)

    def _sync(self) -> None:
        if self._owner is not None and self._owner.segment is not None:
            try:
                self._owner.segment.sync()
            except OSError as error:
                self._report_disk(error)

    def _report_disk(self, error: OSError) -> None:
        self._report(_DISK, error.strerror or str(error))

    def _report(self, place: str, problem: str) -> None:
        if self._problems.get(place) != problem:
            log.error("Usage records wait: %s: %s", place, problem)
        self._problems[place] = problem

    def _recovered(self, place: str) -> None:
        if self._problems.pop(place, None) is not None:
            log.warning("The %s accepts usage records again.", place)


class _Count:
    """The number of records that wait, and the time since when."""

    def __init__(self) -> None:
        self.number = 0
        self.since: float | None = None

    def add(self, now: float) -> None:
        self.number += 1
        if self.since is None:
            self.since = now
