"""Makes streams wait between two reads if there are many of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..azure.cancellation import CancellationToken


class ReadCoalescing:
    """Makes streams wait between two reads, so that one read returns several chunks. Thread-safe.

    Each read and each write acquires the interpreter's lock (GIL) again. With hundreds of threads, passing the lock
    on is most of the work: 300 streams of 50 chunks a second need three times the CPU time if every chunk wakes its
    thread, and a new stream waits for seconds. So the wait grows with the number of streams. Few streams do not
    wait, because it would gain nothing. The wait has a maximum, above which users would notice it.

    Args:
        sleep: Waits for a number of seconds; returns earlier if the request is cancelled.
    """

    FEW_STREAMS = 30
    SECONDS_FOR_EACH = 0.00035
    MOST_SECONDS = 0.15

    def __init__(self, *, sleep: Callable[[CancellationToken, float], None] = CancellationToken.rest) -> None:
        self._sleep = sleep
        self._lock = threading.Lock()
        self.streams = 0
        """The number of open streams."""

    def begin(self) -> None:
        with self._lock:
            self.streams += 1

    def end(self) -> None:
        with self._lock:
            self.streams -= 1

    def wait(self, cancellation: CancellationToken) -> None:
        """Wait until the next read of the request of *cancellation*."""
        if self.streams > self.FEW_STREAMS:
            self._sleep(cancellation, min(self.streams * self.SECONDS_FOR_EACH, self.MOST_SECONDS))
