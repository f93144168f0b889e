"""Lets a full worker leave new connections to workers that have free slots.

All workers accept connections from one socket. A worker gets all requests of the connections that it accepts. Without
this module, a full worker could answer them with 503 although another one is idle. So each worker has one byte in
memory that all of them share, and writes there whether it has free slots. A worker accepts connections if it has free
slots, or if no worker has any. In the second case the client gets the 503.

A worker that has stopped accepting starts again

* when one of its own slots becomes free: its main thread is woken at once;
* when no other worker has free slots: within a second (:data:`~llmgateway.server.loop.SWEEP_SECONDS`). Until then
  the worker that became full last goes on accepting. If two workers become full at the same moment, or the only one
  with free slots dies, connections wait in the kernel for up to a second.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable

from ..proxy.concurrency import ConcurrencyLimit

_GONE, _HAS_FREE_SLOTS, _FULL = range(3)


class SharedCapacity:
    """The memory in which each worker says whether it has free slots.

    It is created before the workers are forked. Each worker writes only its own byte.

    Args:
        workers: The number of workers. They are numbered from 0.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._states = mmap.mmap(-1, workers)  # anonymous and shared with child processes

    def tell(self, worker: int, *, full: bool) -> None:
        self._states[worker] = _FULL if full else _HAS_FREE_SLOTS

    def forget(self, worker: int) -> None:
        """Store that a worker accepts no connections, because it stops or has died."""
        self._states[worker] = _GONE

    def others_have_free_slots(self, worker: int) -> bool:
        states = self._states[:]
        return _HAS_FREE_SLOTS in states[:worker] + states[worker + 1 :]


class WorkerCapacity:
    """Decides whether one worker accepts connections, and tells the other workers when it is full. Thread-safe.

    A new connection counts as a taken slot until its first request has taken a slot or has been answered. Otherwise a
    worker with four free slots could accept six connections at once, because their requests have not taken a slot yet.

    Args:
        shared: The memory that the workers share.
        worker: The number of this worker.
        limit: The concurrency limit of this worker.
    """

    def __init__(self, shared: SharedCapacity, worker: int, limit: ConcurrencyLimit) -> None:
        self.on_free_slots: Callable[[], None] = lambda: None
        """Called when a slot becomes free after all were taken, from any thread."""
        self._shared = shared
        self._worker = worker
        self._limit = limit
        self._new: set[object] = set()
        self._lock = threading.Lock()
        self._full = False
        self._closed = False
        shared.tell(worker, full=False)

    def accepted(self, connection: object) -> None:
        """Count a new connection as a taken slot, because its first request may need one."""
        self._new.add(connection)
        self._update()

    def slots_changed(self, connection: object) -> None:
        """Recount after a request of *connection* has taken or freed a slot."""
        self._new.discard(connection)
        self._update()

    def no_longer_new(self, connection: object) -> None:
        """Stop counting *connection* as a taken slot, because it is closed or has its first answer.

        Later calls have no effect.
        """
        if connection in self._new:
            self._new.discard(connection)
            self._update()

    def _update(self) -> None:
        """Tell the other workers if this one has become full, or has free slots again."""
        if self._shared.workers == 1:
            return
        with self._lock:
            # Count while holding the lock: each change is followed by a call, so the last call sees all changes.
            full = len(self._new) + self._limit.taken >= self._limit.capacity
            if full == self._full or self._closed:
                return
            self._full = full
            self._shared.tell(self._worker, full=full)
        if not full:
            self.on_free_slots()

    def should_accept(self) -> bool:
        """Return whether this worker has free slots, or no other worker has any."""
        return not (self._full and self._shared.others_have_free_slots(self._worker))

    def close(self) -> None:
        """Leave all new connections to the other workers, because this one stops."""
        with self._lock:
            self._closed = True
            self._shared.forget(self._worker)
