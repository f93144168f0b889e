"""A lock on the instance folder: either one process counts limits in memory, or several use the file."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path


class FolderLock:
    """A lock on a folder. Either one process holds it exclusively, or several share it. It ends with the process.

    A child process does not inherit it: the child closes its copy of the descriptor, because otherwise the lock would
    be held until the child ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        _locks.add(self)

    def acquire(self) -> bool:
        """Take the lock exclusively; False if another process holds or shares it."""
        return self._lock(fcntl.LOCK_EX)

    def share(self) -> bool:
        """Share the lock; False if another process holds it exclusively. Cheap if this process shares it already."""
        return self._descriptor is not None or self._lock(fcntl.LOCK_SH)

    def close(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def _lock(self, kind: int) -> bool:
        try:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError:  # another process holds it, or the file system has no locks
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True


_locks: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _close_all() -> None:
    for lock in list(_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_all)
