"""The body of a request that is not complete when a thread begins to run the request.

The view authenticates the client before it reads the body. Until then the connection is not read any further, so a
client without a key can make the gateway hold 64 KiB of a body and not more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

SLOWEST = 16 * 1024
"""Bytes per second. A body that arrives at this rate or faster is not refused for being slow."""

GRACE_SECONDS = 30.0
"""Seconds that a body may take besides those for its bytes."""

LONGEST_SECONDS = 300.0
"""The most seconds that a body may take. A request holds a thread while its body arrives."""


class AwaitedBody:
    """The ``wsgi.input`` of a request whose body still arrives. Its first read waits for all of it.

    The view reads; the main thread calls :meth:`finish` or :meth:`fail`.

    Args:
        want: Called at the first read: makes the client send the body, and the main thread receive it.
    """

    def __init__(self, want: Callable[[], None]) -> None:
        self.wanted_since: float | None = None
        """When the view began to read; None before."""
        self._want = want
        self._decided = threading.Event()
        self._result: BinaryIO | OSError | None = None

    def finish(self, file: BinaryIO) -> None:
        """Give the body to the view. No effect after :meth:`fail`."""
        if not self._decided.is_set():
            self._result = file
            self._decided.set()

    def fail(self, error: OSError) -> None:
        """Raise *error* in the view, because the body will not be complete. No effect after :meth:`finish`."""
        if not self._decided.is_set():
            self._result = error
            self._decided.set()

    def is_too_slow(self, now: float, received: int) -> bool:
        """Return whether *received* bytes are too few for the time that has passed."""
        since = self.wanted_since
        return since is not None and now - since > min(GRACE_SECONDS + received / SLOWEST, LONGEST_SECONDS)

    def read(self, size: int = -1) -> bytes:
        return self._body().read(size)

    def readline(self, size: int = -1) -> bytes:
        return self._body().readline(size)

    def readlines(self, hint: int = -1) -> list[bytes]:
        return self._body().readlines(hint)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body())

    def seekable(self) -> bool:
        return self._body().seekable()

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        return self._body().seek(place, whence)

    def _body(self) -> BinaryIO:
        if self.wanted_since is None:
            self._want()
        self._decided.wait()
        if isinstance(self._result, OSError):
            raise self._result
        return cast(BinaryIO, self._result)
