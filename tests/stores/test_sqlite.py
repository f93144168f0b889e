"""The embedded store: the contracts, several processes, migrations, and the file itself."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import threading
from contextlib import closing
from dataclasses import fields
from datetime import timedelta

import pytest

from llmgateway.errors import ConfigurationError, StoreUnavailable
from llmgateway.records import (
    ModelSettings,
    Organisation,
    Outcome,
    Prices,
    Prompt,
    RecordQuery,
    ReportQuery,
    UsageRecord,
    UsageSource,
)
from llmgateway.stores.sqlite import (
    SQLiteAuditLog,
    SQLiteDatabase,
    SQLiteErasures,
    SQLiteKeys,
    SQLiteOrganisation,
    SQLiteUsageLog,
)
from llmgateway.stores.sqlite.rows import places
from llmgateway.stores.sqlite.schema import MIGRATIONS
from llmgateway.stores.sqlite.usage import _append as append_records
from llmgateway.stores.sums import SUMS
from tests.servers import wait_until
from tests.stores.contract import (
    LATER,
    NEW_YEAR,
    AuditLogContract,
    ErasuresContract,
    KeyStoreContract,
    OrganisationStoreContract,
    UsageLogContract,
    append,
    key,
    unavailable,
    usage,
)


def append_without_sums(connection: sqlite3.Connection, records: list[UsageRecord]) -> None:
    """Store records as an older program did, whose table lacked the columns that were added since."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(logs)")}
    added = [field.name for field in fields(UsageRecord) if field.name not in columns]
    for name in added:
        connection.execute(f"ALTER TABLE logs ADD COLUMN {name}")
    append_records(connection, records)
    for name in added:
        connection.execute(f"ALTER TABLE logs DROP COLUMN {name}")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gateway.sqlite"


@pytest.fixture
def database(path):
    with closing(SQLiteDatabase(path)) as database:
        yield database


@pytest.fixture
def other_database(path, database):
    with closing(SQLiteDatabase(path)) as database:
        yield database


def plan_of(database, question):
    """How SQLite answers the last statement of *question*."""
    rows, asked = database.rows, []
    database.rows = lambda *statement: asked.append(statement) or rows(*statement)
    question()
    database.rows = rows
    statement, *parameters = asked[-1]
    return " ".join(row[-1] for row in rows(f"EXPLAIN QUERY PLAN {statement}", *parameters))


class TestSQLiteKeys(KeyStoreContract):
    @pytest.fixture
    def keys(self, database):
        return SQLiteKeys(database)

    @pytest.fixture
    def elsewhere(self, other_database):
        return SQLiteKeys(other_database)

    @pytest.fixture
    def organisation(self, database):
        return SQLiteOrganisation(database)

    def test_looks_up_by_the_index(self, keys, database):
        """A look-up costs the same with ten keys and with a million, and asks for retiring ones last."""
        plan = plan_of(database, lambda: keys.find(key().digest))

        assert "SCAN keys" not in plan
        assert plan.index("sqlite_autoindex_keys_2 (digest=?)") < plan.index("keys_retiring (retiring_digest=?)")


class TestSQLiteOrganisation(OrganisationStoreContract):
    @pytest.fixture
    def organisation(self, database):
        return SQLiteOrganisation(database)

    @pytest.fixture
    def elsewhere(self, other_database):
        return SQLiteOrganisation(other_database)

    @pytest.fixture
    def keys(self, database):
        return SQLiteKeys(database)


class TestSQLiteAuditLog(AuditLogContract):
    @pytest.fixture
    def erasures(self, database):
        return SQLiteErasures(database)

    @pytest.fixture
    def log(self, database):
        return SQLiteAuditLog(database)

    @pytest.fixture
    def elsewhere(self, other_database):
        return SQLiteAuditLog(other_database)


class TestSQLiteErasures(ErasuresContract):
    @pytest.fixture
    def erasures(self, database):
        return SQLiteErasures(database)


