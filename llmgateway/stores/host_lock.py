"""A lock on a file, which one process of a host holds until it ends."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path


class HostLock:
    """Says which process of this host does something for all of them. Thread-safe; may be created before a fork."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._pid = 0

    def hold(self) -> bool:
        """Return whether this process holds the lock, and try to get it. So another one gets it when that has died.

        A file that cannot be opened, for example on a full disk, keeps nobody silent.
        """
        with self._lock:
            if self._pid == os.getpid():
                return True
            try:
                descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except OSError:
                return True
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError:  # the file system has no locks
                os.close(descriptor)
                return True
            self._descriptor, self._pid = descriptor, os.getpid()
            return True
