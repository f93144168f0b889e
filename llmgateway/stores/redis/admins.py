"""The named admins: a durable store, whose changes other processes notice through Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llmgateway.errors import StoreUnavailable
from llmgateway.interfaces import AdminStore
from llmgateway.records import AdminRecord

from .cache import RedisCache


class RedisAdmins:
    """An :class:`~llmgateway.interfaces.AdminStore` that uses *durable*. Redis has no copy of the admins.

    Every change begins a new generation in Redis, also after an error, for the same reason as
    :class:`~.keys.RedisKeys`.
    """

    def __init__(self, cache: RedisCache, durable: AdminStore) -> None:
        self._cache = cache
        self._durable = durable

    def find(self, digest: str) -> AdminRecord | None:
        return self._cache.durable.call(lambda: self._durable.find(digest))

    def get(self, admin_id: str) -> AdminRecord | None:
        return self._durable.get(admin_id)

    def list(self) -> list[AdminRecord]:
        return self._durable.list()

    def add(self, record: AdminRecord) -> bool:
        with self._changing():
            return self._durable.add(record)

    def change(
        self, admin_id: str, change: Callable[[AdminRecord], AdminRecord | None]
    ) -> tuple[AdminRecord, AdminRecord | None] | None:
        with self._changing():
            return self._durable.change(admin_id, change)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        is_certain = True
        try:
            yield
        except StoreUnavailable:
            is_certain = False
            raise
        finally:
            self._cache.wipe_generation(is_certain=is_certain)
