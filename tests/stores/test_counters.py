"""The counters behind limits: the contract on every backend."""

from __future__ import annotations

from contextlib import closing

import pytest

from llmgateway.stores.redis_connection import RedisConnection
from llmgateway.stores.redis_counters import RedisCounters
from llmgateway.stores.sqlite import MemoryDatabase, SQLiteCounters, SQLiteDatabase
from llmgateway.stores.sqlite.counters import COUNTERS
from tests.stores.counter_contract import CounterStoreContract


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
    def counters(self, clock):
        return SQLiteCounters(MemoryDatabase(migrations=COUNTERS), clock=clock)

    @pytest.fixture
    def elsewhere(self, counters):
        """A process' own counters are nobody else's."""
        return counters


class TestRedisCounters(CounterStoreContract):
    @pytest.fixture
    def counters(self, redis_server, namespace, clock):
        with closing(RedisConnection(redis_server.url, namespace=namespace)) as connection:
            yield RedisCounters(connection, clock=clock)

    @pytest.fixture
    def elsewhere(self, redis_server, namespace, clock):
        with closing(RedisConnection(redis_server.url, namespace=namespace)) as connection:
            yield RedisCounters(connection, clock=clock)
