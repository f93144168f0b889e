"""How the process that keeps a file's write lock for a while hears that another one waits for it.

Who waits has a shared lock on the folder, for which nothing else has a use; it goes with the process. SQLite's own
locks do not show who waits.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def at_the_door(folder: str) -> Iterator[Callable[[], None]]:
    """Give a way to knock, which is heard until the block is left. Whoever listens just then misses it: knock again."""
    with _opened(folder) as door:

        def knock() -> None:
            with suppress(BlockingIOError):
                fcntl.flock(door, fcntl.LOCK_SH | fcntl.LOCK_NB)

        yield knock


def is_knocked_at(folder: str) -> bool:
    """Whether anybody waits."""
    with _opened(folder) as door:
        try:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    door = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield door
    finally:
        os.close(door)  # and with it the lock
