"""One request on its way to Azure, which another thread can cut."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Protocol


class Wire(Protocol):
    """What may carry a request."""

    def shutdown(self) -> None:
        """Wake whoever waits for it, and let the other side see the end; raises OSError if it is closed already."""
        ...


class CancellationToken:
    """What is known of a request once it is on its way. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wire: Wire | None = None
        self._wire_was_cut = False
        self._uncut = (
            threading.Lock()
        )  # held until it is cut: to wait for a lock is the cheapest sleep that can be ended
        self._uncut.acquire()
        self.sent = False
        """Whether Azure may have all of it, so that it may be billed."""
        self.was_cut = False
        self.abandoned: Callable[[], bool] = lambda: False
        """Whether its client has gone, where somebody can tell."""

    def carry_over(self, wire: Wire, *, complete: bool = True) -> None:
        """Take note that *wire* is about to carry it.

        Args:
            complete: Whether after this Azure may have all of it.

        Raises:
            ConnectionAbortedError: it was cut before this was sent.
        """
        with self._lock:
            if self.was_cut:
                raise ConnectionAbortedError("the client has gone")
            self._wire = wire
            self.sent = self.sent or complete

    def recall(self) -> None:
        """Take note that what was sent cannot have been seen."""
        with self._lock:
            self._wire = None
            self.sent = False

    def cut(self) -> None:
        """End it: whoever waits for the answer is woken, and Azure sees the connection close."""
        with self._lock:
            if not self.was_cut:
                self._uncut.release()
            self.was_cut = True
            if self._wire is not None:
                self._wire_was_cut = True
                with contextlib.suppress(OSError):  # it is closed already
                    self._wire.shutdown()

    def rest(self, seconds: float) -> None:
        """Do nothing for *seconds*, or until it is cut."""
        if self._uncut.acquire(timeout=seconds):
            self._uncut.release()

    def arrive(self) -> bool:
        """Take note that nothing more travels; return whether the wire may carry another request now."""
        with self._lock:
            self._wire = None
            return not self._wire_was_cut
