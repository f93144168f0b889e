"""Stores that stop, hang, die and come back under load: known keys are served all the while."""

from __future__ import annotations

import time

import pytest

from llmgateway.simulator import Script
from tests.servers import wait_until

from .calls import Load

pytestmark = pytest.mark.slow

STORE_TIMEOUT = 1.0
MARGIN = 1.5
"""What a request takes by itself on a busy machine, and then some."""

STORES = {"redis": ["redis"], "mongo": ["mongo"], "both": ["redis", "mongo"]}
STORE_NAMES = {"redis": "redis", "mongo": "mongodb"}
RUNGS = {"redis": "without_redis", "mongo": "without_durable_store", "both": "memory_only"}
COALESCING = Script(tokens=10, delay=0.01, gap=0.005)


def take_away(server, how):
    getattr(server, how)()


def bring_back(server):
    if server.running:
        server.resume()
    else:
        server.start()


def is_ready(gateway):
    return gateway.request("GET", "/readyz").json()["status"] == "ok"


def status_of_unknown_key(gateway):
    answer = gateway.chat("a-key-that-nobody-has")
    return answer.status, answer.error["code"]


def assert_served_all_the_time(load, *, stores):
    """No key was refused, nothing failed, and nobody waited longer than once for each store."""
    assert {200} == load.statuses
    assert all(reading.complete for reading in load.readings)
    assert load.slowest < STORE_TIMEOUT * stores + MARGIN


@pytest.mark.parametrize("away", STORES)
def test_everybody_who_asks_is_told_what_is_away(site, start_gateway, away):
    """/readyz, /admin/status and /metrics name the rung, the store and the records that wait, and when it is over."""
    gateway = start_gateway(LLMGATEWAY_METRICS="open")
    key = gateway.key()
    assert 200 == gateway.chat(key).status
    site.assert_books_balance(gateway)
    for name in STORES[away]:
        getattr(site, name).kill()
    assert [200] * 3 == [gateway.chat(key).status for _ in range(3)]
    if away == "redis":
        site.assert_books_balance(gateway)
    waiting = {"records": 0 if away == "redis" else 3, "problem": away != "redis"}
    wait_until(lambda: told_of_journal(numbers(gateway)) == waiting, what="what the journal has to say")

    ready = gateway.request("GET", "/readyz")
    began = time.monotonic()
    status = gateway.admin("GET", "/admin/status").json()
    assert time.monotonic() - began < STORE_TIMEOUT * len(STORES[away]) + MARGIN  # each store is waited for once
    metrics = numbers(gateway)

    expected = (503, "unavailable") if away == "both" else (200, "degraded")
    assert expected == (ready.status, ready.json()["status"])
    for told, stores in [(ready.json(), ready.json()["checks"]), (status, status["stores"])]:
        assert RUNGS[away] == told["rung"]
        assert STORES[away] == [name for name in ("redis", "mongo") if stores[STORE_NAMES[name]] != "ok"]
        journal = told["journal"]
        assert waiting == {"records": journal["records"], "problem": journal["problem"] is not None}
        assert waiting["problem"] == (journal["oldest_seconds"] > 0)
    assert [1, 0] == [metrics[f'llmgateway_rung{{rung="{rung}"}}'] for rung in (RUNGS[away], "normal")]
    up = {name: metrics[f'llmgateway_store_up{{store="{told}"}}'] for name, told in STORE_NAMES.items()}
    assert STORES[away] == [name for name in up if not up[name]]

    for name in STORES[away]:
        getattr(site, name).start()
    wait_until(lambda: is_ready(gateway), what="a gateway that is ready again")
    site.assert_books_balance(gateway)
    nothing = {"records": 0, "problem": False}
    wait_until(lambda: told_of_journal(numbers(gateway)) == nothing, what="an end of the trouble")
    assert 1 == numbers(gateway)['llmgateway_rung{rung="normal"}']
    gateway.stop()


def numbers(gateway):
    """What Prometheus is told, by name and labels."""
    lines = gateway.request("GET", "/metrics").body.decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def told_of_journal(metrics):
    return {
        "records": metrics["llmgateway_journal_records"],
        "problem": metrics["llmgateway_journal_problem"] == 1,
    }


