"""The cache of keys."""

from __future__ import annotations

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.records import Group, KeyRecord, moment
from llmgateway.stores.cached_keys import CachedKeys
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys, SQLiteOrganisation

from .contract import KeyStoreContract


class Failing:
    """A key store that can be switched off, and counts how often it is asked."""

    def __init__(self, store):
        self._store = store
        self.away = False
        self.asked = 0
        self.before_answer = None

    def __getattr__(self, name):
        return getattr(self._store, name)

    def find(self, digest):
        self.asked += 1
        if self.away:
            raise StoreUnavailable("The store is switched off.")
        found = self._store.find(digest)
        if self.before_answer is not None:
            self.before_answer()
        return found

    def find_anyway(self, digest):
        return self._store.find(digest)


@pytest.fixture
def store(tmp_path):
    database = SQLiteDatabase(tmp_path / "gateway.sqlite")
    store = Failing(SQLiteKeys(database))
    store.database = database
    return store


@pytest.fixture
def cached(store, clock):
    return CachedKeys(store, circuit=Circuit("the store", retry_after=1, clock=clock), limit=2)


def new(digest):
    return KeyRecord(id=f"key_{digest}", digest=digest, user="ada", name="x", created_at=moment(0))


def add(keys, digest):
    assert keys.add(new(digest))
    return new(digest)


class TestCachedKeys(KeyStoreContract):
    @pytest.fixture
    def keys(self, tmp_path, clock):
        circuit = Circuit("the store", retry_after=1, clock=clock)
        return CachedKeys(SQLiteKeys(SQLiteDatabase(tmp_path / "gateway.sqlite")), circuit=circuit)

    @pytest.fixture
    def elsewhere(self, tmp_path, keys):
        return SQLiteKeys(SQLiteDatabase(tmp_path / "gateway.sqlite"))

    @pytest.fixture
    def organisation(self, tmp_path, keys):
        return SQLiteOrganisation(SQLiteDatabase(tmp_path / "gateway.sqlite"))


def test_a_known_key_outlives_the_store(cached, store):
    """Keys that were looked up before an outage are found in the cache."""
    record = add(cached, "a")
    seen = cached.find("a")

    store.away = True

    assert seen == cached.find("a")
    assert record == seen.record


def test_an_unknown_key_is_not_refused(cached, store):
    """A key that was never looked up raises an error in an outage; it does not count as unknown."""
    add(store, "a")
    store.away = True

    with pytest.raises(StoreUnavailable):
        cached.find("a")


def test_a_key_that_was_gone_stays_gone(cached, store):
    """A removed key is not found again in an outage."""
    record = add(cached, "a")
    cached.find("a")
    store.remove(record.id)
    assert cached.find("a").record is None
    store.away = True

    assert cached.find("a").record is None


CHANGES = {
    "limits": lambda keys: keys.update("key_a", {}, limits={"requests_per_minute": 1}),
    "blocked": lambda keys: keys.update("key_a", {"active": False}),
    "rotated": lambda keys: keys.rotate("key_a", "c", retires_at=None),
    "rotated with an overlap": lambda keys: keys.rotate("key_a", "c", retires_at=moment(9)),
    "revoked": lambda keys: keys.revoke_group("physics"),
    "removed": lambda keys: keys.remove("key_a"),
    "added": lambda keys: add(keys, "d"),
    "imported": lambda keys: keys.add_all([new("e"), new("f")]),
}


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_that_was_made_here_is_known_without_the_store(store, clock, change, seen):
    """An outage right after a change does not undo the change in the process that made it."""
    cached = CachedKeys(store, circuit=Circuit("the store", retry_after=1, clock=clock))
    SQLiteOrganisation(store.database).set_group(Group(name="physics", created_at=moment(0)))
    add(cached, "a")
    cached.update("key_a", {"group": "physics"})
    cached.rotate("key_a", "b", retires_at=moment(9))
    if seen:
        assert cached.find("a").record == cached.find("b").record is not None

    change(cached)
    store.away = True

    for digest in "abcdef":
        expected = store.find_anyway(digest).record
        if digest in "ab" or expected is not None:
            assert expected == cached.find(digest).record


def test_a_slow_look_up_does_not_bring_the_past_back(cached, store):
    """A result that was read before a change and arrives after it is not cached."""
    add(cached, "a")
    cached.find("a")
    store.before_answer = lambda: cached.update("key_a", {"active": False})
    cached.find("a")
    store.away = True

    assert not cached.find("a").record.active


def test_a_store_that_is_away_is_asked_once_a_second(cached, store, clock):
    """Look-ups do not wait for a store that has just failed; it is used again after it recovers."""
    add(cached, "a")
    cached.find("a")
    store.away, store.asked = True, 0

    for _ in range(5):
        cached.find("a")
    assert store.asked == 1

    clock.advance(1)
    store.away = False
    cached.find("a")
    cached.find("a")
    assert store.asked == 3


def test_memory_is_bounded(cached, store):
    """The oldest look-ups are removed first."""
    for digest in "abc":
        add(cached, digest)
        cached.find(digest)
    store.away = True

    assert cached.find("c").record is not None
    with pytest.raises(StoreUnavailable):
        cached.find("a")
