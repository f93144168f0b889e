"""A cache of named admins in the memory of the process: until something changes, and when no store answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from ..errors import StoreUnavailable
from ..interfaces import AdminStore
from ..records import AdminRecord
from .circuit import Circuit
from .recent_version import RecentVersion


class CachedAdmins:
    """An :class:`~llmgateway.interfaces.AdminStore` that caches the look-ups of *store*, like ``CachedKeys`` for keys.

    While *store* is unavailable, an admin whom this process has looked up before is found in the cache. Unknown keys
    are not cached.

    Args:
        circuit: Prevents waiting for *store* when it has just failed. None if *store* has a circuit itself.
        version: Changes with every change of an admin. Look-ups of the current version are answered from memory, and a
            change returns only when all processes have noticed it. None if *store* has no version: then every look-up
            asks it.
    """

    def __init__(self, store: AdminStore, *, circuit: Circuit | None, version: RecentVersion | None = None) -> None:
        self._store = store
        self._circuit = circuit
        self._version = version
        self._cached: dict[str, _Cached] = {}

    def find(self, digest: str) -> AdminRecord | None:
        cached = self._cached.get(digest)
        try:
            # Read before the look-up: the result may be newer than this version, but never older.
            version = None if self._version is None else self._version()
            if cached is not None and version is not None and cached.version == version:
                return cached.record
            found = self._ask(digest)
        except StoreUnavailable:
            if cached is None:
                raise
            return cached.record
        if found is None:
            self._cached.pop(digest, None)
        elif self._cached.get(digest) is cached:  # this process has not changed the admin in between
            self._cached[digest] = _Cached(found, version)
        return found

    def get(self, admin_id: str) -> AdminRecord | None:
        return self._store.get(admin_id)

    def list(self) -> list[AdminRecord]:
        return self._store.list()

    def add(self, record: AdminRecord) -> bool:
        with self._noticed():
            return self._store.add(record)

    def change(
        self, admin_id: str, change: Callable[[AdminRecord], AdminRecord | None]
    ) -> tuple[AdminRecord, AdminRecord | None] | None:
        with self._noticed():
            changed = self._store.change(admin_id, change)
            if changed is not None:
                self._keep(*changed)
        return changed

    def _ask(self, digest: str) -> AdminRecord | None:
        if self._circuit is None:
            return self._store.find(digest)
        return self._circuit.call(lambda: self._store.find(digest))

    def _keep(self, before: AdminRecord, after: AdminRecord | None) -> None:
        for digest in before.digests:
            with suppress(KeyError):
                del self._cached[digest]
        for digest in after.digests if after is not None else ():
            self._cached[digest] = _Cached(after, None)

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        """Wait after the block until every process has noticed the change, also after an error: see ``CachedKeys``."""
        try:
            yield
        finally:
            if self._version is not None:
                self._version.wait_until_noticed()


class _Cached(NamedTuple):
    """The result of a look-up, and the version of the store before it."""

    record: AdminRecord | None
    version: object
