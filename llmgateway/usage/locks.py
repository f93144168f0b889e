"""A lock that suits threads which share an interpreter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

AGAIN_SECONDS = 0.0005
"""When to try again where it is taken: longer than what it is made for takes, shorter than anybody notices."""

SELDOM_SECONDS = 0.05
"""When to try again at most, where the holder waits for a disk that stands still: 20 times a second cost nothing."""


class ShortLock:
    """Mutual exclusion for what takes microseconds, without convoys. Neither fair nor reentrant.

    A thread that sleeps for a ``threading.Lock`` is given it first and has to wait for the interpreter's lock then,
    and while it does, everybody else comes too late and sleeps as well. So where threads have met once they go on
    meeting for as long as there is much to do: with 16 clients each request slept twice for the journal, whose lock
    is held for a few microseconds (2026-11). Here, a thread that finds it taken holds nothing while it sleeps, and
    tries again: after half a millisecond, and less and less often where it has waited long.

    Args:
        sleep: For so many seconds.
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
