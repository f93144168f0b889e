"""Counters of one process that counts alone: in memory for a moment, and in the file soon or never."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.ratelimit.reservations import WINDOW_SECONDS, Commit, Reading
from llmgateway.settings import Settings
from llmgateway.stores import open_stores
from llmgateway.stores import sqlite as sqlite_stores
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.fallback import FallbackCounters
from llmgateway.stores.sqlite import COUNTERS, HELD_SECONDS, MemoryDatabase, SQLiteCounters, SQLiteDatabase
from llmgateway.stores.sqlite.counters import COMPANY_SECONDS
from tests.conftest import Clock
from tests.servers import wait_until
from tests.stores.counter_contract import commit, level, look, reserve, shared, total, used, window

SPAWN = multiprocessing.get_context("spawn")
DAY = 24 * 3600
NEVER = 3600.0
"""Longer than a test: what is held is written only when something else asks for it."""


class CountingDatabase(SQLiteDatabase):
    """One that counts what was begun."""

    def __init__(self, path, **others):
        super().__init__(path, migrations=COUNTERS, durable=False, is_held=True, **others)
        self.transactions = 0

    @contextmanager
    def transaction(self):
        self.transactions += 1
        with super().transaction() as connection:
            yield connection


class FailingDatabase(CountingDatabase):
    """One that may not be able to keep what was done."""

    fails = False

    @contextmanager
    def transaction(self):
        with super().transaction() as connection:
            yield connection
            if self.fails:
                raise sqlite3.OperationalError("disk I/O error")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "counters.sqlite"


@pytest.fixture
def database(path):
    with closing(CountingDatabase(path)) as database:
        yield database


@pytest.fixture
def counters(database, clock):
    return SQLiteCounters(database, clock=clock, held_seconds=NEVER)


@contextmanager
def opened(path, clock, *, held_seconds=0.0):
    """The same counters, as another process would open them."""
    with closing(SQLiteDatabase(path, migrations=COUNTERS, durable=False, is_held=True, timeout=10)) as database:
        yield SQLiteCounters(database, clock=clock, held_seconds=held_seconds)


class TestTransactions:
    def test_many_calls_are_one(self, database, counters):
        """What follows within a moment finds in memory what it needs, whatever it is."""
        counters.seed("key:usd:2026-01", 3, until=None)
        for number in range(20):
            name = f"request {number}"
            assert reserve(counters, *shared("ada", limit=100), level(limit=100), total(limit=100), name=name).admitted
            counters.renew([name], lease=30)
            commit(counters, name, *shared("ada"), level(), total())

        assert [20, 20, 0, 23] == [
            used(counters, counter_request) for counter_request in (*shared("ada"), level(), total())
        ]
        assert 1 == database.transactions

    def test_needs_no_statement_for_what_is_known(self, database, counters):
        """A statement lets go of Python's lock, and other threads take it."""
        counters.seed("key:usd:2026-01", 3, until=None)
        counter_requests = (*shared("ada", limit=100), level(limit=100), total(limit=100))
        reserve(counters, *counter_requests, name="one")
        statements = []
        counters._queue().ledger.connection.set_trace_callback(statements.append)

        reserve(counters, *counter_requests, name="two")
        counters.commit([Commit("one", counter_requests), Commit("two", counter_requests)])

        assert [] == statements

    def test_reads_nothing_again_that_it_has_known_in_another_second(self, database, counters, clock):
        """Many keys ask once in a second; what each has used in the minute before is in memory all the same."""
        counters.seed("key:usd:2026-01", 3, until=None)
        counter_requests = (window(limit=100), level(limit=100), total(limit=100))
        reserve(counters, *counter_requests, name="one")
        clock.advance(1)
        reserve(counters, *counter_requests, name="two")
        statements = []
        counters._queue().ledger.connection.set_trace_callback(statements.append)

        for name in ("three", "four"):
            clock.advance(1)
            reserve(counters, *counter_requests, name=name)
        assert [] == [statement for statement in statements if statement.startswith("SELECT name, numbers")]
        assert [4, 4, 7] == [used(counters, counter_request) for counter_request in counter_requests]

    def test_knows_no_more_of_another_second_than_the_file(self, database, counters, clock):
        """What is forgotten is gone from memory, what is too old there is too old, and windows move."""
        counters.seed("key:usd:2026-01", 3, until=None)
        counter_requests = (window(limit=100), level(limit=100), total(limit=100))
        counters.reserve("one", counter_requests, lease=10 * DAY)
        clock.advance(1)
        used(counters, counter_requests[0])

        counters.forget(["key:usd:2026-01"])
        assert ("key:usd:2026-01",) == counters.look([counter_requests[2]]).unknown
        clock.advance(WINDOW_SECONDS)
        assert [0, 1] == [used(counters, counter_request) for counter_request in counter_requests[:2]]
        clock.advance(DAY + 2)
        assert 0 == used(counters, counter_requests[1])

    def test_a_second_is_the_longest(self, database, counters, clock):
        """Windows move with the second."""
        for _ in range(3):
            reserve(counters, window())
            clock.advance(0.5)

        assert 2 == database.transactions

    def test_ends_when_it_is_old(self, database, clock):
        """By the clock that counts, too."""
        counters = SQLiteCounters(database, clock=clock, held_seconds=0.25)
        for _ in range(3):
            reserve(counters, window())
            clock.advance(0.125)

        assert 2 == database.transactions

    def test_ends_when_the_clock_is_put_back(self, database, counters, clock):
        """What was counted later does not count for now."""
        clock.advance(0.5)
        reserve(counters, window())
        clock.advance(-0.25)

        reserve(counters, window())

        assert 2 == database.transactions
        assert 2 == used(counters, window())

    def test_is_kept_by_itself(self, path, database, clock):
        """Somebody commits without being asked, and everybody sees what was counted."""
        counters = SQLiteCounters(database, clock=clock, held_seconds=HELD_SECONDS)
        reserve(counters, window(4), level(2))

        with opened(path, clock) as elsewhere:
            wait_until(lambda: counters._queue().opened is None, what="a commit")
            assert [4, 2] == [used(elsewhere, counter_request) for counter_request in (window(), level())]

    def test_is_kept_when_it_is_flushed(self, path, counters, clock):
        """Before a process ends."""
        reserve(counters, window(4), level(2))

        counters.flush()

        with opened(path, clock) as elsewhere:
            assert [4, 2] == [used(elsewhere, counter_request) for counter_request in (window(), level())]

    def test_is_kept_when_the_database_is_closed(self, path, database, counters, clock):
        """And counting goes on with the next call."""
        reserve(counters, window(4))

        database.close()

        with opened(path, clock) as elsewhere:
            assert 4 == used(elsewhere, window())
        assert 4 == used(counters, window())

    def test_a_lease_outlasts_the_transaction(self, database, counters, clock):
        """What a request holds is known by heart while it runs, and is given back in the file."""
        reserve(counters, window(4), level(2), name="one", lease=30)
        reserve(counters, level(3), name="two", lease=30)
        counters.flush()
        counters.renew(["one"], lease=60)
        counters.flush()
        clock.advance(30)
        assert 2 == used(counters, level())

        commit(counters, "one", window(1), level())
        database.close()

        assert [1, 0] == [used(counters, counter_request) for counter_request in (window(), level())]
        clock.advance(30)
        assert 0 == used(counters, level())

    def test_a_lease_is_renewed_before_it_is_written(self, database, counters, clock):
        """It runs from the renewal."""
        reserve(counters, level(2), name="one", lease=30)
        clock.advance(0.5)
        counters.renew(["one"], lease=30.5)
        database.close()

        clock.advance(30.25)
        assert 2 == used(counters, level())
        clock.advance(0.25)
        assert 0 == used(counters, level())