class TestSQLiteUsageLog(UsageLogContract):
    @pytest.fixture
    def erasures(self, other_database):
        return SQLiteErasures(other_database)

    @pytest.fixture
    def log(self, database):
        return SQLiteUsageLog(database)

    @pytest.fixture
    def zoned(self, other_database):
        return lambda zones: SQLiteUsageLog(other_database, zones=lambda: zones)

    @pytest.fixture
    def elsewhere(self, other_database):
        return SQLiteUsageLog(other_database)

    @pytest.fixture
    def spoil(self, database):
        def spoil():
            with database.transaction() as connection:
                for table in ("usage_daily", "usage_days", "usage_monthly"):
                    connection.execute(f"UPDATE {table} SET requests = requests + 1")
                connection.execute("""UPDATE usage_days SET spread = '{"h0": 77}'""")
                sums = (7, *[0] * (len(SUMS) - 1))
                for table, *of_nothing in (
                    ("usage_daily", 1, 202604, 20260401, *sums),
                    ("usage_days", 1, 20260401, 20260401, *sums, None),
                    ("usage_monthly", 202604, 1, *sums),
                ):
                    connection.execute(f"INSERT INTO {table} VALUES ({places(of_nothing)})", of_nothing)

        return spoil

    @pytest.mark.parametrize(
        ("filters", "index"),
        [
            ({}, "logs_timestamp"),
            ({"key_id": "key_0001"}, "logs_key"),
            ({"user": "ada"}, "logs_user"),
            ({"outcome": Outcome.BROKEN}, "logs_outcome"),
            ({"outcome": Outcome.OK}, "logs_outcome"),
            ({"usage_source": UsageSource.BOUND}, "logs_usage_source"),
            ({"usage_source": UsageSource.UPSTREAM}, "logs_timestamp"),
            ({"since": NEW_YEAR, "after": "req_000001"}, "logs_timestamp"),
            ({"group": "physics"}, "logs_group"),
            ({"error_code": "content_filter"}, "logs_error"),
            ({"before": (NEW_YEAR, "req_000001")}, "logs_timestamp"),
            ({"newer_than": (NEW_YEAR, "req_000001")}, "logs_timestamp"),
            ({"model": "gpt-4o"}, "logs_model"),
            ({"status": 429}, "logs_status"),
            ({"status": 200}, "logs_timestamp"),
            ({"deployment": "west", "min_duration_ms": 1}, "logs_timestamp"),
            ({"key_id": "key_0001", "user": "ada", "outcome": Outcome.OK, "since": NEW_YEAR}, "logs_key"),
            ({"model": "gpt-4o", "outcome": Outcome.OK}, "logs_model"),
            ({"model": "gpt-4o", "outcome": Outcome.BROKEN, "groups": ("ml",)}, "logs_outcome"),
            ({"groups": ("ml", "art")}, "logs_group"),
            ({"groups": tuple(map(str, range(99)))}, "logs_timestamp"),
        ],
    )
    def test_pages_by_the_index(self, log, database, filters, index):
        """A page is found without reading or sorting what is not on it."""
        append(log, [usage(1)])

        plan = plan_of(database, lambda: log.records(RecordQuery(limit=10, **filters)))

        assert f"USING INDEX {index}" in plan
        assert "B-TREE FOR ORDER BY" not in plan

    def test_finds_a_request_by_indexes(self, log, database):
        """Whichever id it is, no table is read from one end to the other."""
        plan = plan_of(database, lambda: log.find("azure-1"))

        assert "SCAN logs" not in plan
        assert "SCAN attempt_ids" not in plan
        assert {"logs_upstream", "sqlite_autoindex_logs_1"} <= set(plan.split())

    def test_stores_every_field_under_its_name(self, log, database):
        """The columns are the record's fields, in a form that other programs read."""
        append(log, [usage(1, group="physics", stream=True, content_filter=("hate",), cost_usd=0.5, status=200)])

        (row,) = database.rows('SELECT id, timestamp, "group", stream, content_filter, cost_usd, outcome FROM logs')
        columns = [column[1] for column in database.rows("PRAGMA table_info(logs)")]

        assert row == ("req_000001", 1767225600000, "physics", 1, '["hate"]', 0.5, "ok")
        assert set(UsageRecord.__dataclass_fields__) == set(columns)

    def test_a_batch_that_fails_leaves_nothing(self, log, database):
        """If one record of a batch cannot be stored, none is, and the error is the store's."""
        with pytest.raises(StoreUnavailable):
            append(log, [usage(1), usage(2, user=None)])

        assert next(iter(log.report())).requests == 0


