"""Redis in front of a durable store: the contracts, and every change between degradation levels."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import closing
from dataclasses import replace
from urllib.parse import quote

import orjson
import pytest
import redis

from llmgateway.errors import StoreUnavailable
from llmgateway.records import ModelSettings, Prices, Prompt
from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.mongo.keys import MongoKeys
from llmgateway.stores.mongo.organisation import MongoOrganisation
from llmgateway.stores.redis.cache import RedisCache
from llmgateway.stores.redis.entries import EntrySigner
from llmgateway.stores.redis.keys import RedisKeys
from llmgateway.stores.redis.organisation import RedisOrganisation
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation
from tests.servers import PASSWORD, free_port
from tests.stores.contract import (
    EVERY_PRICE,
    LATER,
    LIMITS,
    NEW_YEAR,
    PROMPT,
    KeyStoreContract,
    OrganisationStoreContract,
    at_once,
    group,
    key,
    unavailable,
)

SIGNER = EntrySigner(b"a secret of this test")


@pytest.fixture
def sqlite(tmp_path):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield database


@pytest.fixture
def mongo(mongo_server, database_name):
    with closing(MongoDatabase(mongo_server.url, database=database_name)) as database:
        yield database


@pytest.fixture
def cache(redis_server, namespace):
    with closing(RedisCache(redis_server.url, signer=SIGNER, namespace=namespace)) as cache:
        yield cache


@pytest.fixture
def other_cache(redis_server, namespace):
    with closing(RedisCache(redis_server.url, signer=SIGNER, namespace=namespace)) as cache:
        yield cache


class TestRedisOverSQLiteKeys(KeyStoreContract):
    @pytest.fixture
    def keys(self, cache, sqlite):
        return RedisKeys(cache, SQLiteKeys(sqlite))

    @pytest.fixture
    def elsewhere(self, other_cache, sqlite):
        return RedisKeys(other_cache, SQLiteKeys(sqlite))

    @pytest.fixture
    def organisation(self, cache, sqlite):
        return RedisOrganisation(cache, SQLiteOrganisation(sqlite))


class TestRedisOverMongoKeys(KeyStoreContract):
    @pytest.fixture
    def keys(self, cache, mongo):
        return RedisKeys(cache, MongoKeys(mongo))

    @pytest.fixture
    def elsewhere(self, other_cache, mongo):
        return RedisKeys(other_cache, MongoKeys(mongo))

    @pytest.fixture
    def organisation(self, cache, mongo):
        return RedisOrganisation(cache, MongoOrganisation(mongo))


class TestKeysWithoutRedis(KeyStoreContract):
    """The same contract while Redis is away from the beginning."""

    @pytest.fixture
    def keys(self, sqlite):
        return RedisKeys(RedisCache(f"redis://127.0.0.1:{free_port()}", signer=SIGNER), SQLiteKeys(sqlite))

    @pytest.fixture
    def elsewhere(self, sqlite):
        return RedisKeys(RedisCache(f"redis://127.0.0.1:{free_port()}", signer=SIGNER), SQLiteKeys(sqlite))

    @pytest.fixture
    def organisation(self, sqlite):
        return RedisOrganisation(
            RedisCache(f"redis://127.0.0.1:{free_port()}", signer=SIGNER), SQLiteOrganisation(sqlite)
        )


class TestRedisOverSQLiteOrganisation(OrganisationStoreContract):
    @pytest.fixture
    def organisation(self, cache, sqlite):
        return RedisOrganisation(cache, SQLiteOrganisation(sqlite))

    @pytest.fixture
    def elsewhere(self, other_cache, sqlite):
        return RedisOrganisation(other_cache, SQLiteOrganisation(sqlite))

    @pytest.fixture
    def keys(self, cache, sqlite):
        return RedisKeys(cache, SQLiteKeys(sqlite))


class TestRedisOverMongoOrganisation(OrganisationStoreContract):
    @pytest.fixture
    def organisation(self, cache, mongo):
        return RedisOrganisation(cache, MongoOrganisation(mongo))

    @pytest.fixture
    def elsewhere(self, other_cache, mongo):
        return RedisOrganisation(other_cache, MongoOrganisation(mongo))

    @pytest.fixture
    def keys(self, cache, mongo):
        return RedisKeys(cache, MongoKeys(mongo))


class TestOrganisationWithoutRedis(OrganisationStoreContract):
    """The same contract while Redis is away from the beginning."""

    @pytest.fixture
    def away(self):
        return RedisCache(f"redis://127.0.0.1:{free_port()}", signer=SIGNER)

    @pytest.fixture
    def organisation(self, away, sqlite):
        return RedisOrganisation(away, SQLiteOrganisation(sqlite))

    @pytest.fixture
    def elsewhere(self, sqlite):
        return RedisOrganisation(
            RedisCache(f"redis://127.0.0.1:{free_port()}", signer=SIGNER), SQLiteOrganisation(sqlite)
        )

    @pytest.fixture
    def keys(self, away, sqlite):
        return RedisKeys(away, SQLiteKeys(sqlite))


class Durable:
    """A durable store with a switch; it counts what it is asked, and can be made to wait in the middle."""

    def __init__(self, keys, organisation):
        self.keys = keys
        self.organisation = organisation
        self.away = False
        self.asked = 0
        self.has_read = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def _ask(self):
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")

    def find(self, digest):
        self._ask()
        found = self.keys.find(digest)
        self.has_read.set()
        self.may_answer.wait(10)
        return found

    def load(self):
        self._ask()
        return self.organisation.load()

    def __getattr__(self, name):
        if self.away:
            raise StoreUnavailable("away")
        return getattr(self.keys if hasattr(self.keys, name) else self.organisation, name)


@pytest.fixture
def durable(sqlite):
    return Durable(SQLiteKeys(sqlite), SQLiteOrganisation(sqlite))


class Host:
    """One process' view: a cache of its own on the test's own Redis, and the stores in front of the durable one."""

    def __init__(self, url, durable, clock, **options):
        self.cache = RedisCache(url, clock=clock, **{"signer": SIGNER, **options})
        self.keys = RedisKeys(self.cache, durable)
        self.organisation = RedisOrganisation(self.cache, durable)


@pytest.fixture
def make_host(own_redis, durable, clock):
    hosts = []

    def make(url=own_redis.url, **options):
        hosts.append(Host(url, durable, clock, **options))
        return hosts[-1]

    yield make
    for host in hosts:
        host.cache.close()


@pytest.fixture
def host(make_host):
    return make_host()


@pytest.fixture
def other_host(make_host):
    return make_host()


@pytest.fixture
def client(own_redis):
    """Redis as an operator sees it."""
    with redis.Redis.from_url(own_redis.url) as client:
        yield client


def commands(client):
    """How often each command was called since the server's numbers were reset."""
    return {
        name.removeprefix("cmdstat_"): numbers["calls"]
        for name, numbers in client.info("commandstats").items()
        if name not in ("cmdstat_info", "cmdstat_config")
    }


