"""What is used and left of limits, and when they renew: of many scopes with few questions to the stores."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.local_time import TimeZones
from llmgateway.ratelimit.allowances import COUNTERS_AT_ONCE, Allowance, AllowanceReader
from llmgateway.ratelimit.memory import MemoryCounters
from llmgateway.ratelimit.periods import LocalDay
from llmgateway.ratelimit.reservations import Commit
from llmgateway.ratelimit.rules import limits_of_scope
from llmgateway.ratelimit.scopes import Scope
from llmgateway.records import (
    UNLIMITED,
    Batch,
    Budget,
    Group,
    KeyRecord,
    Limits,
    Organisation,
    Period,
    Person,
    Unit,
    moment,
)
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.spending import LoggedSpending
from llmgateway.stores.sqlite import SQLiteDatabase, SQLiteUsageLog
from tests.parts import NEW_YEAR, draft

EVERY_LIMIT = Limits(
    requests_per_minute=10,
    tokens_per_minute=1000,
    parallel_requests=4,
    budget=Budget(amount=5, unit=Unit.USD, period=Period.MONTH),
)


def key(number: int = 1, limits: Limits = EVERY_LIMIT) -> Scope:
    record = KeyRecord(id=f"key_{number}", digest=str(number), user="ada", name="x", created_at=NEW_YEAR, limits=limits)
    return Scope.of_key(record, NEW_YEAR)


def budget(amount: float, unit: Unit, period: Period = Period.MONTH) -> Limits:
    return Limits(budget=Budget(amount=amount, unit=unit, period=period))


class Watched:
    """The stores of the reader, which count the questions."""

    def __init__(self, database: SQLiteDatabase, clock) -> None:
        self.clock = clock
        self.counters = MemoryCounters(clock=clock)
        self.log = SQLiteUsageLog(database)
        self.spending = LoggedSpending(self.log, circuit=Circuit("the log", retry_after=1, clock=clock))
        self.looks: list[int] = []
        self.sums = 0
        self.settled = self.shipped = 0
        self.log_is_away = False
        self.reader = AllowanceReader(self, self, settle=self._settle, ship=self._ship, clock=clock)
        self._batches = 0

    def look(self, counter_requests):
        self.looks.append(len(counter_requests))
        return self.counters.look(counter_requests)

    def by_name(self, groupings, names, *, first_day):
        self.sums += 1
        if self.log_is_away:
            raise StoreUnavailable("away")
        return self.spending.by_name(groupings, names, first_day=first_day)

    def use(self, scope: Scope, *, ends: bool, **amounts: int) -> None:
        """Reserve amounts of the limits of *scope*, initialised by 0, and end that."""
        requests = [
            limit.counter_request.with_amount(amounts[limit.part])
            for limit in limits_of_scope(scope, LocalDay.at(moment(self.clock()), TimeZones()))
        ]
        for request in requests:
            if "usd" in request.counter:
                self.counters.initialise(request.counter, 0, until=request.until)
        assert self.counters.reserve(f"use-{scope}", requests, lease=3600).admitted
        if ends:
            self.counters.commit([Commit(f"use-{scope}", tuple(requests))])

    def record(self, number: int, **fields) -> None:
        self._batches += 1
        fields = {"id": f"record-{number}", "timestamp": moment(self.clock())} | fields
        self.log.append([draft(**fields)], batch=Batch("watched", self._batches))

    def _settle(self) -> None:
        self.settled += 1

    def _ship(self) -> None:
        self.shipped += 1


@pytest.fixture
def stores(tmp_path, clock):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield Watched(database, clock)


def test_says_of_every_limit_what_is_used_and_left_and_when_it_renews(stores, clock):
    """Windows renew when they are empty, budgets at the end of their period, and running requests have no end."""
    amounts = {"requests_per_minute": 3, "tokens_per_minute": 400, "parallel_requests": 1, "budget": 750_000_000}
    stores.use(key(), ends=True, **amounts)
    clock.advance(20)

    (found,) = stores.reader.of([key()])

    in_41_seconds = moment(clock() + 41)
    assert {
        "requests_per_minute": Allowance(10, 3, 7, in_41_seconds),
        "tokens_per_minute": Allowance(1000, 400, 600, in_41_seconds),
        "parallel_requests": Allowance(4, 0, 4, None),
        "budget": Allowance(5, 0.75, 4.25, datetime(2026, 2, 1, tzinfo=UTC), EVERY_LIMIT.budget),
    } == found


def test_what_runs_has_spent_nothing_yet(stores):
    """Requests that run use places and windows. Of a budget they hold something, which may come back."""
    amounts = {"requests_per_minute": 1, "tokens_per_minute": 100, "parallel_requests": 3, "budget": 10**9}
    stores.use(key(), ends=False, **amounts)

    (found,) = stores.reader.of([key()])

    assert (1, 100, 3, 0) == tuple(allowance.used for allowance in found.values())
    assert (9, 900, 1, 5) == tuple(allowance.left for allowance in found.values())


def test_a_window_of_which_nothing_is_used_need_not_renew(stores):
    """And a limit that was lowered below what is used has nothing left, not less than that."""
    windows = Limits(requests_per_minute=10)
    assert {"requests_per_minute": Allowance(10, 0, 10, None)} == stores.reader.of([key(1, windows)])[0]

    stores.use(key(1, windows), ends=True, requests_per_minute=9)
    (lowered,) = stores.reader.of([key(1, Limits(requests_per_minute=5))])
    assert (5, 9, 0) == lowered["requests_per_minute"][:3]


@pytest.mark.parametrize(
    ("unit", "period", "used", "renews_at"),
    [
        (Unit.USD, Period.DAY, 0.25, datetime(2026, 3, 16, tzinfo=UTC)),
        (Unit.USD, Period.MONTH, 0.5, datetime(2026, 4, 1, tzinfo=UTC)),
        (Unit.TOKENS, Period.MONTH, 20, datetime(2026, 4, 1, tzinfo=UTC)),
        (Unit.USD, Period.WEEK, 0.5, datetime(2026, 3, 16, tzinfo=UTC)),
        (Unit.REQUESTS, Period.TOTAL, 3, None),
    ],
)
def test_a_budget_without_counters_is_read_from_the_usage_log(stores, clock, unit, period, used, renews_at):
    """Of its own period, and without initialising its counter: nothing changes by looking."""
    clock.now = datetime(2026, 3, 15, 12, tzinfo=UTC).timestamp()
    for number, days in enumerate((0, 5, 40)):
        stores.record(
            number,
            key_id="key_1",
            timestamp=moment(clock()) - timedelta(days=days),
            total_tokens=10,
            cost_usd=0.25,
        )
    limits = budget(100, unit, period)

    for _ in range(2):
        (found,) = stores.reader.of([key(1, limits)])
        assert {"budget": Allowance(100, used, 100 - used, renews_at, limits.budget)} == found
    assert (2, 2) == (stores.sums, stores.shipped)


def test_periods_are_those_of_the_organisation(stores, clock):
    """A day in Berlin begins an hour or two before the one in UTC, and renews then."""
    clock.now = datetime(2026, 3, 15, 23, 30, tzinfo=UTC).timestamp()
    limits = budget(5, Unit.REQUESTS, Period.DAY)
    reader = AllowanceReader(
        stores,
        stores,
        settle=lambda: None,
        ship=lambda: None,
        clock=clock,
        zones=lambda _: TimeZones(("Europe/Berlin",)),
    )

    assert datetime(2026, 3, 16, 23, tzinfo=UTC) == reader.of([key(1, limits)])[0]["budget"].renews_at


def test_every_kind_of_scope_is_read_by_the_same_way(stores):
    """A group has what its keys have used, a person what theirs have, a member what theirs have in the group, the
    organisation what everybody has, and one without limits has nothing."""
    stores.record(1, key_id="key_1", group="ml", user="ada", total_tokens=1)
    stores.record(2, key_id="key_2", group="ml", user="alan", total_tokens=10)
    stores.record(3, key_id="key_3", group="ML", user="ada", total_tokens=100)
    limits = budget(1000, Unit.TOKENS)
    group = Group(name="ml", created_at=NEW_YEAR, limits=limits, member_limits=limits)
    ada = Person(user="ada", limits=limits)
    scopes = [
        key(1, limits),
        key(2, UNLIMITED),
        Scope.of_group(group, NEW_YEAR),
        Scope.of_group(replace(group, name="ML"), NEW_YEAR),
        Scope.of_group(replace(group, name="nobody's"), NEW_YEAR),
        Scope.of_organisation(Organisation(limits=limits)),
        Scope.of_person(ada, NEW_YEAR),
        Scope.of_person(replace(ada, user="Ada"), NEW_YEAR),
        Scope.of_member(group, "ada", ada, NEW_YEAR),
        Scope.of_member(group, "alan", None, NEW_YEAR),
        Scope.of_member(replace(group, name="ML"), "alan", None, NEW_YEAR),
    ]

    found = stores.reader.of(scopes)

    used = [allowances["budget"].used if allowances else None for allowances in found]
    assert [1, None, 11, 100, 0, 111, 101, 0, 1, 10, 0] == used
    assert [] == stores.reader.of([])


def test_while_the_usage_log_is_away_what_is_used_is_not_known(stores):
    """It is not said to be nothing. What the counters know is said all the same."""
    stores.use(key(1), ends=True, requests_per_minute=1, tokens_per_minute=2, parallel_requests=1, budget=10**9)
    stores.log_is_away = True

    counted, unknown = stores.reader.of([key(1), key(2)])

    assert (1, 4) == counted["budget"][1:3]
    assert (5, None, None) == unknown["budget"][:3]
    assert (0, 10) == unknown["requests_per_minute"][1:3]


def test_a_page_of_keys_needs_few_questions(stores, clock):
    """A hundred keys with four limits each: two looks, of the counters and then of those that are there, and one sum
    for each period that has uninitialised budgets."""
    clock.now = datetime(2026, 3, 15, 12, tzinfo=UTC).timestamp()
    periods = [Period.DAY, Period.MONTH, Period.TOTAL]
    keys = [
        key(number, replace(EVERY_LIMIT, budget=replace(EVERY_LIMIT.budget, period=periods[number % 3])))
        for number in range(100)
    ]

    stores.reader.of(keys)

    assert [400, 300] == stores.looks
    assert (3, 1, 1) == (stores.sums, stores.settled, stores.shipped)


def test_many_keys_are_read_in_steps(stores):
    """No question is so long that others wait for its answer."""
    found = stores.reader.of([key(number) for number in range(1000)])

    assert 1000 == len(found)
    assert max(stores.looks) <= COUNTERS_AT_ONCE
    assert (16, 1) == (len(stores.looks), stores.sums)


def test_budgets_that_are_forgotten_at_the_same_moment_are_read_from_the_log(stores):
    """Each look may find others that have to be initialised: after some of them the usage log answers."""
    keys = [key(number) for number in range(5)]
    names = [
        limit.counter_request for one in keys for limit in limits_of_scope(one, LocalDay.at(NEW_YEAR, TimeZones()))
    ]
    totals = [request for request in names if "usd" in request.counter]
    for request in totals:
        stores.counters.initialise(request.counter, 10**9, until=None)
    look = stores.counters.look

    def forgetting(counter_requests):
        if totals:
            stores.counters.forget([totals.pop().counter])
        return look(counter_requests)

    stores.counters.look = forgetting

    assert {0} == {allowances["budget"].used for allowances in stores.reader.of(keys)}
