"""Whether something in a file has changed, told by the processes of a host to each other without a system call."""

from __future__ import annotations

import logging
import mmap
import os
import secrets
import time
from typing import NamedTuple

from llmgateway.clock import Timer

BELIEVED_SECONDS = 5.0
"""How long what was read under a stamp is believed, however long the stamp stays the same."""

_WORD = 8  # bytes

log = logging.getLogger(__name__)


class State(NamedTuple):
    """What the stamp says; compared for equality only."""

    word: int
    turn: int
    """Goes up by one every ``BELIEVED_SECONDS``."""


class Stamp:
    """A random word in a small file beside a database, replaced with every change. Thread-safe.

    Who reads the stamp, then the database, and remembers what it found with *that* stamp may use it unasked
    as long as the stamp says the same:

    * A writer replaces the word before it commits, and again after. What is remembered with the second word
      was read after the commit, and any earlier word is not there any more. So everybody sees a change as
      soon as the call that made it has returned. What was read between the first word and the commit is
      believed for as long as the commit takes, and no longer.
    * A writer that is killed after its commit, before the second word, leaves the first. Who has read the
      database between that one and the commit, within some milliseconds, would never learn of the change.
      Therefore what the stamp says changes by itself, every ``BELIEVED_SECONDS``.
    * Who has the file in memory that somebody has removed from the folder hears nothing of it. So it is
      looked for there: as often, and before every change.

    The file is mapped into the memory of each process, so that reading it is reading memory: no system call
    and no waiting for Python's lock. It needs of the file system what SQLite's ``-shm`` file needs. A fork
    leaves both sides with the same stamp. Nothing in the file has to outlive the processes.

    Args:
        path: The file; made with mode 0600 if it is not there.
    """

    def __init__(self, path: str, *, timer: Timer = time.monotonic) -> None:
        self._path = path
        self._timer = timer
        self._file: tuple[int, int] | None = None  # that is mapped, as device and inode
        self._mapped: memoryview | None = None
        self._failed = False
        self._last = State(0, -1)

    def read(self) -> State | None:
        """Return what the stamp is now; None if there is none, and nothing may be remembered."""
        turn = int(self._timer() / BELIEVED_SECONDS)
        last = self._last
        if turn != last.turn:
            self._map_again()
        mapped = self._mapped
        word = 0 if mapped is None else mapped[0]
        if word != last.word or turn != last.turn:
            # One object for everybody, since there may be 100,000 who keep it.
            last = self._last = State(word, turn)
        return None if mapped is None else last

    def renew(self) -> None:
        """Replace it, for all processes."""
        self._map_again()  # so that what everybody else finds in the folder is what is renewed
        mapped = self._mapped
        if mapped is not None:
            mapped[0] = secrets.randbits(8 * _WORD)

    def _map_again(self) -> None:
        """See whether the file that is mapped is the one in the folder, and map that if not."""
        try:
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == self._file:
                return
        except OSError:
            pass  # to make one is to find out what is wrong
        try:
            self._map()
        except (OSError, ValueError) as error:
            if not self._failed:
                log.warning("Every request reads the database, since %s cannot be used: %s", self._path, error)
            self._failed, self._file, self._mapped = True, None, None

    def _map(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # A new word, whatever was there: whoever comes first or second, the file is long enough, and its
            # place on the disk is taken before the memory is written to.
            os.pwrite(descriptor, secrets.token_bytes(_WORD), 0)
            found = os.fstat(descriptor)
            # A memory view reads and writes an aligned word as a whole.
            self._mapped = memoryview(mmap.mmap(descriptor, _WORD)).cast("Q")
            self._file = found.st_dev, found.st_ino
            self._failed = False
        finally:
            os.close(descriptor)
