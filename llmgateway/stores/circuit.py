"""A circuit breaker: a backend that has just failed is not asked for a while."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from llmgateway.errors import StoreUnavailable

T = TypeVar("T")

log = logging.getLogger(__name__)


class Circuit:
    """Prevents callers from waiting for a backend that has just failed.

    After a failure, only one call every *retry_after* seconds asks the backend. After the first success, all calls ask
    it again. Each change is logged once, as a warning.

    Args:
        backend: Name of the backend in the log.
        retry_after: Seconds between two attempts after a failure.
        clock: Time in seconds. It may jump, like the system clock.
    """

    def __init__(self, backend: str, *, retry_after: float, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._retry_after = retry_after
        self._clock = clock
        self._lock = threading.Lock()
        self._away = False
        self._asked_at = 0.0

    def call(self, question: Callable[[], T]) -> T:
        """Call *question* and return its result, unless the backend has just failed.

        Raises:
            StoreUnavailable: the backend fails, or has just failed.
        """
        if not self.allows():
            raise StoreUnavailable(f"{self._backend.capitalize()} does not serve. Try again later.")
        try:
            answer = question()
        except StoreUnavailable as error:
            self.failed(error.message)
            raise
        self.succeeded()
        return answer

    def allows(self) -> bool:
        """Whether the caller may ask the backend. It must then call :meth:`succeeded` or :meth:`failed`."""
        if not self._away:
            return True
        with self._lock:
            now = self._clock()
            # The lower bound is for a clock that was set back: without it, the wait could be very long.
            if 0 <= now - self._asked_at < self._retry_after:
                return False
            self._asked_at = now
            return True

    def failed(self, reason: str) -> None:
        with self._lock:
            self._asked_at = self._clock()
            first, self._away = not self._away, True
        if first:
            log.warning("%s is away, and is asked again every %g s: %s", self._backend, self._retry_after, reason)

    def succeeded(self) -> None:
        if not self._away:
            return
        with self._lock:
            first, self._away = self._away, False
        if first:
            log.warning("%s is back", self._backend)
