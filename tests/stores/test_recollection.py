"""Keys that a process remembers: admitted with one round trip, and never by what does not hold any more."""

from __future__ import annotations

from contextlib import closing

import pytest

from llmgateway.claims import Estimate
from llmgateway.credential import CredentialCipher
from llmgateway.errors import Outdated
from llmgateway.keys import Keys
from llmgateway.leases import Leases
from llmgateway.limits import Limiter
from llmgateway.organisation import OrganisationPolicy
from llmgateway.records import Limits
from llmgateway.reservations import Claim, Kind
from llmgateway.settlements import Settlements
from llmgateway.stores.redis import RedisCache, RedisKeys, RedisOrganisation
from llmgateway.stores.redis_counters import RedisCounters
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation
from tests.stores.contract import NEW_YEAR

SMALL = Estimate(tokens=1, cost_usd=0.0)
LIMIT = Limits(requests_per_minute=100)


class Host:
    """What one process has, with a count of its round trips to Redis."""

    def __init__(self, server: str, namespace: str, database: SQLiteDatabase, clock) -> None:
        self.cache = RedisCache(server, namespace=namespace, clock=clock)
        self.store = RedisKeys(self.cache, SQLiteKeys(database))
        self.organisation = RedisOrganisation(self.cache, SQLiteOrganisation(database))
        policy = OrganisationPolicy(self.organisation, CredentialCipher("x"), fallback=None, clock=clock)
        self.keys = Keys(self.store, policy, clock=clock, recollections=self.store)
        self.counters = RedisCounters(self.cache.connection, clock=clock)
        self.limiter = Limiter(
            self.counters,
            None,
            leases=Leases(self.counters, renew_seconds=3600),
            settlements=Settlements(self.counters, gather_seconds=3600),
            ship=lambda: None,
            clock=clock,
        )
        self.round_trips = 0
        self._requests = 0
        ask = self.cache.connection.ask

        def count(question, **options):
            self.round_trips += 1
            return ask(question, **options)

        self.cache.connection.ask = count

    def admit(self, key: str):
        """Let a request in as the gateway does; return by how many round trips, and whose it is."""
        self.round_trips = 0
        self._requests += 1
        name = f"{id(self)}-{self._requests}"
        recalled = self.keys.recall(key)
        if recalled is not None:
            caller, proof = recalled
            try:
                self.limiter.admit(name, caller, SMALL, proof=proof)
            except Outdated:
                pass
            else:
                return self.round_trips, caller
        caller = self.keys.authenticate(key)
        self.limiter.admit(name, caller, SMALL)
        return self.round_trips, caller


@pytest.fixture
def database(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield database


@pytest.fixture
def host(redis_server, namespace, database, clock):
    host = Host(redis_server.url, namespace, database, clock)
    with closing(host.cache):
        yield host


@pytest.fixture
def other_host(redis_server, namespace, database, clock):
    host = Host(redis_server.url, namespace, database, clock)
    with closing(host.cache):
        yield host


@pytest.fixture
def known(host, other_host):
    """A key with limits that both hosts remember."""
    record, key = host.keys.create(user="ada", name="x", limits=LIMIT)
    for one in (host, other_host):
        for _ in range(3):
            one.admit(key)
    return record, key


def test_a_key_that_is_remembered_is_admitted_with_one_round_trip(host, known):
    """Whose key it is and that its limits allow the request are seen in the same step."""
    _, key = known

    round_trips, caller = host.admit(key)

    assert (1, "ada") == (round_trips, caller.key.user)


@pytest.mark.parametrize(
    "change",
    [
        lambda host, record: host.keys.update(record.id, {"user": "bob"}),
        lambda host, record: host.organisation.set_prompt("Be brief.", NEW_YEAR),
    ],
)
@pytest.mark.parametrize("changer", ["host", "other_host"])
def test_what_has_changed_is_not_proved(host, other_host, known, change, changer):
    """A change of the key or of anything that admins set, on whichever host, is seen by the very next request."""
    record, key = known
    change(host if changer == "host" else other_host, record)

    _, caller = host.admit(key)

    fresh = host.keys.authenticate(key)
    assert (fresh.key, fresh.organisation.prompt) == (caller.key, caller.organisation.prompt)


def test_what_is_not_proved_claims_nothing(host, other_host, known):
    """The counters are as if the request had not been there."""
    record, key = known
    caller, proof = host.keys.recall(key)
    claim = Claim(counter="test:parallel", kind=Kind.LEVEL, amount=1, limit=10)
    other_host.keys.update(record.id, {"active": False})

    decision = host.counters.reserve("test", [claim], lease=30, proof=proof)

    assert (False, False) == (decision.proven, decision.admitted)
    assert 0 == host.counters.look([claim]).readings[0].used
    assert caller.key.active


def test_an_emptied_redis_proves_nothing(host, known, redis_server):
    """What is not there is read from the durable store again."""
    _, key = known
    _, proof = host.keys.recall(key)
    client = host.cache.connection.client
    client.delete(*client.keys(f"{host.cache.connection.prefix}key:*"))

    assert not host.counters.reserve("test", [], lease=30, proof=proof).proven


def test_nothing_is_recalled_while_something_has_to_be_wiped(host, known, monkeypatch):
    """A change that Redis could not be told of yet must not be missed by going by what Redis believes."""
    record, key = known
    assert host.keys.recall(key)
    monkeypatch.setattr(host.cache, "_try", lambda *_, **__: None)
    host.keys.update(record.id, {"active": False})

    assert host.keys.recall(key) is None


def test_nothing_is_recalled_for_longer_than_it_may_be_believed(host, known, clock):
    """After five minutes the durable store is asked, as it is for an entry that is looked at."""
    _, key = known

    clock.advance(299)
    assert host.keys.recall(key)
    clock.advance(2)
    assert host.keys.recall(key) is None


@pytest.mark.parametrize("nothing", [None, "", "unknown-key", "mal formed"])
def test_nothing_is_recalled_of_strangers(host, known, nothing):
    """Whoever was never seen has to be looked up."""
    assert host.keys.recall(nothing) is None


def test_a_key_that_is_not_good_any_more_is_not_recalled(host, clock, known):
    """A refusal is for what holds now to say."""
    record, key = known
    host.keys.update(record.id, {"expires_at": NEW_YEAR.replace(year=2026, second=10)})
    for _ in range(3):
        host.admit(key)
    assert host.keys.recall(key)

    clock.advance(10)

    assert host.keys.recall(key) is None
