"""The journal: no record is lost or counted twice, however a process ends."""

from __future__ import annotations

import errno
import fcntl
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import orjson
import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.records import Attempt, Batch, Bound, Outcome, UsageRecord, UsageSource
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteUsageLog
from llmgateway.usage import batches
from llmgateway.usage import journal as journal_module
from llmgateway.usage.batches import BATCH_RECORDS
from llmgateway.usage.journal import Backlog, Journal
from llmgateway.usage.segments import Segment, SegmentFolder
from tests.folders import files_below
from tests.parts import draft
from tests.servers import wait_until
from tests.stores.contract import at_once

BOUND = Bound(most_tokens=4096, tokens_per_second=100.0)
FORK = multiprocessing.get_context("fork")


def begun(number: int) -> UsageRecord:
    return draft(id=f"req-{number:05}")


def ended(number: int) -> UsageRecord:
    return replace(
        begun(number),
        outcome=Outcome.OK,
        usage_source=UsageSource.UPSTREAM,
        prompt_tokens=number,
        total_tokens=number,
        content_filter=("hate",),
        attempts=(Attempt(deployment="east", status=429), Attempt(deployment="west", prompt_tokens=number)),
        tool_uses={"web_search": 1},
        cost_usd=0.25,
        duration_ms=1.5,
    )


def priced(record: UsageRecord) -> UsageRecord:
    return replace(record, cost_usd=0.5)


class Log:
    """A real usage log that can be made unavailable, and that remembers which batches it got."""

    def __init__(self, path: Path) -> None:
        self._database = SQLiteDatabase(path)
        self._log = SQLiteUsageLog(self._database)
        self.away = False
        self.given: list[str] = []

    def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
        if self.away:
            raise StoreUnavailable("gone fishing")
        self._log.append(records, batch=batch)
        self.given += [record.id for record in records]

    def find_stored(self, stored_id: str) -> UsageRecord | None:
        return self._log.find_stored(stored_id)

    def rows(self, *columns: str) -> list[tuple[object, ...]]:
        return self._database.rows(f"SELECT {', '.join(columns)} FROM logs ORDER BY id")

    def count(self) -> object:
        return next(iter(self._log.report())).requests

    def ids(self) -> list[object]:
        return [row[0] for row in self.rows("id")]

    def close(self) -> None:
        self._database.close()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


@pytest.fixture
def log(tmp_path):
    with closing(Log(tmp_path / "gateway.sqlite")) as log:
        yield log


@pytest.fixture
def make(folder, log, clock):
    """Create journals that share a folder, and close them at the end."""
    made: list[Journal] = []

    def make(usage_log: object = log, **options: object) -> Journal:
        made.append(Journal(folder, usage_log, clock=clock, price=priced, **options))
        return made[-1]

    yield make
    log.away = False
    for journal in made:
        journal.close()


@pytest.fixture
def crash(folder, log, clock):
    """Run a function with a journal in another process, and kill that process; the usage log is unavailable."""

    def crash(action: Callable[[Journal], object], usage_log: object = None, *, thread: bool = True) -> None:
        def live_and_die() -> None:
            log.away = True
            make = partial(Journal, folder, usage_log or log, clock=clock, price=priced)
            action(make() if thread else without_its_thread(make))
            os.kill(os.getpid(), signal.SIGKILL)

        run(live_and_die, status=-signal.SIGKILL)

    return crash


def run(target: Callable[..., object], *arguments: object, status: int = 0) -> None:
    process = FORK.Process(target=target, args=arguments)
    process.start()
    process.join(30)
    exit_status = process.exitcode
    process.kill()
    process.join()
    assert status == exit_status
    process.close()


def without_its_thread(make: Callable[..., Journal]) -> Journal:
    """Return a journal whose thread has run once, and runs again in an hour: the test ships."""
    journal_module.SHIP_SECONDS = 3600.0  # the test runs in its own process
    turned = threading.Event()
    journal = make(on_turn=lambda _: turned.set())
    journal.start()
    assert turned.wait(10)
    return journal


def files(folder: Path) -> list[str]:
    """Return the names of all files in the folders of all processes, by kind."""
    return sorted(path.suffix or path.name for path in files_below(folder) if path.parent.parent == folder)


