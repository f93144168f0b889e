"""Which deployments are left alone: in memory, and shared through Redis."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
import redis

from llmgateway.interfaces import Cooldown
from llmgateway.stores.cooldowns import MemoryCooldowns
from llmgateway.stores.redis.connection import RedisConnection
from llmgateway.stores.redis.cooldowns import READ_SECONDS, RedisCooldowns
from tests.servers import RedisServer, free_port
from tests.stores.contract import at_once


class CooldownsContract:
    """What any :class:`~llmgateway.interfaces.Cooldowns` must do; the clock is the test's own."""

    def test_nothing_at_first(self, cooldowns):
        assert {} == cooldowns.current()

    def test_end_by_themselves(self, cooldowns, clock):
        """Until then the process that has set them sees them at once."""
        cooldowns.rest("east", 5, limited=True)
        cooldowns.rest("west", 9, limited=False)
        now = clock()

        assert {"east": Cooldown(now + 5, True), "west": Cooldown(now + 9, False)} == cooldowns.current()
        clock.advance(5)
        assert ["west"] == [*cooldowns.current()]
        clock.advance(5)
        assert {} == cooldowns.current()

    def test_the_last_one_counts(self, cooldowns, clock):
        cooldowns.rest("east", 50, limited=False)
        cooldowns.rest("east", 5, limited=True)

        assert {"east": Cooldown(clock() + 5, True)} == cooldowns.current()

    def test_many_threads(self, cooldowns):
        """None is lost, and none fails."""

        def work(number: int) -> None:
            for step in range(20):
                cooldowns.rest(f"{number}-{step}", 60, limited=True)
                cooldowns.current()

        at_once(*(lambda number=number: work(number) for number in range(8)))

        assert 160 == len(cooldowns.current())


class TestMemory(CooldownsContract):
    @pytest.fixture
    def cooldowns(self, clock):
        return MemoryCooldowns(clock=clock)


@pytest.fixture
def connect(redis_server, namespace, clock):
    """Make what another process or host would have."""
    made = []

    def connect() -> RedisCooldowns:
        made.append(RedisConnection(redis_server.url, namespace=namespace, clock=clock))
        return RedisCooldowns(made[-1], clock=clock)

    yield connect
    for connection in made:
        connection.close()


class TestRedis(CooldownsContract):
    @pytest.fixture
    def cooldowns(self, connect):
        return connect()

    def test_others_notice_within_a_second(self, connect, clock):
        """They read at most once in a second, so that requests need not wait for Redis."""
        here, there = connect(), connect()
        assert {} == there.current()
        here.rest("east", 30, limited=True)
        until = clock() + 30

        assert {} == there.current()
        clock.advance(READ_SECONDS)
        assert {"east": Cooldown(until, True)} == there.current()
        clock.advance(30)
        assert {} == there.current()

    @pytest.mark.parametrize("value", ["", "nonsense", "1 2 3", "-5 1", "1e9 1", f"{10**14} 1", "\x00"])
    def test_what_others_have_written_does_no_harm(self, redis_server, namespace, connect, value):
        """Neither garbage nor a time in the far future."""
        cooldowns = connect()
        with redis.Redis.from_url(redis_server.url) as client:
            client.hset(f"llmgateway:2:{{{namespace}}}:cooldowns", "east", value)

        assert {} == cooldowns.current()

    def test_a_name_of_another_type_does_no_harm(self, redis_server, namespace, connect):
        """Redis answers with an error."""
        cooldowns = connect()
        with redis.Redis.from_url(redis_server.url) as client:
            client.set(f"llmgateway:2:{{{namespace}}}:cooldowns", "a string")
        cooldowns.rest("east", 5, limited=True)

        assert ["east"] == [*cooldowns.current()]

    def test_what_nobody_needs_any_more_expires(self, redis_server, namespace, connect):
        connect().rest("east", 5, limited=True)

        with redis.Redis.from_url(redis_server.url) as client:
            assert 0 < client.pttl(f"llmgateway:2:{{{namespace}}}:cooldowns") <= 600_000


class TestRedisAway(CooldownsContract):
    """Each process remembers its own."""

    @pytest.fixture
    def cooldowns(self, clock):
        with closing(RedisConnection(f"redis://127.0.0.1:{free_port()}", timeout=0.2, clock=clock)) as connection:
            yield RedisCooldowns(connection, clock=clock)


def test_redis_that_goes_and_comes_back(clock):
    """What was known stays known, and new ones are shared again afterwards."""
    server = RedisServer()
    try:
        server.start()
        with (
            closing(RedisConnection(server.url, timeout=0.5, clock=clock)) as one,
            closing(RedisConnection(server.url, timeout=0.5, clock=clock)) as other,
        ):
            here, there = RedisCooldowns(one, clock=clock), RedisCooldowns(other, clock=clock)
            here.rest("east", 60, limited=True)
            assert ["east"] == [*there.current()]
            server.stop()
            clock.advance(2)
            here.rest("west", 60, limited=True)
            assert ["east", "west"] == sorted(here.current())
            assert ["east"] == [*there.current()]

            server.start()
            clock.advance(2)
            here.rest("north", 60, limited=False)
            clock.advance(2)
            assert "north" in there.current()
    finally:
        server.remove()


def test_reading_costs_next_to_nothing(clock):
    """It is done for every request of a model with several deployments."""
    cooldowns = MemoryCooldowns(clock=clock)
    began = time.process_time()
    for _ in range(10_000):
        cooldowns.current()

    assert time.process_time() - began < 0.5