class TestMistakes:
    """What is wrong with one call takes nothing from those before it, who have been told."""

    def test_a_wrong_reservation_changes_nothing(self, database, counters):
        """However far into its claims the mistake is."""
        assert reserve(counters, window(1), level(1), name="right").admitted

        for wrong in (window(0.5, counter="wrong"), window(2**70, None, counter="wrong")):
            with pytest.raises((TypeError, OverflowError)):
                reserve(counters, window(1), level(1), wrong, name="wrong")

        database.close()
        assert [1, 1, 0] == [
            used(counters, counter_request) for counter_request in (window(), level(), window(counter="wrong"))
        ]
        commit(counters, "right", window(1), level())
        assert 0 == used(counters, level())

    def test_a_share_of_nothing_changes_nothing(self, database, counters):
        """The window of the one who asks is missing."""
        with pytest.raises(TypeError):
            reserve(counters, window(1), *shared("ada"), window(1, counter="all", own="not claimed"))

        assert [0, 0, 0] == [used(counters, counter_request) for counter_request in (window(), *shared("ada"))]

    def test_a_wrong_commit_changes_nothing(self, database, counters):
        """Of none that came with it, for they are settled again, one by one."""
        for name in ("right", "wrong"):
            reserve(counters, window(3), level(1), name=name)
        right = Commit("right", (window(1), level()))

        with pytest.raises(TypeError):
            counters.commit([right, Commit("wrong", (window(1), level(), window(0.5, counter="wrong")))])

        assert [6, 2] == [used(counters, counter_request) for counter_request in (window(), level())]
        counters.commit([right])
        counters.commit([Commit("wrong", (window(2), level()))])
        database.close()
        assert [3, 0] == [used(counters, counter_request) for counter_request in (window(), level())]


