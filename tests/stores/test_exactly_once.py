"""Each record is in the sums exactly once: whatever fails between any two steps, and whoever repeats it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.errors import AutoReconnect, BulkWriteError

from llmgateway.errors import StoreUnavailable
from llmgateway.interfaces import UsageLog
from llmgateway.records import Batch, Outcome, RecordQuery, ReportQuery, UsageRecord, UsageRow, UsageSource
from llmgateway.stores.mongo.database import MongoDatabase
from llmgateway.stores.mongo.usage import MongoUsageLog
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteUsageLog
from tests.stores.contract import NEW_YEAR, usage

MODES = ("before", "half", "after")


@dataclass
class Fault:
    """Lets one step of a store fail: before it is done, when half of it is, or when only the answer is lost."""

    step: int = 0
    """How many steps from now; 0 for none."""
    mode: str = "before"
    happened: bool = False
    action: Callable[[], None] | None = None
    """What is done instead of failing, before the step."""

    def set(self, step: int, mode: str) -> None:
        self.step, self.mode, self.happened = step, mode, False

    def due(self) -> bool:
        if self.step:
            self.step -= 1
            self.happened = self.step == 0
            if self.happened and self.action is not None:
                self.action()
                return False
            return self.happened
        return False


class FaultySQLite(SQLiteDatabase):
    """A step is a transaction."""

    fault = Fault()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        due = self.fault.due()
        if due and self.fault.mode == "before":
            raise StoreUnavailable("before")
        with super().transaction() as connection:
            yield connection
            if due and self.fault.mode == "half":
                raise StoreUnavailable("half")
        if due:
            raise StoreUnavailable("after")


class FaultyMongo(MongoDatabase):
    """A step is an operation on a collection."""

    fault = Fault()

    @contextmanager
    def collections(self, **options: Any) -> Iterator[Any]:
        with super().collections(**options) as database:
            yield FaultyCollections(database, self.fault)


@dataclass
class FaultyCollections:
    database: Any
    fault: Fault

    def __getitem__(self, name: str) -> FaultyCollection:
        return FaultyCollection(self.database[name], self.fault)


@dataclass
class FaultyCollection:
    collection: Any
    fault: Fault

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = getattr(self.collection, name)

        def step(*arguments: Any, **options: Any) -> Any:
            if not self.fault.due():
                return operation(*arguments, **options)
            if self.fault.mode == "half" and name in ("insert_many", "bulk_write"):
                [whole] = arguments
                with suppress(BulkWriteError):  # nobody hears of the duplicates
                    operation(whole[: (len(whole) + 1) // 2], **options)
            if self.fault.mode == "after":
                operation(*arguments, **options)
            raise AutoReconnect(self.fault.mode)

        return step


@dataclass
class Books:
    """A log that can fail, and what should be in it. Its keys are its own, so that many can share a database."""

    log: UsageLog
    fault: Fault
    clock: Any
    mark: str = field(default_factory=lambda: secrets.token_hex(4))
    truth: dict[str, UsageRecord] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, tuple[Batch, list[UsageRecord]]] = field(default_factory=dict)

    def record(self, number: int) -> UsageRecord:
        return usage(
            id=f"{self.mark}-{number:04}",
            key_id=f"{self.mark}-{number % 2}",
            timestamp=NEW_YEAR + timedelta(days=number % 3),
            outcome=Outcome.OK if number % 5 else Outcome.BROKEN,
            group="physics" if number % 4 == 0 else None,
            total_tokens=number,
            cost_usd=None if number % 7 == 0 else number / 4,
            usage_source=[*UsageSource][number % 4],
        )

    def ship(self, source: str, numbers: Sequence[int]) -> None:
        """Send what *source* still has to repeat, or else a new batch."""
        if source not in self.waiting:
            self.numbers[source] = self.numbers.get(source, 0) + 1
            name = Batch(f"{self.mark}-{source}", self.numbers[source])
            self.waiting[source] = (name, [self.record(number) for number in numbers])
        batch, records = self.waiting[source]
        self.log.append(records, batch=batch)
        self.truth.update((record.id, record) for record in records)
        del self.waiting[source]

    def ship_if_it_can(self, source: str, numbers: Sequence[int]) -> None:
        with suppress(StoreUnavailable):
            self.ship(source, numbers)

    def rebuild(self) -> None:
        for _ in self.log.rebuild():
            pass

    def check(self) -> None:
        self.fault.set(0, "")
        self.clock.advance(3600)  # a rebuild that died stops nobody any more
        for source in [*self.waiting]:
            self.ship(source, ())
        for key in (f"{self.mark}-0", f"{self.mark}-1"):
            expected = summed([record for record in self.truth.values() if record.key_id == key])
            assert expected == list(self.log.report(ReportQuery(by=["day", "group"], key_id=key)))
            stored = self.log.records(RecordQuery(key_id=key, limit=1000))
            assert {record.id for record in stored} == {
                record.id for record in self.truth.values() if record.key_id == key
            }


def summed(records: Sequence[UsageRecord]) -> list[UsageRow]:
    rows: dict[tuple[str, str], UsageRow] = {}
    for record in records:
        day, group = f"{record.timestamp:%Y-%m-%d}", record.group
        estimated, bound = (record.usage_source is source for source in (UsageSource.ESTIMATED, UsageSource.BOUND))
        row = rows.get((day, group or ""), UsageRow(by={"day": day, "group": group}))
        rows[day, group or ""] = replace(
            row,
            requests=row.requests + 1,
            total_tokens=row.total_tokens + record.total_tokens,
            cost_usd=row.cost_usd + (record.cost_usd or 0.0),
            errors=row.errors + (record.outcome is not Outcome.OK),
            unpriced_requests=row.unpriced_requests + (record.cost_usd is None and record.total_tokens > 0),
            estimated_tokens=row.estimated_tokens + record.total_tokens * estimated,
            bound_tokens=row.bound_tokens + record.total_tokens * bound,
        )
    return [rows[place] for place in sorted(rows)]


@pytest.fixture(params=["sqlite", "mongo"])
def open_books(request, tmp_path, clock):
    """Make new books; all share a database."""
    with closing(_database(request, tmp_path)) as database:
        database.fault = Fault()
        log = SQLiteUsageLog(database) if request.param == "sqlite" else MongoUsageLog(database, clock=clock)
        yield lambda: Books(log, database.fault, clock)


def _database(request, tmp_path):
    if request.param == "sqlite":
        return FaultySQLite(tmp_path / "gateway.sqlite")
    return FaultyMongo(
        request.getfixturevalue("mongo_server").url, database=request.getfixturevalue("database_name"), timeout=10
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("meanwhile", ["nothing", "others", "rebuild"])
def test_a_batch_that_fails_at_any_step_counts_once(open_books, mode, meanwhile):
    """Repeated after a failure at each of its steps, with others or a rebuild in between, it counts once."""
    step = 1
    while True:
        books = open_books()
        books.ship("other", range(10))
        books.fault.set(step, mode)
        books.ship_if_it_can("one", range(5, 15))
        happened = books.fault.happened
        books.fault.set(0, mode)
        if meanwhile == "others":
            books.ship("other", range(12, 20))
        if meanwhile == "rebuild":
            books.rebuild()
        books.check()
        if not happened:
            break  # the batch has no more steps than that
        step += 1
    assert step > 1


@pytest.mark.parametrize("what", ["rebuild", "others"])
def test_a_batch_that_stands_still_at_any_step_counts_once(open_books, what):
    """A whole rebuild, or others' batches, may happen between any two of its steps."""
    step = 1
    while True:
        books = open_books()
        books.ship("other", range(10))
        others = partial(books.ship, "other", range(12, 20))
        books.fault.action = books.rebuild if what == "rebuild" else others
        books.fault.set(step, "")
        books.ship_if_it_can("one", range(5, 15))
        happened, books.fault.action = books.fault.happened, None
        books.check()
        if not happened:
            break
        step += 1
    assert step > 1


