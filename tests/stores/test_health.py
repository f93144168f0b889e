"""The outage ladder."""

from __future__ import annotations

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.stores.health import DegradationLevel, StoreHealth


class Backend:
    def __init__(self, name, *, away=False):
        self.name = name
        self.away = away

    def ping(self):
        if self.away:
            raise StoreUnavailable(f"{self.name} is away.")


@pytest.mark.parametrize(
    ("away", "rung"),
    [
        ((), DegradationLevel.NORMAL),
        (("redis",), DegradationLevel.WITHOUT_REDIS),
        (("mongodb",), DegradationLevel.WITHOUT_DURABLE_STORE),
        (("redis", "mongodb"), DegradationLevel.MEMORY_ONLY),
    ],
)
def test_names_the_rung(away, rung):
    """Each combination of stores that are away has its name."""
    ladder = StoreHealth([Backend(name, away=name in away) for name in ("redis", "mongodb")])
    problems = ladder.problems()

    assert {name: f"{name} is away." if name in away else None for name in ("redis", "mongodb")} == problems
    assert rung == ladder.rung(problems)


@pytest.mark.parametrize(("away", "rung"), [(False, DegradationLevel.NORMAL), (True, DegradationLevel.MEMORY_ONLY)])
def test_needs_no_redis(away, rung):
    """Without Redis there is nothing between the durable store and memory."""
    ladder = StoreHealth([Backend("sqlite", away=away)])

    assert rung == ladder.rung(ladder.problems())