@pytest.mark.parametrize(
    ("away", "how"),
    [("redis", "stop"), ("redis", "pause"), ("mongo", "kill"), ("mongo", "pause"), ("both", "kill"), ("both", "pause")],
)
def test_known_keys_are_served_while_stores_are_away(site, start_gateway, away, how):
    """Under load, at the moment of going, while away and on the way back; then the books are complete."""
    servers = [getattr(site, name) for name in STORES[away]]
    gateway = start_gateway()
    keys = [gateway.key(user=user) for user in ("ada", "bob")]
    assert [200, 200] == [gateway.chat(key).status for key in keys]
    site.azure.script(COALESCING, times=None)

    with Load(gateway, *keys, leaving=0.1) as load:
        load.lasting(0.3)
        for server in servers:
            take_away(server, how)
        load.lasting(STORE_TIMEOUT * len(servers) + 0.5)  # those who are caught by it wait for each
        during = time.monotonic()
        load.lasting(1.0)
        # Redis is only a cache: without it the durable store knows who is unknown.
        expected = (401, "invalid_api_key") if away == "redis" else (503, "store_unavailable")
        assert expected == status_of_unknown_key(gateway)
        returning = time.monotonic()
        for server in servers:
            bring_back(server)
        wait_until(lambda: is_ready(gateway), what="a gateway that is ready again")
        load.lasting(0.5)

    assert_served_all_the_time(load, stores=len(servers))
    # One a second looks whether a store is back; nobody else waits for it.
    meanwhile = [reading.seconds for reading in load.readings if during < reading.began < returning]
    assert len(meanwhile) > 20
    assert sum(seconds > STORE_TIMEOUT * 0.9 for seconds in meanwhile) <= len(servers) * (returning - during + 1)
    # The last question before the return may have failed, and nobody asks again within a second of it.
    wait_until(lambda: (401, "invalid_api_key") == status_of_unknown_key(gateway), seconds=3, what="a known stranger")
    site.assert_books_balance(gateway)
    gateway.stop()


def test_stores_that_come_and_go_for_a_while_cost_nobody_anything(site, start_gateway):
    """One after the other and both at once, with two processes."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES="2")
    key = gateway.key()
    # Each process serves who it knows.
    for worker in gateway.workers():
        connection = gateway.connect_to(worker)
        assert 200 == gateway.chat(key, connection=connection).status
        connection.close()
    site.azure.script(COALESCING, times=None)

    with Load(gateway, key) as load:
        site.redis.kill()
        load.lasting(0.3)
        site.mongo.kill()
        load.lasting(0.6)
        site.redis.start()
        load.lasting(0.6)
        site.redis.stop()
        site.mongo.start()
        load.lasting(0.6)
        site.redis.start()
        load.lasting(0.3)

    assert_served_all_the_time(load, stores=2)
    wait_until(lambda: is_ready(gateway), what="a gateway that is ready again")
    site.assert_books_balance(gateway)
    gateway.stop()


def test_a_revoked_key_stays_revoked_when_redis_returns(site, start_gateway):
    """What was changed while Redis was away, and what Redis still believes, are brought together."""
    gateway = start_gateway()
    revoked, made = gateway.new_key(), gateway.new_key()
    assert [200, 200] == [gateway.chat(one["key"]).status for one in (revoked, made)]
    site.redis.stop()
    assert 200 == gateway.admin("PATCH", f"/admin/keys/{revoked['id']}", json={"active": False}).status
    assert 204 == gateway.admin("DELETE", f"/admin/keys/{made['id']}").status
    young = gateway.key()
    assert [401, 401, 200] == [gateway.chat(key).status for key in (revoked["key"], made["key"], young)]

    site.redis.start()

    wait_until(lambda: is_ready(gateway), what="a gateway that is ready again")
    assert [401, 401, 200] == [gateway.chat(key).status for key in (revoked["key"], made["key"], young)]
    other = start_gateway()
    assert [401, 401, 200] == [other.chat(key).status for key in (revoked["key"], made["key"], young)]


def test_a_change_that_cannot_be_made_is_refused_and_not_half_made(site, start_gateway):
    """While MongoDB is away admins get 503; the key works on, and the change can be made afterwards."""
    gateway = start_gateway()
    made = gateway.new_key()
    assert 200 == gateway.chat(made["key"]).status
    site.mongo.kill()

    refused = gateway.admin("PATCH", f"/admin/keys/{made['id']}", json={"active": False})
    assert (503, "store_unavailable") == (refused.status, refused.error["code"])
    assert 200 == gateway.chat(made["key"]).status

    site.mongo.start()
    wait_until(lambda: is_ready(gateway), what="a gateway that is ready again")
    assert 200 == gateway.admin("PATCH", f"/admin/keys/{made['id']}", json={"active": False}).status
    assert 401 == gateway.chat(made["key"]).status


@pytest.mark.parametrize("away", STORES)
def test_starts_while_stores_are_away(site, start_gateway, away):
    """A fresh process serves known keys at once if one store knows them, and the rest by itself when they come."""
    servers = [getattr(site, name) for name in STORES[away]]
    gateway = start_gateway()
    key = gateway.key()
    gateway.admin("PUT", "/admin/prompt", json={"prompt": "Be kind."})
    assert 200 == gateway.chat(key).status
    site.assert_books_balance(gateway)
    for server in servers:
        server.stop()

    gateway.restart()

    began = time.monotonic()
    statuses = [gateway.chat(key).status for _ in range(3)]
    assert time.monotonic() - began < 2 * STORE_TIMEOUT + MARGIN
    if away == "both":
        assert [503] * 3 == statuses
    else:
        assert [200] * 3 == statuses
        assert all(b"Be kind." in one.body for one in site.azure.served)
    for server in servers:
        server.start()
    wait_until(lambda: is_ready(gateway), what="a gateway that is ready")
    wait_until(lambda: gateway.chat(key).status == 200, seconds=3, what="a key that is known again")
    assert all(b"Be kind." in one.body for one in site.azure.served)
    site.assert_books_balance(gateway)
    gateway.stop()
