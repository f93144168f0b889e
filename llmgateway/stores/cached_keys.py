"""Keys as they were last seen: for as long as nothing has changed, and for when no store answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from ..errors import StoreUnavailable
from ..interfaces import KeyStore
from ..records import KeyRecord, Lookup
from .circuit import Circuit

REMEMBERED_KEYS = 100_000
"""Look-ups kept in memory, the latest; some 100 MB if every one of them is used."""


class CachedKeys:
    """A :class:`~llmgateway.interfaces.KeyStore`: *store*, and what it said last while it is away.

    A key that was revoked while every store is away goes on working here until one is back:
    refusing all valid keys would be the greater harm. What this process has never looked up
    stays unknown, and what it has changed itself is not taken from memory.

    As long as a key has not changed its look-ups are one object, so that what follows from it has to be
    worked out once. Unknown keys are not remembered: nobody fills this memory by guessing.

    Args:
        circuit: Spares look-ups the wait for a *store* that has just failed; None if the store
            does that itself.
        state: Says, without asking anybody, in what state *store* is: look-ups that begin in the same state give
            the same, and are taken from memory. None where it cannot tell now. See ``sqlite/stamp.py``.
    """

    def __init__(
        self,
        store: KeyStore,
        *,
        circuit: Circuit | None,
        state: Callable[[], object] | None = None,
        limit: int = REMEMBERED_KEYS,
    ) -> None:
        self._store = store
        self._circuit = circuit
        self._state = state or _unknown
        self._limit = limit
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def find(self, digest: str) -> Lookup:
        state = self._state()  # before the store is asked: what it says then may be newer, but never older
        seen = self._seen.get(digest)
        if seen is not None and state is not None and seen.state == state:
            return seen.lookup
        try:
            found = self._find(digest)
        except StoreUnavailable:
            if seen is None:
                raise
            return seen.lookup
        if found.record is None:
            self._seen.pop(digest, None)
            return found
        if seen is not None and seen.lookup == found:
            found = seen.lookup
        # Each step is atomic under the interpreter's lock, and no two of them depend on each other.
        self._seen[digest] = _Seen(found, state)
        if len(self._seen) > self._limit:
            self._forget_oldest()
        return found

    def _find(self, digest: str) -> Lookup:
        if self._circuit is None:
            return self._store.find(digest)
        return self._circuit.call(lambda: self._store.find(digest))

    def _forget_oldest(self) -> None:
        try:
            self._seen.popitem(last=False)
        except KeyError:
            return  # another thread was quicker

    def _forget(self, *records: KeyRecord | None) -> None:
        for record in records:
            for digest in record.digests if record else ():
                self._seen.pop(digest, None)

    def add(self, record: KeyRecord) -> bool:
        return self._store.add(record)

    def add_all(self, records: Sequence[KeyRecord]) -> set[str]:
        return self._store.add_all(records)

    def get(self, key_id: str) -> KeyRecord | None:
        return self._store.get(key_id)

    def list(
        self,
        *,
        user: str | None = None,
        group: str | None = None,
        active: bool | None = None,
        after: str = "",
        limit: int | None = None,
    ) -> list[KeyRecord]:
        return self._store.list(user=user, group=group, active=active, after=after, limit=limit)

    def update(self, key_id: str, changes: Mapping[str, object]) -> KeyRecord | None:
        record = self._store.update(key_id, changes)
        self._forget(record)
        return record

    def rotate(self, key_id: str, digest: str, *, retires_at: datetime | None) -> KeyRecord | None:
        before = self._store.get(key_id)
        rotated = self._store.rotate(key_id, digest, retires_at=retires_at)
        self._forget(before, rotated)
        return rotated

    def revoke_group(self, group: str) -> Sequence[KeyRecord]:
        revoked = self._store.revoke_group(group)
        self._forget(*revoked)
        return revoked

    def remove(self, key_id: str) -> bool:
        before = self._store.get(key_id)
        removed = self._store.remove(key_id)
        self._forget(before)
        return removed


class _Seen(NamedTuple):
    """What was found, and in what state of the store."""

    lookup: Lookup
    state: object


def _unknown() -> None:
    """The state of a store that cannot tell."""