def serve(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        journal.begin(begun(number), BOUND)
        journal.end(ended(number))


def test_ships_every_field(make, log, tmp_path):
    """The usage log has each record as it ended."""
    journal = make()
    record = replace(
        ended(1),
        group="physics",
        status=200,
        cached_tokens=1,
        reasoning_tokens=2,
        ttft_ms=3.25,
        user='ada "日本"\n',
        region="East US 2",
        client_address="::1",
        admitted_ms=0.5,
        sent_ms=0.75,
        limits=("key.budget", "organisation.tokens_per_minute"),
    )
    seen: list[UsageRecord] = []

    class Seeing:
        def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
            seen.extend(records)

    journal = make(Seeing())
    journal.begin(begun(1), BOUND)
    journal.end(record)

    assert journal.flush()
    assert [record] == seen


def test_ships_by_itself(make, log):
    """A thread ships ended records within about a second."""
    serve(make(), 1, 2, 3)

    wait_until(lambda: ["req-00001", "req-00002", "req-00003"] == log.ids())


def test_ships_what_ended_and_keeps_what_runs(make, log, folder):
    """A long request does not delay the records of others, and has its own record when it has ended."""
    journal = make()
    journal.begin(begun(1), BOUND)
    serve(journal, 2)
    assert journal.flush()
    assert ["req-00002"] == log.ids()

    journal.end(ended(1))
    assert journal.flush()
    assert [("req-00001", "ok"), ("req-00002", "ok")] == log.rows("id", "outcome")


def test_a_cancelled_request_leaves_no_record(make, log, folder):
    """A cancelled request leaves no record and no file."""
    journal = make()
    journal.begin(begun(1), BOUND)
    journal.cancel("req-00001")
    journal.cancel("never begun")
    assert journal.flush()
    journal.close()

    assert [] == log.ids()
    assert [] == list(folder.iterdir())


def test_a_cancelled_request_is_gone_with_the_next_shipment(make, log, folder):
    """It names a person who may have been erased, and nobody would ship its segment otherwise."""
    journal = make()
    journal.begin(begun(1), BOUND)
    journal.begin(begun(2), BOUND)
    journal.cancel("req-00001")
    assert journal.mentions(["req-00001"])

    assert journal.flush()

    assert not journal.mentions(["req-00001"])
    assert journal.mentions(["req-00001", "req-00002"])  # it still runs
    assert not journal.mentions([])
    assert [] == log.ids()


def stored_by(number: int) -> UsageRecord:
    return replace(begun(number), response_id=f"resp_{number}", stored_ids=(f"msg_{number}",))


def test_finds_what_is_stored_before_it_is_shipped(make, log, folder):
    """While the request runs, and after its end, also if another process has written it; then the log has it."""
    log.away = True
    mine, other = make(), make()
    assert other.find_stored("resp_1") is None

    mine.begin(begun(1), BOUND)
    mine.amend(stored_by(1), BOUND)
    assert ["req-00001"] * 2 == [other.find_stored(each).id for each in ("resp_1", "msg_1")]
    assert "ada" == mine.find_stored("resp_1").user

    mine.end(replace(ended(1), response_id="resp_1", stored_ids=("msg_1", "msg_2")))
    assert not mine.flush()
    assert 1 == other.find_stored("msg_2").prompt_tokens
    assert [None] * 3 == [other.find_stored(each) for each in ("resp_", "req-00001", "ada")]

    log.away = False
    assert mine.flush()
    assert other.find_stored("resp_1") is None


def test_finds_what_is_stored_while_segments_come_and_go(make, log):
    """Whenever it looks, the record is in a journal or in the log."""
    mine, other = make(), make()
    missed = []

    def look(number: int) -> None:
        for _ in range(3):
            found = other.find_stored(f"resp_{number}") or log.find_stored(f"resp_{number}")
            missed.extend([] if found else [number])

    for number in range(50):
        mine.begin(begun(number), BOUND)
        mine.amend(stored_by(number), BOUND)
        mine.end(replace(ended(number), response_id=f"resp_{number}"))
        at_once(mine.flush, partial(look, number))

    assert [] == missed


def test_a_request_that_has_ended_is_not_amended(make, log, folder):
    """Otherwise it would be running for ever."""
    journal = make()
    serve(journal, 1)

    journal.amend(stored_by(1), BOUND)

    assert journal.flush()
    journal.close()
    assert [] == files(folder)


def test_a_crash_leaves_what_was_amended(crash, make, log):
    """Whose the response is, which a client may have got already."""

    def run_on(journal: Journal) -> None:
        journal.begin(begun(1), BOUND)
        journal.amend(stored_by(1), BOUND)

    crash(run_on)
    make().abandoned.ship()

    found = log.find_stored("resp_1")
    assert ("req-00001", Outcome.INTERRUPTED, ("msg_1",)) == (found.id, found.outcome, found.stored_ids)


def test_closing_leaves_an_empty_folder(make, log, folder):
    """A process that stops normally ships everything and leaves no file."""
    journal = make()
    serve(journal, *range(50))

    journal.close()

    assert 50 == len(log.ids())
    assert [] == list(folder.iterdir())
    journal.close()  # the second call has no effect


def test_closing_while_a_request_runs_leaves_it_to_the_next(make, log, folder):
    """A request that has not ended when the process stops becomes an interrupted record at the next start."""
    journal = make()
    journal.begin(begun(1), BOUND)
    serve(journal, 2)
    journal.close()
    assert ["req-00002"] == log.ids()

    make().start()

    wait_until(lambda: 2 == len(log.ids()))
    assert [("req-00001", "interrupted"), ("req-00002", "ok")] == log.rows("id", "outcome")


def test_goes_on_after_closing(make, log):
    """A request that ends after the journal was closed is not lost."""
    journal = make()
    serve(journal, 1)
    journal.close()

    serve(journal, 2)
    journal.close()

    assert ["req-00001", "req-00002"] == log.ids()


def test_is_synced_to_disk_while_requests_run(make, monkeypatch):
    """A power failure loses the lines of a second at most, even if requests run for long."""
    monkeypatch.setattr(journal_module, "SHIP_SECONDS", 0.001)
    monkeypatch.setattr(journal_module, "SYNC_SECONDS", 0.001)
    turns = Turns()
    journal = make(on_turn=turns)
    journal.begin(begun(1), BOUND)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)

    assert turns.wait_for(3) <= len(synced) + 1


