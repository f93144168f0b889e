"""A lock that suits threads which share an interpreter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

AGAIN_SECONDS = 0.0005
"""When to come again where it is taken: longer than what it is made for takes, shorter than anybody notices."""


class ShortLock:
    """Mutual exclusion for what takes microseconds, without convoys. Neither fair nor reentrant.

    A thread that sleeps for a ``threading.Lock`` is given it first and has to wait for the interpreter's lock then,
    and while it does, everybody else comes too late and sleeps as well. So where threads have met once they go on
    meeting for as long as there is much to do: with 16 clients each request slept twice for the journal, whose lock
    is held for ten microseconds (2026-11). Here, who finds it taken holds nothing while it sleeps, and comes again.

    Args:
        sleep: For so many seconds.
    """

    __slots__ = ("_lock", "_sleep")

    def __init__(self, *, sleep: Callable[[float], object] = time.sleep) -> None:
        self._lock = threading.Lock()
        self._sleep = sleep

    def __enter__(self) -> None:
        while not self._lock.acquire(blocking=False):
            self._sleep(AGAIN_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
