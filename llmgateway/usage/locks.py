"""A lock for short critical sections, which avoids lock convoys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

AGAIN_SECONDS = 0.0005
"""The first pause before the lock is tried again. It is longer than the critical sections, and too short to notice."""

SELDOM_SECONDS = 0.05
"""The longest pause. If the thread that holds the lock waits for a disk, 20 attempts a second cost almost nothing."""


class ShortLock:
    """A mutual exclusion lock for critical sections of microseconds. It is neither fair nor reentrant.

    With a ``threading.Lock``, a thread that wakes up first gets the lock, and then waits for the interpreter's lock
    (GIL). Meanwhile all other threads find the lock taken and sleep, too. This state (a lock convoy) lasts as long as
    there is much work. With 16 clients each request slept twice for the journal's lock, which is held for a few
    microseconds (2026-11).

    With this class, a thread that finds the lock taken sleeps without being in its queue, and tries again after half a
    millisecond. The pauses grow with the time that it has waited.

    Args:
        sleep: Sleeps for a number of seconds.
    """

    __slots__ = ("_lock", "_sleep")

    def __init__(self, *, sleep: Callable[[float], object] = time.sleep) -> None:
        self._lock = threading.Lock()
        self._sleep = sleep

    def __enter__(self) -> None:
        waited = 0.0
        while not self._lock.acquire(blocking=False):
            pause = min(max(AGAIN_SECONDS, waited / 8), SELDOM_SECONDS)
            self._sleep(pause)
            waited += pause

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
