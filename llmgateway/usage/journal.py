"""The usage record on disk first, then in the usage log: what is written here is never lost.

A process writes to a folder of its own, ``journal/<name>/`` (:mod:`~llmgateway.usage.segments`): one line when a
request is sent and one when it has ended. A thread seals the open segment, ships the records in it to the usage log,
and deletes it once the log has acknowledged them. Shipping a segment twice does no harm: a batch is named after the
folder, the segment and its place there, so it has the same name whoever ships it again, and the log counts it once.
The folder of a process that died is shipped by whoever finds it (:mod:`~llmgateway.usage.abandoned`).
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ..clock import Clock
from ..errors import StoreUnavailable
from ..interfaces import UsageLog
from ..records import Batch, UsageRecord, moment
from .abandoned import AbandonedJournals
from .batches import BATCH_RECORDS, Shipment, shipments
from .locks import ShortLock
from .segments import Segment, SegmentFolder, ended_in, line_of, number_of

log = logging.getLogger(__name__)

SHIP_SECONDS = 0.25
"""How long records gather before they are shipped together."""

FLUSH_SOON_SECONDS = 1.0
"""How long a request waits for a shipment that is under way, before it ships what has ended since."""

SYNC_SECONDS = 1.0
"""The most that a loss of power can take: segments are synced to disk this often."""

STALLED_SECONDS = 1.0
"""A line takes microseconds; one that takes so long waits for a disk that does not answer."""

ABANDONED_SECONDS = 10.0
"""How often a process looks for the journals of dead ones."""

PURGE_SECONDS = 3600.0
"""How often a process looks for records that are too old."""

PURGED_AT_ONCE = 5000
"""Records that one step removes; between two steps others get to the usage log, and new records are shipped."""

KEPT_IN_MEMORY = 10_000
"""Records that wait in memory while the disk does not take them; some 10 MB."""

_DISK, _USAGE_LOG = "journal on disk", "usage log"  # where there can be trouble
_NO_REQUEST = ""  # whose line is the beginning of a segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What has not reached the usage log yet, of this process."""

    records: int
    oldest_seconds: float
    problem: str | None
    """Why the last attempt to write or ship failed, if it did."""


