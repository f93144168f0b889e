"""Lets processes that share a store notice each other's changes without asking the store for every request."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..clock import Timer

BELIEVED_SECONDS = 0.02
"""A process uses a version for this time before it reads it again. With 16 clients, reading it from SQLite or Redis
takes 0.2 ms of CPU, because that releases the GIL several times (2026-11)."""

NOTICED_SECONDS = 0.025
"""A change waits for this time before its call returns. It is a little longer than ``BELIEVED_SECONDS``, because the
clocks of hosts do not run at exactly the same speed."""


class RecentVersion:
    """A version that was read within the last ``BELIEVED_SECONDS``. Thread-safe.

    The process that makes a change calls :meth:`wait_until_noticed` before its own call returns. After that time no
    process uses a version from before the change. So a request that arrives after the call sees the change in every
    process, although the version is not read for every request.

    Args:
        read: Reads the version from the store; None means that the version is not known. None is used as long as a
            version.
        timer: Monotonic time in seconds.
        sleep: Waits for the given number of seconds.
    """

    def __init__(
        self,
        read: Callable[[], object],
        *,
        timer: Timer = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._read = read
        self._timer = timer
        self._sleep = sleep
        self._last: tuple[float, object] | None = None  # one object: threads see both parts or neither

    def __call__(self) -> object:
        """Return the version. Raises the exceptions of *read*; the next call then reads again."""
        # The time is taken before reading: a change during the reading may be missing in the result.
        now = self._timer()
        if self._last is not None and 0 <= now - self._last[0] < BELIEVED_SECONDS:
            return self._last[1]
        version = self._read()
        self._last = now, version
        return version

    def wait_until_noticed(self) -> None:
        """Return when every process that shares the store has noticed all changes that are stored now."""
        self._sleep(NOTICED_SECONDS)
