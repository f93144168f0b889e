"""Which of the workers have places free, so that a full one leaves new connections to the others.

All workers accept from one socket, and whoever is first has the connection with all its requests. A full worker would
answer 503 to them while another one has nothing to do. So each worker keeps one byte in memory that all share, which
says whether it has places. A worker accepts if it has places itself or if nobody has: then somebody has to say so.

Who stopped accepting, and when does it begin again?

* A place becomes free in it: the worker is told at once.
* Another one becomes full or ends: it need not know at once. The last one to become full goes on accepting, and this
  one asks again within a second (:data:`~llmgateway.server.loop.SWEEP_SECONDS`). So does it if the last two become full
  in the same moment, each thinking that the other one accepts; until then the kernel keeps the connections.
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

    A connection that was accepted and has not got its place yet counts like a place taken. Else a worker that is woken
    for six connections would accept all six before the first of their requests has taken one of its four places.

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
        """Take note that *connection* needs no place: it is closed, or has its first answer. Harmless if known."""
        if connection in self._new:
            self._new.discard(connection)
            self._update()

    def _update(self) -> None:
        """Tell the others if the worker has become full, or has places again."""
        with self._lock:
            # Counted here: whoever has changed something comes here afterwards, so the last one tells the truth.
            full = len(self._new) + self._limit.taken >= self._limit.capacity
            if full == self._full or self._closed:
                return
            self._full = full
            self._shared.tell(self._worker, full=full)
        if not full:
            self.on_places()

    def should_accept(self) -> bool:
        """Whether a connection has no better chance with another worker."""
        return not (self._full and self._shared.others_have_places(self._worker))

    def close(self) -> None:
        """Leave all connections to the others, whatever becomes free here from now on."""
        with self._lock:
            self._closed = True
            self._shared.forget(self._worker)
