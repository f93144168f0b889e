"""Keys as they were last seen: for as long as nothing has changed, and for when no store answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from ..errors import StoreUnavailable
from ..interfaces import KeyStore
from ..records import ALL_KEYS, KeyQuery, KeyRecord, Lookup
from .circuit import Circuit
from .recent_version import RecentVersion

CACHED_KEYS = 100_000
"""Look-ups kept in memory, the latest; some 100 MB if all of them are used."""


class CachedKeys:
    """A :class:`~llmgateway.interfaces.KeyStore`: *store*, and what it said last while it is away.

    A key that is revoked elsewhere while every store is away goes on working here until one is back:
    refusing all valid keys would be the greater harm. What this process has never looked up
    stays unknown. What it has changed itself it knows as it is after the change.

    As long as a key has not changed its look-ups are one object, so that what follows from it is
    worked out only once. Unknown keys are not kept: nobody fills this memory by guessing.

    Args:
        circuit: Spares look-ups the wait for a *store* that has just failed; None if the store
            does that itself.
        version: What changes with everything that a look-up may say: look-ups of the present version are answered
            from memory, and a change returns when all processes have noticed it. None if *store* has no version.
    """

    def __init__(
        self,
        store: KeyStore,
        *,
        circuit: Circuit | None,
        version: RecentVersion | None = None,
        limit: int = CACHED_KEYS,
    ) -> None:
        self._store = store
        self._circuit = circuit
        self._version = version
        self._limit = limit
        self._cached: OrderedDict[str, _Cached] = OrderedDict()
        self._organisation_version = ""  # that a look-up told last

    def find(self, digest: str) -> Lookup:
        cached = self._cached.get(digest)
        try:
            if self._circuit is None:
                return self._find(digest, cached)
            return self._circuit.call(lambda: self._find(digest, cached))
        except StoreUnavailable:
            if cached is None:
                raise
            return cached.lookup

    def _find(self, digest: str, cached: _Cached | None) -> Lookup:
        # Before the store is asked: what it says then may be newer than this version, but never older.
        version = None if self._version is None else self._version()
        if cached is not None and version is not None and cached.version == version:
            return cached.lookup
        found = self._store.find(digest)
        self._organisation_version = found.version
        if cached is None and found.record is None:
            return found
        if cached is not None and cached.lookup == found:
            found = cached.lookup
        # Not over a change that this process made in between.
        if self._cached.get(digest) is cached:
            self._keep(digest, _Cached(found, version))
        return found

    def _keep(self, digest: str, cached: _Cached) -> None:
        # Each step is atomic under the interpreter's lock, and no two of them depend on each other.
        self._cached[digest] = cached
        if len(self._cached) > self._limit:
            try:
                self._cached.popitem(last=False)
            except KeyError:
                return  # another thread was quicker

    def _changed(self, records: Iterable[KeyRecord | None], *, before: KeyRecord | None = None) -> None:
        """Keep *records* as they are now, and that the other digests of the key *before* are nobody's any more."""
        for digest in before.digests if before else ():
            self._keep(digest, _Cached(Lookup(None, self._organisation_version), None))
        for record in records:
            for digest in record.digests if record else ():
                self._keep(digest, _Cached(Lookup(record, self._organisation_version), None))

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        """Make a change, and wait until every process has noticed it; also after an error: the answer may be lost."""
        try:
            yield
        finally:
            if self._version is not None:
                self._version.wait_until_noticed()

    def add(self, record: KeyRecord) -> bool:
        with self._noticed():
            added = self._store.add(record)
            self._changed([record] if added else [])
        return added

    def add_all(self, records: Sequence[KeyRecord]) -> set[str]:
        with self._noticed():
            taken = self._store.add_all(records)
            self._changed([] if taken else records)
        return taken

    def get(self, key_id: str) -> KeyRecord | None:
        return self._store.get(key_id)

    def list(self, query: KeyQuery = ALL_KEYS) -> list[KeyRecord]:
        return self._store.list(query)

    def update(
        self, key_id: str, changes: Mapping[str, object], *, limits: Mapping[str, object] | None = None
    ) -> KeyRecord | None:
        with self._noticed():
            record = self._store.update(key_id, changes, limits=limits)
            self._changed([record])
        return record

    def rotate(self, key_id: str, digest: str, *, retires_at: datetime | None) -> KeyRecord | None:
        with self._noticed():
            before = self._store.get(key_id)
            rotated = self._store.rotate(key_id, digest, retires_at=retires_at)
            self._changed([rotated], before=before if rotated else None)
        return rotated

    def revoke_group(self, group: str) -> Sequence[KeyRecord]:
        with self._noticed():
            revoked = self._store.revoke_group(group)
            self._changed(revoked)
        return revoked

    def remove(self, key_id: str) -> KeyRecord | None:
        with self._noticed():
            removed = self._store.remove(key_id)
            self._changed([], before=removed)
        return removed


class _Cached(NamedTuple):
    """What was found, and in what version of the store."""

    lookup: Lookup
    version: object
