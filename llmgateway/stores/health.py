"""Checks which stores are available, and what that means for users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from ..errors import StoreReadOnly, StoreUnavailable
from ..interfaces import Pingable

REDIS = "redis"


class DegradationLevel(StrEnum):
    """Says which stores are unavailable. The gateway serves at every level; only the last one refuses unknown keys."""

    NORMAL = "normal"
    WITHOUT_REDIS = "without_redis"
    """Keys are looked up in the durable store, and each process counts limits on its own. This is also the level if
    Redis answers but refuses writes."""
    WITHOUT_DURABLE_STORE = "without_durable_store"
    """Keys are looked up in Redis, or in a durable store that is read-only. Usage records wait in the journal, and
    admins cannot change anything."""
    MEMORY_ONLY = "memory_only"
    """Only keys that this process has looked up before work; all others get 503."""


class ReadOnly(str):
    """The problem of a store that answers questions, and takes no changes."""


class StoreHealth:
    """Checks the availability of the stores. Thread-safe."""

    def __init__(self, backends: Sequence[Pingable]) -> None:
        self._backends = backends

    def problems(self) -> dict[str, str | None]:
        """Return the problem of each store, by its name; None if it is available.

        Takes up to one timeout for each store that is unavailable.
        """
        return {backend.name: _problem(backend) for backend in self._backends}

    @staticmethod
    def level(problems: Mapping[str, str | None]) -> DegradationLevel:
        """Return the level for these *problems*."""
        redis_serves = problems.get(REDIS, "not configured") is None
        durable_serves = any(problem is None for name, problem in problems.items() if name != REDIS)
        if durable_serves:
            return DegradationLevel.NORMAL if redis_serves or REDIS not in problems else DegradationLevel.WITHOUT_REDIS
        answers = redis_serves or any(isinstance(problem, ReadOnly) for problem in problems.values())
        return DegradationLevel.WITHOUT_DURABLE_STORE if answers else DegradationLevel.MEMORY_ONLY


def _problem(backend: Pingable) -> str | None:
    try:
        backend.ping()
    except StoreReadOnly as error:
        return ReadOnly(error.message)
    except StoreUnavailable as error:
        return error.message
    return None
