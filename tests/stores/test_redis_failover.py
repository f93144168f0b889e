"""Redis that is more than one server: limits stay exact, and everything goes on, when another one takes over."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from urllib.parse import quote

import pytest
from redis.crc import key_slot

from llmgateway.errors import StoreUnavailable
from llmgateway.stores.health import DegradationLevel, StoreHealth
from llmgateway.stores.redis.cache import RedisCache
from llmgateway.stores.redis.counters import RedisCounters
from llmgateway.stores.redis.entries import EntrySigner
from llmgateway.stores.redis.keys import RedisKeys
from llmgateway.stores.redis.organisation import RedisOrganisation
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation
from tests.certificates import make_certificate
from tests.servers import (
    PASSWORD,
    RedisClusterServers,
    RedisNode,
    Sentinel,
    SwitchingProxy,
    free_port_pair,
    redis_of_the_system,
    wait_until,
)
from tests.stores.contract import LATER, NEW_YEAR, key
from tests.stores.counter_contract import reserve, window

pytestmark = pytest.mark.slow

LOGIN = f":{quote(PASSWORD, safe='')}@"


@pytest.fixture
def durable(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield database


class Host:
    """What one gateway has in Redis."""

    def __init__(self, url, durable, clock):
        self.cache = RedisCache(url, signer=EntrySigner(b"secret"), timeout=2, clock=clock)
        self.counters = RedisCounters(self.cache.connection)
        self.keys = RedisKeys(self.cache, SQLiteKeys(durable))
        self.organisation = RedisOrganisation(self.cache, SQLiteOrganisation(durable))
        self._health = StoreHealth([self.cache, durable])

    def use(self):
        """Do everything that is done with Redis; fail if it is away."""
        assert not self.keys.find(key().digest).generation.startswith("durable:")
        assert not self.organisation.load().generation.startswith("durable:")
        assert self.level() is DegradationLevel.NORMAL

    def level(self):
        return self._health.level(self._health.problems())


@pytest.fixture
def open_hosts(durable, clock):
    """Open two hosts that have used one Redis."""
    with ExitStack() as stack:

        def open_hosts(url):
            hosts = [Host(url, durable, clock) for _ in range(2)]
            for host in hosts:
                stack.enter_context(closing(host.cache))
            return hosts

        yield open_hosts


@pytest.fixture
def pair():
    """A master and its replica."""
    master, replica = RedisNode(), RedisNode()
    try:
        master.start()
        replica.start()
        replica.replicate(master)
        yield master, replica
    finally:
        master.remove()
        replica.remove()


def admitted(hosts, times):
    """Of so many requests with a limit of ten a minute, sent to *hosts* in turn, those that get in."""
    return sum(reserve(hosts[number % 2].counters, window(1, 10)).admitted for number in range(times))


def everything_goes_on(hosts, caplog):
    """A change through one host is seen through the other, and the log has said nothing."""
    for host in hosts:
        host.use()
    hosts[0].keys.update(key().id, {"name": "another"})
    assert "another" == hosts[1].keys.find(key().digest).record.name
    assert [] == caplog.messages


class TestBehindOneAddress:
    """The address stays, and leads to another server; the old one goes on as a replica of that."""

    @pytest.fixture
    def proxy(self, pair):
        with SwitchingProxy(pair[0].port).running() as proxy:
            yield proxy

    def test_limits_stay_exact(self, pair, proxy, open_hosts, caplog):
        """Connections that still lead to the old server are given up with the first write that it refuses."""
        master, replica = pair
        hosts = open_hosts(proxy.url(master))
        hosts[0].keys.add(key())
        for host in hosts:
            host.use()
        assert 2 == admitted(hosts, 2)
        master.ask("WAIT", 1, 5000)

        replica.promote()
        proxy.target = replica.port
        master.replicate(replica)

        assert 8 == admitted(hosts, 24)
        everything_goes_on(hosts, caplog)

    def test_also_if_the_old_server_is_gone(self, pair, proxy, open_hosts, caplog):
        """Connections that were closed are no outage either."""
        master, replica = pair
        hosts = open_hosts(proxy.url(master))
        hosts[0].keys.add(key())
        assert 2 == admitted(hosts, 2)
        master.ask("WAIT", 1, 5000)

        replica.promote()
        proxy.target = replica.port
        master.kill()

        assert 8 == admitted(hosts, 24)
        everything_goes_on(hosts, caplog)

    def test_a_redis_that_only_reads_is_away(self, pair, proxy, open_hosts, clock, caplog):
        """Reads that work hide nothing: keys come from the durable store, status says so, the log has one line."""
        master, replica = pair
        host, _ = open_hosts(proxy.url(master))
        host.keys.add(key())
        host.use()

        replica.promote()
        master.replicate(replica)  # and the address still leads to it

        assert host.level() is DegradationLevel.WITHOUT_REDIS
        for _ in range(5):
            assert host.keys.find(key().digest).generation.startswith("durable:")
            with pytest.raises(StoreUnavailable):
                reserve(host.counters, window(1, 10))
            clock.advance(1)
        with pytest.raises(StoreUnavailable, match="refuses writes"):
            host.cache.ping()
        assert 1 == len(caplog.messages)
        assert "refuses writes" in caplog.messages[0]

        proxy.target = replica.port
        clock.advance(1)
        assert reserve(host.counters, window(1, 10)).admitted
        host.use()
        assert ["redis is back"] == caplog.messages[1:]

    def test_a_replica_is_away_from_the_beginning(self, pair, open_hosts, caplog):
        """A URL that names a replica does not work by half, although everything can be read there."""
        master, replica = pair
        writer, _ = open_hosts(master.url)
        writer.keys.add(key())
        writer.use()
        master.ask("WAIT", 1, 5000)
        host, _ = open_hosts(replica.url)

        assert host.keys.find(key().digest).generation.startswith("durable:")
        assert host.level() is DegradationLevel.WITHOUT_REDIS
        assert 1 == len(caplog.messages)

    def test_a_full_redis_is_away(self, pair, open_hosts):
        """So is one that has no memory left."""
        master, _ = pair
        host, _ = open_hosts(master.url)
        host.use()

        master.ask("CONFIG", "SET", "maxmemory", 1)
        assert host.level() is DegradationLevel.WITHOUT_REDIS

        master.ask("CONFIG", "SET", "maxmemory", 0)
        assert host.level() is DegradationLevel.NORMAL


class TestSentinel:
    @pytest.fixture
    def sentinel(self, pair):
        sentinel = Sentinel(pair[0])
        try:
            sentinel.start()
            wait_until(sentinel.knows_replica, what="the Sentinel's view")
            yield sentinel
        finally:
            sentinel.remove()

    def test_limits_stay_exact(self, pair, sentinel, open_hosts, clock, caplog):
        """When the master dies its replica takes over; Redis is away until then, and not a moment longer."""
        master, replica = pair
        login = f"?sentinel_password={quote(PASSWORD, safe='')}"
        hosts = open_hosts(f"redis+sentinel://{LOGIN}127.0.0.1:1,127.0.0.1:{sentinel.port}/{sentinel.service}{login}")
        hosts[0].keys.add(key())
        for host in hosts:
            host.use()
        assert 2 == admitted(hosts, 2)
        master.ask("WAIT", 1, 5000)

        master.kill()
        with pytest.raises(StoreUnavailable):
            reserve(hosts[0].counters, window(1, 10))
        wait_until(lambda: sentinel.master_port() == replica.port, what="the failover")
        clock.advance(1)

        assert 8 == admitted(hosts, 24)
        assert 2 == len(caplog.messages)
        caplog.clear()
        everything_goes_on(hosts, caplog)

    def test_says_what_it_cannot_find(self, sentinel, open_hosts):
        """A service that the Sentinels do not know is an outage of Redis; no password is in its message."""
        login = f"?sentinel_password={quote(PASSWORD, safe='')}"
        host, _ = open_hosts(f"redis+sentinel://{LOGIN}127.0.0.1:{sentinel.port}/another{login}")

        with pytest.raises(StoreUnavailable, match="MasterNotFoundError") as caught:
            host.cache.ping()
        assert PASSWORD not in str(caught.value)


SLOT = key_slot(b"gateway")


@pytest.fixture(scope="module")
def cluster():
    servers = RedisClusterServers(SLOT)
    try:
        servers.start()
        yield servers
    finally:
        servers.remove()


class TestCluster:
    @pytest.fixture(autouse=True)
    def empty(self, cluster):
        cluster.owner().ask("FLUSHALL")

    def test_all_names_are_in_one_slot(self, cluster, open_hosts):
        """Whatever is kept is on the node that has the slot of the hash tag."""
        hosts = open_hosts(cluster.url)
        hosts[0].keys.add(key())
        hosts[0].keys.rotate(key().id, "f" * 64, retires_at=LATER)
        for host in hosts:
            host.use()
        assert 10 == admitted(hosts, 24)
        hosts[0].keys.revoke_group("physics")
        hosts[0].organisation.set_prompt("Be kind.", NEW_YEAR)
        assert "Be kind." == hosts[1].organisation.load().prompt.text

        owner = cluster.owner()
        assert owner.ask("DBSIZE") == owner.ask("CLUSTER", "COUNTKEYSINSLOT", SLOT) > 5
        others = [node for node in cluster.masters() if node is not owner]
        assert [0, 0] == [node.ask("DBSIZE") for node in others]

    def test_follows_a_slot_that_moves(self, cluster, open_hosts, caplog):
        """An operator who moves slots between nodes disturbs nobody."""
        hosts = open_hosts(cluster.url)
        hosts[0].keys.add(key())
        for host in hosts:
            host.use()
        assert 2 == admitted(hosts, 2)
        before = cluster.owner()

        cluster.move(next(node for node in cluster.masters() if node is not before))
        try:
            assert 8 == admitted(hosts, 24)
            everything_goes_on(hosts, caplog)
        finally:
            cluster.move(before)

    def test_limits_stay_exact_after_a_failover(self, cluster, open_hosts, clock, caplog):
        """When the node with the slot dies its replica takes over; the rest of the cluster tells where."""
        hosts = open_hosts(cluster.url)
        hosts[0].keys.add(key())
        for host in hosts:
            host.use()
        assert 2 == admitted(hosts, 2)

        master = cluster.fail_over()
        try:
            clock.advance(1)
            assert 8 == admitted(hosts, 24)
            everything_goes_on(hosts, caplog)
        finally:
            master.start()

    def test_one_node_by_itself_does_not_work_by_half(self, cluster, open_hosts):
        """A plain URL of a node without the slot is an outage, whose message tells what to write."""
        owner = cluster.owner()
        host, _ = open_hosts(next(node for node in cluster.masters() if node is not owner).url)
        host.keys.add(key())

        assert host.keys.find(key().digest).generation.startswith("durable:")
        with pytest.raises(StoreUnavailable, match=r"redis\+cluster://"):
            host.cache.ping()

    def test_a_single_server_is_no_cluster(self, redis_server, open_hosts):
        """Nor is a URL of a cluster good for a single server."""
        host, _ = open_hosts(redis_server.url.replace("redis://", "redis+cluster://"))

        with pytest.raises(StoreUnavailable, match="RedisClusterException"):
            host.cache.ping()


@pytest.mark.skipif(redis_of_the_system() is None, reason="the wheel's Redis speaks no TLS")
class TestOverTLS:
    @pytest.fixture
    def certificate(self, tmp_path):
        return make_certificate(tmp_path)

    @pytest.fixture
    def node(self, certificate):
        with running(RedisNode(), certificate) as node:
            yield node

    def test_sentinels_and_what_they_watch(self, node, certificate, open_hosts):
        """Both are asked over TLS, and both certificates are checked."""
        with running(Sentinel(node), certificate) as sentinel:
            place = f"rediss+sentinel://{LOGIN}127.0.0.1:{sentinel.port}/{sentinel.service}"
            url = f"{place}?sentinel_password={quote(PASSWORD, safe='')}"
            trusting, _ = open_hosts(f"{url}&ssl_ca_certs={certificate}")
            careful, _ = open_hosts(url)

            trusting.use()
            with pytest.raises(StoreUnavailable):
                careful.cache.ping()

    def test_a_cluster(self, certificate, open_hosts):
        """Every node is asked over TLS, and its certificate is checked."""
        with running(RedisNode("cluster-enabled yes", port=free_port_pair()), certificate) as node:
            node.ask("CLUSTER", "ADDSLOTS", *range(16384))
            wait_until(lambda: "cluster_state:ok" in node.ask("CLUSTER", "INFO"), what="the cluster")
            url = f"rediss+cluster://{LOGIN}127.0.0.1:{node.port}"
            trusting, _ = open_hosts(f"{url}?ssl_ca_certs={certificate}")
            careful, _ = open_hosts(url)

            trusting.use()
            with pytest.raises(StoreUnavailable):
                careful.cache.ping()


@contextmanager
def running(node, certificate):
    """Let *node* run, over TLS."""
    node.use_tls(certificate)
    try:
        node.start()
        yield node
    finally:
        node.remove()
