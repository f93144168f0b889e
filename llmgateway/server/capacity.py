"""Which of the workers have places free, so that a full one leaves new connections to the others.

All workers accept from one socket. The worker that accepts a connection gets all requests that come over it. A full
worker would answer them with 503 while another one has nothing to do. So each worker keeps one byte in memory that all
of them share, which says whether it has places. A worker accepts connections if it has places, or if no worker has any:
then the client must be told so.

A worker that has stopped accepting begins again

* when one of its own places becomes free: its main thread is woken at once;
* when no other worker has places any more: within a second (:data:`~llmgateway.server.loop.SWEEP_SECONDS`). Until then
  the last worker that became full goes on accepting. If two become full in the same moment, or the only one with places
  dies, connections wait in the kernel for up to that second.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable

from ..proxy.concurrency import ConcurrencyLimit

_GONE, _HAS_PLACES, _FULL = range(3)


class SharedCapacity:
    """What the workers tell each other. Made before they are forked; each writes its own byte only.

    Args:
        workers: How many there are; they have the numbers from 0 on.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._states = mmap.mmap(-1, workers)  # anonymous and shared with child processes

    def tell(self, worker: int, *, full: bool) -> None:
        self._states[worker] = _FULL if full else _HAS_PLACES

    def forget(self, worker: int) -> None:
        """Take note that a worker accepts no more, because it stops or is dead."""
        self._states[worker] = _GONE

    def others_have_places(self, worker: int) -> bool:
        states = self._states[:]
        return _HAS_PLACES in states[:worker] + states[worker + 1 :]


class WorkerCapacity:
    """The places of one worker, as the others see them. Thread-safe.

    A new connection counts as a place taken until its first request has taken a place or has been answered. Otherwise a
    worker with four places that is woken for six connections would accept all six, before the first of their requests
    has taken a place.

    Args:
        worker: The number of this worker.
        limit: Its places.
    """

    def __init__(self, shared: SharedCapacity, worker: int, limit: ConcurrencyLimit) -> None:
        self.on_places: Callable[[], None] = lambda: None
        """Called when there are places again after there were none, from any thread."""
        self._shared = shared
        self._worker = worker
        self._limit = limit
        self._new: set[object] = set()
        self._lock = threading.Lock()
        self._full = False
        self._closed = False
        shared.tell(worker, full=False)

    def accepted(self, connection: object) -> None:
        """Take note of a new connection, whose first request may need a place."""
        self._new.add(connection)
        self._update()

    def places_changed(self, connection: object) -> None:
        """Take note that the request of *connection* has taken a place, or has given it back."""
        self._new.discard(connection)
        self._update()

    def settled(self, connection: object) -> None:
        """Take note that *connection* needs no place: it is closed, or has its first answer. May be repeated."""
        if connection in self._new:
            self._new.discard(connection)
            self._update()

    def _update(self) -> None:
        """Tell the others if the worker has become full, or has places again."""
        if self._shared.workers == 1:
            return
        with self._lock:
            # Counted under the lock: each change is followed by a call, so the last call sees all changes.
            full = len(self._new) + self._limit.taken >= self._limit.capacity
            if full == self._full or self._closed:
                return
            self._full = full
            self._shared.tell(self._worker, full=full)
        if not full:
            self.on_places()

    def should_accept(self) -> bool:
        """Whether this worker has places, or no other one has."""
        return not (self._full and self._shared.others_have_places(self._worker))

    def close(self) -> None:
        """Leave all connections to the others, whatever becomes free here from now on."""
        with self._lock:
            self._closed = True
            self._shared.forget(self._worker)
