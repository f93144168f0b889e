"""The usage record on disk first, then in the usage log: what is written here is never lost.

A process writes to a folder of its own, ``journal/<name>/`` (:mod:`~llmgateway.segments`): one
line when a request is sent and one when it has ended. A thread seals the open segment, ships the
records in it to the usage log, and deletes it once the log has acknowledged them. Shipping a
segment twice does no harm: a batch is named after the folder, the segment and its place there, so
it has the same name whoever ships it again, and the log counts it once. The folder of a process
that died is shipped by whoever finds it, and what had not ended there becomes a record with
outcome ``interrupted``.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from ..clock import Clock
from ..errors import StoreUnavailable
from ..interfaces import UsageLog
from ..records import Batch, UsageRecord, moment
from .locks import ShortLock
from .segments import SegmentFolder, ended_in, number_of

log = logging.getLogger(__name__)

SHIP_SECONDS = 0.25
"""How long records gather before they are shipped together."""

FLUSH_SOON_SECONDS = 1.0
"""How long a request waits for a shipment that is under way, before it ships what has ended since."""

SYNC_SECONDS = 1.0
"""The most that a loss of power can take: segments are synced to disk this often."""

BATCH_RECORDS = 500

ORPHANS_SECONDS = 10.0
"""How often a process looks for the journals of dead ones."""

PURGE_SECONDS = 3600.0
"""How often a process looks for records that are too old."""

PURGED_AT_ONCE = 5000
"""Records that one step removes; between two steps others get to the usage log, and new records are shipped."""

KEPT_IN_MEMORY = 10_000
"""Records that wait in memory while the disk does not take them; some 10 MB."""

_DISK, _USAGE_LOG = "journal on disk", "usage log"  # where there can be trouble


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
        price: Completes the record of a request that a dead process left.
        on_left: Told each of these, once the usage log has it.
        on_ended: Told what had ended in that process and was not shipped, one record for each key, group and day,
            once the usage log has all of it: the last of it may have got nowhere else.
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
        self._price = price
        self._on_left = on_left
        self._on_ended = on_ended
        self._on_turn = on_turn
        self._log_days = log_days
        self._lock = ShortLock()  # what is written, and to which segment
        self._shipping = threading.Lock()  # one shipment at a time
        self._running: dict[str, UsageRecord] = {}
        self._homeless: deque[UsageRecord] = deque(maxlen=KEPT_IN_MEMORY)
        self._leaving: _Shipment | None = None  # of the homeless, and the same until the log has it
        self._left = Batch("", 0)  # the name of the last of these
        self._owner: SegmentFolder | None = None
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
        with self._lock:
            # In this order: what cannot be written must not be found among the running, which every segment repeats.
            self._write("begin", record)
            self._running[record.id] = record

    def end(self, record: UsageRecord) -> None:
        with self._lock:
            self._running.pop(record.id, None)
            if self._write("end", record):
                self._ended.add(self._clock())
            else:
                self._keep_in_memory(record)
        if not self._due.is_set():  # to set it again would wake nobody, and take a lock
            self._due.set()

    def cancel(self, record_id: str) -> None:
        with self._lock:
            record = self._running.pop(record_id, None)
            if record is not None:
                self._write("cancel", record)

    def start(self) -> None:
        """Pick up what dead processes left and begin to ship; harmless if done already."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._left = Batch(f"memory-{secrets.token_hex(8)}", 0)
            self._stopping.clear()
            self._due.set()
            self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
            self._thread.start()

    def backlog(self) -> Backlog:
        with self._lock:
            counts = (self._sealed, self._ended, self._in_memory)
            since = [count.since for count in counts if count.since is not None]
            return Backlog(
                records=sum(count.number for count in counts),
                oldest_seconds=max(0.0, self._clock() - min(since)) if since else 0.0,
                problem="; ".join(f"{place}: {problem}" for place, problem in self._problems.items()) or None,
            )

    def flush(self) -> bool:
        """Ship everything that has ended so far; False if the usage log did not take it."""
        with self._shipping:
            return self._ship_own()

    def flush_soon(self) -> None:
        """Ship what has ended, if nothing is in the way; a request waits."""
        if _USAGE_LOG in self._problems or not self._shipping.acquire(timeout=FLUSH_SOON_SECONDS):
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
            if self._owner is not None:
                self._owner.close(nothing_left=not self._running and not self._ended.number)
                self._owner = None
            self._pid = 0

    # The thread

    def _run(self) -> None:
        next_orphans = next_purge = 0.0
        while not self._stopping.is_set():
            try:
                now = self._clock()
                if now >= next_orphans:
                    next_orphans = now + ORPHANS_SECONDS
                    self._ship_orphans()
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
        return self._ship_sealed() and (not self._seal() or self._ship_sealed()) and self._ship_homeless()

    def _ship_sealed(self) -> bool:
        if self._owner is not None:
            for segment in self._owner.sealed():
                if not self._append(_shipments(self._owner.name, number_of(segment), ended_in(segment))):
                    return False
                segment.unlink()
        with self._lock:
            self._sealed = _Count()
        return True

    def _seal(self) -> bool:
        """Begin a new segment if something in the open one can be shipped; False if not."""
        try:
            with self._lock:
                if self._owner is None or not self._ended.number:
                    return False
                before = self._owner.next_segment(self._running.values())
                self._sealed, self._ended = self._ended, _Count()
            self._owner.seal(before)  # syncs, and so takes too long to make requests wait
        except OSError as error:
            self._report_disk(error)
            return False
        return True

    def _ship_homeless(self) -> bool:
        while shipment := self._leaving or self._take_homeless():
            self._leaving = shipment
            if not self._append(iter([shipment])):
                return False
            self._leaving = None
            with self._lock:
                self._in_memory.number -= len(shipment.records)
        return True

    def _take_homeless(self) -> _Shipment | None:
        with self._lock:
            records = [self._homeless.popleft() for _ in range(min(BATCH_RECORDS, len(self._homeless)))]
            if not records:
                self._in_memory = _Count()
                return None
        self._left = self._left._replace(number=self._left.number + 1)
        return _Shipment(self._left, records)

    def _append(self, shipments: Iterator[_Shipment]) -> bool:
        try:
            for batch, records in shipments:
                self._log.append(records, batch=batch)
                self._recovered(_USAGE_LOG)
        except StoreUnavailable as error:
            self._report(_USAGE_LOG, str(error))
            return False
        return True

    def _ship_orphans(self) -> None:
        for path in sorted(self._folder.glob("[!.]*")):
            orphan = SegmentFolder.adopt(path)
            if orphan is None:
                continue
            log.warning("A process ended without shipping its journal %s; it is shipped now.", path.name)
            try:
                left = _Left()
                if self._append(self._left_by(orphan, left)):
                    self._on_ended(left.ended.values())
                    orphan.remove()
                    for record in left.running:
                        self._on_left(record)
            finally:
                orphan.release()

    def _left_by(self, orphan: SegmentFolder, left: _Left) -> Iterator[_Shipment]:
        """Everything in *orphan*, of which *left* takes note."""
        for segment in orphan.sealed():
            yield from _shipments(orphan.name, number_of(segment), left.ending(ended_in(segment)))
        # A process that dies while it changes segments leaves two open ones.
        running: dict[str, UsageRecord] = {}
        last = 0
        for segment in orphan.open():
            last = number_of(segment)
            yield from _shipments(orphan.name, last, left.ending(ended_in(segment, running)))
        left.running.extend(map(self._price, running.values()))
        yield from _shipments(orphan.name, last + 1, iter(left.running))

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

    def _write(self, kind: str, record: UsageRecord) -> bool:
        # Trouble with the disk is reported, and requests go on: their records wait in memory.
        try:
            if self._owner is None:
                self._owner = SegmentFolder.create(self._folder)
            self._owner.write(kind, record)
        except OSError as error:
            self._report_disk(error)
            return False
        self._recovered(_DISK)
        return True

    def _keep_in_memory(self, record: UsageRecord) -> None:
        if len(self._homeless) == KEPT_IN_MEMORY:
            log.error("A usage record is lost: neither the disk nor the usage log takes any.")
            self._in_memory.number -= 1
        self._homeless.append(record)
        self._in_memory.add(self._clock())

    def _sync(self) -> None:
        if self._owner is not None:
            try:
                self._owner.sync()
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


class _Left:
    """What a dead process left."""

    def __init__(self) -> None:
        self.running: list[UsageRecord] = []
        self.ended: dict[tuple[str, str | None, date], UsageRecord] = {}
        """One for each key, group and day: in an outage there may be very many."""

    def ending(self, records: Iterator[UsageRecord]) -> Iterator[UsageRecord]:
        for record in records:
            self.ended.setdefault((record.key_id, record.group, record.timestamp.date()), record)
            yield record


class _Shipment(NamedTuple):
    """Records that go to the usage log together."""

    batch: Batch
    records: list[UsageRecord]


def _shipments(source: str, part: int, records: Iterator[UsageRecord]) -> Iterator[_Shipment]:
    """Cut one part of a journal into batches, whose names say where they end: the same at every repetition."""
    number = part << 32
    while batch := [*itertools.islice(records, BATCH_RECORDS)]:
        number += len(batch)
        yield _Shipment(Batch(source, number), batch)
