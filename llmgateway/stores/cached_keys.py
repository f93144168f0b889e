"""A cache of keys in the memory of the process. It is used until something changes, and when no store answers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from ..errors import StoreUnavailable
from ..interfaces import KeyStore
from ..records import ALL_KEYS, GroupSize, Imported, KeyChange, KeyQuery, KeyRecord, Lookup, User
from .circuit import Circuit
from .recent_version import RecentVersion

CACHED_KEYS = 100_000
"""Maximum number of cached look-ups; the oldest are removed. A full cache takes about 100 MB."""


class CachedKeys:
    """A :class:`~llmgateway.interfaces.KeyStore` that caches the look-ups of *store*.

    While *store* is unavailable, keys that this process has looked up before are found in the cache. A key that another
    process revokes at that time continues to work here until *store* is available, because refusing all valid keys
    would be worse. Changes by this process are also made in the cache.

    All look-ups of a key return the same object until the key changes, so callers can cache what they derive from it.
    Unknown keys are not cached, so that clients cannot fill the memory by guessing keys.

    Args:
        circuit: Prevents waiting for *store* when it has just failed. None if *store* has a circuit itself.
        version: Changes with every change that look-ups can see. Look-ups of the current version are answered from
            memory, and a change returns only when all processes have noticed it. None if *store* has no version.
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
        self._organisation_version = ""  # from the latest look-up

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
        # Read before the look-up: the result may be newer than this version, but never older.
        version = None if self._version is None else self._version()
        if cached is not None and version is not None and cached.version == version:
            return cached.lookup
        found = self._store.find(digest)
        self._organisation_version = found.version
        if cached is None and found.record is None:
            return found
        if cached is not None and cached.lookup == found:
            found = cached.lookup
        # Do not overwrite a change that this process made in between.
        if self._cached.get(digest) is cached:
            self._keep(digest, _Cached(found, version))
        return found

    def _keep(self, digest: str, cached: _Cached) -> None:
        # Without a lock: each step is atomic under the GIL, and the steps do not depend on each other.
        self._cached[digest] = cached
        if len(self._cached) > self._limit:
            try:
                self._cached.popitem(last=False)
            except KeyError:
                return  # another thread was faster

    def _changed(self, records: Iterable[KeyRecord | None], *, before: KeyRecord | None = None) -> None:
        """Cache *records* after a change, and cache that the old digests of the key *before* are unknown."""
        for digest in before.digests if before else ():
            self._keep(digest, _Cached(Lookup(None, self._organisation_version), None))
        for record in records:
            for digest in record.digests if record else ():
                self._keep(digest, _Cached(Lookup(record, self._organisation_version), None))

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        """Wait after the block until every process has noticed the change.

        This also waits after an error, because the store may have made the change although its answer was lost.
        """
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

    def add_checked(self, record: KeyRecord, check: Callable[[Sequence[KeyRecord]], None]) -> bool:
        with self._noticed():
            added = self._store.add_checked(record, check)
            self._changed([record] if added else [])
        return added

    def import_all(self, records: Sequence[KeyRecord], changes: Sequence[KeyChange], *, alone: bool) -> Imported:
        with self._noticed():
            imported = self._store.import_all(records, changes, alone=alone)
            self._changed([] if imported.taken or imported.present else [*records, *imported.changed])
        return imported

    def of_users(self, users: Collection[str]) -> list[KeyRecord]:
        return self._store.of_users(users)

    def get(self, key_id: str) -> KeyRecord | None:
        return self._store.get(key_id)

    def get_all(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        return self._store.get_all(key_ids)

    def list(self, query: KeyQuery = ALL_KEYS) -> list[KeyRecord]:
        return self._store.list(query)

    def ids(self, query: KeyQuery = ALL_KEYS) -> Sequence[str]:
        return self._store.ids(query)

    def count(self, query: KeyQuery = ALL_KEYS) -> int:
        return self._store.count(query)

    def users(self, *, text: str | None = None) -> Sequence[User]:
        return self._store.users(text=text)

    def group_sizes(self) -> Mapping[str, GroupSize]:
        return self._store.group_sizes()

    def update(
        self,
        key_id: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        with self._noticed():
            record = self._store.update(key_id, changes, limits=limits, check=check)
            self._changed([record])
        return record

    def rotate(
        self,
        key_id: str,
        digest: str,
        *,
        retires_at: datetime | None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        with self._noticed():
            before = self._store.get(key_id)
            rotated = self._store.rotate(key_id, digest, retires_at=retires_at, check=check)
            self._changed([rotated], before=before if rotated else None)
        return rotated

    def revoke_group(self, group: str) -> Sequence[KeyRecord]:
        with self._noticed():
            revoked = self._store.revoke_group(group)
            self._changed(revoked)
        return revoked

    def remove(self, key_id: str, *, check: Callable[[KeyRecord], None] | None = None) -> KeyRecord | None:
        with self._noticed():
            removed = self._store.remove(key_id, check=check)
            self._changed([], before=removed)
        return removed

    def update_all(
        self, key_ids: Sequence[str], changes: Mapping[str, object], *, where: KeyQuery = ALL_KEYS
    ) -> Sequence[KeyRecord]:
        with self._noticed():
            changed = self._store.update_all(key_ids, changes, where=where)
            self._changed(changed)
        return changed

    def remove_all(self, key_ids: Sequence[str], *, where: KeyQuery = ALL_KEYS) -> Sequence[KeyRecord]:
        with self._noticed():
            removed = self._store.remove_all(key_ids, where=where)
            for record in removed:
                self._changed([], before=record)
        return removed


class _Cached(NamedTuple):
    """The result of a look-up, and the version of the store before it."""

    lookup: Lookup
    version: object
