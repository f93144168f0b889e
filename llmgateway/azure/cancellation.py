"""Cancels requests to Azure from another thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    """A connection over which a request is sent."""

    def shutdown(self) -> None:
        """End the connection in both directions and wake the thread that waits for it.

        Raises:
            OSError: the connection is already closed.
        """
        ...


class CancellationToken:
    """Cancels one request. Thread-safe.

    The thread that sends the request attaches its connection and marks the request as sent. Any other thread may call
    :meth:`cut`: this shuts the connection down, so the sending thread wakes up and Azure stops.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._connection_was_cut = False
        # Locked until the request is cancelled. To wait for a lock is the cheapest sleep that another thread can end.
        self._uncut = threading.Lock()
        self._uncut.acquire()
        self.sent = False
        """Whether Azure may have received the whole request, so that it may bill it."""
        self.was_cut = False
        """Whether the request was cancelled."""
        self.reason: Exception | None = None
        """What to tell the client, if the request was cancelled for another reason than that it has disconnected."""
        self.abandoned: Callable[[], bool] = lambda: False
        """Returns whether the client has disconnected; False if the server cannot tell."""

    def attach(self, connection: Connection) -> None:
        """Set the connection that :meth:`cut` shuts down. Call this before the request is sent.

        Raises:
            ConnectionAbortedError: the request is already cancelled.
        """
        with self._lock:
            if self.was_cut:
                raise ConnectionAbortedError("the client has gone")
            self._connection = connection

    def mark_sent(self) -> None:
        """Set :attr:`sent`. Call this before the first byte is written.

        Raises:
            ConnectionAbortedError: the request is already cancelled.
        """
        with self._lock:
            if self.was_cut:
                raise ConnectionAbortedError("the client has gone")
            self.sent = True

    def recall(self) -> None:
        """Reset :attr:`sent`, because Azure did not receive the request."""
        with self._lock:
            self.sent = False

    def detach(self) -> bool:
        """Forget the connection, so that :meth:`cut` no longer shuts it down.

        Call this before the connection is closed or used for another request.

        Returns:
            Whether the connection was not shut down, and can be used again.
        """
        with self._lock:
            self._connection = None
            return not self._connection_was_cut

    def cut(self, reason: Exception | None = None) -> None:
        """Cancel the request: wake the thread that waits for the answer, and close the connection to Azure.

        Args:
            reason: What to tell the client; None if it has disconnected. The first call counts.
        """
        with self._lock:
            if not self.was_cut:
                self.reason = reason
                self._uncut.release()
            self.was_cut = True
            if self._connection is not None:
                self._connection_was_cut = True
                with contextlib.suppress(OSError):  # the other side has already closed it
                    self._connection.shutdown()

    def rest(self, seconds: float) -> None:
        """Sleep for *seconds*, or until the request is cancelled."""
        if self._uncut.acquire(timeout=seconds):
            self._uncut.release()
