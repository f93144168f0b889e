"""The journal's files: folders that belong to one process each, and the segments in them.

A folder holds

* ``lock``, locked for as long as its process lives, whatever ends it;
* ``<number>.open``, the segment being written: one line when a request is sent, with the record
  it leaves if the process dies, and one when it has ended;
* ``<number>.sealed``, segments that wait to be shipped.

Requests still running when a segment is sealed are written to the next one again before the
seal, so only open segments can hold a request without an end. A folder whose lock is free belonged
to a process that died.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from .. import syscalls
from ..clock import Timer
from ..records import Outcome, UsageRecord, UsageSource

log = logging.getLogger(__name__)

_OPEN, _SEALED = ".open", ".sealed"
_BEGINNING = b'["begin",'

SLOW_SECONDS = 0.02
"""A line takes microseconds, as the system's cache takes it; unless too much in it waits for the disk, or the file is
not on a local one. A call that waits must let go of the interpreter's lock."""
CAREFUL_SECONDS = 60.0
"""How long after that lines are written by calls that do."""


class SegmentFolder:
    """The folder of one process, and the segment that it writes.

    One thread at a time may write and begin segments; the rest may be called meanwhile. Raises OSError
    where the disk does.
    """

    def __init__(self, path: Path, lock: int, *, timer: Timer = time.monotonic) -> None:
        self.name = path.name
        self._timer = timer
        self._careful_until = -math.inf
        self._path = path
        self._lock = lock
        self._number = 0
        self._segment = -1
        self._torn = False

    @classmethod
    def create(cls, folder: Path, *, timer: Timer = time.monotonic) -> SegmentFolder:
        """Make a folder nobody else has, locked before it has a name that others look for."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        hidden = folder / f".{name}"
        hidden.mkdir()
        lock = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        hidden.rename(folder / name)
        made = cls(folder / name, lock, timer=timer)
        made.next_segment(())
        return made

    @classmethod
    def adopt(cls, path: Path) -> SegmentFolder | None:
        """Take the folder of a process that has died; None if it lives or somebody else was quicker."""
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if not os.fstat(lock).st_nlink:  # somebody shipped and removed it while we came
            os.close(lock)
            return None
        return cls(path, lock)

    def write(self, kind: str, record: UsageRecord) -> None:
        line = orjson.dumps((kind, record)) + b"\n"
        if self._torn:
            line = b"\n" + line  # what a full disk cut short must not swallow the next
        # One write to a file opened for appending: lines of several threads do not mix.
        written = self._write(line)
        self._torn = written != len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, "a line was cut short: is the disk full?")

    def _write(self, line: bytes) -> int:
        began = self._timer()
        if began < self._careful_until:
            return os.write(self._segment, line)
        written = syscalls.write(self._segment, line)
        ended = self._timer()
        if ended - began > SLOW_SECONDS:
            log.warning("The disk made the whole process wait %.3f s for a line of the journal.", ended - began)
            self._careful_until = ended + CAREFUL_SECONDS
        return written

    def next_segment(self, running: Iterable[UsageRecord]) -> int:
        """Begin a segment with the requests still *running*; return the one before, to be sealed."""
        before = self._segment
        path = self._path / f"{self._number + 1:08d}{_OPEN}"
        lines = b"".join(orjson.dumps(("begin", record)) + b"\n" for record in running)
        segment = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.write(segment, lines) != len(lines):
                raise OSError(errno.ENOSPC, "a segment was cut short: is the disk full?")
        except OSError:
            os.close(segment)
            path.unlink()
            raise
        self._number, self._segment, self._torn = self._number + 1, segment, False
        return before

    def seal(self, before: int) -> None:
        path = self._path / f"{self._number - 1:08d}{_OPEN}"
        try:
            path.rename(path.with_suffix(_SEALED))
            os.fdatasync(before)
        finally:
            os.close(before)

    def sealed(self) -> list[Path]:
        return sorted(self._path.glob(f"*{_SEALED}"), key=number_of)

    def open(self) -> list[Path]:
        return sorted(self._path.glob(f"*{_OPEN}"), key=number_of)

    def sync(self) -> None:
        os.fdatasync(self._segment)

    def close(self, *, nothing_left: bool) -> None:
        """Let go of the folder; it goes too if nothing is in it that others would have to ship.

        Args:
            nothing_left: Whether all that the open segment says has come to an end, and is in the log.
        """
        os.close(self._segment)
        if nothing_left and not self.sealed() and len(self.open()) == 1:
            self.remove()
        self.release()

    def remove(self) -> None:
        for path in self._path.iterdir():
            path.unlink()
        self._path.rmdir()

    def release(self) -> None:
        os.close(self._lock)


def number_of(segment: Path) -> int:
    """Segments are numbered in the order of their writing."""
    return int(segment.stem)


def ended_in(segment: Path, running: dict[str, UsageRecord] | None = None) -> Iterator[UsageRecord]:
    """Give the records of what has ended in *segment*; keep *running*, those that have not, up to date, if given."""
    for kind, record in _lines(segment, every=running is not None):
        if running is not None:
            if kind == "begin":
                running[record.id] = record
            else:
                running.pop(record.id, None)
        if kind == "end":
            yield record


def _lines(segment: Path, *, every: bool) -> Iterator[tuple[str, UsageRecord]]:
    """Kind and record of each line, or only of those that are not beginnings: half of the lines, half of the work."""
    with segment.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line == b"\n" or (line.startswith(_BEGINNING) and not every):
                continue  # a line without anything is behind a torn one
            try:
                kind, fields = orjson.loads(line)
                record = _record(fields)
            except (ValueError, TypeError, KeyError):
                # A process that died in the middle of a write leaves one torn line at the end.
                log.warning("Line %d of journal segment %s is torn and is left out.", number, segment.name)
                continue
            yield kind, record


def _record(fields: dict[str, Any]) -> UsageRecord:
    fields["timestamp"] = datetime.fromisoformat(fields["timestamp"])
    fields["outcome"] = Outcome(fields["outcome"])
    fields["usage_source"] = UsageSource(fields["usage_source"])
    fields["content_filter"] = tuple(fields["content_filter"])
    return UsageRecord(**fields)
