"""The degradation levels."""

from __future__ import annotations

import pytest

from llmgateway.errors import StoreReadOnly, StoreUnavailable
from llmgateway.stores.health import DegradationLevel, StoreHealth


class Backend:
    def __init__(self, name, *, away=False, read_only=False):
        self.name = name
        self.away = away
        self.read_only = read_only

    def ping(self):
        if self.read_only:
            raise StoreReadOnly(f"{self.name} is read-only.")
        if self.away:
            raise StoreUnavailable(f"{self.name} is away.")


@pytest.mark.parametrize(
    ("away", "level"),
    [
        ((), DegradationLevel.NORMAL),
        (("redis",), DegradationLevel.WITHOUT_REDIS),
        (("mongodb",), DegradationLevel.WITHOUT_DURABLE_STORE),
        (("redis", "mongodb"), DegradationLevel.MEMORY_ONLY),
    ],
)
def test_names_the_level(away, level):
    """Each combination of unavailable stores has a level."""
    health = StoreHealth([Backend(name, away=name in away) for name in ("redis", "mongodb")])
    problems = health.problems()

    assert {name: f"{name} is away." if name in away else None for name in ("redis", "mongodb")} == problems
    assert level == health.level(problems)


@pytest.mark.parametrize(("away", "level"), [(False, DegradationLevel.NORMAL), (True, DegradationLevel.MEMORY_ONLY)])
def test_needs_no_redis(away, level):
    """Without Redis in the configuration, only the durable store counts."""
    health = StoreHealth([Backend("sqlite", away=away)])

    assert level == health.level(health.problems())


def test_a_store_that_takes_no_changes_still_looks_keys_up():
    """The gateway serves, so it is not taken out of service; but it says that nothing is stored."""
    health = StoreHealth([Backend("sqlite", read_only=True)])
    problems = health.problems()

    assert {"sqlite": "sqlite is read-only."} == problems
    assert DegradationLevel.WITHOUT_DURABLE_STORE == health.level(problems)