def _add_keys(path, worker, count):
    keys = SQLiteKeys(SQLiteDatabase(path))
    for step in range(count):
        assert keys.add(key(worker * 1000 + step))


def _set_prompts(path, worker, count):
    organisation = SQLiteOrganisation(SQLiteDatabase(path))
    for step in range(count):
        organisation.set_prompt(f"{worker}.{step}", NEW_YEAR)


def _append(path, worker, count):
    log = SQLiteUsageLog(SQLiteDatabase(path))
    for step in range(count):
        append(log, [usage(worker * 1000 + step, total_tokens=1), usage(999_999, total_tokens=1)])


class TestProcesses:
    """Several processes on one file, each started from nothing at the same time."""

    def run(self, work, path, *, processes=4, count=25):
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=work, args=(path, worker, count)) for worker in range(processes)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert [0] * processes == [worker.exitcode for worker in workers]

    def test_make_the_file_together_and_lose_no_key(self, path):
        """Processes that find no file make it once, and every key that any of them adds is there."""
        self.run(_add_keys, path)

        assert len(SQLiteKeys(SQLiteDatabase(path)).list()) == 100

    def test_number_prompts_without_gap_or_double(self, path):
        """Versions from all processes are 1 to 100, and the highest is in force."""
        self.run(_set_prompts, path)

        organisation = SQLiteOrganisation(SQLiteDatabase(path))
        assert list(range(100, 0, -1)) == [prompt.version for prompt in organisation.prompt_versions()]
        assert organisation.prompt_versions()[0] == organisation.load().prompt

    def test_count_each_record_once(self, path):
        """Records of all processes are there, and the one that all of them send is there once."""
        self.run(_append, path)

        (row,) = SQLiteUsageLog(SQLiteDatabase(path)).report()
        assert (row.requests, row.total_tokens) == (101, 101)


class TestForks:
    def in_child(self, work):
        """Run *work* in a forked child and return its exit status: 0 if it raised nothing."""
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def test_child_and_parent_go_on(self, database, path):
        """A store that was used before a fork works on both sides of it."""
        keys = SQLiteKeys(database)
        keys.add(key(1))

        def work():
            assert key(1) == keys.find(key(1).digest).record
            assert keys.add(key(2))

        assert self.in_child(work) == 0
        assert keys.add(key(3))
        assert [key(1), key(2), key(3)] == keys.list()

    def test_no_connection_crosses(self, database, path):
        """While the process forks the file is closed in every thread: a child must not inherit SQLite's locks."""
        keys = SQLiteKeys(database)
        used, leave = threading.Event(), threading.Event()

        def other_thread():
            keys.find(key().digest)
            used.set()
            leave.wait(10)
            keys.find(key().digest)

        thread = threading.Thread(target=other_thread)
        thread.start()
        used.wait(10)
        keys.find(key().digest)

        def work():
            descriptors = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
            files = [os.readlink(descriptor) for descriptor in descriptors if os.path.lexists(descriptor)]
            assert not [file for file in files if file.startswith(str(path))]

        try:
            assert self.in_child(work) == 0
        finally:
            leave.set()
            thread.join(10)

    def test_a_fork_waits_for_a_transaction(self, database):
        """A thread in the middle of a transaction ends it first, and it holds."""
        begun, forked = threading.Event(), threading.Event()

        def other_thread():
            with database.transaction() as connection:
                begun.set()
                forked.wait(0.2)  # the fork is on its way by then, and has to wait
                connection.execute("INSERT INTO prompts (version, text, set_at) VALUES (1, 'one', 0)")

        thread = threading.Thread(target=other_thread)
        thread.start()
        begun.wait(10)
        status = self.in_child(lambda: SQLiteOrganisation(database).load())
        forked.set()
        thread.join(10)

        assert status == 0
        assert SQLiteOrganisation(database).load().prompt.text == "one"