ENTRY = f"llmgateway:2:{{gateway}}:key:{key().digest}"


class TestRoundTrips:
    def test_a_hit_is_one_command(self, host, durable, client):
        """A look-up of a known key is one command to Redis and nothing to the durable store."""
        host.keys.add(key())
        host.keys.find(key().digest)
        durable.asked = 0
        client.config_resetstat()

        for _ in range(10):
            assert host.keys.find(key().digest).record == key()

        assert commands(client) == {"mget": 10}
        assert durable.asked == 0

    def test_a_hit_is_decoded_once(self, host, other_host, client):
        """What Redis says again need not be read again; what it says otherwise is, if only by its generation."""
        host.keys.add(key())
        host.keys.find(key().digest)
        first = host.keys.find(key().digest)
        assert first.record is host.keys.find(key().digest).record

        other_host.organisation.set_prompt("one", NEW_YEAR)
        assert first.version != host.keys.find(key().digest).version
        other_host.keys.update(key().id, {"name": "new"})
        assert ["new", "new"] == [host.keys.find(key().digest).record.name for _ in range(2)]

    def test_an_unknown_key_is_not_kept(self, host, durable, client):
        """Guesses fill no memory: the durable store is asked each time."""
        host.keys.find(key().digest)
        before = client.dbsize()

        for number in range(10):
            assert host.keys.find(key(number).digest).record is None

        assert client.dbsize() == before
        assert durable.asked == 11

    def test_everything_has_an_end(self, host, client):
        """No name stays in Redis for ever, and all share the hash tag that keeps them on one node."""
        host.keys.add(key())
        host.keys.find(key().digest)
        host.organisation.load()

        names = [name.decode() for name in client.scan_iter()]

        assert len(names) == 5
        assert all("{gateway}" in name for name in names)
        assert all(0 < client.ttl(name) <= 7 * 24 * 3600 for name in names)
        assert client.ttl("llmgateway:2:{gateway}:generation") <= 300

    def test_more_threads_than_the_drivers_pool(self, host, caplog):
        """Two hundred look-ups at once all get their answer from Redis."""
        host.keys.add(key())
        host.keys.find(key().digest)

        found = at_once(*[lambda: host.keys.find(key().digest).record] * 200)

        assert found == [key()] * 200
        assert not caplog.records


