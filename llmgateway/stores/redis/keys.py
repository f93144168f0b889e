"""The keys: Redis in front of a durable store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from llmgateway.errors import StoreUnavailable
from llmgateway.interfaces import KeyStore
from llmgateway.records import ALL_KEYS, GroupSize, Imported, KeyChange, KeyQuery, KeyRecord, Lookup, User

from .cache import RedisCache
from .organisation import durable_generation


class RedisKeys:
    """A :class:`~llmgateway.interfaces.KeyStore` with Redis in front of *durable*.

    :meth:`find` takes one round trip to Redis if there is a fresh entry. A stale entry is used only if the durable
    store is unavailable. If Redis is unavailable, each call asks the durable store.

    Before a change of a key, its digests are read from the durable store. If that fails, the change is not made. The
    entries of these digests are deleted from Redis even if the change fails: its answer may have been lost, or the
    durable store may still make the change within seconds.
    """

    def __init__(self, cache: RedisCache, durable: KeyStore) -> None:
        self._cache = cache
        self._durable = durable

    def version(self) -> object:
        """Return a value that changes whenever a result of :meth:`find` may change; None if Redis is unavailable."""
        try:
            return self._cache.tokens()
        except StoreUnavailable:
            return None

    def find(self, digest: str) -> Lookup:
        try:
            entry, generation, guard = self._cache.look(digest)
        except StoreUnavailable:
            record, version = self._cache.durable.call(lambda: self._durable.find(digest))
            return Lookup(record, durable_generation(version))
        if entry is not None and self._cache.is_fresh(entry):
            return Lookup(entry.record, generation)
        try:
            record, _ = self._cache.durable.call(lambda: self._durable.find(digest))
        except StoreUnavailable:
            if entry is None:
                raise
            return Lookup(entry.record, generation)
        if record is not None:
            self._cache.fill(digest, record, guard=guard)
        elif entry is not None:
            self._cache.wipe_keys([digest])
        return Lookup(record, generation)

    def add(self, record: KeyRecord) -> bool:
        with self._wiping(record):
            return self._durable.add(record)

    def add_all(self, records: Sequence[KeyRecord]) -> set[str]:
        with self._wiping(*records):
            return self._durable.add_all(records)

    def add_checked(self, record: KeyRecord, check: Callable[[Sequence[KeyRecord]], None]) -> bool:
        with self._wiping(record):
            return self._durable.add_checked(record, check)

    def import_all(self, records: Sequence[KeyRecord], changes: Sequence[KeyChange], *, alone: bool) -> Imported:
        with self._wiping(*records, *(change.before for change in changes)) as digests:
            imported = self._durable.import_all(records, changes, alone=alone)
            digests.update(_digests(*imported.changed))  # a rotation may have come between
        return imported

    def of_users(self, users: Collection[str]) -> list[KeyRecord]:
        return self._durable.of_users(users)

    def get(self, key_id: str) -> KeyRecord | None:
        return self._durable.get(key_id)

    def get_all(self, key_ids: Sequence[str]) -> Sequence[KeyRecord]:
        return self._durable.get_all(key_ids)

    def list(self, query: KeyQuery = ALL_KEYS) -> list[KeyRecord]:
        return self._durable.list(query)

    def ids(self, query: KeyQuery = ALL_KEYS) -> Sequence[str]:
        return self._durable.ids(query)

    def count(self, query: KeyQuery = ALL_KEYS) -> int:
        return self._durable.count(query)

    def users(self, *, text: str | None = None) -> Sequence[User]:
        return self._durable.users(text=text)

    def group_sizes(self) -> Mapping[str, GroupSize]:
        return self._durable.group_sizes()

    def update(
        self,
        key_id: str,
        changes: Mapping[str, object],
        *,
        limits: Mapping[str, object] | None = None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        with self._wiping(self._durable.get(key_id)) as digests:
            record = self._durable.update(key_id, changes, limits=limits, check=check)
            digests.update(_digests(record))  # a rotation may have come between
        return record

    def rotate(
        self,
        key_id: str,
        digest: str,
        *,
        retires_at: datetime | None,
        check: Callable[[KeyRecord], None] | None = None,
    ) -> KeyRecord | None:
        with self._wiping(self._durable.get(key_id)) as digests:
            digests.add(digest)
            record = self._durable.rotate(key_id, digest, retires_at=retires_at, check=check)
            digests.update(_digests(record))  # another rotation may have come between
        return record

    def revoke_group(self, group: str) -> Sequence[KeyRecord]:
        with self._wiping(*self._durable.list(KeyQuery(group=group))) as digests:
            revoked = self._durable.revoke_group(group)
            digests.update(_digests(*revoked))
        return revoked

    def remove(self, key_id: str, *, check: Callable[[KeyRecord], None] | None = None) -> KeyRecord | None:
        with self._wiping(self._durable.get(key_id)):
            return self._durable.remove(key_id, check=check)

    def update_all(
        self, key_ids: Sequence[str], changes: Mapping[str, object], *, where: KeyQuery = ALL_KEYS
    ) -> Sequence[KeyRecord]:
        with self._wiping(*self._durable.get_all(key_ids)) as digests:
            changed = self._durable.update_all(key_ids, changes, where=where)
            digests.update(_digests(*changed))
        return changed

    def remove_all(self, key_ids: Sequence[str], *, where: KeyQuery = ALL_KEYS) -> Sequence[KeyRecord]:
        with self._wiping(*self._durable.get_all(key_ids)) as digests:
            removed = self._durable.remove_all(key_ids, where=where)
            digests.update(_digests(*removed))
        return removed

    @contextmanager
    def _wiping(self, *records: KeyRecord | None) -> Iterator[set[str]]:
        """Delete the entries of *records* from Redis at the end of the block. The block may add further digests."""
        digests, is_certain = _digests(*records), True
        try:
            yield digests
        except StoreUnavailable:
            is_certain = False
            raise
        finally:
            if digests:
                self._cache.wipe_keys(digests, is_certain=is_certain)


def _digests(*records: KeyRecord | None) -> set[str]:
    return {digest for record in records if record is not None for digest in record.digests}
