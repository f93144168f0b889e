"""Which stores answer, and what that means for users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from ..errors import StoreUnavailable
from ..interfaces import Pingable

REDIS = "redis"


class DegradationLevel(StrEnum):
    """What the gateway does without while a store is away; it still serves, but for unknown keys at the last one."""

    NORMAL = "normal"
    WITHOUT_REDIS = "without_redis"
    """Keys are looked up in the durable store, and each process counts for limits on its own. Also while Redis answers
    but refuses writes."""
    WITHOUT_DURABLE_STORE = "without_durable_store"
    """Keys are looked up in Redis, usage records wait in the journal, admins cannot change anything."""
    MEMORY_ONLY = "memory_only"
    """Keys are known only if this process has seen them; unknown ones get 503."""


class StoreHealth:
    """Asks the stores. Thread-safe."""

    def __init__(self, backends: Sequence[Pingable]) -> None:
        self._backends = backends

    def problems(self) -> dict[str, str | None]:
        """By store: None if it answers, else what is wrong. Takes up to a time-out for each that is away."""
        return {backend.name: _problem(backend) for backend in self._backends}

    @staticmethod
    def level(problems: Mapping[str, str | None]) -> DegradationLevel:
        """Return the level with these *problems*."""
        redis_serves = problems.get(REDIS, "not configured") is None
        durable_serves = any(problem is None for name, problem in problems.items() if name != REDIS)
        if durable_serves:
            return DegradationLevel.NORMAL if redis_serves or REDIS not in problems else DegradationLevel.WITHOUT_REDIS
        return DegradationLevel.WITHOUT_DURABLE_STORE if redis_serves else DegradationLevel.MEMORY_ONLY


def _problem(backend: Pingable) -> str | None:
    try:
        backend.ping()
    except StoreUnavailable as error:
        return error.message
    return None
