"""Cancels a request that another thread has sent to Azure."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    """What may carry a request."""

    def shutdown(self) -> None:
        """Wake whoever waits for it, and let the other side see the end; raises OSError if it is closed already."""
        ...


class CancellationToken:
    """Belongs to one request; knows which connection carries it, and whether it was sent. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._connection_was_cut = False
        # Held until the request is cut: to wait for a lock is the cheapest sleep that can be ended.
        self._uncut = threading.Lock()
        self._uncut.acquire()
        self.sent = False
        """Whether Azure may have all of the request, so that it may be billed."""
        self.was_cut = False
        self.stopping = False
        """Whether it was cut because the process stops, and not because its client has gone."""
        self.abandoned: Callable[[], bool] = lambda: False
        """Whether its client has gone, where somebody can tell."""

    def attach(self, connection: Connection) -> None:
        """Take note that *connection* is about to carry the request; cut it together with the request.

        Raises:
            ConnectionAbortedError: the request was cut already.
        """
        with self._lock:
            if self.was_cut:
                raise ConnectionAbortedError("the client has gone")
            self._connection = connection

    def mark_sent(self) -> None:
        """Take note that from now on Azure may have all of the request.

        Raises:
            ConnectionAbortedError: it was cut before.
        """
        with self._lock:
            if self.was_cut:
                raise ConnectionAbortedError("the client has gone")
            self.sent = True

    def recall(self) -> None:
        """Take note that Azure cannot have seen what was sent; it can be sent again."""
        with self._lock:
            self.sent = False

    def detach(self) -> bool:
        """Let go of the connection, before it is closed or carries another request: to cut does not touch it any more.

        Returns:
            Whether it was left alone, and can carry another request.
        """
        with self._lock:
            self._connection = None
            return not self._connection_was_cut

    def cut(self, *, stopping: bool = False) -> None:
        """End the request: whoever waits for the answer is woken, and Azure sees the connection close."""
        with self._lock:
            if not self.was_cut:
                self.stopping = stopping
                self._uncut.release()
            self.was_cut = True
            if self._connection is not None:
                self._connection_was_cut = True
                with contextlib.suppress(OSError):  # the other side has closed it already
                    self._connection.shutdown()

    def rest(self, seconds: float) -> None:
        """Do nothing for *seconds*, or until the request is cut."""
        if self._uncut.acquire(timeout=seconds):
            self._uncut.release()
