"""kill -9: whenever it comes, every request that Azure saw has exactly one record after the next start."""

from __future__ import annotations

import os
import random
import signal

import pytest

from llmgateway.simulator import Script
from tests.servers import wait_until

from .calls import Load

pytestmark = pytest.mark.slow

KILLS = 3
COALESCING = Script(tokens=12, delay=0.02, gap=0.01)
"""A plain answer takes 20 ms, a stream 0.2 s: a kill finds some of each."""


@pytest.mark.parametrize(("processes", "seed"), [(1, 1), (2, 2)])
def test_kills_while_mongo_is_away_lose_nothing(site, start_gateway, processes, seed):
    """Killed again and again in the middle of load, and started once more when MongoDB is back."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES=str(processes))
    chance = random.Random(seed)
    key = gateway.key()
    site.azure.script(COALESCING, times=None)
    assert 200 == gateway.chat(key).status

    with Load(gateway, key, leaving=0.2, seed=seed) as load:
        load.lasting(0.3)
        site.mongo.kill()
        for _ in range(KILLS):
            load.lasting(chance.uniform(0.1, 0.7))
            wait_until(lambda: len(site.azure.in_progress) > 2, what="requests to interrupt")
            gateway.kill()
            gateway.start()
        load.lasting(0.3)
        gateway.kill()
    site.mongo.start()
    gateway.start()

    records = site.assert_books_balance(gateway)
    outcomes = {record["outcome"] for record in records.values()}
    assert {"ok", "interrupted"} <= outcomes <= {"ok", "interrupted", "client_closed"}
    interrupted = [record for record in records.values() if record["outcome"] == "interrupted"]
    assert all(record["prompt_tokens"] > 0 and record["cost_usd"] > 0 for record in interrupted)
    gateway.stop()


def test_kills_while_records_are_shipped_count_nothing_twice(site, start_gateway):
    """With MongoDB there, a kill that comes between the shipping and the note of it repeats nothing in the reports."""
    gateway = start_gateway()
    chance = random.Random(3)
    key = gateway.key()

    with Load(gateway, key) as load:
        for _ in range(KILLS):
            load.lasting(chance.uniform(0.5, 1.2))
            gateway.kill()
            gateway.start()
        load.lasting(0.3)

    site.assert_books_balance(gateway)
    gateway.stop()


def test_killed_workers_are_replaced_and_their_records_shipped_by_the_others(site, start_gateway):
    """The gateway goes on serving on its other process; nobody has to start anything."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES="2")
    key = gateway.key()
    site.azure.script(COALESCING, times=None)

    with Load(gateway, key) as load:
        for turn in range(3):
            load.lasting(0.4)
            victim = gateway.workers()[turn % 2]
            os.kill(victim, signal.SIGKILL)
            wait_until(
                lambda victim=victim: victim not in gateway.workers() and len(gateway.workers()) == 2,
                what="another worker",
            )

    # Those whose process was killed get no answer; nobody gets a wrong one.
    assert {200, None} >= load.statuses
    records = site.assert_books_balance(gateway, seconds=20)
    assert {"ok", "interrupted"} >= {record["outcome"] for record in records.values()}
    gateway.stop()


def test_killed_stores_forget_nothing_that_was_booked(site, start_gateway):
    """MongoDB itself is killed while records arrive: what it had not acknowledged is sent again."""
    gateway = start_gateway()
    key = gateway.key()

    with Load(gateway, key) as load:
        for _ in range(2):
            load.lasting(0.6)
            site.mongo.restart()

    assert {200} == load.statuses
    site.assert_books_balance(gateway)
    gateway.stop()
