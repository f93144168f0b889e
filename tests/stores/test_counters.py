"""The counters behind limits: the contract on every backend."""

from __future__ import annotations

import json
from array import array
from contextlib import closing
from dataclasses import replace

import pytest

from llmgateway.ratelimit.memory import MemoryCounters
from llmgateway.settings import Settings
from llmgateway.stores import open_stores
from llmgateway.stores.fallback import FallbackCounters
from llmgateway.stores.redis.connection import RedisConnection
from llmgateway.stores.redis.counters import RedisCounters
from llmgateway.stores.sqlite import COUNTERS, SQLiteCounters, SQLiteDatabase
from tests.servers import free_port
from tests.stores.counter_contract import CounterStoreContract, gauge, reserve, total, used, window


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


class TestWhereLimitsAreCounted:
    """In memory only by a process that says that it serves alone, and is believed by the folder."""

    @pytest.fixture
    def settings(self, tmp_path):
        return Settings(admin_key="a" * 24, base_url="https://x.openai.azure.com/openai/v1", instance=tmp_path)

    @pytest.fixture
    def file(self, tmp_path, clock):
        """What is in the file."""
        with closing(SQLiteDatabase(tmp_path / "counters.sqlite", migrations=COUNTERS)) as database:
            yield SQLiteCounters(database, clock=clock)

    def test_one_that_serves_alone_writes_them_down_when_it_stops(self, settings, file, clock):
        """Until then no transaction is needed."""
        counters = open_stores(settings, clock=clock, serves_alone=True).counters
        reserve(counters, window(4))
        assert 0 == used(file, window())

        counters.flush()

        assert 4 == used(file, window())

    def test_others_count_in_the_file(self, settings, file, clock):
        """Whoever does not say anything may be one of several."""
        reserve(open_stores(settings, clock=clock).counters, window(4))

        assert 4 == used(file, window())

    def test_one_beside_others_counts_in_the_file(self, settings, file, clock, caplog):
        """It says that it serves alone, and does not."""
        other = open_stores(settings, clock=clock).counters
        reserve(other, window(4))

        counters = open_stores(settings, clock=clock, serves_alone=True).counters
        reserve(counters, window(4))

        assert 8 == used(file, window()) == used(other, window())
        assert f"Another process counts limits in {settings.instance}, too." in caplog.text

    def test_one_that_counts_nothing_is_not_in_the_way(self, settings, file, clock):
        """A command that opens the stores for something else."""
        _stores = open_stores(settings, clock=clock)

        reserve(open_stores(settings, clock=clock, serves_alone=True).counters, window(4))

        assert 0 == used(file, window())

    def test_others_see_what_one_that_was_alone_has_counted_when_it_stops(self, settings, clock, caplog):
        """It is added to what they have counted; the log says once why it was not seen before."""
        alone = open_stores(settings, clock=clock, serves_alone=True).counters
        other = open_stores(settings, clock=clock).counters
        reserve(alone, window(4))
        for _ in range(3):
            reserve(other, window(1))
        assert 3 == used(other, window())
        assert 1 == caplog.text.count("Another process counts limits in its memory")

        alone.flush()

        assert 7 == used(other, window())

    def test_a_file_that_cannot_be_emptied_keeps_nobody_from_starting(self, settings, clock):
        """Limits are counted in memory until it can be written again."""
        settings = replace(settings, store_timeout=0.05)
        with (
            closing(SQLiteDatabase(settings.instance / "counters.sqlite", migrations=COUNTERS)) as database,
            database.transaction(),
        ):
            counters = open_stores(settings, clock=clock, serves_alone=True).counters
            assert [True, False] == [reserve(counters, window(6)).admitted for _ in range(2)]


def test_counters_of_the_version_before_are_read(tmp_path, clock):
    """Each is of the kind that its name says, and what running requests hold comes back."""
    path = tmp_path / "counters.sqlite"
    second = int(clock.now)
    names = [
        "key:1:requests",
        "group:a:requests:tokens",
        "key:1:parallel",
        "key:1:usd:month:2026-01-01",
        "x:tokens:total:",
    ]
    numbers = [[second, 4], [second, 5], [2], [7, 1, second << 20, 0], [8, 0, second << 20, 0]]
    held = [
        ["key:1:requests", "window", 4, second],
        ["key:1:parallel", "level", 2, 0],
        [names[3], "total", 1, second << 20],
    ]
    with closing(SQLiteDatabase(path, migrations=COUNTERS[:1])) as database, database.transaction() as connection:
        connection.executemany(
            "INSERT INTO counters VALUES (?, ?, ?)",
            [(name, second + 100, array("q", each).tobytes()) for name, each in zip(names, numbers, strict=True)],
        )
        connection.execute("INSERT INTO leases VALUES ('one', ?, ?)", (second + 30, json.dumps(held).encode()))

    with closing(SQLiteDatabase(path, migrations=COUNTERS)) as database:
        counters = MemoryCounters(clock=clock, stored=SQLiteCounters(database, clock=clock))

    requests = [
        window(counter=names[0]),
        window(counter=names[1]),
        gauge(counter=names[2]),
        total(counter=names[3]),
        total(counter=names[4]),
    ]
    assert [4, 5, 2, 8, 8] == [used(counters, request) for request in requests]
    clock.advance(30)
    assert [4, 5, 0, 7, 8] == [used(counters, request) for request in requests]