def test_threads_do_not_mix_their_lines(make, log):
    """Many concurrent requests leave one record each."""
    journal = make()

    at_once(*[lambda start=start: serve(journal, *range(start, start + 100)) for start in range(0, 800, 100)])
    assert journal.flush()

    assert [f"req-{number:05}" for number in range(800)] == log.ids()
    assert [1] * 800 == list(Counter(log.given).values())


def test_starts_nothing_before_the_first_request(make, folder):
    """An application that is created before a fork has no folder and no thread of the journal."""
    make()

    assert not folder.exists()


def test_serves_on_both_sides_of_a_fork(make, log, folder):
    """A journal that is created before a fork works in every process, with a folder for each."""
    journal = make()

    def child(start: int) -> None:
        serve(journal, *range(start, start + 10))
        journal.close()

    for start in (100, 200):
        run(child, start)
    serve(journal, 1)
    journal.close()

    assert 21 == len(log.ids())
    assert [] == list(folder.iterdir())


def test_several_processes_write_at_once(make, log, folder, tmp_path):
    """Several processes ship each record once."""
    seen = tmp_path / "seen"

    class Told:
        def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
            with seen.open("a") as lines:
                lines.write("".join(record.id + "\n" for record in records))

    def child(start: int) -> None:
        journal = make(Told())
        serve(journal, *range(start, start + 200))
        journal.close()

    processes = [FORK.Process(target=child, args=(start,)) for start in (0, 200, 400)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert 0 == process.exitcode

    assert [f"req-{number:05}" for number in range(600)] == sorted(seen.read_text().split())
    assert [] == list(folder.iterdir())


class TestTheLogIsAway:
    def test_says_what_waits_and_why(self, make, log, clock):
        """The backlog has the number of ended records, the age of the oldest one and the problem."""
        journal = make()
        assert Backlog(records=0, oldest_seconds=0.0, problem=None) == journal.backlog()
        log.away = True
        serve(journal, 1, 2)
        clock.advance(5)
        assert not journal.flush()
        serve(journal, 3)
        clock.advance(2)

        assert Backlog(records=3, oldest_seconds=7.0, problem="usage log: gone fishing") == journal.backlog()

        log.away = False
        assert journal.flush()
        assert Backlog(records=0, oldest_seconds=0.0, problem=None) == journal.backlog()

    def test_waits_in_few_files(self, make, log, folder):
        """During an outage there are two segments, whatever its length; afterwards each record arrives once."""
        journal = make()
        log.away = True
        journal.begin(begun(9999), BOUND)
        for number in range(300):
            serve(journal, number)
            if number % 20 == 0:
                assert not journal.flush()

        assert [".open", ".sealed", "lock"] == files(folder)

        log.away = False
        assert journal.flush()
        assert journal.flush()
        assert 300 == len(log.ids())
        assert [1] * 300 == list(Counter(log.given).values())
        assert [".open", "lock"] == files(folder)

    @pytest.mark.parametrize("dead", [False, True], ids=["of a living process", "of a dead one"])
    def test_any_number_takes_the_memory_of_a_few(self, make, crash, folder, clock, dead):
        """After a long outage, only one batch at a time is in memory."""
        sizes: list[int] = []

        class Counting:
            away = True

            def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
                if self.away:
                    raise StoreUnavailable("gone fishing")
                sizes.append(len(records))

        counting = Counting()
        journal = make(counting)
        if dead:
            crash(lambda journal: serve(journal, *range(5000)), counting)
        else:
            serve(journal, *range(5000))
        waiting = sum(path.stat().st_size for path in folder.glob("*/*"))
        counting.away = False

        tracemalloc.start()
        try:
            if dead:
                journal.abandoned.ship()
            else:
                wait_until(journal.flush, what="a log that takes them")
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert 5000 == sum(sizes)
        assert max(sizes) <= BATCH_RECORDS
        assert most < waiting / 2

    def test_says_so_once_in_the_log(self, make, log, caplog):
        """The log has one message when a problem begins, and one when it is over."""
        journal = make()
        with caplog.at_level(logging.WARNING):
            log.away = True
            for number in range(5):
                serve(journal, number)
                journal.flush()
            log.away = False
            journal.flush()

        assert [
            "Usage records wait: usage log: gone fishing",
            "The usage log accepts usage records again.",
        ] == caplog.messages

    def test_a_stop_leaves_the_records_to_the_next_start(self, make, log, folder):
        """If the process ends while the usage log is unavailable, nothing is lost."""
        journal = make()
        log.away = True
        journal.begin(begun(3), BOUND)
        serve(journal, 1, 2)
        journal.close()

        log.away = False
        make().start()

        wait_until(lambda: 3 == len(log.ids()))
        assert ["ok", "ok", "interrupted"] == [outcome for (outcome,) in log.rows("outcome")]

    def test_an_abandoned_journal_waits_too(self, make, log, folder, crash, clock):
        """An abandoned journal is kept until the usage log has accepted it."""
        crash(lambda journal: serve(journal, 1, 2))
        log.away = True
        make().start()
        # Not at once: while the file moves to the folder of the new journal, a look at both folders can find it twice.
        wait_until(lambda: not log.given and [".open", "lock"] == files(folder))

        log.away = False
        clock.advance(11)

        wait_until(lambda: ["req-00001", "req-00002"] == log.ids())
        wait_until(lambda: [] == list(folder.iterdir()))


class TestTheProcessDies:
    def test_after_its_requests_ended(self, make, log, crash, folder):
        """The next process ships the records that had ended, unchanged."""
        crash(lambda journal: serve(journal, 1, 2))

        make().start()

        wait_until(
            lambda: [("req-00001", "ok", 0.25), ("req-00002", "ok", 0.25)] == log.rows("id", "outcome", "cost_usd")
        )
        wait_until(lambda: [] == list(folder.iterdir()))

    def test_in_the_middle_of_a_request(self, make, log, crash):
        """A request that had not ended may have been billed; it becomes a priced, interrupted record at the bound.

        The process lived no longer than two seconds, and half a second was needed to notice that.
        """

        def some(journal: Journal) -> None:
            journal.begin(begun(1), BOUND)
            serve(journal, 2)
            journal.begin(begun(3), BOUND)
            journal.cancel("req-00003")

        crash(some)
        make().start()

        wait_until(lambda: 2 == len(log.ids()))
        assert [
            ("req-00001", "interrupted", "bound", 10 + 250, 0.5),
            ("req-00002", "ok", "upstream", 2, 0.25),
        ] == log.rows("id", "outcome", "usage_source", "total_tokens", "cost_usd")

    @pytest.mark.parametrize(("seconds", "tokens"), [(30, 3250), (3600, 4096)])
    def test_books_what_can_have_been_written_until_then(self, make, log, crash, folder, clock, seconds, tokens):
        """The lock's time tells how long the process lived; the bound tells how much one answer can have."""

        def some(journal: Journal) -> None:
            journal.begin(begun(1), BOUND)
            clock.advance(seconds)
            (lock,) = folder.glob("*/lock")
            wait_until(lambda: lock.stat().st_mtime == clock())  # the thread turns about once a second

        crash(some)
        clock.advance(100_000)  # it is started again a day later
        make().start()

        wait_until(log.ids)
        assert [("interrupted", "bound", 10, tokens, 10 + tokens)] == log.rows(
            "outcome", "usage_source", "prompt_tokens", "completion_tokens", "total_tokens"
        )

    def test_reads_what_the_previous_edition_has_written(self, make, log, crash, folder):
        """Its lines have no bound: the record counts as it is."""

        def some(journal: Journal) -> None:
            journal.begin(begun(1), BOUND)
            (segment,) = folder.glob("*/*.open")
            kind, record, _ = orjson.loads(segment.read_bytes())
            segment.write_bytes(b"\n" + orjson.dumps((kind, record)))

        crash(some, thread=False)
        make().start()

        wait_until(log.ids)
        assert [("interrupted", "estimated", 10)] == log.rows("outcome", "usage_source", "total_tokens")

    def test_calls_back_with_interrupted_records(self, folder, log, crash, clock):
        """on_left is called with the interrupted records when the usage log has them."""

        def some(journal: Journal) -> None:
            serve(journal, 1)
            journal.begin(begun(2), BOUND)

        crash(some)
        received = []

        def tell(record: UsageRecord) -> None:
            received.append((record.id, record.cost_usd, log.ids()))

        with closing(Journal(folder, log, clock=clock, price=priced, on_left=tell)) as journal:
            journal.start()
            wait_until(lambda: received)

        assert [("req-00002", 0.5, ["req-00001", "req-00002"])] == received

    def test_calls_back_with_ended_records(self, folder, log, crash, clock):
        """on_ended is called with one record for each key, group and time, when the usage log has all of them."""
        crash(lambda journal: serve(journal, 1, 2, 3))
        received = []

        def tell(records: Iterable[UsageRecord]) -> None:
            received.append(([record.id for record in records], log.ids()))

        with closing(Journal(folder, log, clock=clock, price=priced, on_ended=tell)) as journal:
            journal.start()
            wait_until(lambda: received)

        assert [(["req-00001"], ["req-00001", "req-00002", "req-00003"])] == received

    def test_calls_back_with_the_records_of_both_ends_of_a_day(self, folder, log, crash, clock):
        """A UTC day is a part of two days of the organisation, and budgets of both have to be counted again."""

        def serve_all_day(journal: Journal) -> None:
            for number, hour in enumerate((12, 0, 23, 13), 1):
                at = datetime(2026, 1, 1, hour, tzinfo=UTC)
                journal.begin(replace(begun(number), timestamp=at), BOUND)
                journal.end(replace(ended(number), timestamp=at))

        crash(serve_all_day)
        received: list[list[int]] = []

        def tell(records: Iterable[UsageRecord]) -> None:
            received.append([record.timestamp.hour for record in records])

        with closing(Journal(folder, log, clock=clock, price=priced, on_ended=tell)) as journal:
            journal.start()
            wait_until(lambda: received)

        assert [[0, 23]] == received

    @pytest.mark.parametrize(
        "torn", [b'["end",{"id":"req-000', b"[", b'["end",{"id":"req-00009"}]\n', b"\x00\xff\n", b"\n"]
    )
    def test_in_the_middle_of_a_line(self, make, log, crash, folder, torn):
        """An incomplete line at the end of a segment is ignored; everything before it is shipped."""

        def tear(journal: Journal) -> None:
            serve(journal, 1, 2)
            journal.begin(begun(3), BOUND)
            (segment,) = folder.glob("*/*.open")
            with segment.open("ab") as file:
                file.write(b"\n" + torn)

        crash(tear, thread=False)
        make().start()

        wait_until(lambda: ["req-00001", "req-00002", "req-00003"] == log.ids())
        assert ["ok", "ok", "interrupted"] == [outcome for (outcome,) in log.rows("outcome")]

    def test_while_it_changes_segments(self, make, log, crash, monkeypatch):
        """If a process dies after it began a segment and before it sealed the old one, each record arrives once."""
        monkeypatch.setattr(SegmentFolder, "seal", lambda *_: os.kill(os.getpid(), signal.SIGKILL))

        def change(journal: Journal) -> None:
            journal.begin(begun(1), BOUND)
            serve(journal, 2)
            journal.flush()

        crash(change, thread=False)
        monkeypatch.undo()
        make().start()

        wait_until(lambda: 2 == len(log.ids()))
        assert [("req-00001", "interrupted"), ("req-00002", "ok")] == log.rows("id", "outcome")

    def test_after_the_log_took_them(self, make, log, crash):
        """A segment that is in the usage log but was not deleted is not counted twice."""

        class Fatal:
            def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
                log.away = False
                log.append(records, batch=batch)
                os.kill(os.getpid(), signal.SIGKILL)

        def ship_both(journal: Journal) -> None:
            serve(journal, 1, 2)
            journal.flush()

        crash(ship_both, Fatal(), thread=False)
        assert ["req-00001", "req-00002"] == log.ids()
        make().start()

        wait_until(lambda: ["req-00001", "req-00002"] == log.given)
        assert [("req-00001", "ok"), ("req-00002", "ok")] == log.rows("id", "outcome")

    @pytest.mark.parametrize("seconds", [0.05, 0.3, 0.6])
    def test_at_any_moment(self, make, log, folder, clock, seconds):
        """Whenever the process is killed, the usage log has each ended record once, and no others."""
        reader, writer = FORK.Pipe(duplex=False)

        def live() -> None:
            journal = Journal(folder, log, clock=clock, price=priced)
            number = 0
            while True:
                journal.begin(begun(number), BOUND)
                journal.begin(begun(number + 50_000), BOUND)
                journal.end(ended(number))
                writer.send(number)
                number += 1

        process = FORK.Process(target=live)
        process.start()
        writer.close()
        deadline = None
        said = []
        while True:
            try:
                said.append(reader.recv())
            except EOFError:
                break
            deadline = deadline or time.monotonic() + seconds
            if time.monotonic() > deadline:
                process.kill()
        process.join(10)
        make().start()
        wait_until(lambda: not any(path.is_dir() and files(folder) != [] for path in folder.iterdir()))

        outcomes = dict(log.rows("id", "outcome"))
        assert {f"req-{number:05}" for number in said} <= {
            name for name, outcome in outcomes.items() if outcome == "ok"
        }
        interrupted = {name for name, outcome in outcomes.items() if outcome == "interrupted"}
        assert {f"req-{number + 50_000:05}" for number in said} <= interrupted
        assert len(outcomes) <= 2 * len(said) + 2

    def test_while_others_live_on(self, log, crash, make, clock, monkeypatch):
        """A running process ships abandoned journals without a restart."""
        monkeypatch.setattr(journal_module, "SHIP_SECONDS", 0.001)
        monkeypatch.setattr(journal_module, "SYNC_SECONDS", 0.001)
        turns = Turns()
        living = make(on_turn=turns)
        living.start()
        turns.wait_for(2)
        crash(lambda journal: serve(journal, 1))
        turns.wait_for(2)
        assert [] == log.given

        clock.advance(journal_module.ABANDONED_SECONDS)

        wait_until(lambda: log.given == ["req-00001"], what="the dead process' record")

    def test_several_find_its_journal(self, log, crash, folder, clock, tmp_path):
        """If many processes start at the same time, one of them ships an abandoned journal."""
        for start in (0, 100, 200):
            crash(lambda journal, start=start: serve(journal, *range(start, start + 100)))
        seen = tmp_path / "seen"
        barrier = FORK.Barrier(4)

        class Told:
            def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
                with seen.open("a") as lines:
                    lines.write("".join(record.id + "\n" for record in records))

        def adopt() -> None:
            journal = Journal(folder, Told(), clock=clock, price=priced)
            barrier.wait(10)
            journal.abandoned.ship()
            barrier.wait(10)

        processes = [FORK.Process(target=adopt) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30)
            assert 0 == process.exitcode

        assert [f"req-{number:05}" for number in range(300)] == sorted(seen.read_text().split())
        assert [] == list(folder.iterdir())

    def test_comes_too_late_for_it(self, crash, folder, monkeypatch):
        """A journal that another process has just shipped and removed is not adopted."""
        crash(lambda journal: serve(journal, 1))
        (path,) = folder.iterdir()
        flock = fcntl.flock

        def flock_too_late(*arguments: int) -> None:
            shutil.rmtree(path)
            flock(*arguments)

        monkeypatch.setattr(fcntl, "flock", flock_too_late)

        assert SegmentFolder.adopt(path) is None

    def test_leaves_alone_those_that_live(self, make, log, folder, clock):
        """The journal of a running process is not adopted."""
        log.away = True
        living, other = make(), make()
        serve(living, 1)
        other.start()
        clock.advance(11)
        other.abandoned.ship()

        assert "lock" in files(folder)
        log.away = False
        assert living.flush()
        assert ["req-00001"] == log.given

    def test_leaves_alone_what_is_no_journal(self, make, log, folder):
        """Other files in the folder, and folders that are just being created, are ignored."""
        (folder / ".7-abc").mkdir(parents=True)
        (folder / ".7-abc" / "lock").touch()
        (folder / "lost+found").mkdir()
        (folder / "note.txt").write_text("mine")
        journal = make()
        serve(journal, 1)
        assert journal.flush()
        journal.abandoned.ship()
        journal.close()

        assert {".7-abc", "lost+found", "note.txt"} == {path.name for path in folder.iterdir()}


class TestTheDiskIsFull:
    """A limit on the size of files, with which writes are cut short and then fail, as with a full disk."""

    @pytest.fixture
    def limited(self, folder, clock):
        """Run a function in another process with a journal, a function that fills the disk, and a usage log."""

        def limited(action: Callable[..., None]) -> None:
            def child() -> None:
                class Memory:
                    away = False

                    def __init__(self) -> None:
                        self.records: list[UsageRecord] = []

                    def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
                        if self.away:
                            raise StoreUnavailable("away")
                        self.records += records

                def disk(bytes_left: int) -> None:
                    segments = [path.stat().st_size for path in folder.glob("*/*.open")]
                    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
                    limit = hard if bytes_left < 0 else max(segments, default=0) + bytes_left
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))

                memory = Memory()
                journal = without_its_thread(partial(Journal, folder, memory, clock=clock, price=priced))
                action(journal, memory, disk)

            run(child)

        return limited

    def test_requests_go_on_and_their_records_are_kept(self, limited):
        """If nothing can be written, records wait in memory, are reported, and reach the usage log."""

        def action(journal, memory, disk):
            disk(0)
            serve(journal, 1, 2, 3)
            backlog = journal.backlog()
            assert 3 == backlog.records
            assert "journal on disk" in backlog.problem
            assert journal.flush()
            assert [ended(number) for number in (1, 2, 3)] == memory.records
            assert 0 == journal.backlog().records

        limited(action)

    @pytest.mark.parametrize("room", [0, 1, 100, 300, 500, 700, 1000, 1500])
    def test_a_line_cut_short_costs_nothing(self, limited, clock, room):
        """Wherever the disk becomes full, each record is shipped once, also those that are written afterwards."""

        def action(journal, memory, disk):
            memory.away = True
            serve(journal, 1)
            journal.begin(begun(4), BOUND)
            disk(room)
            serve(journal, 2, 3)
            disk(-1)
            journal.end(ended(4))
            serve(journal, 5)
            assert not journal.flush()
            assert 5 == journal.backlog().records
            memory.away = False
            assert journal.flush()
            assert [ended(number) for number in range(1, 6)] == sorted(memory.records, key=lambda record: record.id)
            clock.advance(60)
            assert Backlog(records=0, oldest_seconds=0.0, problem=None) == journal.backlog()
            journal.close()

        limited(action)

    def test_trying_again_and_again_keeps_nothing_open(self, limited, folder):
        """A segment that cannot be begun leaves neither a descriptor nor a file."""

        def action(journal, memory, disk):
            journal.begin(begun(0), BOUND)
            serve(journal, 1)
            segments = list(folder.glob("*/*"))
            disk(0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(20):
                journal.flush()
            assert before == len(os.listdir("/proc/self/fd"))
            assert segments == list(folder.glob("*/*"))
            disk(-1)
            assert journal.flush()
            assert [ended(1)] == memory.records

        limited(action)

    def test_memory_is_bounded(self, limited, monkeypatch):
        """Without disk and usage log the newest records are kept, and the loss is logged."""
        monkeypatch.setattr(journal_module, "KEPT_IN_MEMORY", 5)

        def action(journal, memory, disk):
            memory.away = True
            disk(0)
            serve(journal, *range(8))
            assert 5 == journal.backlog().records
            memory.away = False
            assert journal.flush()
            assert [ended(number) for number in range(3, 8)] == memory.records
            assert 0 == journal.backlog().records

        limited(action)


def test_an_unwritable_record_stops_nobody_else(make, log):
    """A record that cannot be written as JSON fails its own request only."""
    journal = make()
    with pytest.raises(TypeError):
        journal.begin(replace(begun(1), model="half \ud800"), BOUND)

    serve(journal, 2)

    assert journal.flush()
    assert ["req-00002"] == log.ids()


class TestBatches:
    """A batch has the same name each time it is shipped, and two batches have different names."""

    @pytest.fixture
    def given(self, log):
        """Ship with a usage log that accepts batches and then fails; return what it got, by batch."""

        class Given:
            def __init__(self) -> None:
                self.shipped: list[tuple[Batch, list[str]]] = []
                self.failures = 0

            def append(self, records: Sequence[UsageRecord], *, batch: Batch) -> None:
                self.shipped.append((batch, [record.id for record in records]))
                log.append(records, batch=batch)
                if self.failures:
                    self.failures -= 1
                    raise StoreUnavailable("the answer is lost")

            def check(self, *numbers: int) -> None:
                names: dict[Batch, list[str]] = {}
                for batch, ids in self.shipped:
                    assert ids == names.setdefault(batch, ids)
                for source in {batch.source for batch in names}:
                    in_order = [batch.number for batch, _ in self.shipped if batch.source == source]
                    assert in_order == sorted(in_order)
                assert [begun(number).id for number in numbers] == sorted(id_ for ids in names.values() for id_ in ids)
                assert len(numbers) == log.count()

        return Given()

    def test_keep_their_names_when_they_are_shipped_again(self, make, given, monkeypatch):
        """If the log's answer is lost, the same batches are shipped again."""
        monkeypatch.setattr(batches, "BATCH_RECORDS", 2)
        monkeypatch.setattr(journal_module, "BATCH_RECORDS", 2)
        journal = make(given)
        serve(journal, *range(5))
        for _ in range(4):
            given.failures = 1
            journal.flush()
        serve(journal, *range(5, 8))
        while not journal.flush():
            pass

        given.check(*range(8))

    def test_keep_their_names_when_a_dead_process_began_them(self, make, given, crash, monkeypatch):
        """Sealed, open and interrupted records of an abandoned journal have the same batches each time."""
        monkeypatch.setattr(batches, "BATCH_RECORDS", 2)
        monkeypatch.setattr(journal_module, "BATCH_RECORDS", 2)

        def live(journal: Journal) -> None:
            serve(journal, *range(3))
            journal.flush()
            serve(journal, *range(3, 6))
            for number in range(6, 9):
                journal.begin(begun(number), BOUND)

        crash(live)
        journal = make(given)
        for _ in range(6):
            given.failures = 1
            journal.abandoned.ship()
        given.failures = 0
        journal.abandoned.ship()

        given.check(*range(9))

    def test_keep_their_names_in_memory(self, make, given, monkeypatch):
        """Records in memory are divided into batches once; later records are added after them."""
        monkeypatch.setattr(batches, "BATCH_RECORDS", 2)
        monkeypatch.setattr(journal_module, "BATCH_RECORDS", 2)
        journal = make(given)
        journal.begin(begun(0), BOUND)
        journal.cancel(begun(0).id)
        monkeypatch.setattr(Segment, "append", no_space)
        given.failures = 3
        for number in range(1, 8):
            serve(journal, number)
            journal.flush()
        while not journal.flush():
            pass

        given.check(*range(1, 8))
        assert 0 == journal.backlog().records


class TestRetention:
    @pytest.fixture
    def purging(self, folder, clock):
        """A journal whose usage log records the calls of purge, and has a number of records to purge."""

        class Purged:
            def __init__(self) -> None:
                self.asked: list[tuple[date, int]] = []
                self.old = 0

            def purge(self, first_day: date, *, limit: int) -> int:
                self.asked.append((first_day, limit))
                removed, self.old = min(limit, self.old), max(0, self.old - limit)
                return removed

        log = Purged()
        turns = Turns()
        with closing(Journal(folder, log, clock=clock, price=priced, log_days=30, on_turn=turns)) as journal:
            yield journal, log, turns

    def test_purges_whole_days_about_once_an_hour(self, purging, clock, monkeypatch):
        """Records of the days before the last thirty are removed in steps, and again after an hour."""
        monkeypatch.setattr(journal_module, "SHIP_SECONDS", 0.001)
        monkeypatch.setattr(journal_module, "SYNC_SECONDS", 0.001)
        journal, log, turns = purging
        log.old = 2 * journal_module.PURGED_AT_ONCE + 1

        journal.start()
        wait_until(lambda: len(log.asked) == 3, what="three steps")
        turns.wait_for(5)
        assert [(date(2025, 12, 2), journal_module.PURGED_AT_ONCE)] * 3 == log.asked

        clock.advance(3600)
        wait_until(lambda: len(log.asked) == 4, what="the next hour's step")

    def test_purges_nothing_without_the_setting(self, make, log, monkeypatch):
        """Without the setting, records are kept for ever."""
        monkeypatch.setattr(journal_module, "SHIP_SECONDS", 0.001)
        monkeypatch.setattr(journal_module, "SYNC_SECONDS", 0.001)
        asked: list[object] = []
        log.purge = lambda *_, **__: asked.append(_) or 0
        turns = Turns()
        make(on_turn=turns).start()

        turns.wait_for(2)
        assert [] == asked


class Turns:
    """Counts how often the journal's thread runs."""

    def __init__(self) -> None:
        self.taken = 0

    def __call__(self, backlog: Backlog) -> None:
        self.taken += 1

    def wait_for(self, more: int) -> int:
        """Wait until the thread has run *more* times; return how often it did."""
        before = self.taken
        wait_until(lambda: self.taken >= before + more, what="the thread's turns")
        return self.taken - before


def no_space(segment: Segment, lines: bytes) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
