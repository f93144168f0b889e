"""Limits while stores are away and processes die: nobody is refused for it, and nothing is forgotten."""

from __future__ import annotations

from contextlib import closing, suppress
from http.client import HTTPException
from threading import Thread

import pytest
import redis

from llmgateway.simulator import Script
from tests.servers import wait_until

from .test_outages import is_ready

pytestmark = pytest.mark.slow

REFUSED = (429, "rate_limit_exceeded")
SPENT = (429, "insufficient_quota")


def ask(gateway, key, connection):
    answer = gateway.chat(key, connection=connection)
    return 200 if answer.status == 200 else (answer.status, answer.error["code"])


def are_together(gateway, key, *connections):
    """Whether each of two processes has seen, with a request that has limits, that Redis is back."""
    for connection in connections:
        gateway.chat(key, connection=connection)
    return gateway.output.count("all processes count limits together") == 2


def budget(amount):
    return {"budget": {"amount": amount, "unit": "requests", "period": "month"}}


def test_each_process_counts_for_itself_without_redis_and_all_together_with_it(site, start_gateway):
    """Limits go on per process while Redis is away; when it is back, what was used meanwhile counts for everybody."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES="2")
    per_minute = gateway.key(limits={"requests_per_minute": 2})
    per_month = gateway.key(limits=budget(7))
    one, other = (gateway.connect_to(worker) for worker in gateway.workers())
    with closing(one), closing(other):
        assert [200, 200] == [ask(gateway, per_month, connection) for connection in (one, other)]
        site.assert_books_balance(gateway)
        site.redis.kill()

        for connection in (one, other):
            assert [200, 200, REFUSED] == [ask(gateway, per_minute, connection) for _ in range(3)]
            assert [200, 200] == [ask(gateway, per_month, connection) for _ in range(2)]

        site.redis.start()
        wait_until(lambda: are_together(gateway, per_minute, one, other), what="two processes that count together")
        site.assert_books_balance(gateway)
        assert 200 == ask(gateway, per_month, one)
        # Each process that was alone has the budget counted anew, from the log: a second behind, where others ship.
        site.assert_books_balance(gateway)
        assert [SPENT, SPENT] == [ask(gateway, per_month, connection) for connection in (other, one)]
        fresh = gateway.key(limits={"requests_per_minute": 2})
        assert [200, 200, REFUSED] == [ask(gateway, fresh, connection) for connection in (one, other, one)]
    gateway.stop()


def test_budgets_wait_for_a_usage_log_that_is_away(site, start_gateway):
    """With MongoDB away and Redis emptied nobody knows what was spent: keys work, and the budget holds again later."""
    gateway = start_gateway()
    key = gateway.key(limits=budget(3))
    assert 200 == gateway.chat(key).status
    site.assert_books_balance(gateway)
    site.mongo.kill()
    with redis.Redis.from_url(site.redis.url) as client:
        client.flushall()

    assert [200, 200, 200] == [gateway.chat(key).status for _ in range(3)]

    site.mongo.start()
    wait_until(lambda: is_ready(gateway), what="a gateway that is ready again")
    site.assert_books_balance(gateway)
    wait_until(lambda: gateway.chat(key).status == 429, what="a budget that is known again", seconds=5)
    assert site.azure.served[-1].client_request_id in site.assert_books_balance(gateway)
    gateway.stop()


def test_what_a_killed_process_had_under_way_counts(site, start_gateway):
    """A request that ended with its process is booked as interrupted, and its budget knows."""
    gateway = start_gateway()
    key = gateway.key(limits=budget(2))
    site.azure.script(Script(stall_after_events=0))

    def wait_in_vain() -> None:
        with suppress(OSError, HTTPException):
            gateway.chat(key)

    waiting = Thread(target=wait_in_vain)
    waiting.start()
    wait_until(lambda: len(site.azure.served) == 1)
    gateway.kill()
    waiting.join(20)
    gateway.start()
    site.assert_books_balance(gateway)

    assert [200, 429] == [gateway.chat(key).status for _ in range(2)]
    gateway.stop()


def test_what_a_killed_process_had_answered_last_counts(site, start_gateway):
    """What it had not settled is in its journal, and its budget knows as soon as the next one has found that."""
    gateway = start_gateway(REDISHOST="", REDISPORT="", REDISPASSWORD="", LLMGATEWAY_PROCESSES="1")
    key = gateway.key(limits=budget(100))
    assert 200 == gateway.chat(key).status
    site.assert_books_balance(gateway)
    assert {200} == {gateway.chat(key).status for _ in range(5)}
    gateway.kill()
    gateway.start()
    site.assert_books_balance(gateway)

    def left() -> float:
        return gateway.request("GET", "/v1/me", key=key).json()["remaining"]["budget"]

    wait_until(lambda: left() == 94, what="a budget that knows of all six requests")
    gateway.stop()