class TestFreshness:
    def test_an_entry_is_believed_for_a_while(self, host, durable, clock):
        """For the seconds of its freshness an entry is used; then the durable store is asked, once."""
        host.keys.add(key())
        host.keys.find(key().digest)
        durable.asked = 0

        clock.advance(300)
        host.keys.find(key().digest)
        assert durable.asked == 0

        clock.advance(0.1)
        host.keys.find(key().digest)
        host.keys.find(key().digest)
        assert durable.asked == 1

    def test_a_clock_that_was_put_back_believes_no_longer(self, host, durable, clock):
        """An entry from the future, by this host's clock, is not believed for longer than others are."""
        host.keys.add(key())
        host.keys.find(key().digest)
        durable.asked = 0

        clock.advance(-3600)
        host.keys.find(key().digest)

        assert durable.asked == 1

    def test_a_change_behind_our_back_shows_after_a_while(self, host, durable, clock):
        """A change that did not reach Redis is seen when the entry is stale."""
        host.keys.add(key())
        host.keys.find(key().digest)
        durable.keys.update(key().id, {"active": False})
        assert host.keys.find(key().digest).record.active

        clock.advance(301)

        assert not host.keys.find(key().digest).record.active

    def test_a_removal_behind_our_back_shows_after_a_while(self, host, durable, clock, client):
        """A key that the durable store forgot is unknown once its entry is stale, and the entry is gone."""
        host.keys.add(key())
        host.keys.find(key().digest)
        durable.keys.remove(key().id)

        clock.advance(301)

        assert host.keys.find(key().digest).record is None
        assert not client.exists(ENTRY)

    @pytest.mark.parametrize(
        "change", [{"later": 1}, {"models": ...}, {"limits": ...}], ids=["newer", "older", "no limits"]
    )
    def test_an_entry_of_another_version_is_not_used(self, host, durable, client, change):
        """An entry with a field more or less, from another version of the program, is read again and replaced."""
        host.keys.add(key(models=("gpt-4o",)))
        host.keys.find(key().digest)
        signed = SIGNER.verify(ENTRY, client.get(ENTRY))
        shape = {name: value for name, value in (orjson.loads(signed.content) | change).items() if value is not ...}
        entry = SIGNER.sign(ENTRY, orjson.dumps(shape), at=signed.at)
        client.set(ENTRY, entry)

        assert host.keys.find(key().digest).record == key(models=("gpt-4o",))
        assert client.get(ENTRY) != entry


class TestForgedEntries:
    """Whoever can write to Redis can take entries away, and nothing else."""

    @pytest.fixture(params=["another key's", "made up", "of another secret", "of the first build"])
    def forged(self, request, host, client, clock):
        """What somebody has put in place of a blocked key's entry: an entry that lets it in."""
        host.keys.add_all([key(active=False), key(2)])
        for number in (1, 2):
            host.keys.find(key(number).digest)
        return {
            "another key's": client.get(ENTRY.replace(key().digest, key(2).digest)),
            "made up": b"2" + b"x" * 40 + orjson.dumps(key()),
            "of another secret": EntrySigner(b"guessed").sign(ENTRY, orjson.dumps(key()), at=clock.now),
            "of the first build": orjson.dumps({"fresh_until": clock.now + 60, "record": key()}),
        }[request.param]

    def test_are_missing(self, host, client, durable, forged, caplog):
        """The durable store is asked, once, and what it says takes the forged entry's place."""
        client.set(ENTRY, forged)
        durable.asked = 0

        assert [key(active=False)] * 3 == [host.keys.find(key().digest).record for _ in range(3)]

        assert 1 == durable.asked
        assert client.get(ENTRY) != forged
        assert 1 == len(caplog.messages)

    def test_are_no_answer_while_the_durable_store_is_away(self, host, client, durable, forged):
        """Then nothing is known of the key: neither that it is valid nor that it is not."""
        client.set(ENTRY, forged)
        durable.away = True

        with pytest.raises(StoreUnavailable):
            host.keys.find(key().digest)

    def test_of_the_organisation_are_missing(self, host, client, durable):
        """Nobody gets other limits, or none, out of Redis."""
        name = "llmgateway:2:{gateway}:organisation"
        host.organisation.set_limits(LIMITS)
        host.organisation.load()
        signed = SIGNER.verify(name, client.get(name))
        client.set(name, SIGNER.sign(ENTRY, signed.content, at=signed.at))
        durable.away = True

        with pytest.raises(StoreUnavailable):
            host.organisation.load()


def test_a_group_is_revoked_in_one_step(host, client):
    """Redis gets one command, however many keys the group has."""
    host.organisation.set_group(group("physics"))
    host.keys.add_all([key(number, group="physics") for number in range(1000)])
    client.config_resetstat()

    host.keys.revoke_group("physics")

    assert {"evalsha": 1, "set": 1, "unlink": 1} == commands(client)


