"""Counters when Redis is emptied, loses connections, fails and recovers."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from contextlib import closing, contextmanager, suppress

import pytest
import redis

from llmgateway.errors import StoreUnavailable
from llmgateway.ratelimit.memory import MemoryCounters
from llmgateway.ratelimit.reservations import Commit, Reading
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.fallback import FallbackCounters
from llmgateway.stores.redis.connection import RedisConnection
from llmgateway.stores.redis.counters import RedisCounters
from llmgateway.stores.sqlite import COUNTERS, SQLiteCounters, SQLiteDatabase
from tests.servers import RedisNode, free_port_pair, listening, wait_until
from tests.stores.counter_contract import commit, gauge, look, reserve, shared, total, used, window

USD = "key:usd:2026-01"


@contextmanager
def open_host(server, clock):
    with closing(RedisConnection(server.url, timeout=10, clock=clock)) as connection:
        own = MemoryCounters(clock=clock)
        yield FallbackCounters(RedisCounters(connection, clock=clock), own, circuit=None)


@pytest.fixture
def host(own_redis, clock):
    with open_host(own_redis, clock) as host:
        yield host


@pytest.fixture
def other_host(own_redis, clock):
    with open_host(own_redis, clock) as host:
        yield host


@pytest.fixture
def counters(own_redis, clock):
    """The counters in Redis without a fallback."""
    with closing(RedisConnection(own_redis.url, timeout=10, clock=clock)) as connection:
        yield RedisCounters(connection, clock=clock)


@pytest.fixture
def client(own_redis):
    with redis.Redis.from_url(own_redis.url) as client:
        yield client


def turns(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "llmgateway.stores.fallback"]


class TestEmptied:
    def test_totals_are_uninitialised_again(self, counters, client):
        """Totals are initialised again after Redis was emptied; running requests are counted when they end."""
        counters.initialise(USD, 3, until=None)
        reserve(counters, window(4), gauge(2), total(5), name="one")
        client.flushall()

        assert (USD,) == reserve(counters, window(1), total(1)).uninitialised
        counters.initialise(USD, 4, until=None)
        commit(counters, "one", window(3), gauge(), total(2))

        assert [3, 0, 6] == [used(counters, counter_request) for counter_request in (window(), gauge(), total())]

    def test_scripts_are_sent_again(self, counters, client):
        """Scripts are loaded again after a restart of Redis."""
        reserve(counters, window(4))
        client.script_flush()

        reserve(counters, window(4))

        assert 8 == used(counters, window())


class TestInRedis:
    def test_reserves_in_one_round_trip(self, counters, client):
        """However many counters."""
        counters.initialise(USD, 3, until=None)
        reserve(counters, window())
        client.config_resetstat()

        reserve(counters, window(), *shared("ada"), gauge(), total())

        assert 1 == client.info("commandstats")["cmdstat_evalsha"]["calls"]

    def test_nothing_is_kept_for_ever(self, counters, client, clock):
        """Every name in Redis has a TTL."""
        counters.initialise(USD, 3, until=None)
        counters.initialise("with an end", 3, until=int(clock.now) + 1000)
        for own in ("ada", "bob"):
            reserve(counters, *shared(own, 10), gauge(), total(), total(counter="with an end"), name=own)
        commit(counters, "ada", *shared("ada"))
        reserve(counters, gauge(), total(), total(counter="with an end"))

        kept = {name.decode().split(":", 3)[3]: client.ttl(name) for name in client.scan_iter()}

        day = 24 * 3600
        kinds = {name.split(":")[0] for name in kept}
        assert {"count", "leases", "ends", "askers", "waiting", "committed", "writable"} == kinds
        assert all(0 < seconds <= 40 * day for seconds in kept.values())
        assert 39 * day < kept[f"count:{USD}"]
        assert 1000 < kept["count:with an end"] <= 1000 + day
        assert kept["count:ada"] <= 200

    def test_tells_the_time_itself(self, own_redis, client):
        """Hosts with different clocks count in the same seconds, because they use the clock of Redis."""
        with closing(RedisConnection(own_redis.url, timeout=10)) as connection:
            reserve(RedisCounters(connection), window(10))
            seconds, microseconds = client.time()

            reading = look(RedisCounters(connection, clock=lambda: seconds + microseconds / 1_000_000), window(1))

        assert not reading.fits
        assert 50 < reading.wait <= 61

    def test_errors_are_the_stores(self, own_redis, counters):
        """Every error of the driver is converted to one error, which contains no host and no password."""
        own_redis.kill()

        with pytest.raises(StoreUnavailable, match=r"^Redis does not serve \(ConnectionError\). Try again later.$"):
            reserve(counters, window())

    def test_a_cluster_will_do(self, clock):
        """All names share a hash tag, also the names that scripts build."""
        server = ClusterServer()
        try:
            server.start()
            with closing(RedisConnection(server.url, timeout=10)) as connection:
                counters = RedisCounters(connection, clock=clock)
                counters.initialise(USD, 0, until=None)
                reserve(counters, *shared("ada", 10), gauge(10), total(10), name="one", lease=30)
                reserve(counters, *shared("bob", 10))
                counters.renew(["one"], lease=30)
                clock.advance(30)
                assert reserve(counters, gauge(10), total(10), name="two").admitted
                commit(counters, "two", gauge(), total(3))
                assert [0, 3] == [used(counters, counter_request) for counter_request in (gauge(), total())]
                counters.forget([USD, "another"])
        finally:
            server.remove()


class ClusterServer(RedisNode):
    """A cluster with one node, which rejects commands with names in different slots."""

    def __init__(self):
        super().__init__("cluster-enabled yes", port=free_port_pair())

    def start(self):
        super().start()
        with redis.Redis.from_url(self.url) as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            wait_until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")


@contextmanager
def forgetful_way(port):
    """A port that leads to *port*; after ``lose.set()`` the next answer does not arrive, and the connection ends."""
    lose = threading.Event()

    def carry(client):
        with client, socket.create_connection(("127.0.0.1", port)) as server, suppress(OSError):
            while question := client.recv(65536):
                server.sendall(question)
                answer = server.recv(65536)
                if lose.is_set():
                    lose.clear()
                    return
                client.sendall(answer)

    with listening(carry) as own_port:
        yield own_port, lose


class TestLostAnswers:
    """The driver repeats a call if the connection ends before the answer, although Redis has run it."""

    @pytest.fixture
    def way(self, own_redis, clock):
        with forgetful_way(own_redis.port) as (port, lose):
            url = own_redis.url.replace(str(own_redis.port), str(port))
            with closing(RedisConnection(url, timeout=10)) as connection:
                yield RedisCounters(connection, clock=clock), lose

    def test_a_reservation_counts_once(self, way):
        """The repeated reservation replaces the first one."""
        counters, lose = way
        counters.initialise(USD, 0, until=None)
        reserve(counters, window(0))
        lose.set()

        assert reserve(counters, window(6), gauge(6), total(6), name="one").admitted

        assert not lose.is_set()
        assert [6, 6, 6] == [used(counters, counter_request) for counter_request in (window(), gauge(), total())]
        commit(counters, "one", window(1), gauge(), total(1))
        assert [1, 0, 1] == [used(counters, counter_request) for counter_request in (window(), gauge(), total())]

    def test_a_commit_counts_once(self, way):
        """The repeated commit has no effect."""
        counters, lose = way
        counters.initialise(USD, 0, until=None)
        reserve(counters, window(6), gauge(6), total(6), name="one")
        commit(counters, "another", window(0))
        lose.set()

        commit(counters, "one", window(4), gauge(), total(4))

        assert not lose.is_set()
        assert [4, 0, 4] == [used(counters, counter_request) for counter_request in (window(), gauge(), total())]


class TestOutage:
    def test_counting_goes_on(self, host, own_redis, caplog):
        """Without Redis this process checks the limit on its own, which is logged once."""
        reserve(host, window(4))
        own_redis.kill()

        assert [True, True, False] == [reserve(host, window(5)).admitted for _ in range(3)]
        assert [True, False] == [reserve(host, gauge(6)).admitted for _ in range(2)]
        assert ["the shared counters are unavailable: this process counts limits for itself"] == turns(caplog)

    def test_nothing_raises(self, host, own_redis):
        """All methods work while Redis is unavailable."""
        own_redis.kill()

        assert (USD,) == reserve(host, total()).uninitialised
        host.initialise(USD, 3, until=None)
        assert reserve(host, total(), gauge(), name="one").admitted
        host.renew(["one", "another"], lease=10)
        host.commit([Commit("one", (total(2),)), Commit("another", (window(2),))])
        host.forget(["group:usd"])
        assert [5, 2, 0] == [used(host, counter_request) for counter_request in (total(), window(), gauge())]

    def test_shared_counting_comes_back(self, host, other_host, own_redis, clock, caplog):
        """When Redis is available again, all processes count together, which is logged once."""
        own_redis.kill()
        reserve(host, window(10))
        own_redis.start()
        assert not reserve(host, window(10)).admitted  # it has just failed, and is not asked yet

        clock.advance(1)

        assert reserve(host, window(4)).admitted
        assert reserve(host, window(4)).admitted
        assert 8 == used(other_host, window())
        assert 2 == len(turns(caplog))
        assert "the shared counters are available again: all processes count limits together" == turns(caplog)[-1]

    def test_what_was_used_meanwhile_makes_totals_uninitialised(self, host, other_host, own_redis, clock):
        """Redis has not counted this usage, so totals are read from the usage log."""
        for counter in (USD, "untouched"):
            host.initialise(counter, 3, until=None)
        own_redis.kill()
        assert (USD,) == reserve(host, total()).uninitialised  # this process never knew
        host.initialise(USD, 3, until=None)
        reserve(host, total(5), name="one")
        commit(host, "one", total(4))
        assert 7 == used(host, total())
        own_redis.start()
        clock.advance(1)

        assert (USD,) == reserve(host, total()).uninitialised
        host.initialise(USD, 7, until=None)

        assert 7 == used(other_host, total())
        assert 3 == used(other_host, total(counter="untouched"))
        assert reserve(host, total(1)).admitted  # forgotten once, and not again

    def test_a_second_outage_begins_anew(self, host, own_redis, clock):
        """The totals of this process in the first outage are not used in the second one."""
        own_redis.kill()
        host.initialise(USD, 3, until=None)
        own_redis.start()
        clock.advance(1)
        host.look([total()])
        own_redis.kill()

        assert (USD,) == reserve(host, total()).uninitialised

    def test_a_commit_that_did_not_arrive_makes_totals_uninitialised(self, host, other_host, own_redis, clock):
        """If a commit does not reach Redis, the total is initialised again, and the gauge is freed by the lease."""
        host.initialise(USD, 3, until=None)
        reserve(host, total(5), gauge(5), window(5), name="one", lease=30)
        own_redis.kill()
        commit(host, "one", total(4), gauge(), window(4))
        assert 4 == used(host, window())
        own_redis.start()
        clock.advance(1)

        assert (USD,) == reserve(host, total()).uninitialised
        assert 5 == used(other_host, gauge())
        clock.advance(29)
        assert 0 == used(other_host, gauge())

    def test_what_began_here_ends_here(self, host, other_host, own_redis, clock):
        """A request that began in the outage is committed in this process and added to the shared totals."""
        own_redis.kill()
        host.initialise(USD, 3, until=None)
        reserve(host, total(5), gauge(5), window(5), name="one", lease=10)
        host.renew(["one"], lease=1000)
        own_redis.start()
        clock.advance(30)
        host.initialise(USD, 3, until=None)
        host.renew(["one"], lease=1000)

        commit(host, "one", total(4), gauge(), window(4))

        assert Reading(7, 0, True, 0, 0) == look(other_host, total())
        assert [0, 0] == [used(other_host, counter_request) for counter_request in (gauge(), window())]
        own_redis.kill()
        assert [0, 4] == [used(host, counter_request) for counter_request in (gauge(), window())]

    def test_what_is_left_of_a_total_goes_to_one_request_in_each_process(self, host, other_host, own_redis, clock):
        """One shared rest before the outage, one rest in each process during it, and one shared rest after it."""
        rest, hosts = total(100, at_least=1), (host, other_host)
        host.initialise(USD, 3, until=None)
        assert [True, False] == [
            reserve(one, rest, name=f"before {number}").admitted for number, one in enumerate(hosts)
        ]
        own_redis.kill()
        for number, one in enumerate(hosts):
            one.initialise(USD, 3, until=None)
            assert reserve(one, rest, name=f"meanwhile {number}").admitted
            assert not reserve(one, rest).admitted
        own_redis.start()
        clock.advance(1)
        for one in hosts:
            one.look([])  # both notice, so that the total is forgotten now

        host.initialise(USD, 3, until=None)
        assert [True, False] == [
            reserve(one, rest, name=f"after {number}").admitted for number, one in enumerate(hosts)
        ]
        for name, one in {"before 0": host, "meanwhile 0": host, "meanwhile 1": other_host, "after 0": host}.items():
            commit(one, name, total(20))

        assert Reading(83, 0, False, 0, 0) == look(other_host, total())

    def test_totals_to_forget_are_kept_in_mind(self, host, other_host, own_redis, clock):
        """Totals that were made uninitialised in the outage are made so in Redis afterwards."""
        host.initialise(USD, 3, until=None)
        own_redis.kill()
        host.forget([USD])
        own_redis.start()
        clock.advance(1)

        used(host, window())

        assert (USD,) == reserve(other_host, total()).uninitialised

    def test_asks_a_store_that_failed_once_a_second(self, tmp_path, clock):
        """An unusable file of counters is tried once a second, not for every request."""
        path = tmp_path / "counters.sqlite"
        database = SQLiteDatabase(path, migrations=COUNTERS, durable=False, timeout=0.01)
        own = MemoryCounters(clock=clock)
        circuit = Circuit("the counters' file", retry_after=1, clock=clock)
        host = FallbackCounters(SQLiteCounters(database, clock=clock), own, circuit=circuit)
        with closing(SQLiteDatabase(path, migrations=COUNTERS)) as other, other.transaction():
            reserve(host, window(4))
        reserve(host, window(4))
        assert 8 == used(own, window())

        clock.advance(1)

        assert reserve(host, window(9)).admitted
        assert 9 == used(host, window())


class TestForks:
    def test_a_child_counts_for_itself(self, clock):
        """A child process does not inherit the counters in memory, and both processes continue."""
        counters = MemoryCounters(clock=clock)
        reserve(counters, window(4))

        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = int(not reserve(counters, window(10)).admitted)
            finally:
                os._exit(status)

        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert 4 == used(counters, window())

    def test_a_child_does_not_wait_for_its_parents_threads(self, clock):
        """The process forks while a thread counts, and all threads of the child begin at the same time."""
        forked: list[int] = []

        def fork_when_asked() -> float:
            if not forked:
                forked.append(os.fork())
                if forked == [0]:
                    status = 1
                    try:
                        status = count_in_threads()
                    finally:
                        os._exit(status)
            return clock.now

        def count_in_threads() -> int:
            sys.setswitchinterval(1e-6)
            decisions: list[bool] = []
            start = threading.Event()

            def count() -> None:
                start.wait()
                decisions.append(reserve(counters, window(1)).admitted)

            threads = [threading.Thread(target=count, daemon=True) for _ in range(20)]
            for thread in threads:
                thread.start()
            start.set()
            for thread in threads:
                thread.join(2)
            return int(sorted(decisions) != [False] * 10 + [True] * 10)

        statuses = []
        for _ in range(20):
            forked.clear()
            counters = MemoryCounters(clock=fork_when_asked)
            reserve(counters, window(4))
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(forked[0], 0)[1]))

        assert [0] * 20 == statuses


def test_a_process_counts_for_itself_beside_others(host, other_host, own_redis, clock, caplog):
    """Without Redis two hosts count separately; when it is available again, they count together."""
    caplog.set_level(logging.WARNING)
    hosts = [host, other_host]
    own_redis.kill()
    assert [True, True] == [reserve(host, window(10)).admitted for host in hosts]
    own_redis.start()
    clock.advance(1)

    assert [True, False] == [reserve(host, window(10)).admitted for host in hosts]
    assert 4 == len(turns(caplog))
