"""The counters behind limits: the contract on every backend."""

from __future__ import annotations

from contextlib import closing

import pytest

from llmgateway.ratelimit.memory import MemoryCounters
from llmgateway.stores.fallback import FallbackCounters
from llmgateway.stores.redis.connection import RedisConnection
from llmgateway.stores.redis.counters import RedisCounters
from llmgateway.stores.sqlite import COUNTERS, SQLiteCounters, SQLiteDatabase
from tests.servers import free_port
from tests.stores.counter_contract import CounterStoreContract


@pytest.fixture
def own(clock):
    """What one process counts for itself."""
    return MemoryCounters(clock=clock)


class TestSQLiteCounters(CounterStoreContract):
    @pytest.fixture
    def counters(self, tmp_path, clock):
        with closing(SQLiteDatabase(tmp_path / "counters.sqlite", migrations=COUNTERS, durable=False)) as database:
            yield SQLiteCounters(database, clock=clock)

    @pytest.fixture
    def elsewhere(self, tmp_path, clock):
        with closing(SQLiteDatabase(tmp_path / "counters.sqlite", migrations=COUNTERS, durable=False)) as database:
            yield SQLiteCounters(database, clock=clock)


class TestCountersInMemory(CounterStoreContract):
    @pytest.fixture
    def counters(self, own):
        return own

    @pytest.fixture
    def elsewhere(self, counters):
        """A process' own counters are nobody else's."""
        return counters


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
