"""Counters in memory: how they are loaded, saved and deleted."""

from __future__ import annotations

from contextlib import closing

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.ratelimit.counters import Counters
from llmgateway.ratelimit.memory import MemoryCounters
from llmgateway.ratelimit.reservations import Commit, Reading
from llmgateway.stores.sqlite import COUNTERS, SQLiteCounters, SQLiteDatabase
from tests.stores.counter_contract import commit, gauge, look, reserve, shared, total, used, window

USD = "key:usd:2026-01"


@pytest.fixture
def stored(tmp_path, clock):
    with closing(SQLiteDatabase(tmp_path / "counters.sqlite", migrations=COUNTERS, durable=False)) as database:
        yield SQLiteCounters(database, clock=clock)


class Kept:
    """Keeps the saved counters unchanged."""

    def __init__(self) -> None:
        self.counters = Counters()

    def take(self) -> Counters:
        return Counters()

    def add(self, counters: Counters) -> None:
        self.counters = counters


class TestStopping:
    def test_the_next_process_goes_on(self, stored, clock):
        """The saved counters include used amounts and running requests."""
        counters = MemoryCounters(clock=clock, stored=stored)
        counters.initialise(USD, 3, until=None)
        assert reserve(counters, window(4), gauge(2), total(5), name="one").admitted
        counters.flush()

        counters = MemoryCounters(clock=clock, stored=stored)

        assert [4, 2, 8] == [used(counters, request) for request in (window(), gauge(), total())]
        commit(counters, "one", window(1), gauge(), total(1))
        assert [1, 0, 4] == [used(counters, request) for request in (window(), gauge(), total())]

    def test_who_waits_goes_on_waiting(self, stored, clock):
        """Fair shares are kept over a restart."""
        counters = MemoryCounters(clock=clock, stored=stored)
        for _ in range(10):
            reserve(counters, *shared("batch"))
            clock.advance(1)
        assert not reserve(counters, *shared("student")).admitted
        counters.flush()
        clock.advance(51)

        counters = MemoryCounters(clock=clock, stored=stored)

        assert [False, True] == [reserve(counters, *shared(name)).admitted for name in ("batch", "student")]

    def test_several_processes_go_on(self, stored, clock):
        """After a restart with several processes, all counters are in the file."""
        counters = MemoryCounters(clock=clock, stored=stored)
        counters.initialise(USD, 3, until=None)
        reserve(counters, window(4), gauge(2), total(5))

        counters.flush()

        assert [4, 2, 8] == [used(stored, request) for request in (window(), gauge(), total())]

    def test_nothing_is_written_down_twice(self, stored, clock):
        """Flushing twice saves the counters once."""
        counters = MemoryCounters(clock=clock, stored=stored)
        reserve(counters, window(4))

        counters.flush()
        counters.flush()

        assert 4 == used(stored, window())

    def test_a_killed_process_leaves_nothing(self, stored, clock):
        """The stored counters are not used again: windows begin at zero, and budgets are read from the usage log."""
        stored.initialise(USD, 3, until=None)
        reserve(stored, window(4), gauge(2), total(5))
        reserve(MemoryCounters(clock=clock, stored=stored), window(1))

        counters = MemoryCounters(clock=clock, stored=stored)

        assert [0, 0] == [used(counters, request) for request in (window(), gauge())]
        assert (USD,) == reserve(counters, total()).uninitialised

    def test_what_others_counted_meanwhile_is_added_to(self, stored, clock):
        """If another process has begun before this one stops, windows are added, and budgets are initialised again."""
        counters = MemoryCounters(clock=clock, stored=stored)
        for store in (counters, stored):
            store.initialise(USD, 3, until=None)
            reserve(store, window(4), gauge(2), total(1))
        counters.initialise("group:usd", 3, until=None)
        clock.advance(1)
        reserve(counters, window(2), gauge(2), total(1, counter="group:usd"), name="one")

        counters.flush()

        assert Reading(10, 0, False, 60, 61) == look(stored, window())
        assert 6 == used(stored, gauge())
        assert 4 == used(stored, total(counter="group:usd"))
        assert (USD,) == reserve(stored, total()).uninitialised
        commit(stored, "one", window(1), gauge(), total(1, counter="group:usd"))
        assert [9, 4] == [used(stored, request) for request in (window(), gauge())]

    def test_a_full_disk_is_logged(self, clock, caplog):
        """The process stops even if the store fails."""

        class Full(Kept):
            def add(self, counters: Counters) -> None:
                raise StoreUnavailable("The embedded store does not serve.")

        counters = MemoryCounters(clock=clock, stored=Full())
        reserve(counters, window(4))

        counters.flush()

        assert "The counters of limits cannot be saved: The embedded store does not serve." in caplog.text