class TestStaleFill:
    """A reader that read before a change must not put the old state back after it."""

    @pytest.fixture
    def slow_find(self, host, durable):
        """Start a look-up that has read the durable store and not yet filled the cache; returns its end."""

        def start():
            durable.has_read.clear()
            durable.may_answer.clear()
            found = []
            thread = threading.Thread(target=lambda: found.append(host.keys.find(key().digest)))
            thread.start()
            assert durable.has_read.wait(10)

            def finish():
                durable.may_answer.set()
                thread.join(10)
                return found[0].record

            return finish

        return start

    def test_fills_when_nothing_has_changed(self, host, slow_find, client):
        """The slow reader's fill is kept if no key has changed meanwhile: this is what the others measure by."""
        host.keys.add(key())

        slow_find()()

        assert client.exists(ENTRY)

    def test_a_revocation_wins(self, host, other_host, slow_find, client):
        """A key that is revoked while another process reads it stays revoked."""
        host.keys.add(key())
        finish = slow_find()

        other_host.keys.update(key().id, {"active": False})
        assert finish().active  # this look-up began before the change

        assert not client.exists(ENTRY)
        assert not host.keys.find(key().digest).record.active

    def test_a_revoked_group_wins(self, host, other_host, slow_find, client):
        """And so does the revocation of a whole group."""
        host.organisation.set_group(group("physics"))
        host.keys.add(key(group="physics"))
        finish = slow_find()
        other_host.keys.revoke_group("physics")

        finish()

        assert not client.exists(ENTRY)
        assert not host.keys.find(key().digest).record.active

    def test_a_rotation_wins(self, host, other_host, slow_find, client):
        """And so does a rotation that leaves no old key."""
        host.keys.add(key())
        finish = slow_find()
        other_host.keys.rotate(key().id, "f" * 64, retires_at=None)

        finish()

        assert not client.exists(ENTRY)
        assert host.keys.find(key().digest).record is None

    def test_a_removal_wins(self, host, other_host, slow_find):
        """A key that is removed while another process reads it stays removed."""
        host.keys.add(key())
        finish = slow_find()

        other_host.keys.remove(key().id)
        finish()

        assert host.keys.find(key().digest).record is None

    def test_an_emptied_redis_does_not_let_it_through(self, host, other_host, slow_find, client):
        """Emptying Redis during the race, before and after the revocation, does not open the door."""
        host.keys.add(key())
        finish = slow_find()

        client.flushall()
        other_host.keys.update(key().id, {"active": False})
        client.flushall()
        finish()

        assert not client.exists(ENTRY)
        assert not host.keys.find(key().digest).record.active


class TestEmptied:
    def test_goes_on(self, host, other_host, client):
        """An emptied Redis is filled again, and all processes agree on a generation that was never there."""
        host.keys.add(key())
        before = host.keys.find(key().digest).version
        client.flushall()

        found = at_once(*[lambda host=host: host.keys.find(key().digest) for host in [host, other_host] * 4])

        assert {lookup.record for lookup in found} == {key()}
        assert len({lookup.version for lookup in found}) == 1
        assert found[0].version != before
        assert host.organisation.load().version == found[0].version

    def test_forgets_the_script_too(self, host, client):
        """A server that lost its scripts gets them again."""
        host.keys.add(key())
        host.keys.find(key().digest)
        client.flushall()
        client.script_flush()

        host.keys.find(key().digest)

        assert client.exists(ENTRY)

    def test_a_generation_does_not_outlive_freshness(self, host, client):
        """Whoever missed a change of the organisation loads it again when the token has run out."""
        before = host.keys.find(key().digest).version
        client.delete("llmgateway:2:{gateway}:generation")  # as its end of life does

        assert host.keys.find(key().digest).version != before