class TestCompany:
    """Another process on the same file, as while one takes the place of another."""

    def test_is_let_in(self, path, counters, clock):
        """Who waits is heard, and after that nothing is kept open for a while."""
        reserve(counters, window(4))

        with ThreadPoolExecutor(1) as thread, opened(path, clock) as elsewhere:
            waiting = thread.submit(reserve, elsewhere, window(4))
            wait_until(counters._database.is_awaited, what="somebody who waits")
            counters.flush()
            assert waiting.result(10).admitted

            assert not reserve(counters, window(4)).admitted
            assert counters._queue().opened is None
            assert reserve(elsewhere, window(2)).admitted
        clock.advance(COMPANY_SECONDS)
        assert 10 == used(counters, window())
        clock.advance(COMPANY_SECONDS)
        reserve(counters, window())
        assert counters._queue().opened is not None

    def test_is_seen_by_what_it_wrote(self, path, counters, clock):
        """Nothing that is known from before is believed, not what others settled either."""
        reserve(counters, window(4), level(1), name="one")
        counters.flush()
        with opened(path, clock) as elsewhere:
            reserve(elsewhere, window(1), name="two")
            commit(elsewhere, "one", window(2), level())

        assert [3, 0] == [used(counters, counter_request) for counter_request in (window(), level())]

        assert counters._queue().opened is None
        commit(counters, "one", window(2))
        assert 5 == used(counters, window())

    def test_the_clock_may_be_put_back(self, path, counters, clock):
        """That somebody will have been here in an hour is no reason to wait for an hour."""
        reserve(counters, window())
        counters.flush()
        with opened(path, clock) as elsewhere:
            reserve(elsewhere, window())
        reserve(counters, window())
        assert counters._queue().opened is None

        clock.advance(-3600)
        reserve(counters, window())

        assert counters._queue().opened is not None

    def test_gets_its_turn_under_load(self, path):
        """A second process counts exactly, and at once, while the first has all it can do."""
        tell, told = SPAWN.Pipe()
        busy = SPAWN.Process(target=count_without_end, args=(path, told), daemon=True)
        busy.start()
        assert tell.poll(30)
        tell.recv()
        waits = []
        with closing(SQLiteDatabase(path, migrations=COUNTERS, durable=False, is_held=True, timeout=5)) as database:
            counters = SQLiteCounters(database, clock=time.time, held_seconds=HELD_SECONDS)
            for _ in range(50):
                began = time.monotonic()
                assert reserve(counters, window(1, None), level(1, None)).admitted
                waits.append(time.monotonic() - began)
            tell.send(None)
            theirs = tell.recv()
            busy.join(30)

            assert [theirs + 50] * 2 == [
                used(counters, counter_request) for counter_request in (window(limit=None), level(limit=None))
            ]
        assert theirs > 50
        assert sorted(waits)[25] < 1


