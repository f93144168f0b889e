"""The stamp: what is remembered of a file is right in every process, whoever changes it and whatever befalls him."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
from contextlib import closing

import pytest

from llmgateway.records import Batch, Group, Limits, Prices
from llmgateway.stores.cached_keys import CachedKeys
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.sqlite import SQLiteAuditLog, SQLiteDatabase, SQLiteKeys, SQLiteOrganisation, SQLiteUsageLog
from llmgateway.stores.sqlite.stamp import BELIEVED_SECONDS, Stamp
from tests import ROOT
from tests.stores.contract import LATER, NEW_YEAR, KeyStoreContract, audit, key, usage
from tests.stores.test_cached_keys import Failing

BEGINNING = """
import os, signal, sys
from llmgateway.stores.remembered import RememberedKeys
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteKeys
from llmgateway.stores.sqlite.stamp import Stamp

database = SQLiteDatabase(sys.argv[1])
keys = SQLiteKeys(database)
"""
READER = """
# The word alone: how long this test takes must not matter.
remembered = RememberedKeys(keys, circuit=None, state=lambda: database.stamp.read().word)
asked, find = [], keys.find
keys.find = lambda digest: asked.append(digest) or find(digest)
for line in sys.stdin:
    record = remembered.find(line.strip()).record
    print(len(asked), None if record is None else record.active, flush=True)
"""
KILLED_BEFORE_THE_SECOND_WORD = """
renew, words = Stamp.renew, []
def renew_once(stamp):
    words.append(1)
    if len(words) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    renew(stamp)
Stamp.renew = renew_once
keys.update(sys.argv[2], {"active": False})
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gateway.sqlite"


@pytest.fixture
def stamp_path(path):
    return path.with_name("gateway.sqlite-stamp")


@pytest.fixture
def database(path):
    with closing(SQLiteDatabase(path)) as database:
        yield database


@pytest.fixture
def elsewhere(path, database):
    """The keys as another process changes them."""
    with closing(SQLiteDatabase(path)) as database:
        yield SQLiteKeys(database)


@pytest.fixture
def stamp(stamp_path, clock):
    """As the process reads it whose memory is tested."""
    return Stamp(str(stamp_path), timer=clock)


@pytest.fixture
def store(database):
    return Failing(SQLiteKeys(database))


@pytest.fixture
def remembered(store, stamp):
    return CachedKeys(store, circuit=None, state=stamp.read)


class TestStampedKeys(KeyStoreContract):
    """All that holds of keys holds of those in memory."""

    @pytest.fixture
    def keys(self, database, clock):
        circuit = Circuit("the store", retry_after=1, clock=clock)
        return CachedKeys(SQLiteKeys(database), circuit=circuit, state=database.stamp.read)

    @pytest.fixture
    def elsewhere(self, elsewhere):
        return elsewhere


class TestMemory:
    def test_answers_as_long_as_nothing_has_changed(self, remembered, store):
        """A second look-up asks nobody, and gives the very same object."""
        remembered.add(key())

        found = remembered.find(key().digest)

        assert found is remembered.find(key().digest)
        assert key() == found.record
        assert store.asked == 1

    def test_of_a_key_that_has_not_changed_gives_the_same_object(self, remembered, store, elsewhere):
        """What follows from a key need not be worked out again because of another one."""
        remembered.add(key())
        found = remembered.find(key().digest)

        elsewhere.add(key(2))

        assert found is remembered.find(key().digest)
        assert store.asked == 2

    def test_knows_no_key_to_be_unknown(self, remembered, store, elsewhere):
        """A key that was tried before it was handed out opens at once, and who guesses keys fills no memory."""
        assert remembered.find(key().digest).record is None

        elsewhere.add(key())

        assert key() == remembered.find(key().digest).record
        assert remembered.find("0" * 64).record is remembered.find("0" * 64).record is None
        assert store.asked == 4

    def test_is_bounded(self, store, stamp):
        """However many keys are used, so many are kept; those that are not are looked up, right as ever."""
        remembered = CachedKeys(store, circuit=None, state=stamp.read, limit=10)
        many = [key(number) for number in range(50)]
        remembered.add_all(many)

        for _ in range(2):
            assert many == [remembered.find(record.digest).record for record in many]

        assert len(remembered._seen) == 10
        assert store.asked == 100


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
        "group removed": lambda keys, organisation: organisation.remove_group("physics"),
        "credential set": lambda keys, organisation: organisation.set_credential(b"sealed"),
        "prices set": lambda keys, organisation: organisation.set_prices(
            "gpt", Prices(prompt=1, cached=1, completion=1)
        ),
    }

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_show_in_other_processes(self, stamp, elsewhere, path, change):
        """Whatever a look-up may say, or the generation in it, the stamp says when it is another."""
        elsewhere.add(key())
        before = stamp.read()

        with closing(SQLiteDatabase(path)) as database:
            change(SQLiteKeys(database), SQLiteOrganisation(database))

        assert before != stamp.read()

    def test_of_usage_do_not(self, stamp, database):
        """Records are shipped four times a second, and change nothing of what is remembered."""
        before = stamp.read()

        SQLiteUsageLog(database).append([usage()], batch=Batch("one", 1))
        SQLiteUsageLog(database).purge(NEW_YEAR.date(), limit=1)
        SQLiteAuditLog(database).append(audit())

        assert before == stamp.read()

    def test_are_seen_by_who_looked_right_before_the_commit(self, remembered, elsewhere, database):
        """What was read with the first word of a writer is not what is believed with his second."""
        elsewhere.add(key())
        renew, seen = database.stamp.renew, []

        def renew_and_look():
            renew()
            seen.append(remembered.find(key().digest).record.active)

        database.stamp.renew = renew_and_look
        SQLiteKeys(database).update(key().id, {"active": False})

        assert seen == [True, False]
        assert not remembered.find(key().digest).record.active

    def test_are_seen_by_who_was_reading(self, remembered, store, elsewhere):
        """A look-up that a change overtakes gives what was there, and is not believed afterwards."""
        elsewhere.add(key())
        find = store._store.find

        def overtaken(digest):
            found = find(digest)
            elsewhere.update(key().id, {"active": False})
            return found

        store._store.find = overtaken
        assert remembered.find(key().digest).record.active

        store._store.find = find
        assert not remembered.find(key().digest).record.active