class TestDurableAway:
    def test_a_hit_does_not_notice(self, host, durable):
        """A key that Redis knows is answered without the durable store."""
        host.keys.add(key())
        host.keys.find(key().digest)
        durable.away = True

        assert host.keys.find(key().digest).record == key()

    def test_a_stale_entry_is_used(self, host, durable, clock):
        """A key whose entry is stale goes on working while the durable store is away, for days."""
        host.keys.add(key())
        host.keys.find(key().digest)
        durable.away = True

        for _ in range(6):
            clock.advance(24 * 3600)
            assert host.keys.find(key().digest).record == key()

    def test_what_admins_set_is_known_to_a_host_that_starts_then(self, host, other_host, durable):
        """What anybody loaded last, groups and limits too, serves until the durable store is back."""
        credential, prices = b"gAAAA\n\x00", EVERY_PRICE
        full = group("3.1 \n", starts_at=NEW_YEAR, expires_at=LATER, models=("o3",), limits=LIMITS, prompt=PROMPT)
        host.organisation.set_prompt("Be kind.", NEW_YEAR)
        host.organisation.set_credential(credential)
        host.organisation.set_model("gpt-4.1", {"prices": prices, "reasoning": False})
        host.organisation.set_limits(LIMITS)
        host.organisation.set_group(full)
        host.organisation.set_group(group("empty"))
        before = host.organisation.load()
        durable.away = True

        found = other_host.organisation.load()

        assert before == found
        assert found.credential == credential
        assert found.models == {"gpt-4.1": ModelSettings(prices=prices, reasoning=False)}
        assert found.limits == LIMITS
        assert found.groups == {"3.1 \n": full, "empty": group("empty")}

    @pytest.mark.parametrize("change", [{"later": 1}, {"groups": ...}, {"limits": ...}, {"models": ...}])
    def test_what_another_version_has_kept_is_not_used(self, host, durable, client, change):
        """A copy without limits would seem to say that there are none: it is an outage instead."""
        host.organisation.set_limits(LIMITS)
        host.organisation.load()
        name = "llmgateway:2:{gateway}:organisation"
        signed = SIGNER.verify(name, client.get(name))
        document, _, credential = signed.content.partition(b"\n")
        changed = {name: value for name, value in (orjson.loads(document) | change).items() if value is not ...}
        client.set(name, SIGNER.sign(name, orjson.dumps(changed) + b"\n" + credential, at=signed.at))
        durable.away = True

        with pytest.raises(StoreUnavailable):
            host.organisation.load()

    def test_what_the_version_before_has_kept_is_used(self, host, durable, client):
        """It kept a list of prices where settings of models are now."""
        host.organisation.set_model("gpt-4.1", {"prices": Prices(prompt=1, cached=0.5, completion=2)})
        expected = host.organisation.load()
        name = "llmgateway:2:{gateway}:organisation"
        signed = SIGNER.verify(name, client.get(name))
        document, _, credential = signed.content.partition(b"\n")
        older = orjson.loads(document)
        older["prices"] = {model: settings["prices"] for model, settings in older.pop("models").items()}
        client.set(name, SIGNER.sign(name, orjson.dumps(older) + b"\n" + credential, at=signed.at))
        durable.away = True

        assert expected == host.organisation.load()

    def test_what_admins_set_is_not_made_up(self, host, durable):
        """What nobody has loaded yet is an outage, not an organisation without a prompt."""
        durable.away = True

        with pytest.raises(StoreUnavailable):
            host.organisation.load()

    def test_an_unknown_key_is_not_refused(self, host, durable, clock):
        """What nobody can know is an outage, never "no such key"."""
        durable.away = True

        with pytest.raises(StoreUnavailable):
            host.keys.find(key().digest)

    def test_is_asked_once_in_a_while(self, host, durable, clock, caplog):
        """Stale look-ups do not each wait for the durable store; it comes back by itself, and the log says so once."""
        host.keys.add(key())
        host.keys.find(key().digest)
        clock.advance(301)
        durable.away, durable.asked = True, 0
        for _ in range(5):
            host.keys.find(key().digest)
        assert durable.asked == 1

        clock.advance(1)
        for _ in range(5):
            host.keys.find(key().digest)
        assert durable.asked == 2

        clock.advance(1)
        durable.away = False
        host.keys.find(key().digest)
        host.keys.find(key(2).digest)

        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
        assert "away" in caplog.messages[0]
        assert "back" in caplog.messages[1]

    def test_a_change_is_refused(self, host, durable):
        """A change that the durable store did not take is an error, and Redis does not pretend otherwise."""
        host.keys.add(key())
        host.keys.find(key().digest)
        durable.away = True

        with pytest.raises(StoreUnavailable):
            host.keys.update(key().id, {"active": False})
        with pytest.raises(StoreUnavailable):
            host.organisation.set_prompt("x", NEW_YEAR)

        assert host.keys.find(key().digest).record == key()

    def test_a_removal_whose_answer_was_lost(self, host, durable, monkeypatch):
        """If the durable store removed a key and could not say so, the key is gone all the same."""
        host.keys.add(key())
        host.keys.find(key().digest)

        def remove_and_fail(key_id, **check):
            durable.keys.remove(key_id, **check)
            raise StoreUnavailable("the answer was lost")

        durable.remove = remove_and_fail
        with pytest.raises(StoreUnavailable):
            host.keys.remove(key().id)

        assert host.keys.find(key().digest).record is None

    def test_a_blocking_whose_answer_was_lost(self, host, durable):
        """If the durable store blocked a key and could not say so, the key is blocked all the same."""
        host.keys.add(key())
        host.keys.find(key().digest)

        def update_and_fail(key_id, changes, **limits):
            durable.keys.update(key_id, changes, **limits)
            raise StoreUnavailable("the answer was lost")

        durable.update = update_and_fail
        with pytest.raises(StoreUnavailable):
            host.keys.update(key().id, {"active": False})

        assert not host.keys.find(key().digest).record.active

    def test_a_change_that_is_made_after_its_time_out(self, host, other_host, durable, clock):
        """A store that makes a change seconds after nobody waits for it any more is believed some seconds later."""
        host.keys.add(key())

        def fail(*arguments, **options):
            raise StoreUnavailable("no answer yet")

        durable.remove = durable.set_prompt = fail
        with pytest.raises(StoreUnavailable):
            host.keys.remove(key().id)
        with pytest.raises(StoreUnavailable):
            host.organisation.set_prompt("late", NEW_YEAR)
        before = other_host.keys.find(key().digest)
        durable.keys.remove(key().id)
        durable.organisation.set_prompt("late", NEW_YEAR)
        assert before == other_host.keys.find(key().digest)  # what freshness bounds, if this process dies now

        clock.advance(10)
        host.cache.ping()

        after = other_host.keys.find(key().digest)
        assert after.record is None
        assert after.version != before.version

    @pytest.mark.parametrize("several", [False, True])
    def test_an_addition_whose_answer_was_lost(self, host, other_host, durable, several, client):
        """A key that was added without an answer is as it is there; a reader from before does not hide that."""
        other_host.keys.find(key().digest)
        guard = client.get("llmgateway:2:{gateway}:guard")

        def add_and_fail(added):
            durable.keys.add_all(added if several else [added])
            raise StoreUnavailable("the answer was lost")

        durable.add = durable.add_all = add_and_fail
        with pytest.raises(StoreUnavailable):
            host.keys.add_all([key()]) if several else host.keys.add(key())

        assert guard != client.get("llmgateway:2:{gateway}:guard")
        assert key() == host.keys.find(key().digest).record

    @pytest.mark.parametrize(
        "change",
        [
            lambda keys: keys.update(key().id, {"active": False}),
            lambda keys: keys.rotate(key().id, "f" * 64, retires_at=None),
            lambda keys: keys.remove(key().id),
            lambda keys: keys.revoke_group("physics"),
        ],
        ids=["update", "rotate", "remove", "revoke_group"],
    )
    def test_what_cannot_be_read_is_not_changed(self, host, durable, change):
        """A change whose keys are not known, since the store cannot be read, is refused and not half made."""
        host.organisation.set_group(group("physics"))
        host.keys.add(key(group="physics"))
        host.keys.find(key().digest)

        def fail(*arguments, **options):
            raise StoreUnavailable("away")

        durable.get = durable.list = fail
        with pytest.raises(StoreUnavailable):
            change(host.keys)

        assert key(group="physics") == durable.keys.get(key().id)

    @pytest.mark.parametrize("retires_at", [None, LATER])
    def test_a_rotation_whose_answer_was_lost(self, host, durable, retires_at):
        """The key that went is gone, and the one that retires is the new one's record."""
        host.keys.add(key())
        host.keys.rotate(key().id, "e" * 64, retires_at=LATER)
        for digest in (key().digest, "e" * 64):
            host.keys.find(digest)

        def rotate_and_fail(*arguments, **options):
            durable.keys.rotate(*arguments, **options)
            raise StoreUnavailable("the answer was lost")

        durable.rotate = rotate_and_fail
        with pytest.raises(StoreUnavailable):
            host.keys.rotate(key().id, "f" * 64, retires_at=retires_at)

        present = durable.keys.get(key().id)
        assert host.keys.find(key().digest).record is None
        assert (present if retires_at else None) == host.keys.find("e" * 64).record
        assert present == host.keys.find("f" * 64).record

    def test_a_revocation_whose_answer_was_lost(self, host, durable):
        """If the durable store revokes a group but its answer is lost, the keys are revoked, retiring ones, too."""
        host.organisation.set_group(group("physics"))
        host.keys.add_all([key(number, group="physics") for number in range(5)])
        host.keys.rotate(key(3).id, "f" * 64, retires_at=LATER)
        digests = ["f" * 64, *(key(number).digest for number in range(5))]
        assert all(host.keys.find(digest).record.active for digest in digests)

        def revoke_and_fail(group):
            durable.keys.revoke_group(group)
            raise StoreUnavailable("the answer was lost")

        durable.revoke_group = revoke_and_fail
        with pytest.raises(StoreUnavailable):
            host.keys.revoke_group("physics")

        assert not any(host.keys.find(digest).record.active for digest in digests)


