"""The files of the journal. Each process has a folder, which contains segments.

The files in a folder are

* ``lock``: it is locked while the process lives. The system releases the lock when the process ends for any reason.
  Its modification time tells how long the process has lived.
* ``<number>.open``: the segment that is being written. It gets one line when a request is sent, with the record that
  counts if the process dies and the bound of its answer, and one line when the request has ended.
* ``<number>.sealed``: segments that wait to be shipped.

When a new segment begins, it gets a line for each running request. The old one is sealed when no thread writes to it.
So only open segments can contain requests without an end. A folder with a free lock belongs to a process that died.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ..records import Attempt, Bound, Outcome, UsageRecord, UsageSource

log = logging.getLogger(__name__)

_OPEN, _SEALED = ".open", ".sealed"
_BEGINNING = b'["begin",'

QUIET_SECONDS = 1.0
"""The longest wait for the last lines of a segment. After it, the segment is not sealed yet."""

_POLL_SECONDS = 0.001

_LOOK_AGAIN = 20
"""How often journals are searched anew, if segments are sealed at the same time. That happens four times a second."""


class Started(NamedTuple):
    """A request that was sent and has not ended."""

    record: UsageRecord
    bound: Bound | None
    """None if an earlier edition has written the line."""

    def line(self) -> bytes:
        return b"\n" + orjson.dumps(("begin", self.record, self.bound))


def line_of(kind: str, record: UsageRecord) -> bytes:
    """Return a line of the journal.

    It starts with the line break. So if a full disk cuts a line short, the next one is still complete.

    Args:
        kind: ``end`` or ``cancel``; see :meth:`Started.line` for ``begin``.

    Raises:
        TypeError: the record cannot be written as JSON.
    """
    return b"\n" + orjson.dumps((kind, record))


class Segment:
    """A file to which several threads append lines at the same time.

    A thread adds its request to :attr:`writing` while it gets the segment, and removes it when its line is written.
    A slow disk delays only the thread that writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writing: dict[str, float] = {}
        """By request: the time at which the write of its line began. Each operation on the dictionary is atomic."""
        # With O_APPEND and one write for each line, lines of several threads do not mix.
        self._descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def append(self, lines: bytes) -> None:
        """Write *lines*; raise OSError if this fails, or if the disk accepted only a part."""
        if os.write(self._descriptor, lines) != len(lines):
            raise OSError(errno.ENOSPC, "a line was cut short: is the disk full?")

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def quiet(self) -> bool:
        """Wait until no thread writes to the segment; return False after :data:`QUIET_SECONDS`."""
        deadline = time.monotonic() + QUIET_SECONDS
        while self.writing:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True


