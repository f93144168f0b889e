"""What is set for people: a durable store, with the generation of the organisation in Redis."""

from __future__ import annotations

from collections.abc import Callable

from llmgateway.interfaces import PersonStore
from llmgateway.records import Person

from .cache import RedisCache


class RedisPersons:
    """A :class:`~llmgateway.interfaces.PersonStore` that uses *durable*. Every change begins a new generation.

    The people themselves are in the copy of the organisation in Redis.
    """

    def __init__(self, cache: RedisCache, durable: PersonStore) -> None:
        self._cache = cache
        self._durable = durable

    def get(self, user: str) -> Person | None:
        return self._durable.get(user)

    def change(self, user: str, change: Callable[[Person | None], Person | None]) -> Person | None:
        with self._cache.new_generation():
            return self._durable.change(user, change)