class TestRedisAway:
    def test_look_ups_go_to_the_durable_store(self, host, own_redis, durable):
        """Without Redis keys are found and unknown ones are unknown; the generation is none of Redis'."""
        host.keys.add(key())
        before = host.keys.find(key().digest).version
        own_redis.kill()

        found = host.keys.find(key().digest)

        assert found.record == key()
        assert host.keys.find(key(2).digest).record is None
        assert found.version.startswith("durable:")
        assert found.version != before
        assert host.organisation.load().version == found.version

    def test_changes_hold(self, host, own_redis):
        """Without Redis admins can work, and look-ups see it at once."""
        own_redis.kill()
        host.keys.add(key())
        generation = host.keys.find(key().digest).version

        host.keys.update(key().id, {"active": False})
        host.organisation.set_prompt("one", NEW_YEAR)

        assert not host.keys.find(key().digest).record.active
        assert host.keys.find(key().digest).version != generation
        assert host.organisation.load().prompt == Prompt(version=1, text="one", set_at=NEW_YEAR)

    def test_both_away_is_an_outage(self, host, own_redis, durable):
        """With everything gone a key is neither accepted nor refused."""
        host.keys.add(key())
        own_redis.kill()
        durable.away = True

        unavailable(host.cache, lambda: host.keys.find(key().digest), host.organisation.load)

    def test_is_asked_once_in_a_while(self, host, own_redis, clock):
        """While Redis is away one look-up a second asks for it, and the others do not wait."""
        host.keys.add(key())
        host.keys.find(key().digest)
        own_redis.kill()
        assert host.keys.find(key().digest).version.startswith("durable:")

        own_redis.start()
        assert host.keys.find(key().digest).version.startswith("durable:")
        clock.advance(0.9)
        assert host.keys.find(key().digest).version.startswith("durable:")
        clock.advance(0.1)
        assert not host.keys.find(key().digest).version.startswith("durable:")

    def test_is_logged_once_each_way(self, host, own_redis, clock, caplog):
        """The log says when Redis went and when it came back, not what each request met."""
        host.keys.add(key())
        for _ in range(2):
            own_redis.kill()
            for _ in range(5):
                host.keys.find(key().digest)
                clock.advance(1)
            own_redis.start()
            for _ in range(5):
                host.keys.find(key().digest)

        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert [("away" in warning, "back" in warning) for warning in warnings] == [(True, False), (False, True)] * 2

    def test_a_restart_between_two_look_ups_is_not_noticed(self, host, own_redis, caplog):
        """A pooled connection that a restart has closed is made anew, without an outage."""
        host.keys.add(key())
        generation = host.keys.find(key().digest).version

        own_redis.restart()

        assert host.keys.find(key().digest) == (key(), generation)
        assert not caplog.records

    def test_a_redis_that_hangs(self, durable, clock):
        """A Redis that takes connections and says nothing costs one time-out, then none."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            host = Host(f"redis://127.0.0.1:{silent.getsockname()[1]}", durable, clock, timeout=0.2)
            durable.keys.add(key())
            started = time.monotonic()
            for _ in range(50):
                assert host.keys.find(key().digest).record == key()
            host.cache.close()

        assert time.monotonic() - started < 2

    def test_a_wrong_password_is_an_outage_of_redis(self, own_redis, make_host, durable, caplog):
        """A Redis that refuses us is not used, and the password is in no message."""
        caplog.set_level(logging.DEBUG, "llmgateway")
        wrong = "wrong" + PASSWORD
        host = make_host(f"redis://:{quote(wrong, safe='')}@127.0.0.1:{own_redis.port}")
        durable.keys.add(key())

        assert host.keys.find(key().digest).record == key()
        with pytest.raises(StoreUnavailable) as caught:
            host.cache.ping()

        for secret in (PASSWORD, quote(PASSWORD, safe="")):
            assert secret not in caplog.text
            assert secret not in str(caught.value) + repr(caught.value) + repr(host.cache)

    def test_pings(self, host, own_redis):
        """A ping says whether Redis is there, now, whatever was a second ago."""
        host.cache.ping()
        own_redis.kill()
        unavailable(host.cache)
        own_redis.start()
        host.cache.ping()

        assert host.cache.name == "redis"


class TestPendingWipes:
    """A change while Redis cannot be reached: Redis still holds the old state when it comes back."""

    def test_are_delivered_before_redis_is_believed(self, host, own_redis, clock):
        """A key that was revoked while Redis was away is revoked when Redis is back with its old data."""
        host.keys.add(key(1))
        host.keys.add(key(2))
        host.keys.find(key(1).digest)
        host.keys.find(key(2).digest)

        own_redis.kill()
        host.keys.update(key(1).id, {"active": False})
        host.keys.remove(key(2).id)
        own_redis.start()
        clock.advance(1)

        found = host.keys.find(key(1).digest)
        assert not found.version.startswith("durable:")
        assert not found.record.active
        assert host.keys.find(key(2).digest).record is None

    def test_reach_the_other_hosts(self, host, other_host, own_redis, clock):
        """Once this process has delivered it, no other finds the old state."""
        host.keys.add(key())
        host.keys.find(key().digest)
        own_redis.kill()
        host.keys.update(key().id, {"active": False})
        own_redis.start()
        assert other_host.keys.find(key().digest).record.active  # what freshness bounds

        host.cache.ping()

        assert not other_host.keys.find(key().digest).record.active

    def test_include_a_whole_group(self, host, other_host, own_redis, client):
        """A group that was revoked while Redis was away is revoked in one step when it is back."""
        host.organisation.set_group(group("physics"))
        host.keys.add_all([key(number, group="physics") for number in range(50)])
        for number in range(50):
            host.keys.find(key(number).digest)
        own_redis.kill()
        host.keys.revoke_group("physics")
        own_redis.start()

        host.cache.ping()

        assert 1 == commands(client)["unlink"]
        assert not any(other_host.keys.find(key(number).digest).record.active for number in range(50))

    def test_include_the_organisation(self, host, other_host, own_redis):
        """A prompt that was set while Redis was away makes a new generation when Redis is back."""
        before = other_host.keys.find(key().digest).version
        own_redis.kill()
        host.organisation.set_prompt("one", NEW_YEAR)
        own_redis.start()

        host.cache.ping()

        assert other_host.keys.find(key().digest).version not in (before, "")

    def test_go_with_the_next_change(self, host, other_host, own_redis):
        """A change does not mind that Redis failed a moment ago: it tries, and delivers what is due as well."""
        host.keys.add(key(1))
        host.keys.add(key(2))
        host.keys.find(key(1).digest)
        own_redis.kill()
        host.keys.update(key(1).id, {"active": False})
        own_redis.start()

        host.keys.update(key(2).id, {"active": False})

        assert not other_host.keys.find(key(1).digest).record.active

    def test_are_sent_once(self, host, own_redis, client, clock):
        """What was delivered is not delivered again with every look-up."""
        host.keys.add(key())
        own_redis.kill()
        host.keys.update(key().id, {"name": "new"})
        own_redis.start()
        host.cache.ping()
        host.keys.find(key().digest)
        client.config_resetstat()

        host.keys.find(key().digest)

        assert commands(client) == {"mget": 1}

    def test_that_nobody_delivers_are_bounded_by_freshness(self, host, other_host, own_redis, clock):
        """If the process dies before it could tell Redis, the old state ends with the entry's freshness."""
        host.keys.add(key())
        host.keys.find(key().digest)
        own_redis.kill()
        host.keys.update(key().id, {"active": False})
        own_redis.start()

        clock.advance(301)

        assert not other_host.keys.find(key().digest).record.active