def count_without_end(path, told):
    """A process whose threads reserve until it is told to stop; says how often they did."""
    clock = Clock(time.time())  # or some would leave the window meanwhile
    with opened(path, clock, held_seconds=HELD_SECONDS) as counters, ThreadPoolExecutor(8) as threads:
        counts = [0] * 8
        stop = []

        def count(place):
            while not stop:
                assert reserve(counters, window(1, None), level(1, None), lease=100).admitted
                counts[place] += 1

        work = [threads.submit(count, place) for place in range(8)]
        wait_until(lambda: sum(counts) > 100, what="a process at work")
        told.send(None)
        told.recv()
        stop.append(True)
        for one in work:
            one.result(30)
        counters.flush()
        told.send(sum(counts))


def test_what_a_killed_process_held_was_never_claimed(path, clock):
    """Its requests died with it: nothing waits for their leases to run out."""
    with opened(path, clock) as counters:
        reserve(counters, window(2))
    held = SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(path, held), daemon=True)
    process.start()
    assert held.wait(30)
    process.kill()
    process.join(30)

    with opened(path, clock) as counters:
        assert [2, 0] == [used(counters, counter_request) for counter_request in (window(), level())]
        assert reserve(counters, level(10)).admitted


def hold(path, held):
    """A process that claims and then does nothing any more."""
    with opened(path, Clock(), held_seconds=NEVER) as counters:
        assert reserve(counters, window(4), level(10)).admitted
        held.set()
        time.sleep(600)


@pytest.mark.parametrize(("processes", "is_held"), [("1", True), ("2", False)])
def test_only_a_process_that_is_alone_keeps_anything_open(tmp_path, monkeypatch, clock, processes, is_held):
    """Of several, each would make the others wait."""
    monkeypatch.setattr(sqlite_stores, "HELD_SECONDS", NEVER)
    environ = {"ADMIN_KEY": "a" * 20, "LLM_BASE_URL": "https://x.openai.azure.com", "LLM_API_KEY": "y"}
    settings = Settings.from_env(environ | {"LLMGATEWAY_INSTANCE": str(tmp_path), "LLMGATEWAY_PROCESSES": processes})
    counters = open_stores(settings, clock=clock).counters

    reserve(counters, window())

    with closing(sqlite3.connect(tmp_path / "counters.sqlite", timeout=0, isolation_level=None)) as other:
        assert is_held == is_locked(other)
        counters.flush()
        assert not is_locked(other)


def is_locked(connection):
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode == sqlite3.SQLITE_BUSY
    connection.execute("ROLLBACK")
    return False


class TestForks:
    def test_what_was_counted_before_counts_on_both_sides(self, counters):
        """A process forks while a transaction is open; both go on with what it did."""
        reserve(counters, window(4), level(4), name="one", lease=60)

        child = os.fork()
        if child == 0:
            status = 1
            try:
                refused = not reserve(counters, window(7)).admitted
                status = int(not (refused and reserve(counters, window(2), level(6)).admitted))
                commit(counters, "one", window(4), level())
                counters.flush()
            finally:
                os._exit(status)

        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert [6, 6] == [used(counters, counter_request) for counter_request in (window(), level())]

    def test_a_process_forks_under_load(self, database, clock):
        """Whatever its threads are at, nothing is lost and nobody waits for ever."""
        counters = SQLiteCounters(database, clock=clock, held_seconds=HELD_SECONDS)

        def count():
            for _ in range(200):
                assert reserve(counters, window(1, None)).admitted

        with ThreadPoolExecutor(4) as threads:
            work = [threads.submit(count) for _ in range(4)]
            children = []
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    status = 1
                    try:
                        status = int(not reserve(counters, level(1)).admitted)
                        counters.flush()
                    finally:
                        os._exit(status)
                children.append(child)
            assert [0] * 5 == [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            for one in work:
                one.result(30)

        assert [800, 5] == [used(counters, counter_request) for counter_request in (window(limit=None), level())]


class TestExit:
    def test_keeps_what_was_counted(self, path, clock):
        """Also where the host of the application tells it nothing."""
        program = f"""
from llmgateway.stores.sqlite import COUNTERS, SQLiteCounters, SQLiteDatabase
from tests.stores.counter_contract import reserve, window
database = SQLiteDatabase({str(path)!r}, migrations=COUNTERS, durable=False, is_held=True)
counters = SQLiteCounters(database, clock=lambda: {clock()}, held_seconds={NEVER})
assert reserve(counters, window(5)).admitted
raise SystemExit(3)
"""
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)

        assert (3, b"", b"") == (ended.returncode, ended.stdout, ended.stderr)
        with opened(path, clock) as counters:
            assert 5 == used(counters, window())