class Journal:
    """The :class:`~llmgateway.interfaces.UsageRecorder` of one process. Thread-safe.

    The folder and the thread come into being with the first request, so that a program which is
    loaded before a fork has neither. :meth:`start` makes them earlier.

    Args:
        folder: Shared by all processes of the instance.
        price, on_left, on_ended: As in :class:`~llmgateway.usage.abandoned.AbandonedJournals`.
        on_turn: Told what waits, every second or so.
        log_days: Whole days before today whose records stay in the usage log; None for all.
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
    ) -> None:
        self._folder = folder
        self._log = usage_log
        self._clock = clock
        self._on_turn = on_turn
        self._log_days = log_days
        self.abandoned = AbandonedJournals(folder, self._append, price=price, on_left=on_left, on_ended=on_ended)
        self._lock = ShortLock()  # which requests run, and to which segment their lines go; nobody writes within it
        self._shipping = threading.Lock()  # one shipment at a time
        self._running: dict[str, UsageRecord] = {}
        self._unwritten: deque[UsageRecord] = deque(maxlen=KEPT_IN_MEMORY)
        self._under_way: Shipment | None = None  # of the unwritten: the same until the log has it
        self._last_batch = Batch("", 0)  # of the unwritten
        self._owner: SegmentFolder | None = None
        self._sealing: Segment | None = None  # no longer the present segment, but somebody may still write to it
        self._pid = 0
        self._in_memory = _Count()
        self._ended = _Count()
        self._sealed = _Count()
        self._problems: dict[str, str] = {}  # by place
        self._due = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, record: UsageRecord) -> None:
        self.start()
        line = line_of("begin", record)
        with self._lock:
            # Before it is written: a segment that begins meanwhile repeats it.
            self._running[record.id] = record
            segment = self._enter(record.id)
        self._write(segment, record.id, line)

    def end(self, record: UsageRecord) -> None:
        line = line_of("end", record)
        with self._lock:
            self._running.pop(record.id, None)
            segment = self._enter(record.id)
            count = self._ended  # of this segment, also if it is sealed meanwhile
            count.add(self._clock())
        if not self._write(segment, record.id, line):
            with self._lock:
                count.number -= 1
                self._keep_in_memory(record)
        if not self._due.is_set():  # to set it again would wake nobody, and take a lock
            self._due.set()

    def cancel(self, record_id: str) -> None:
        with self._lock:
            record = self._running.pop(record_id, None)
            if record is None:
                return
            segment = self._enter(record_id)
        self._write(segment, record_id, line_of("cancel", record))

    def start(self) -> None:
        """Pick up what dead processes left and begin to ship; harmless if done already."""
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
        """Tell what waits. Never waits itself: it is what an operator asks when the disk stands still."""
        # In the order in which records move on: what moves meanwhile is found twice, as the same object.
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
        """Ship everything that has ended so far; False if the usage log did not take it."""
        with self._shipping:
            return self._ship_own()

    def flush_soon(self) -> None:
        """Ship what has ended, if nothing is in the way; a request waits."""
        if _USAGE_LOG in self._problems or self._stalled() or not self._shipping.acquire(timeout=FLUSH_SOON_SECONDS):
            return
        try:
            self._ship_own()
        finally:
            self._shipping.release()

    def close(self) -> None:
        """Stop the thread and ship what has ended; what cannot be shipped is left to whoever comes next."""
        self._stopping.set()
        self._due.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join()
        self.flush()
        with self._lock:
            if self._in_memory.number:
                log.error(
                    "%d usage records are lost: neither the disk nor the usage log took them.", self._in_memory.number
                )
            owner, self._owner = self._owner, None
            self._pid = 0
        # If somebody still waits for the disk, the folder stays locked until the process has ended.
        if owner is not None and self._sealing is None and (owner.segment is None or owner.segment.quiet()):
            owner.close(nothing_left=not self._running and not self._ended.number)

    # The thread

    def _run(self) -> None:
        next_abandoned = next_purge = 0.0
        while not self._stopping.is_set():
            try:
                now = self._clock()
                if now >= next_abandoned:
                    next_abandoned = now + ABANDONED_SECONDS
                    self.abandoned.ship()
                if stalled := self._stalled():
                    self._report(_DISK, stalled)  # and do not wait for it as well
                else:
                    self.flush()
                    self._sync()
                self._on_turn(self.backlog())
                if now >= next_purge and not self._purge(now):
                    next_purge = now + PURGE_SECONDS
            except Exception:
                # A bug must not end the shipping for good.
                log.exception("Shipping usage records failed; it goes on with the next attempt.")
            self._due.wait(SYNC_SECONDS)
            self._stopping.wait(SHIP_SECONDS)
            self._due.clear()

    def _ship_own(self) -> bool:
        # An outage makes one sealed segment and one large open one, not a segment for every attempt.
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
        """Begin a new segment if something in the open one can be shipped, and seal that one; False if not."""
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
        if not self._ended.number:
            return False
        prepared = owner.prepare()
        with self._lock:
            present = self._enter(_NO_REQUEST)
            try:
                self._sealing = owner.next_segment(prepared, self._running.values())
            finally:
                if present is not None:
                    del present.writing[_NO_REQUEST]
            self._sealed, self._ended = self._ended, _Count()
        return True

    def _ship_unwritten(self) -> bool:
        while shipment := self._under_way or self._take_unwritten():
            self._under_way = shipment
            if not self._append(iter([shipment])):
                return False
            self._under_way = None
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
        except StoreUnavailable as error:
            self._report(_USAGE_LOG, str(error))
            return False
        return True

    def _purge(self, now: float) -> bool:
        """Remove some of the records that are too old; True if there may be more."""
        if self._log_days is None:
            return False
        first_day = moment(now).date() - timedelta(days=self._log_days)
        try:
            return self._log.purge(first_day, limit=PURGED_AT_ONCE) == PURGED_AT_ONCE
        except StoreUnavailable:
            return False  # shipping says so already

    # The disk

    def _enter(self, record_id: str) -> Segment | None:
        """Return the present segment, which stays open until the line of this request is written; None without one."""
        try:
            if self._owner is None:
                self._owner = SegmentFolder.create(self._folder)
        except OSError as error:
            self._report_disk(error)
            return None
        segment = self._owner.segment
        if segment is not None:
            segment.writing[record_id] = time.monotonic()
        return segment

    def _write(self, segment: Segment | None, record_id: str, line: bytes) -> bool:
        # Trouble with the disk is reported, and requests go on: their records wait in memory.
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
        """Say for how long the disk has not taken a line, if that is too long."""
        segments = (self._owner.segment if self._owner else None, self._sealing)
        since = min((began for one in segments if one is not None for began in [*one.writing.values()]), default=None)
        if since is None or (seconds := time.monotonic() - since) < STALLED_SECONDS:
            return None
        return f"a line has waited {seconds:.0f} s for it"

    def _keep_in_memory(self, record: UsageRecord) -> None:
        if len(self._unwritten) == KEPT_IN_MEMORY:
            log.error("A usage record is lost: neither the disk nor the usage log takes any.")
            self._in_memory.number -= 1
        self._unwritten.append(record)
        self._in_memory.add(self._clock())

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
            log.warning("The %s takes usage records again.", place)


class _Count:
    """How many records wait somewhere, and since when."""

    def __init__(self) -> None:
        self.number = 0
        self.since: float | None = None

    def add(self, now: float) -> None:
        self.number += 1
        if self.since is None:
            self.since = now
