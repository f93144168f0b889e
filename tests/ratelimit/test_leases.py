"""Leases: what running requests hold is renewed, and nothing else."""

from __future__ import annotations

import threading

from llmgateway.ratelimit.leases import LEASE_SECONDS, Leases
from llmgateway.ratelimit.reservations import Commit, CounterRequest, Kind
from llmgateway.stores.sqlite import COUNTERS, MemoryDatabase, SQLiteCounters
from tests.servers import wait_until

SLOT = CounterRequest(counter="key:1:parallel", kind=Kind.LEVEL, amount=1, limit=1)


def counters(clock) -> SQLiteCounters:
    return SQLiteCounters(MemoryDatabase(migrations=COUNTERS), clock=clock)


def keepers() -> int:
    return sum(thread.name == "leases" for thread in threading.enumerate())


def test_what_runs_is_kept_for_as_long_as_it_runs(clock):
    """A request that runs longer than a lease holds its slot; once it has ended, the slot is free."""
    store = counters(clock)
    leases = Leases(store)
    assert store.reserve("long", [SLOT], lease=LEASE_SECONDS).admitted
    leases.add("long")

    for _ in range(10):
        clock.advance(LEASE_SECONDS / 2)
        leases.renew()
    assert not store.reserve("next", [SLOT], lease=LEASE_SECONDS).admitted

    leases.remove("long")
    store.commit([Commit("long", (SLOT,))])
    leases.renew()
    assert store.reserve("next", [SLOT], lease=LEASE_SECONDS).admitted


def test_what_was_let_go_runs_out(clock):
    """A reservation that nobody keeps is free when its lease has run out, not before."""
    store = counters(clock)
    leases = Leases(store)
    store.reserve("dead", [SLOT], lease=LEASE_SECONDS)
    leases.add("dead")
    leases.remove("dead")
    leases.remove("dead")

    clock.advance(LEASE_SECONDS - 0.001)
    leases.renew()
    assert not store.reserve("next", [SLOT], lease=LEASE_SECONDS).admitted
    clock.advance(0.001)
    assert store.reserve("next", [SLOT], lease=LEASE_SECONDS).admitted


def test_renews_by_itself_with_one_thread(clock):
    """The thread begins with the first request, and renews what is there."""

    class Asked:
        def __init__(self) -> None:
            self.renewed: list[list[str]] = []

        def renew(self, reservations, *, lease):
            self.renewed.append(sorted(reservations))

    store = Asked()
    before = keepers()
    leases = Leases(store, renew_seconds=0.01)
    assert before == keepers()

    leases.add("a")
    leases.add("b")
    wait_until(lambda: ["a", "b"] in store.renewed)

    assert before + 1 == keepers()
    leases.remove("a")
    leases.remove("b")