class TestForks:
    def test_child_and_parent_go_on(self, cache, sqlite):
        """A cache that was used before a fork works on both sides, each on connections of its own."""
        keys = RedisKeys(cache, SQLiteKeys(sqlite))
        keys.add(key())
        keys.find(key().digest)

        child = os.fork()
        if child == 0:
            status = 1
            try:
                found = [keys.find(key().digest) for _ in range(200)]
                status = int(any(lookup.record != key() or "durable" in lookup.version for lookup in found))
            finally:
                os._exit(status)
        found = [keys.find(key().digest) for _ in range(200)]

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert all(lookup.record == key() and "durable" not in lookup.version for lookup in found)


def test_gateways_share_a_redis_without_meeting(own_redis, sqlite, tmp_path):
    """Two gateways with namespaces of their own on one Redis see nothing of each other."""
    with (
        closing(RedisCache(own_redis.url, signer=SIGNER, namespace="one")) as one,
        closing(RedisCache(own_redis.url, signer=SIGNER, namespace="two")) as two,
        closing(SQLiteDatabase(tmp_path / "other.sqlite")) as other,
    ):
        keys, strangers = RedisKeys(one, SQLiteKeys(sqlite)), RedisKeys(two, SQLiteKeys(other))
        keys.add(key())
        strangers.add(replace(key(), name="another"))

        for _ in range(2):
            assert keys.find(key().digest).record.name == key().name
            assert strangers.find(key().digest).record.name == "another"