class TestFullDisk:
    """A commit that fails undoes what was told since the last one. Nobody goes on as if nothing were the matter."""

    def test_totals_begin_anew(self, path, clock):
        """What was settled without being kept is in the usage log, which is asked again; nothing is spent twice."""
        other = total(limit=100, counter="key:usd:2026-02")
        with closing(FailingDatabase(path)) as database:
            counters = SQLiteCounters(database, clock=clock, held_seconds=NEVER)
            for counter_request in (total(limit=100), other):
                counters.seed(counter_request.counter, 0, until=None)
            reserve(counters, total(5, limit=100), name="lost", lease=90)
            counters.flush()
            commit(counters, "lost", total(90))
            for database.fails in (True, True, False):
                counters.flush()
                with suppress(StoreUnavailable):
                    reserve(counters, window())

            assert (total().counter,) == reserve(counters, total(20, limit=100), other).unknown
            counters.seed(total().counter, 90, until=None)
            counters.flush()
            assert not reserve(counters, total(20, limit=100), other).admitted
            assert reserve(counters, total(5, limit=100), other).admitted

    def test_counting_goes_on_in_the_process(self, path):
        """And in the file as soon as it can be written again."""
        here, there = SPAWN.Pipe()
        process = SPAWN.Process(target=fill, args=(path, there), daemon=True)
        process.start()
        assert here.poll(60)
        seen = here.recv()
        process.join(30)

        assert {
            "before": 2,
            "held": True,
            "warned": ["What was counted in the last moment is not kept: The embedded store does not serve."],
            "alone": [True, False, 8],
            "still held": False,
            "settled alone": 4,
            "back": [2, 3],
            "held again": True,
            "settled": Reading(5, 0, True, 0, 61),
        } == seen


def fill(path, report):
    """A process that may write no more, after a while; it tells what came of what it counted."""
    clock = Clock()
    seen = {}
    warnings = []
    catch = logging.Handler()
    catch.emit = lambda record: warnings.append(record.getMessage().partition(" (")[0])
    logging.getLogger("llmgateway.stores.sqlite.counters").addHandler(catch)
    with opened(path, clock, held_seconds=NEVER) as shared_counters:
        own = SQLiteCounters(MemoryDatabase(migrations=COUNTERS), clock=clock, held_seconds=NEVER)
        circuit = Circuit("the counters' file", retry_after=1, clock=clock)
        host = FallbackCounters(shared_counters, own, circuit=circuit)
        is_held = partial(lambda: shared_counters._queue().opened is not None)
        reserve(host, window(2))
        host.flush()
        seen["before"] = used(host, window())
        host.flush()
        with no_room():
            seen["held"] = reserve(host, window(4), level(4), name="lost", lease=90).admitted
            host.flush()
            seen["warned"] = [f"{warning}." for warning in warnings]
            seen["alone"] = [
                reserve(host, window(8), name="alone").admitted,
                reserve(host, window(4)).admitted,
                used(host, window()),
            ]
            seen["still held"] = is_held()
            commit(host, "alone", window(4))
            seen["settled alone"] = used(host, window())
        clock.advance(1)
        seen["back"] = [used(host, window()), 0]
        reserve(host, window(1))
        seen["back"][1] = used(host, window())
        seen["held again"] = is_held()
        commit(host, "lost", window(2), level())
        seen["settled"] = look(host, window())
    report.send(seen)


@contextmanager
def no_room():
    """Let no file grow, nor what is in it be written again: as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
