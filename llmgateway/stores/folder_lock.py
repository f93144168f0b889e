"""Whether one process counts alone in an instance folder, or several may."""

from __future__ import annotations

import fcntl
import os
import weakref
from pathlib import Path


class FolderLock:
    """A lock on a folder, which one process has exclusively or several share. It ends with the process.

    A child of a fork has not got it: the child closes its copy of the descriptor, or the lock would last as long as the
    child.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor: int | None = None
        _locks.add(self)

    def acquire(self) -> bool:
        """Take the lock exclusively; False if another process has it, in whatever way."""
        return self._lock(fcntl.LOCK_EX)

    def share(self) -> bool:
        """Take the lock together with others; False if another process has it exclusively. It is cheap to have it."""
        return self._descriptor is not None or self._lock(fcntl.LOCK_SH)

    def close(self) -> None:
        """Let the lock go."""
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
        except OSError:  # it is taken, or the file system has no locks
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True


_locks: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _close_all() -> None:
    for lock in list(_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_all)
