"""The store of erasures, and what erases."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from ..records import Erasure


class Erasures(Protocol):
    """Remembers which persons were erased. What is kept contains no names."""

    def begin(self, erasure: Erasure) -> None:
        """Store *erasure*. After that it holds for everything that is stored later.

        If there is one with this pseudonym, it gets the other keys, too.
        """
        ...

    def of(self, key_ids: Collection[str]) -> Sequence[Erasure]:
        """Return the erasures, finished or not, of these keys."""
        ...

    def unfinished(self) -> Sequence[Erasure]:
        """Return the erasures that have to be carried out, oldest first."""
        ...

    def finish(self, pseudonym: str) -> None:
        """Note that the erasure is carried out. The digest of the name goes, unless there are shared keys."""
        ...

    def since(self, time: datetime) -> Sequence[Erasure]:
        """Return the erasures that began at *time* or later, oldest first."""
        ...


class Scrubbing(Protocol):
    """Removes from a file what was deleted, but may still be in it."""

    def rewrite(self) -> None:
        """Write the whole file anew, with nothing but what is stored. Other writers wait meanwhile."""
        ...

    def empty_wal(self) -> bool:
        """Make the write-ahead log empty; return False if a reader of an old snapshot is in the way. Try again then."""
        ...