class TestFile:
    def test_is_readable_by_its_owner_alone(self, database, path):
        """The file and those beside it hold an encrypted credential and people's names: mode 0600."""
        SQLiteKeys(database).add(key())

        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

        assert modes == {f"gateway.sqlite{suffix}": 0o600 for suffix in ("", "-wal", "-shm")}

    def test_keeps_everything(self, path):
        """What one run has stored the next run has."""
        with closing(SQLiteDatabase(path)) as database:
            SQLiteKeys(database).add(key())
            generation = SQLiteOrganisation(database).load().version
        with closing(SQLiteDatabase(path)) as database:
            assert (key(), generation) == SQLiteKeys(database).find(key().digest)

    def test_is_synced_at_every_commit(self, database):
        """An acknowledged record survives the loss of power: WAL, and FULL on every thread's connection."""
        with database.transaction() as connection:
            pass

        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]

    def test_comes_to_the_present_shape_step_by_step(self, path):
        """A file of an older program gets the missing steps, each once, and keeps its content."""
        older = [*MIGRATIONS, ("CREATE TABLE added (x)", "INSERT INTO added VALUES (1)")]
        newer = [*older, ("INSERT INTO added VALUES (2)",)]
        SQLiteKeys(SQLiteDatabase(path)).add(key())

        for migrations in (older, newer, newer):
            SQLiteDatabase(path, migrations=migrations).close()

        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT x FROM added").fetchall() == [(1,), (2,)]
            assert connection.execute("SELECT count(*) FROM keys").fetchall() == [(1,)]

    def test_of_a_program_without_sums_gets_them(self, path):
        """Records that were there before there were sums are in the reports."""
        with closing(SQLiteDatabase(path, migrations=MIGRATIONS[:2])) as database, database.transaction() as connection:
            records = [usage(1, total_tokens=1), usage(2, group="x", total_tokens=10, outcome=Outcome.BROKEN)]
            records += [usage(3, timestamp=NEW_YEAR + timedelta(days=40), total_tokens=100, cost_usd=0.5)]
            append_without_sums(connection, records)

        with closing(SQLiteDatabase(path)) as database:
            log = SQLiteUsageLog(database)
            rows = [
                (row.by["day"], row.by["group"], row.total_tokens, row.errors)
                for row in log.report(ReportQuery(by=["day", "group"]))
            ]
            assert rows == [("2026-01-01", None, 1, 0), ("2026-01-01", "x", 10, 1), ("2026-02-10", None, 100, 0)]
            assert 0.5 == next(iter(log.report())).cost_usd
            assert {True} == {record.model_known for record in log.records(RecordQuery(limit=9))}
            append(log, [usage(1, total_tokens=1), usage(4, total_tokens=1000)])
            assert 1111 == next(iter(log.report())).total_tokens

    def test_of_a_program_without_deployments_keeps_its_sums(self, path):
        """Older sums are of no deployment until they are rebuilt, and newer ones are added beside them."""
        with closing(SQLiteDatabase(path, migrations=MIGRATIONS[:8])) as database, database.transaction() as connection:
            append_without_sums(connection, [usage(1, total_tokens=1)])
            connection.execute("INSERT INTO usage_series VALUES (7, 'key_0001', 'ada', NULL, 'gpt-4o')")
            row = (7, 202601, 20260101, 1, 1)
            connection.execute("INSERT INTO usage_daily VALUES (?, ?, ?, ?, 0, 0, ?, 0, 0, 0, 0, 0, 0, 0)", row)

        with closing(SQLiteDatabase(path)) as database:
            log, by = SQLiteUsageLog(database), ReportQuery(by=["deployment"])
            append(log, [usage(2, total_tokens=10)])
            assert [(None, 1), ("gpt-4o-eu", 10)] == [
                (row.by["deployment"], row.total_tokens) for row in log.report(by)
            ]
            for _ in log.rebuild():
                pass
            assert [("gpt-4o-eu", 11)] == [(row.by["deployment"], row.total_tokens) for row in log.report(by)]

    def test_of_a_program_without_limits_keeps_its_content(self, path):
        """Keys that were there before there were limits have none, and prompts are the organisation's."""
        with closing(SQLiteDatabase(path, migrations=MIGRATIONS[:3])) as database, database.transaction() as connection:
            connection.execute(
                "INSERT INTO keys VALUES (?, ?, 'ada', 'laptop 1', ?, 'physics', NULL, NULL, 1, NULL, NULL, '[]')",
                (key().id, key().digest, 1767225600000),
            )
            connection.execute("INSERT INTO prompts VALUES (1, 'one', 1767225600000), (2, 'two', 1767225600000)")
            connection.execute("UPDATE organisation SET credential = x'00ff'")
            ((generation,),) = connection.execute("SELECT generation FROM organisation")

        with closing(SQLiteDatabase(path)) as database:
            keys, organisation = SQLiteKeys(database), SQLiteOrganisation(database)
            one, two = (Prompt(version=number, text=text, set_at=NEW_YEAR) for number, text in [(1, "one"), (2, "two")])
            assert key(1, group="physics", models=()) == keys.find(key().digest).record
            assert Organisation(prompt=two, credential=b"\x00\xff", version=generation) == organisation.load()
            assert [two, one] == organisation.prompt_versions(scope="")
            assert 3 == organisation.add_prompt("three", NEW_YEAR, scope="group:physics").version
            assert two == organisation.load().prompt
            rotated = keys.rotate(key().id, "f" * 64, retires_at=LATER)
            assert rotated == keys.find(key().digest).record

    def test_of_a_program_without_severities_counts_what_fired(self, path):
        """How severe it was is not known."""
        before = next(number for number, step in enumerate(MIGRATIONS) if "filter_severities" in step[0])
        older = MIGRATIONS[:before]
        with closing(SQLiteDatabase(path, migrations=older)) as database, database.transaction() as connection:
            append_without_sums(connection, [usage(1), usage(2, content_filter=("hate", "violence"))])

        with closing(SQLiteDatabase(path)) as database:
            log = SQLiteUsageLog(database)
            assert [("hate:found", "violence:found")] == [count.severities for count in log.filter_counts()]
            assert [("hate:found", "violence:found"), ()] == [
                record.filter_severities for record in log.records(RecordQuery(limit=2))
            ]

    def test_of_a_program_with_prices_alone_keeps_them(self, path):
        """Prices become settings of their models, and the sums say what had no known price and what was not counted."""
        with closing(SQLiteDatabase(path, migrations=MIGRATIONS[:5])) as database, database.transaction() as connection:
            connection.execute("INSERT INTO prices VALUES ('team/gpt-4.1', 2.5, 0.075, 10)")
            records = [
                usage(1, total_tokens=1, cost_usd=None),
                usage(2, total_tokens=0, cost_usd=None),
                usage(3, total_tokens=1, cost_usd=None, group="x"),
                usage(4, total_tokens=1, cost_usd=0.5),
                usage(5, total_tokens=1, cost_usd=None, timestamp=NEW_YEAR + timedelta(days=40)),
                usage(6, total_tokens=10, usage_source=UsageSource.ESTIMATED),
                usage(7, total_tokens=100, group="x", usage_source=UsageSource.BOUND),
            ]
            append_without_sums(connection, records)
            for number, group in ((1, None), (2, "x")):
                connection.execute(
                    "INSERT INTO usage_series VALUES (?, 'key_0001', 'ada', ?, 'gpt-4o')", (number, group)
                )
            for number, day in ((1, 20260101), (1, 20260210), (2, 20260101), (1, 20260301)):
                row = (number, day // 100, day)
                connection.execute("INSERT INTO usage_daily VALUES (?, ?, ?, 9, 0, 0, 0, 0, 0, 0, 0)", row)

        with closing(SQLiteDatabase(path)) as database:
            prices = Prices(prompt=2.5, cached=0.075, completion=10)
            assert {"team/gpt-4.1": ModelSettings(prices=prices)} == SQLiteOrganisation(database).load().models
            log = SQLiteUsageLog(database)
            by_day = [
                (row.by["day"], row.unpriced_requests, row.estimated_tokens, row.bound_tokens)
                for row in log.report(ReportQuery(by=["day"]))
            ]
            assert [("2026-01-01", 2, 10, 100), ("2026-02-10", 1, 0, 0), ("2026-03-01", 0, 0, 0)] == by_day
            for _ in log.rebuild():
                pass
            (row,) = log.report()
            assert (3, 10, 100) == (row.unpriced_requests, row.estimated_tokens, row.bound_tokens)

    def test_waits_for_another_that_is_making_it(self, path):
        """Who starts while another process still writes the new file waits, also to switch to WAL."""
        databases: list[SQLiteDatabase] = []
        thread = threading.Thread(target=lambda: databases.append(SQLiteDatabase(path)))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            thread.start()
            thread.join(0.1)  # time to run into the lock; too little would only make this test easier to pass
            other.execute("COMMIT")
        thread.join(10)

        assert databases[0].rows("PRAGMA journal_mode") == [("wal",)]
        databases[0].close()

    def test_a_step_that_fails_leaves_the_old_shape(self, path):
        """A step is done whole or not at all, and the program says so by not starting."""
        SQLiteDatabase(path).close()

        with pytest.raises(StoreUnavailable):
            SQLiteDatabase(path, migrations=[*MIGRATIONS, ("CREATE TABLE added (x)", "nonsense")])

        with closing(SQLiteDatabase(path)) as database:
            assert database.rows("SELECT name FROM sqlite_master WHERE name = 'added'") == []

    def test_of_a_newer_program_is_refused(self, path):
        """The file says who can read it; it is not touched."""
        SQLiteDatabase(path, migrations=[*MIGRATIONS, ("CREATE TABLE added (x)",)]).close()
        before = path.read_bytes()

        with pytest.raises(ConfigurationError, match="newer llmgateway"):
            SQLiteDatabase(path)

        assert before == path.read_bytes()


class TestTrouble:
    def test_a_folder_that_is_missing(self, tmp_path):
        """The file cannot be made where there is no folder."""
        with pytest.raises(StoreUnavailable):
            SQLiteDatabase(tmp_path / "missing" / "gateway.sqlite")

    def test_a_file_that_is_no_database(self, path):
        """Something else under the name is not overwritten."""
        path.write_bytes(b"not a database" * 100)

        with pytest.raises(StoreUnavailable):
            SQLiteDatabase(path)

        assert path.read_bytes().startswith(b"not a database")

    def test_a_writer_that_does_not_end(self, path, database):
        """A writer that waits longer than the timeout gets an error; readers are not affected."""
        with closing(SQLiteDatabase(path, timeout=0.05)) as impatient, database.transaction():
            with pytest.raises(StoreUnavailable) as caught:
                SQLiteKeys(impatient).add(key())

            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            assert SQLiteKeys(impatient).find(key().digest).record is None
            impatient.ping()

        assert SQLiteKeys(database).add(key())

    def test_a_writer_that_ends_in_time(self, path, database, other_database):
        """Who can write within the time-out just waits."""
        waiting = threading.Event()
        done: list[bool] = []

        def add():
            waiting.set()
            done.append(SQLiteKeys(other_database).add(key()))

        thread = threading.Thread(target=add)
        with database.transaction():
            thread.start()
            waiting.wait(10)
        wait_until(lambda: done, what="the waiting write")
        thread.join()

        assert done == [True]

    def test_a_file_that_was_damaged(self, path, database):
        """A damaged file is the store's trouble, never a driver's exception."""
        database.close()
        path.write_bytes(b"\xff" * path.stat().st_size)

        unavailable(
            database,
            lambda: SQLiteKeys(database).find(key().digest),
            lambda: SQLiteKeys(database).add(key()),
            lambda: SQLiteOrganisation(database).load(),
            lambda: append(SQLiteUsageLog(database), [usage()]),
            lambda: list(SQLiteUsageLog(database).report()),
        )

    def test_an_error_inside_a_transaction(self, database):
        """What was done before an error is undone, and the next transaction is not in its way."""

        def half() -> None:
            with database.transaction() as connection:
                connection.execute("INSERT INTO prompts (version, text, set_at) VALUES (1, 'one', 0)")
                raise KeyError

        with pytest.raises(KeyError):
            half()

        assert SQLiteOrganisation(database).prompt_versions() == []
        assert SQLiteKeys(database).add(key())

    def test_pings(self, database):
        """A store that serves says nothing."""
        database.ping()

        assert database.name == "sqlite"


def test_logs_what_fails_with_its_file(tmp_path, caplog, monkeypatch):
    """The file by its whole path and the cause, once a minute; the client is told the cause alone."""
    monkeypatch.chdir(tmp_path)
    database = SQLiteDatabase("relative.sqlite")

    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="no such table: missing") as caught:
            database.rows("SELECT * FROM missing")

    assert str(tmp_path) not in caught.value.message
    line = f"The embedded store {tmp_path}/relative.sqlite does not serve: no such table: missing"
    assert [line] == [record.getMessage() for record in caplog.records]
    database.close()