class SegmentFolder:
    """The folder of one process, and the segment that it writes.

    One thread at a time may begin segments; other threads may call the other methods meanwhile. All methods raise
    OSError if an operation on a file fails.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.name = path.name
        self._path = path
        self._lock = lock
        self._number = 0
        self.segment: Segment | None = None
        """The segment that is being written; None in a folder that was adopted from a dead process."""

    @classmethod
    def create(cls, folder: Path) -> SegmentFolder:
        """Create a new folder. It gets its visible name only when it is locked, so that no other process adopts it."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        hidden = folder / f".{name}"
        hidden.mkdir(mode=0o700)
        lock = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        hidden.rename(folder / name)
        created = cls(folder / name, lock)
        created.next_segment(created.prepare(), ())
        return created

    @classmethod
    def adopt(cls, path: Path) -> SegmentFolder | None:
        """Lock and return the folder of a dead process; None if the process lives, or another one was faster."""
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if not os.fstat(lock).st_nlink:  # another process has shipped and removed it meanwhile
            os.close(lock)
            return None
        return cls(path, lock)

    def prepare(self) -> Segment:
        """Create the file of the next segment. This may wait for the disk, so it is done without holding a lock."""
        return Segment(self._path / f"{self._number + 1:08d}{_OPEN}")

    def touch(self, now: float) -> None:
        """Note that the process lives at *now*, in seconds since the epoch. This takes 2 us."""
        os.utime(self._lock, (now, now))

    def alive_until(self) -> float:
        """Return the last time that :meth:`touch` has noted."""
        return os.fstat(self._lock).st_mtime

    def next_segment(self, prepared: Segment, running: Iterable[Started]) -> Segment | None:
        """Make *prepared* the present segment, and write the *running* requests to it.

        Returns:
            The previous segment, which can be sealed now.
        """
        try:
            prepared.append(b"".join(started.line() for started in running))
        except OSError:
            prepared.close()
            prepared.path.unlink()
            raise
        previous, self.segment = self.segment, prepared
        self._number += 1
        return previous

    def seal(self, segment: Segment) -> None:
        """Rename *segment* to show that it is complete, sync it to disk, and close it."""
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
        """Release the folder. Remove it if it contains nothing that another process would have to ship.

        Args:
            nothing_left: Whether all requests in the open segment have ended and are in the usage log.
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
    """Return the number of a segment. Segments are numbered in the order in which they were written."""
    return int(segment.stem)


def ended_in(segment: Path, running: dict[str, Started] | None = None) -> Iterator[UsageRecord]:
    """Yield the records of the requests that have ended in *segment*.

    Args:
        running: The requests without an end, by id. It is updated with the lines of the segment. None if not needed.
    """
    for kind, record, bound in _lines(segment, every=running is not None):
        if running is not None:
            if kind == "begin":
                running[record.id] = Started(record, bound)
            else:
                running.pop(record.id, None)
        if kind == "end":
            yield record


class Line(NamedTuple):
    """One line of a journal."""

    kind: str
    """``begin``, ``end`` or ``cancel``."""
    record: UsageRecord


def find_stored(folder: Path, stored_id: str) -> UsageRecord | None:
    """Return the record that has *stored_id* as its response or among its stored identifiers; None if there is none.

    Args:
        stored_id: As for :func:`_find`.
    """
    found = _find(folder, stored_id, lambda record: stored_id in (record.response_id, *record.stored_ids))
    return max((line.record for line in found), key=lambda record: record.duration_ms, default=None)


def find_request(folder: Path, request_id: str) -> Line | None:
    """Return the last line of the request that has this identifier, from us or from Azure; None if there is none.

    Args:
        request_id: As for :func:`_find`.
    """

    def matches(record: UsageRecord) -> bool:
        attempts = (attempt.upstream_request_id for attempt in record.attempts)
        return request_id in (record.id, record.upstream_request_id, *attempts)

    found = _find(folder, request_id, matches)
    return max(found, key=lambda line: (line.kind != "begin", line.record.duration_ms), default=None)


def _find(folder: Path, name: str, matches: Callable[[UsageRecord], bool]) -> list[Line]:
    """Return the last line with a matching record from each of the segments in *folder* that has one.

    It is searched in all journals. Other processes may write, seal and delete segments at the same time.

    Args:
        name: What a line with such a record contains. Consists of letters, digits, ``_`` and ``-``.
    """
    for _ in range(_LOOK_AGAIN):
        try:
            segments = [*folder.glob("[!.]*/*.*")]
            return [line for path in segments if (line := _last_with(name, path, matches)) is not None]
        except FileNotFoundError:
            continue  # a segment was sealed or shipped meanwhile
        except OSError:
            log.warning("The journals cannot be searched.", exc_info=True)
            return []
    return []


def mentions(folder: Path, words: Collection[str]) -> bool:
    """Return whether a journal in *folder* contains one of *words*; True if the journals cannot be read.

    Args:
        words: Identifiers: letters, digits, ``_`` and ``-``.
    """
    wanted = [word.encode() for word in words]
    for _ in range(_LOOK_AGAIN):
        try:
            return any(_contains(path, wanted) for path in folder.glob("[!.]*/*.*"))
        except FileNotFoundError:
            continue  # a segment was sealed or shipped meanwhile
        except OSError:
            log.warning("The journals cannot be searched.", exc_info=True)
            return True
    return True


def _contains(segment: Path, words: Collection[bytes]) -> bool:
    with segment.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(word) >= 0 for word in words)


def _last_with(name: str, segment: Path, matches: Callable[[UsageRecord], bool]) -> Line | None:
    """Return the last line in *segment* that contains *name* and has a matching record."""
    with segment.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = len(content)
            while (found := content.rfind(b'"%b"' % name.encode(), 0, end)) >= 0:
                start = content.rfind(b"\n", 0, found) + 1
                line_end = content.find(b"\n", found)
                line = _line_in(content[start : line_end if line_end >= 0 else len(content)])
                if line is not None and matches(line.record):
                    return line
                end = start
    return None


def _line_in(line: bytes) -> Line | None:
    try:
        kind, fields, *_ = orjson.loads(line)
        return Line(kind, _record(fields))
    except (ValueError, TypeError, KeyError, IndexError):
        return None  # incomplete


def _lines(segment: Path, *, every: bool) -> Iterator[tuple[str, UsageRecord, Bound | None]]:
    """Yield the kind, the record and the bound of each line. Unless *every* is true, skip ``begin`` lines, which saves
    half of the work."""
    with segment.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line == b"\n" or (line.startswith(_BEGINNING) and not every):
                continue
            try:
                kind, fields, *rest = orjson.loads(line)
                record = _record(fields)
                bound = Bound(**rest[0]) if rest and rest[0] else None
            except (ValueError, TypeError, KeyError):
                # If a process dies while it writes, the last line is incomplete.
                log.warning("Line %d of journal segment %s is incomplete and is ignored.", number, segment.name)
                continue
            yield kind, record, bound


def _record(fields: dict[str, Any]) -> UsageRecord:
    fields["timestamp"] = datetime.fromisoformat(fields["timestamp"])
    fields["outcome"] = Outcome(fields["outcome"])
    fields["usage_source"] = UsageSource(fields["usage_source"])
    fields["content_filter"] = tuple(fields["content_filter"])
    fields["stored_ids"] = tuple(fields.get("stored_ids", ()))
    fields["filter_severities"] = tuple(fields.get("filter_severities", ()))
    fields["limits"] = tuple(fields.get("limits", ()))
    fields["attempts"] = tuple(map(Attempt.from_json, fields.get("attempts", ())))
    return UsageRecord(**fields)
