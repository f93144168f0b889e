"""One thread that sends the events of all slow streams on time.

With one thread for each stream, waking the threads would take all of the CPU at 300 streams of 50 events a second.
This thread sends everything that is due within the same millisecond at once.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import threading
import time
from collections import deque
from itertools import count

from .connections import Connection, Pause, PeerLeft
from .wire import Steps


class _Stream:
    """An answer that the pacer sends; the thread of its connection waits for ``done``."""

    __slots__ = ("connection", "done", "due", "error", "pause", "steps")

    def __init__(self, connection: Connection, steps: Steps, due: float) -> None:
        self.connection = connection
        self.steps = steps
        self.due = due
        self.pause: Pause | None = None
        self.error: BaseException | None = None
        self.done = threading.Event()


class Pacer:
    """Runs the steps of answers when they are due. The thread starts with the first stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._new: deque[_Stream] = deque()
        self._bell: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def follow(self, connection: Connection, steps: Steps, pause: Pause) -> Pause | None:
        """Take *steps*, the next after *pause*, until they end or cannot go on here; blocks.

        Returns:
            The pause after which the caller must go on by itself, because it has no set end or
            the client does not read; ``None`` if there is nothing left.

        Raises:
            PeerLeft: the client closed the connection.
            Cut: the script breaks off the answer.
        """
        if pause.until is None:
            return pause
        stream = _Stream(connection, steps, pause.until)
        with self._lock:
            self._new.append(stream)
            self._ring()
        stream.done.wait()
        if stream.error is not None:
            raise stream.error
        return stream.pause

    def stop(self) -> None:
        """End the thread when no stream is left."""
        with self._lock:
            bell, thread = self._bell, self._thread
            self._bell = self._thread = None
        if bell is not None and thread is not None:
            bell.close()
            thread.join()

    def _ring(self) -> None:
        if self._bell is None:
            heard, self._bell = socket.socketpair()
            self._thread = threading.Thread(target=self._run, args=(heard,), name="simulator-pacer", daemon=True)
            self._thread.start()
        self._bell.send(b"!")

    def _run(self, bell: socket.socket) -> None:
        due: list[tuple[float, int, _Stream]] = []
        ranks = count()
        with bell, selectors.DefaultSelector() as selector:
            selector.register(bell, selectors.EVENT_READ)
            while True:
                patience = max(0.0, due[0][0] - time.monotonic()) if due else None
                for key, _ in selector.select(patience):
                    if key.data is None:
                        if not bell.recv(4096):
                            return
                    else:
                        _hear(key.data, selector)
                while self._new:
                    stream = self._new.popleft()
                    selector.register(stream.connection, selectors.EVENT_READ, stream)
                    heapq.heappush(due, (stream.due, next(ranks), stream))
                now = time.monotonic()
                while due and due[0][0] <= now:
                    _, _, stream = heapq.heappop(due)
                    if not stream.done.is_set() and _step(stream, selector):
                        heapq.heappush(due, (stream.due, next(ranks), stream))


def _step(stream: _Stream, selector: selectors.BaseSelector) -> bool:
    """Run one step; True if there is another one to run here."""
    if not stream.connection.writable():
        # Sending would block all the others.
        stream.pause = Pause(stream.due)
    else:
        try:
            stream.pause = next(stream.steps, None)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that the answer belongs to
            stream.error = error
        else:
            if stream.pause is not None and stream.pause.until is not None:
                stream.due = stream.pause.until
                return True
    _leave(stream, selector)
    return False


def _hear(stream: _Stream, selector: selectors.BaseSelector) -> None:
    """Whether the client has closed the connection, or has sent its next request early."""
    if not stream.connection.more():
        stream.error = PeerLeft()
        _leave(stream, selector)


def _leave(stream: _Stream, selector: selectors.BaseSelector) -> None:
    selector.unregister(stream.connection)
    stream.done.set()
