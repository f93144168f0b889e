"""The counters behind limits: the contract on every backend."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from functools import partial

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.stores.fallback import FallbackCounters
from llmgateway.stores.redis.connection import RedisConnection
from llmgateway.stores.redis.counters import RedisCounters
from llmgateway.stores.sqlite import COUNTERS, HELD_SECONDS, MemoryDatabase, SQLiteCounters, SQLiteDatabase
from tests.servers import free_port, wait_until
from tests.stores.counter_contract import CounterStoreContract, level, reserve, used, window
from tests.stores.test_held_counters import opened


@pytest.fixture
def own(clock):
    """What one process counts for itself."""
    return SQLiteCounters(MemoryDatabase(migrations=COUNTERS), clock=clock, held_seconds=HELD_SECONDS)


class TestSQLiteCounters(CounterStoreContract):
    @pytest.fixture
    def counters(self, tmp_path, clock):
        with closing(SQLiteDatabase(tmp_path / "counters.sqlite", migrations=COUNTERS, durable=False)) as database:
            yield SQLiteCounters(database, clock=clock)

    @pytest.fixture
    def elsewhere(self, tmp_path, clock):
        with closing(SQLiteDatabase(tmp_path / "counters.sqlite", migrations=COUNTERS, durable=False)) as database:
            yield SQLiteCounters(database, clock=clock)


class TestHeldCounters(CounterStoreContract):
    """With transactions that are kept open; *elsewhere* is a process that comes in between."""

    @pytest.fixture
    def counters(self, tmp_path, clock):
        with opened(tmp_path / "counters.sqlite", clock, held_seconds=HELD_SECONDS) as counters:
            yield counters

    @pytest.fixture
    def elsewhere(self, tmp_path, clock):
        with opened(tmp_path / "counters.sqlite", clock, held_seconds=HELD_SECONDS) as counters:
            yield counters


class TestHeldCountersAlone(CounterStoreContract):
    """With nobody in between all is done in memory, as far as it can be."""

    @pytest.fixture
    def counters(self, tmp_path, clock):
        with opened(tmp_path / "counters.sqlite", clock, held_seconds=HELD_SECONDS) as counters:
            yield counters

    @pytest.fixture
    def elsewhere(self, counters):
        return counters


class TestCountersInMemory(CounterStoreContract):
    @pytest.fixture
    def counters(self, own):
        return own

    @pytest.fixture
    def elsewhere(self, counters):
        """A process' own counters are nobody else's."""
        return counters


class TestOneTransaction:
    """What several threads want at the same time is done together."""

    @pytest.fixture
    def database(self):
        return SlowDatabase()

    @pytest.fixture
    def counters(self, database, clock):
        return SQLiteCounters(database, clock=clock)

    def together(self, counters, database, *actions):
        """Do what each thread wants in one transaction, and return what each got."""
        with ThreadPoolExecutor(len(actions) + 1) as threads:
            first = threads.submit(reserve, counters)
            assert database.entered.wait(10)
            results = [threads.submit(action) for action in actions]
            queue = counters._queue()
            wait_until(lambda: len(actions) == len(queue.jobs), what="that everybody waits")
            database.go_on.set()
            first.result(10)
            wait([*results], 10)
        return results

    def test_many_are_done_in_one(self, counters, database):
        """Those who have come meanwhile need no transaction of their own."""
        results = self.together(counters, database, *[partial(reserve, counters, window(1))] * 11)

        assert 10 == sum(result.result().admitted for result in results)
        assert 2 == database.transactions

    def test_only_the_one_that_is_wrong_fails(self, counters, database):
        """Others do not hear of a mistake that was made elsewhere, and nothing of it is counted, or counted twice."""
        wrong = partial(reserve, counters, window(1), window(1, 10, counter="organisation:tokens", own="not claimed"))
        right = partial(reserve, counters, window(1), level(1))

        before, failed, after = self.together(counters, database, right, wrong, right)

        assert isinstance(failed.exception(), TypeError)
        assert before.result().admitted
        assert after.result().admitted
        assert [2, 2] == [used(counters, counter_request) for counter_request in (window(), level())]

    def test_all_hear_that_the_store_is_away(self, counters, database):
        """None of them tries it once more: each would wait for as long."""
        database.fails = True

        results = self.together(counters, database, *[partial(reserve, counters, window(1))] * 3)

        assert [True] * 3 == [isinstance(result.exception(), StoreUnavailable) for result in results]
        assert 2 == database.transactions


class SlowDatabase:
    """A database whose first transaction waits until it may go on, and whose later ones fail if told to."""

    def __init__(self):
        self._memory = MemoryDatabase(migrations=COUNTERS)
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.fails = False
        self.transactions = 0

    def before_closing(self, flush):
        """It is never closed."""

    @contextmanager
    def transaction(self):
        self.transactions += 1
        with self._memory.transaction() as connection:
            self.entered.set()
            assert self.go_on.wait(10)
            if self.fails and self.transactions > 1:
                raise StoreUnavailable("It is away.")
            yield connection


class TestRedisCounters(CounterStoreContract):
    @pytest.fixture
    def counters(self, redis_server, namespace, clock):
        with closing(RedisConnection(redis_server.url, namespace=namespace, timeout=10)) as connection:
            yield RedisCounters(connection, clock=clock)

    @pytest.fixture
    def elsewhere(self, redis_server, namespace, clock):
        with closing(RedisConnection(redis_server.url, namespace=namespace, timeout=10)) as connection:
            yield RedisCounters(connection, clock=clock)


class TestCountersWithAFallback(CounterStoreContract):
    """The contract while all is well."""

    @pytest.fixture
    def counters(self, redis_server, namespace, clock, own):
        with closing(RedisConnection(redis_server.url, namespace=namespace, timeout=10)) as connection:
            yield FallbackCounters(RedisCounters(connection, clock=clock), own, circuit=None)

    @pytest.fixture
    def elsewhere(self, redis_server, namespace, clock, own):
        with closing(RedisConnection(redis_server.url, namespace=namespace, timeout=10)) as connection:
            yield FallbackCounters(RedisCounters(connection, clock=clock), own, circuit=None)


class TestCountersWithoutRedis(CounterStoreContract):
    """The same contract while Redis is away from the beginning."""

    @pytest.fixture
    def counters(self, clock, own):
        connection = RedisConnection(f"redis://127.0.0.1:{free_port()}")
        return FallbackCounters(RedisCounters(connection, clock=clock), own, circuit=None)

    @pytest.fixture
    def elsewhere(self, counters):
        return counters
