"""Keys as they were last seen."""

from __future__ import annotations

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.records import KeyRecord, moment
from llmgateway.stores.cached_keys import CachedKeys
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys

from .contract import KeyStoreContract


class Failing:
    """A key store that can be switched off, and counts how often it is asked."""

    def __init__(self, store):
        self._store = store
        self.away = False
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def find(self, digest):
        self.asked += 1
        if self.away:
            raise StoreUnavailable("The store is switched off.")
        return self._store.find(digest)


@pytest.fixture
def store(tmp_path):
    return Failing(SQLiteKeys(SQLiteDatabase(tmp_path / "gateway.sqlite")))


@pytest.fixture
def remembered(store, clock):
    return CachedKeys(store, circuit=Circuit("the store", retry_after=1, clock=clock), limit=2)


def add(keys, digest):
    record = KeyRecord(id=f"key_{digest}", digest=digest, user="ada", name="x", created_at=moment(0))
    assert keys.add(record)
    return record


class TestRememberedKeys(KeyStoreContract):
    @pytest.fixture
    def keys(self, tmp_path, clock):
        circuit = Circuit("the store", retry_after=1, clock=clock)
        return CachedKeys(SQLiteKeys(SQLiteDatabase(tmp_path / "gateway.sqlite")), circuit=circuit)

    @pytest.fixture
    def elsewhere(self, tmp_path, keys):
        return SQLiteKeys(SQLiteDatabase(tmp_path / "gateway.sqlite"))


def test_a_known_key_outlives_the_store(remembered, store):
    """What was looked up before the store went away is still known."""
    record = add(remembered, "a")
    seen = remembered.find("a")

    store.away = True

    assert seen == remembered.find("a")
    assert record == seen.record


def test_an_unknown_key_is_not_refused(remembered, store):
    """Nothing is said about a key that was never looked up, rather than that it is wrong."""
    add(remembered, "a")
    store.away = True

    with pytest.raises(StoreUnavailable):
        remembered.find("a")


def test_a_key_that_was_gone_stays_gone(remembered, store):
    """A key whose removal this process has seen is not brought back by an outage."""
    record = add(remembered, "a")
    remembered.find("a")
    remembered.remove(record.id)
    remembered.find("a")
    store.away = True

    with pytest.raises(StoreUnavailable):
        remembered.find("a")


@pytest.mark.parametrize(
    "change",
    [
        lambda keys: keys.update("key_a", {"active": False}),
        lambda keys: keys.rotate("key_a", "c", retires_at=None),
        lambda keys: keys.revoke_group("physics"),
        lambda keys: keys.remove("key_a"),
    ],
    ids=["updated", "rotated", "revoked", "removed"],
)
def test_a_key_that_was_changed_here_is_not_remembered_as_it_was(remembered, store, change):
    """An outage right after a change does not undo it in the process that made it, by neither of the two keys."""
    add(remembered, "a")
    remembered.update("key_a", {"group": "physics"})
    remembered.rotate("key_a", "b", retires_at=moment(9))
    assert remembered.find("a").record == remembered.find("b").record is not None

    change(remembered)
    store.away = True

    for digest in "ab":
        with pytest.raises(StoreUnavailable):
            remembered.find(digest)


def test_a_store_that_is_away_is_asked_once_a_second(remembered, store, clock):
    """Look-ups do not wait for a store that has just failed; it is used again when it is back."""
    add(remembered, "a")
    remembered.find("a")
    store.away, store.asked = True, 0

    for _ in range(5):
        remembered.find("a")
    assert store.asked == 1

    clock.advance(1)
    store.away = False
    remembered.find("a")
    remembered.find("a")
    assert store.asked == 3


def test_memory_is_bounded(remembered, store):
    """The keys that were looked up first are forgotten first."""
    for digest in "abc":
        add(remembered, digest)
        remembered.find(digest)
    store.away = True

    assert remembered.find("c").record is not None
    with pytest.raises(StoreUnavailable):
        remembered.find("a")