def bytes_of(path):
    """The database, its write-ahead log and what else belongs to it."""
    return b"".join(one.read_bytes() for one in sorted(path.parent.glob("gateway.sqlite*")))


def test_nothing_that_was_deleted_stays_in_the_file(path, database):
    """Deleted and changed rows are overwritten, also where SQLite has left copies of them, and in the WAL."""
    with database.transaction() as connection:
        connection.execute("CREATE TABLE words (id TEXT NOT NULL PRIMARY KEY, word TEXT, filler TEXT)")
        connection.execute("CREATE INDEX words_word ON words (word)")
    names = [f"canary{number:03}x" for number in range(50)]
    for start in range(0, 10_000, 1000):
        rows = [(os.urandom(8).hex(), names[n % 50], "y" * (n * 7919 % 200)) for n in range(start, start + 1000)]
        with database.transaction() as connection:
            connection.executemany("INSERT INTO words VALUES (?, ?, ?)", rows)
    assert b"canary007x" in bytes_of(path)

    with database.transaction() as connection:
        connection.execute("DELETE FROM words WHERE word < 'canary020x'")
        connection.execute("UPDATE words SET word = id")
    database.rewrite()
    assert database.empty_wal()

    assert b"canary" not in bytes_of(path)
    assert 0 == path.with_name("gateway.sqlite-wal").stat().st_size


def test_a_reader_keeps_the_wal_for_a_while(path, other_database):
    """Another program that reads an old snapshot is in the way; that is said, and works when it has gone."""
    with closing(SQLiteDatabase(path, timeout=0.05)) as database, closing(sqlite3.connect(path)) as reader:
        with database.transaction() as connection:
            connection.execute("INSERT INTO documents VALUES ('name', 'canary')")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM documents").fetchall()
        with other_database.transaction() as connection:
            connection.execute("DELETE FROM documents")
        database.rewrite()
        assert not database.empty_wal()

        reader.execute("ROLLBACK")

        assert database.empty_wal()
        assert b"canary" not in bytes_of(path)