@pytest.mark.parametrize("mode", MODES)
def test_a_rebuild_that_fails_at_any_step_does_no_harm(open_books, mode):
    """What is waiting while it runs, and what comes afterwards, counts once; so it does after the next one."""
    for step in range(1, 30, 3):
        books = open_books()
        books.ship("other", range(10))
        books.fault.set(5, "before")
        books.ship_if_it_can("one", range(5, 15))
        books.fault.set(step, mode)
        with suppress(StoreUnavailable):
            books.rebuild()
        books.check()
        books.ship("one", range(20, 25))
        books.rebuild()
        books.check()


def test_what_is_shipped_while_a_rebuild_runs_counts_once(open_books):
    """At any moment of it: shipping is refused and repeated, or counted."""
    books = open_books()
    books.ship("other", range(10))
    books.fault.set(5, "after")
    books.ship_if_it_can("one", range(5, 15))
    for number, _ in enumerate(books.log.rebuild()):
        books.ship_if_it_can("one", ())
        books.ship_if_it_can("other", range(20 + number, 22 + number))

    books.check()


_faults = st.tuples(st.integers(0, 8), st.sampled_from(MODES))
_batches = st.lists(st.integers(0, 30), min_size=1, max_size=8)
_events = st.one_of(
    st.tuples(st.just("ship"), st.sampled_from("abc"), _batches, _faults),
    st.tuples(st.just("rebuild"), st.just(""), st.just([]), st.tuples(st.integers(0, 20), st.sampled_from(MODES))),
)


@given(events=st.lists(_events, max_size=10))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_counts_each_record_once(open_books, events):
    """Batches that overlap, fail, are repeated, and rebuilds that fail: the sums are those of the distinct records."""
    books = open_books()
    for kind, source, numbers, (step, mode) in events:
        books.fault.set(step, mode)
        if kind == "ship":
            books.ship_if_it_can(source, numbers)
        else:
            with suppress(StoreUnavailable):
                books.rebuild()
            books.clock.advance(3600)
    books.check()
