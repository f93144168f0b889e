"""The version of the keys in a file: every process notices the changes of all processes."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.records import Batch, Group, Limits
from llmgateway.stores.cached_keys import CachedKeys
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.recent_version import NOTICED_SECONDS, RecentVersion
from llmgateway.stores.sqlite import SQLiteAuditLog, SQLiteDatabase, SQLiteKeys, SQLiteOrganisation, SQLiteUsageLog
from tests import ROOT
from tests.stores.contract import LATER, NEW_YEAR, KeyStoreContract, audit, key, usage
from tests.stores.test_cached_keys import Failing

READER = """
import sys
from llmgateway.stores.cached_keys import CachedKeys
from llmgateway.stores.recent_version import RecentVersion
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys

keys = SQLiteKeys(SQLiteDatabase(sys.argv[1]))
cached = CachedKeys(keys, circuit=None, version=RecentVersion(keys.version))
asked, find = [], keys.find
keys.find = lambda digest: asked.append(digest) or find(digest)
for line in sys.stdin:
    record = cached.find(line.strip()).record
    print(len(asked), None if record is None else record.active, flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gateway.sqlite"


@pytest.fixture
def database(path):
    with closing(SQLiteDatabase(path)) as database:
        yield database


@pytest.fixture
def elsewhere(path, database):
    """The key store of another process."""
    with closing(SQLiteDatabase(path)) as database:
        yield SQLiteKeys(database)


@pytest.fixture
def store(database):
    return Failing(SQLiteKeys(database))


@pytest.fixture
def cached(store):
    return CachedKeys(store, circuit=None, version=always_read(store.version))


def always_read(read):
    """A version that notices changes at once."""
    return RecentVersion(read, timer=itertools.count().__next__, sleep=lambda _: None)


class TestCachedKeysWithVersion(KeyStoreContract):
    """The contract of key stores, for cached keys."""

    @pytest.fixture
    def keys(self, database, clock):
        keys = SQLiteKeys(database)
        return CachedKeys(
            keys, circuit=Circuit("the store", retry_after=1, clock=clock), version=always_read(keys.version)
        )

    @pytest.fixture
    def organisation(self, database):
        return SQLiteOrganisation(database)

    @pytest.fixture
    def elsewhere(self, elsewhere):
        return elsewhere


class Away:
    """A store that is unavailable."""

    def __getattr__(self, name):
        def fail(*_, **__):
            raise StoreUnavailable(f"{name} was not answered")

        return fail


def away(question):
    """Whether *question* raises StoreUnavailable."""
    try:
        question()
    except StoreUnavailable:
        return True
    return False


class TestMemory:
    def test_answers_as_long_as_nothing_has_changed(self, cached, store):
        """A second look-up does not ask the store, and returns the same object."""
        cached.add(key())

        found = cached.find(key().digest)

        assert found is cached.find(key().digest)
        assert key() == found.record
        assert store.asked == 1

    def test_of_a_key_that_has_not_changed_gives_the_same_object(self, cached, store, elsewhere):
        """A change of another key does not replace the object of this key."""
        cached.add(key())
        found = cached.find(key().digest)

        elsewhere.add(key(2))

        assert found is cached.find(key().digest)
        assert store.asked == 2

    def test_knows_no_key_to_be_unknown(self, cached, store, elsewhere):
        """Unknown keys are not cached: a key that was tried before works as soon as it is created."""
        assert cached.find(key().digest).record is None

        elsewhere.add(key())

        assert key() == cached.find(key().digest).record
        assert cached.find("0" * 64).record is cached.find("0" * 64).record is None
        assert store.asked == 4

    def test_is_bounded(self, store):
        """The cache has a maximum size; other keys are looked up in the store."""
        cached = CachedKeys(store, circuit=None, version=always_read(store.version), limit=10)
        many = [key(number) for number in range(50)]
        cached.add_all(many)

        for _ in range(2):
            assert many == [cached.find(record.digest).record for record in many]

        assert store.asked == 100
        store.away = True
        known = [record for record in many if not away(lambda record=record: cached.find(record.digest))]
        assert 10 == len(known)


class TestChanges:
    CHANGES = {
        "key added": lambda keys, organisation: keys.add(key(2)),
        "keys added": lambda keys, organisation: keys.add_all([key(2), key(3)]),
        "key changed": lambda keys, organisation: keys.update(key().id, {"active": False}),
        "key replaced": lambda keys, organisation: keys.rotate(key().id, "f" * 64, retires_at=LATER),
        "keys revoked": lambda keys, organisation: keys.revoke_group("physics"),
        "key removed": lambda keys, organisation: keys.remove(key().id),
        "prompt set": lambda keys, organisation: organisation.set_prompt("Be brief.", NEW_YEAR),
        "limits set": lambda keys, organisation: organisation.set_limits(Limits(requests_per_minute=1)),
        "group set": lambda keys, organisation: organisation.set_group(Group(name="ml", created_at=NEW_YEAR)),
        "group removed": lambda keys, organisation: organisation.remove_group("chemistry"),
        "credential set": lambda keys, organisation: organisation.set_credential(b"sealed"),
        "document set": lambda keys, organisation: organisation.update_document("settings", lambda _: {"a": 1}),
        "prices set": lambda keys, organisation: organisation.set_model("gpt", {"max_output_tokens": 9}),
    }

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    @pytest.mark.parametrize("place", ["here", "elsewhere"])
    def test_show_in_the_version(self, database, path, change, place):
        """Every change that look-ups can see changes the version, whichever process makes it."""
        keys = SQLiteKeys(database)
        for name in ("physics", "chemistry"):
            SQLiteOrganisation(database).set_group(Group(name=name, created_at=NEW_YEAR))
        keys.add(key(group="physics"))
        before = keys.version()

        with closing(SQLiteDatabase(path)) as other:
            changed = database if place == "here" else other
            change(SQLiteKeys(changed), SQLiteOrganisation(changed))

        assert before != keys.version()

    def test_of_usage_do_not(self, store, database, elsewhere, cached):
        """Shipping usage records does not change the version."""
        elsewhere.add(key())
        found = cached.find(key().digest)

        SQLiteUsageLog(database).append([usage()], batch=Batch("one", 1))
        SQLiteUsageLog(database).purge(NEW_YEAR.date(), limit=1)
        SQLiteAuditLog(database).append(audit())

        assert found is cached.find(key().digest)
        assert store.asked == 1

    def test_that_were_made_with_other_tools_show_too(self, path, elsewhere, cached):
        """A change by SQL in the file itself changes the version, too."""
        elsewhere.add(key())
        assert cached.find(key().digest).record.active

        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE keys SET active = 0")

        assert not cached.find(key().digest).record.active

    def test_are_seen_by_who_was_reading(self, cached, store, elsewhere):
        """A look-up during a change may return the old key, but the result is not used afterwards."""
        elsewhere.add(key())
        find = store._store.find

        def overtaken(digest):
            found = find(digest)
            elsewhere.update(key().id, {"active": False})
            return found

        store._store.find = overtaken
        assert cached.find(key().digest).record.active

        store._store.find = find
        assert not cached.find(key().digest).record.active


class TestRecentVersion:
    @pytest.fixture
    def asked(self):
        return []

    @pytest.fixture
    def recent(self, clock, asked):
        return RecentVersion(lambda: asked.append(clock()) or len(asked), timer=clock, sleep=clock.advance)

    def test_is_believed_for_a_moment(self, recent, asked, clock):
        """The version is read once for many requests."""
        assert [1, 1, 1] == [recent() for _ in range(3)]

        clock.advance(NOTICED_SECONDS)

        assert 2 == recent()

    def test_is_not_believed_after_a_change_has_returned(self, recent):
        """A change waits until no process uses an older version."""
        assert 1 == recent()

        recent.wait_until_noticed()

        assert 2 == recent()

    def test_is_as_old_as_the_question(self, clock):
        """The age of a version counts from before it was read."""
        slow = RecentVersion(lambda: clock.advance(NOTICED_SECONDS) or clock(), timer=clock)

        assert slow() != slow()

    def test_that_could_not_be_read_is_asked_for_again(self, clock):
        """An error is not cached."""
        answers = iter([StoreUnavailable("away"), "one"])

        def read():
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

        recent = RecentVersion(read, timer=clock)

        assert away(recent)
        assert "one" == recent()

    def test_is_waited_for_by_every_change(self, store, clock):
        """A failed change waits, too, because only its answer may be lost."""
        slept = []
        version = RecentVersion(store.version, timer=clock, sleep=slept.append)
        changes = [
            lambda keys: keys.add(key()),
            lambda keys: keys.add_all([key(2)]),
            lambda keys: keys.update(key().id, {"active": False}),
            lambda keys: keys.rotate(key().id, "f" * 64, retires_at=LATER),
            lambda keys: keys.revoke_group("physics"),
            lambda keys: keys.remove(key().id),
        ]

        for change in changes:
            change(CachedKeys(store, circuit=None, version=version))
            assert away(lambda change=change: change(CachedKeys(Away(), circuit=None, version=version)))

        assert [NOTICED_SECONDS] * 2 * len(changes) == slept


class TestProcesses:
    @pytest.fixture
    def reader(self, path, database):
        """Another process: asked for a digest, it says how often it has read the file and whether the key is active."""
        with subprocess.Popen(
            [sys.executable, "-c", READER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process:

            def find(digest: str) -> str:
                process.stdin.write(f"{digest}\n")
                process.stdin.flush()
                return process.stdout.readline().strip()

            yield find
            process.stdin.close()

    def test_refuse_at_once_what_another_has_revoked(self, database, reader):
        """A cached key is not used after the call that changed it has returned in another process."""
        keys = SQLiteKeys(database)
        keys = CachedKeys(keys, circuit=None, version=RecentVersion(keys.version))
        keys.add(key())
        assert [reader(key().digest) for _ in range(3)] == ["1 True"] * 3

        for asked in range(2, 20, 2):
            keys.update(key().id, {"active": False})
            assert reader(key().digest) == f"{asked} False"
            keys.update(key().id, {"active": True})
            assert [reader(key().digest), reader(key().digest)] == [f"{asked + 1} True"] * 2

    def test_know_at_once_what_another_has_added(self, database, reader):
        """A new key works in every process as soon as it is created, even if it was tried before."""
        assert reader(key().digest) == "1 None"

        keys = SQLiteKeys(database)
        CachedKeys(keys, circuit=None, version=RecentVersion(keys.version)).add(key())

        assert reader(key().digest) == "2 True"

    def test_that_forked_see_each_others_changes(self, cached, elsewhere):
        """A parent process notices the changes of its child, with connections from before the fork."""
        elsewhere.add(key())
        assert cached.find(key().digest).record.active

        child = os.fork()
        if child == 0:
            elsewhere.update(key().id, {"active": False})
            os._exit(0)

        assert os.waitpid(child, 0)[1] == 0
        assert not cached.find(key().digest).record.active