class TestProcesses:
    @pytest.fixture
    def reader(self, path, database):
        """Another process: asked for a digest, it says how often it has read the file and whether the key is active."""
        with subprocess.Popen(
            [sys.executable, "-c", BEGINNING + READER, path],
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
        """A key that is in the memory of one process is not believed once the call has returned in another."""
        keys = SQLiteKeys(database)
        keys.add(key())
        assert [reader(key().digest) for _ in range(3)] == ["1 True"] * 3

        for asked in range(2, 20, 2):
            keys.update(key().id, {"active": False})
            assert reader(key().digest) == f"{asked} False"
            keys.update(key().id, {"active": True})
            assert [reader(key().digest), reader(key().digest)] == [f"{asked + 1} True"] * 2

    def test_know_at_once_what_another_has_added(self, database, reader):
        """A key opens in every process as soon as it was handed out, also where it was tried before."""
        assert reader(key().digest) == "1 None"

        SQLiteKeys(database).add(key())

        assert reader(key().digest) == "2 True"

    def test_see_what_one_did_that_was_killed(self, path, remembered):
        """Of a writer that is killed after its commit, before its second word, the first has told of the change."""
        remembered.add(key())
        assert remembered.find(key().digest).record.active

        program = BEGINNING + KILLED_BEFORE_THE_SECOND_WORD
        killed = subprocess.run([sys.executable, "-c", program, path, key().id], cwd=ROOT, check=False)

        assert killed.returncode == -signal.SIGKILL
        assert not remembered.find(key().digest).record.active

    def test_that_forked_share_the_stamp(self, remembered, elsewhere):
        """What a child changes its parent sees, with what both had mapped before."""
        elsewhere.add(key())
        assert remembered.find(key().digest).record.active

        child = os.fork()
        if child == 0:
            elsewhere.update(key().id, {"active": False})
            os._exit(0)

        assert os.waitpid(child, 0)[1] == 0
        assert not remembered.find(key().digest).record.active


class TestTime:
    def test_ends_what_nothing_else_does(self, remembered, elsewhere, stamp, clock, path):
        """A look-up between the first word and the commit, of a writer without a second, is believed for a moment."""
        remembered.add(key())
        with closing(SQLiteDatabase(path)) as dying, dying.transaction(stamped=False) as connection:
            connection.execute("UPDATE keys SET active = 0")
            dying.stamp.renew()
            assert remembered.find(key().digest).record.active

        assert remembered.find(key().digest).record.active
        clock.advance(BELIEVED_SECONDS)
        assert not remembered.find(key().digest).record.active

    def test_finds_another_file(self, remembered, elsewhere, stamp_path, clock):
        """Who has a stamp in memory that was removed from the folder has the new one soon."""
        remembered.add(key())
        remembered.find(key().digest)
        stamp_path.unlink()

        elsewhere.update(key().id, {"active": False})
        clock.advance(BELIEVED_SECONDS)
        assert not remembered.find(key().digest).record.active

        elsewhere.update(key().id, {"active": True})
        assert remembered.find(key().digest).record.active


class TestFile:
    def test_is_made_for_its_owner_alone(self, stamp, stamp_path):
        """It says nothing, but nobody else has a reason to write to it."""
        assert stamp.read() is not None

        assert 0o600 == stat.S_IMODE(stamp_path.stat().st_mode)
        assert 8 == stamp_path.stat().st_size

    @pytest.mark.parametrize("content", [b"", b"abc", b"more than a word"])
    def test_of_another_length_serves(self, remembered, elsewhere, store, stamp_path, content):
        """A file that was cut short is made long enough, which to read from memory it has to be."""
        stamp_path.write_bytes(content)
        elsewhere.add(key())

        assert [remembered.find(key().digest).record.active for _ in range(2)] == [True] * 2
        elsewhere.update(key().id, {"active": False})

        assert not remembered.find(key().digest).record.active
        assert store.asked == 2

    def test_that_cannot_be_mapped_is_done_without(self, remembered, elsewhere, store, stamp_path, clock, caplog):
        """Every look-up reads the database then; the log says so once, and the stamp serves when it can."""
        stamp_path.mkdir()
        elsewhere.add(key())
        caplog.clear()

        assert [remembered.find(key().digest).record.active for _ in range(3)] == [True] * 3
        clock.advance(BELIEVED_SECONDS)
        elsewhere.update(key().id, {"active": False})
        assert [remembered.find(key().digest).record.active for _ in range(3)] == [False] * 3

        assert store.asked == 6
        assert [f"Every request reads the database, since {stamp_path} cannot be used"] == [
            message.partition(":")[0] for _, level, message in caplog.record_tuples if level == logging.WARNING
        ]

        stamp_path.rmdir()
        clock.advance(BELIEVED_SECONDS)
        assert [remembered.find(key().digest).record.active for _ in range(3)] == [False] * 3
        assert store.asked == 7