class TestMistakes:
    """An invalid call changes nothing, although there is no transaction to roll back."""

    @pytest.fixture
    def counters(self, clock):
        return MemoryCounters(clock=clock)

    @pytest.mark.parametrize("wrong", [window(0.5, counter="wrong"), window(2**70, None, counter="wrong")])
    def test_a_wrong_reservation_changes_nothing(self, counters, wrong):
        """Nothing is changed, even if only the last request is invalid."""
        reserve(counters, window(1), gauge(1), name="right")

        with pytest.raises((TypeError, OverflowError)):
            reserve(counters, window(1), gauge(1), wrong)

        assert [1, 1, 0] == [used(counters, request) for request in (window(), gauge(), window(counter="wrong"))]

    def test_a_share_of_nothing_changes_nothing(self, counters):
        """A shared window without the key's own window is an error."""
        with pytest.raises(TypeError):
            reserve(counters, window(1), *shared("ada"), window(1, counter="all", own="not asked for"))

        assert [0, 0, 0] == [used(counters, request) for request in (window(), *shared("ada"))]

    def test_a_wrong_commit_changes_nothing(self, counters):
        """No commit of the batch is made, because the caller repeats them one by one."""
        for name in ("right", "wrong"):
            reserve(counters, window(3), gauge(1), name=name)
        right = Commit("right", (window(1), gauge()))

        with pytest.raises(TypeError):
            counters.commit([right, Commit("wrong", (window(1), gauge(), window(0.5, counter="wrong")))])

        assert [6, 2] == [used(counters, request) for request in (window(), gauge())]
        counters.commit([right])
        counters.commit([Commit("wrong", (window(2), gauge()))])
        assert [3, 0] == [used(counters, request) for request in (window(), gauge())]


class TestMemory:
    """Unused counters are deleted, so that the memory of a process does not grow."""

    @pytest.fixture
    def kept(self):
        return Kept()

    @pytest.fixture
    def counters(self, clock, kept):
        return MemoryCounters(clock=clock, stored=kept)

    def test_unused_counters_disappear(self, counters, kept, clock):
        """Of 100,000 keys, those of the last minute are left, and few others."""
        for number in range(100_000):
            key = f"key:{number}"
            name = f"request {number}"
            requests = (window(5, counter=f"{key}:tokens"), gauge(counter=f"{key}:parallel"))
            assert reserve(counters, *requests, name=name).admitted
            commit(counters, name, *requests)
            clock.advance(0.01)  # a hundred in a second, 6,100 windows that count

        counters.flush()

        windows = sum(name.endswith("tokens") for name in kept.counters.counters)
        assert 6_100 <= windows < 2 * 6_100
        assert len(kept.counters.counters) < 2 * 6_100
        assert {} == kept.counters.leases

    def test_those_who_are_refused_leave_nothing(self, counters, kept, clock):
        """No request has to check many counters."""
        for number in range(10_000):
            requests = (window(5, 1, counter=f"key:{number}"), total(counter=f"key:{number}:usd"))
            counters.initialise(requests[1].counter, 0, until=int(clock.now) + 1)
            assert not reserve(counters, *requests).admitted
        clock.advance(2 * 24 * 3600)
        for _ in range(300):
            reserve(counters, window())
            clock.advance(1)

        counters.flush()

        assert ["key:tokens"] == [*kept.counters.counters]

    def test_those_who_shared_a_window_disappear(self, counters, kept, clock):
        """Keys are deleted a minute after they asked, or soon after they waited in vain."""
        for number in range(1_000):
            reserve(counters, *shared(f"key:{number}"))
        clock.advance(67)
        reserve(counters, window())

        counters.flush()

        assert {} == kept.counters.shares

    def test_what_is_in_use_stays(self, counters, clock):
        """Held gauges and current budgets are kept."""
        counters.initialise(USD, 3, until=None)
        reserve(counters, gauge(2), name="long", lease=10**7)
        for _ in range(39):
            clock.advance(24 * 3600)
            for number in range(10):
                reserve(counters, window(counter=f"other {number}"))
                clock.advance(1)

        assert 2 == used(counters, gauge())
        assert counters.confirm(USD)
