"""Whose a stored response is: found in memory, in Redis, in the journals of the host, or in the usage log."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
import redis

from llmgateway.errors import StoreUnavailable
from llmgateway.records import Owned
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.redis.connection import RedisConnection
from llmgateway.stores.redis.entries import EntrySigner
from llmgateway.stores.redis.owners import RedisOwners
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteUsageLog
from llmgateway.stores.stored import FoundStored
from tests.servers import free_port
from tests.stores.contract import append, usage

SIGNER = EntrySigner(b"a secret of this test")
MADE = usage(response_id="resp_1", stored_ids=("msg_1", "cntr_1"), stored_at="west", prompt_tokens=7, user="ada")


class Log:
    """A usage log that is asked, and may be away."""

    def __init__(self, log: SQLiteUsageLog) -> None:
        self.log = log
        self.away = False
        self.asked: list[str] = []

    def find_stored(self, stored_id: str):
        self.asked.append(stored_id)
        if self.away:
            raise StoreUnavailable("away")
        return self.log.find_stored(stored_id)


@pytest.fixture
def log(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield Log(SQLiteUsageLog(database))


@pytest.fixture
def make(log, clock):
    """Make what one process knows."""

    def make(shared=None, in_journals=lambda _: None, **options: object) -> FoundStored:
        circuit = Circuit("the usage log", retry_after=1, clock=clock)
        return FoundStored(log, circuit=circuit, shared=shared, in_journals=in_journals, **options)

    return make


@pytest.fixture
def owners(redis_server, namespace, clock):
    with closing(RedisConnection(redis_server.url, namespace=namespace)) as connection:
        yield RedisOwners(connection, SIGNER, clock=clock)


@pytest.fixture
def no_owners(clock):
    with closing(RedisConnection(f"redis://127.0.0.1:{free_port()}/0", timeout=0.2)) as connection:
        yield RedisOwners(connection, SIGNER, clock=clock)


@pytest.mark.parametrize("stored_id", ["resp_1", "msg_1", "cntr_1"])
def test_the_process_that_made_it_asks_no_store(make, log, stored_id):
    """The response, its items and its containers."""
    stored = make()
    stored.remember(MADE)

    assert Owned.of(MADE) == stored.find(stored_id)
    assert [] == log.asked


@pytest.mark.parametrize("stored_id", ["resp_1", "msg_1", "cntr_1"])
def test_other_hosts_find_it_in_redis(make, log, owners, stored_id):
    """At once, also if the usage log is away."""
    make(owners).remember(MADE)
    log.away = True

    assert Owned.of(MADE) == make(owners).find(stored_id)
    assert [] == log.asked


@pytest.mark.parametrize("stored_id", ["resp_1", "msg_1", "cntr_1"])
def test_everybody_finds_it_in_the_usage_log(make, log, stored_id):
    """After a restart, and when Redis has been emptied. Then it is known."""
    append(log.log, [MADE])
    stored = make()

    assert Owned.of(MADE) == stored.find(stored_id) == stored.find(stored_id)
    assert [stored_id] == log.asked


def test_the_journals_of_the_host_are_searched_before_the_log(make, log):
    """A record that is shipped at this moment is found in one of them."""
    stored = make(in_journals=lambda stored_id: MADE if stored_id == "resp_1" else None)
    log.away = True

    assert Owned.of(MADE) == stored.find("resp_1")
    assert [] == log.asked


def test_what_nobody_has_made_is_nobodys(make, log, owners):
    """And it is looked for anew the next time: it may be made meanwhile."""
    stored = make(owners)
    assert stored.find("resp_1") is None

    append(log.log, [MADE])
    assert "ada" == stored.find("resp_1").user


@pytest.mark.parametrize("stored_id", ["", "resp 1", "resp_1/../x", "resp_ä", "x" * 129, "resp_1\n", "*"])
def test_what_is_no_identifier_is_not_looked_for(make, log, stored_id):
    """It would be a part of an address, or of a name in Redis."""
    assert make().find(stored_id) is None
    assert [] == log.asked


def test_a_store_that_is_away_leaves_it_open(make, log, no_owners):
    """The one that does not answer may have it. One that has it is enough."""
    log.away = True
    with pytest.raises(StoreUnavailable):
        make().find("resp_1")
    log.away = False
    with pytest.raises(StoreUnavailable):
        make(no_owners).find("resp_1")

    append(log.log, [MADE])
    assert "ada" == make(no_owners).find("resp_1").user


def test_a_response_is_noted_although_redis_is_away(make, no_owners):
    """The request goes on; the journal has it."""
    stored = make(no_owners)

    stored.remember(MADE)

    assert "ada" == stored.find("resp_1").user


def test_a_log_that_is_away_is_asked_once_a_second(make, log, clock):
    """Requests that come meanwhile do not wait for it."""
    log.away = True
    stored = make()
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            stored.find("resp_1")
    assert 1 == len(log.asked)


def test_memory_is_bounded(make, log):
    """The oldest are forgotten, and looked up again."""
    stored = make(limit=2)
    for number in range(3):
        stored.remember(replace(MADE, response_id=f"resp_{number}", stored_ids=()))

    assert stored.find("resp_0") is None
    assert ["resp_0"] == log.asked
    assert stored.find("resp_2") is not None


def test_an_entry_that_no_gateway_has_signed_is_not_used(make, owners, redis_server, namespace):
    """Whoever can write to Redis could make a response their own. Copied entries do not help either."""
    owners.put(Owned.of(MADE), ("resp_1",))
    name = f"llmgateway:2:{{{namespace}}}:stored:"
    with redis.Redis.from_url(redis_server.url) as client:
        client.set(f"{name}resp_2", client.get(f"{name}resp_1"))
        client.set(f"{name}resp_3", b'["eve","resp_3","m","d","",0,0,0]')
        assert 0 < client.ttl(f"{name}resp_1") <= 30 * 24 * 3600

    assert "ada" == owners.get("resp_1").user
    assert owners.get("resp_2") is None
    assert owners.get("resp_3") is None
