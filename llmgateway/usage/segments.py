"""The journal's files: folders that belong to one process each, and the segments in them.

A folder holds

* ``lock``, locked for as long as its process lives, whatever ends it;
* ``<number>.open``, the segment being written: one line when a request is sent, with the record
  it leaves if the process dies, and one when it has ended;
* ``<number>.sealed``, segments that wait to be shipped.

Requests that still run when a segment is sealed are written to the next one again before the seal, and a segment is
sealed when nobody writes to it any more. So only open segments can hold a request without an end. A folder whose
lock is free belonged to a process that died.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from ..records import Outcome, UsageRecord, UsageSource

log = logging.getLogger(__name__)

_OPEN, _SEALED = ".open", ".sealed"
_BEGINNING = b'["begin",'

QUIET_SECONDS = 1.0
"""How long a segment's last lines may take before it is left open for now."""

_LOOK_AGAIN_SECONDS = 0.001


def line_of(kind: str, record: UsageRecord) -> bytes:
    """Return the line that says that a request has begun, has ended or was cancelled: *kind* is the verb.

    The line break stands in front: a line that a full disk cuts short does not run into the next one.

    Raises:
        TypeError: the record is no JSON.
    """
    return b"\n" + orjson.dumps((kind, record))


class Segment:
    """A file at whose end any number of threads add lines at once.

    Whoever adds a line is in :attr:`writing` before it looks at which segment is the present one, and until its line
    is written. A write may take as long as the disk wants; it stops nobody but its own thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writing: dict[str, float] = {}
        """The requests whose lines are being written, and since when. Each step with it is atomic."""
        # One write to a file opened for appending: lines of several threads do not mix.
        self._descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, lines: bytes) -> None:
        """Raises OSError where the disk does, and where it took only a part."""
        if os.write(self._descriptor, lines) != len(lines):
            raise OSError(errno.ENOSPC, "a line was cut short: is the disk full?")

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def quiet(self) -> bool:
        """Wait until nobody writes to it; False if that takes too long."""
        deadline = time.monotonic() + QUIET_SECONDS
        while self.writing:
            if time.monotonic() > deadline:
                return False
            time.sleep(_LOOK_AGAIN_SECONDS)
        return True


class SegmentFolder:
    """The folder of one process, and the segment that it writes.

    One thread at a time may begin segments; the rest may be called meanwhile. Raises OSError where the disk does.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.name = path.name
        self._path = path
        self._lock = lock
        self._number = 0
        self.segment: Segment | None = None
        """The present one; there is none in a folder that was taken from a dead process."""

    @classmethod
    def create(cls, folder: Path) -> SegmentFolder:
        """Make a folder nobody else has, locked before it has a name that others look for."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        hidden = folder / f".{name}"
        hidden.mkdir(mode=0o700)
        lock = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        hidden.rename(folder / name)
        made = cls(folder / name, lock)
        made.next_segment(made.prepare(), ())
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

    def prepare(self) -> Segment:
        """Make the file of the next segment, which the disk may take its time for."""
        return Segment(self._path / f"{self._number + 1:08d}{_OPEN}")

    def next_segment(self, prepared: Segment, running: Iterable[UsageRecord]) -> Segment | None:
        """Begin the *prepared* segment with the requests still *running*; return the one before, to be sealed."""
        try:
            prepared.append(b"".join(line_of("begin", record) for record in running))
        except OSError:
            prepared.close()
            prepared.path.unlink()
            raise
        before, self.segment = self.segment, prepared
        self._number += 1
        return before

    def seal(self, segment: Segment) -> None:
        """Say that *segment* is complete, and see to it that it is on the disk."""
        try:
            segment.path.rename(segment.path.with_suffix(_SEALED))
            segment.sync()
        finally:
            segment.close()

    def sealed(self) -> list[Path]:
        return sorted(self._path.glob(f"*{_SEALED}"), key=number_of)

    def open(self) -> list[Path]:
        return sorted(self._path.glob(f"*{_OPEN}"), key=number_of)

    def close(self, *, nothing_left: bool) -> None:
        """Let go of the folder; it goes too if nothing is in it that others would have to ship.

        Args:
            nothing_left: Whether all that the open segment says has come to an end, and is in the log.
        """
        if self.segment is not None:
            self.segment.close()
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
                continue
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
