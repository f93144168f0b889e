"""Ends running answers whose keys are revoked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ..azure.cancellation import CancellationToken
from ..background import Background
from ..clock import Timer
from ..errors import KeyRevoked, StoreUnavailable

LOOK_SECONDS = 0.5
"""The time between two looks at the version of the stored keys."""

POLL_SECONDS = 1.5
"""The time after which all running keys are looked up again, if the store has no version."""


class RunningKey(NamedTuple):
    """The key of a running request."""

    digest: str
    """The digest of the key that the client sent; it may be one that is being replaced."""
    id: str


class RevocationWatcher:
    """Cuts requests in flight when their keys are revoked. Thread-safe.

    This has its own background thread, because a look-up can wait for a store that does not answer. Keys are looked up
    again only when the version of the stored keys has changed since they were. So a look costs no more than reading the
    version, and after a change one look-up for each running key.

    Args:
        is_revoked: Returns whether a key that was valid is revoked now. It may ask a store.
        version: Changes with every change of a key; returns None if it is not known. None if the store has no version:
            then the running keys are looked up every :data:`POLL_SECONDS`.
    """

    def __init__(
        self,
        is_revoked: Callable[[RunningKey], bool],
        *,
        version: Callable[[], object] | None,
        timer: Timer = time.monotonic,
    ) -> None:
        self._is_revoked = is_revoked
        self._version = version
        self._timer = timer
        self._lock = threading.Lock()
        self._running: dict[CancellationToken, RunningKey] = {}
        self._new: set[CancellationToken] = set()  # not yet looked up
        self._seen: object = None
        self._polled = timer()
        self._background = Background("revoked", self.look, seconds=LOOK_SECONDS)

    def add(self, cancellation: CancellationToken, key: RunningKey) -> None:
        """Watch the key of a request. It may have been revoked since it was authenticated."""
        with self._lock:
            self._running[cancellation] = key
            self._new.add(cancellation)
        self._background.need()

    def remove(self, cancellation: CancellationToken) -> None:
        """Forget a request; no effect if it is not known."""
        with self._lock:
            self._running.pop(cancellation, None)
            self._new.discard(cancellation)

    def look(self) -> bool:
        """Check the running keys if something may have changed; return whether any are left. The thread calls this."""
        version = self._read_version()  # before the look-ups: these may be newer, but not older
        if version is None and self._timer() < self._polled + POLL_SECONDS:
            return bool(self._running)
        with self._lock:
            all_again = version is None or version != self._seen
            due = [(one, self._running[one]) for one in (self._running if all_again else self._new)]
            self._new.clear()
        self._seen, self._polled = version, self._timer()
        revoked = {key for key in {key for _, key in due} if self._is_revoked(key)}
        for cancellation, key in due:
            if key in revoked:
                self.remove(cancellation)
                cancellation.cut(KeyRevoked("The API key was revoked. Ask the admin of this gateway."))
        return bool(self._running)

    def _read_version(self) -> object:
        try:
            return None if self._version is None else self._version()
        except StoreUnavailable:
            return None  # the look-ups then use what is in memory
