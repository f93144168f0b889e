"""The counters behind limits, shared by processes: many ask at once, and some die while they hold something."""

from __future__ import annotations

import multiprocessing
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from llmgateway.ratelimit.reservations import CounterRequest, Kind
from llmgateway.stores.redis.connection import RedisConnection
from llmgateway.stores.redis.counters import RedisCounters
from llmgateway.stores.sqlite import COUNTERS, SQLiteCounters, SQLiteDatabase
from tests.conftest import Clock
from tests.stores.counter_contract import gauge, reserve, used

PROCESSES = 4
CLIENTS = 50
SPAWN = multiprocessing.get_context("spawn")


def open_sqlite(clock, path):
    database = SQLiteDatabase(path, migrations=COUNTERS, durable=False, timeout=30)
    return closing(database), SQLiteCounters(database, clock=clock or time.time)


def open_redis(clock, url, namespace):
    connection = RedisConnection(url, namespace=namespace, timeout=30)
    return closing(connection), RedisCounters(connection, clock=clock)  # Redis' own time unless a test brings one


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory):
    return open_sqlite, str(tmp_path_factory.mktemp("counters") / "counters.sqlite")


@pytest.fixture(scope="module")
def redis(redis_server):
    return open_redis, redis_server.url, f"test-{secrets.token_hex(6)}"


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def store(request):
    """How a process opens the store, and with what."""
    return request.getfixturevalue(request.param)


def serve(store, barrier, orders, clients):
    """A process of the crowd: whenever it gets a counter request, all its clients ask for it at the same moment."""
    opened, counters = store[0](None, *store[1:])

    def ask(counter_request):
        barrier.wait(30)
        return reserve(counters, counter_request).admitted

    with opened, ThreadPoolExecutor(clients) as threads:
        for counter_request in iter(orders.recv, None):
            orders.send(sum(threads.map(ask, [counter_request] * clients)))


@pytest.fixture(scope="module")
def crowd(store):
    """Let fifty clients in four processes ask at once, and say how many got in."""
    barrier = SPAWN.Barrier(CLIENTS)
    pipes = [SPAWN.Pipe() for _ in range(PROCESSES)]
    shares = [len(range(number, CLIENTS, PROCESSES)) for number in range(PROCESSES)]
    workers = [
        SPAWN.Process(target=serve, args=(store, barrier, there, share), daemon=True)
        for (_, there), share in zip(pipes, shares, strict=True)
    ]
    for worker, (_, there) in zip(workers, pipes, strict=True):
        worker.start()
        there.close()  # so that a worker that has failed is noticed

    def ask(counter_request):
        for here, _ in pipes:
            here.send(counter_request)
        return sum(here.recv() for here, _ in pipes)

    yield ask
    for here, _ in pipes:
        here.send(None)
    for worker in workers:
        worker.join(30)
    assert [0] * PROCESSES == [worker.exitcode for worker in workers]


@pytest.mark.parametrize(
    ("kind", "amount", "limit"),
    [(Kind.WINDOW, 1, 10), (Kind.WINDOW, 950, 9999), (Kind.GAUGE, 1, 10), (Kind.TOTAL, 3_000_000_001, 30_000_000_010)],
    ids=["requests", "tokens", "parallel", "budget"],
)
def test_exactly_ten_of_fifty_get_in(store, crowd, kind, amount, limit):
    """On every one of many repetitions, for every kind of limit."""
    opened, counters = store[0](None, *store[1:])
    with opened:
        for repetition in range(10):
            counter_request = CounterRequest(
                counter=f"{kind}:{amount}:{repetition}", kind=kind, amount=amount, limit=limit
            )
            if kind == Kind.TOTAL:
                counters.initialise(counter_request.counter, 0, until=None)

            assert 10 == crowd(counter_request)
            assert 10 * amount == used(counters, counter_request)


def hold(store, counter_request, held):
    """A process that reserves and then does nothing any more."""
    _, counters = store[0](Clock(), *store[1:])
    assert reserve(counters, counter_request, lease=30).admitted
    held.set()
    time.sleep(600)


def test_what_a_killed_process_held_is_free_after_the_lease(store, clock):
    """Not before, not never."""
    counter_request = gauge(10, counter=secrets.token_hex(8))
    held = SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(store, counter_request, held), daemon=True)
    process.start()
    assert held.wait(30)
    process.kill()
    process.join(30)
    opened, counters = store[0](clock, *store[1:])

    with opened:
        assert not reserve(counters, counter_request).admitted
        clock.advance(29.9)
        assert not reserve(counters, counter_request).admitted
        clock.advance(0.1)
        assert reserve(counters, counter_request).admitted
