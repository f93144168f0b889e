"""Every counter store against a model of it, in any order of events; the model shares no code with the product."""

from __future__ import annotations

import itertools
import secrets
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from llmgateway.ratelimit.memory import MemoryCounters
from llmgateway.ratelimit.reservations import Commit, CounterRequest, Decision, Kind, Reading
from llmgateway.stores.redis.connection import RedisConnection
from llmgateway.stores.redis.counters import RedisCounters
from llmgateway.stores.sqlite import COUNTERS, SQLiteCounters, SQLiteDatabase
from tests.conftest import Clock

PEOPLE = ["ada", "bob", "cyd"]
TOTALS = ["usd", "requests"]


@dataclass
class Entry:
    """An amount that was reserved, or the true one: one line for each, never summed up."""

    reservation: str
    counter: str
    second: int
    amount: int


@dataclass
class Held:
    ends_at: float
    counter_requests: tuple[CounterRequest, ...]
    epochs: dict[str, int]
    second: int


@dataclass
class Model:
    """What the contract says, in the slowest and plainest way."""

    clock: Clock
    entries: list[Entry] = field(default_factory=list)
    running: dict[str, Held] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    initialised_at: dict[str, int] = field(default_factory=dict)
    asked: dict[tuple[str, str], int] = field(default_factory=dict)
    waiting: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    @property
    def second(self) -> int:
        return int(self.clock.now)

    def seconds(self, counter: str) -> dict[int, int]:
        """What each second of a window holds."""
        sums: dict[int, int] = {}
        for entry in self.entries:
            if entry.counter == counter and self.second - entry.second <= 60:
                sums[entry.second] = sums.get(entry.second, 0) + entry.amount
        return {second: amount for second, amount in sorted(sums.items()) if amount}

    def held(self, counter: str) -> int:
        return sum(
            counter_request.amount
            for held in self.running.values()
            for counter_request in held.counter_requests
            if counter_request.counter == counter and held.epochs.get(counter) == self.epochs.get(counter)
        )

    def used(self, counter_request: CounterRequest) -> int:
        if counter_request.kind == Kind.WINDOW:
            return sum(self.seconds(counter_request.counter).values())
        return self.spent.get(counter_request.counter, 0) + self.held(counter_request.counter)

    def free_at(self, counter: str, used: int, amount: int, limit: int) -> int:
        free_at = 0
        for second, left in self.seconds(counter).items():
            free_at, used = second + 61, used - left
            if used + amount <= limit:
                break
        return free_at

    def read(self, counter_request: CounterRequest) -> Reading:
        used = self.used(counter_request)
        fits = counter_request.limit is None or used + counter_request.amount <= counter_request.limit
        if counter_request.kind != Kind.WINDOW:
            held = self.held(counter_request.counter)
            if counter_request.kind == Kind.TOTAL and counter_request.at_least is not None and not held and not fits:
                fits = used + counter_request.at_least <= counter_request.limit
            return Reading(used, held, fits, 0, 0)
        free_at = (
            0 if fits else self.free_at(counter_request.counter, used, counter_request.amount, counter_request.limit)
        )
        empty_at = max(self.seconds(counter_request.counter), default=-61) + 61
        return Reading(used, 0, fits, max(0, free_at - self.clock.now), max(0, empty_at - self.clock.now))

    def expire(self) -> None:
        self.running = {name: held for name, held in self.running.items() if held.ends_at > self.clock.now}

    def reserve(self, name: str, counter_requests: tuple[CounterRequest, ...], lease: float) -> Decision:
        self.expire()
        uninitialised = self.uninitialised(counter_requests)
        if uninitialised:
            return Decision(admitted=False, readings=(), uninitialised=uninitialised)
        plain = [self.read(counter_request) for counter_request in counter_requests]
        readings = []
        for counter_request, reading in zip(counter_requests, plain, strict=True):
            if counter_request.own and counter_request.limit is not None:
                elsewhere = all(
                    other.fits
                    for at, other in zip(counter_requests, plain, strict=True)
                    if not (at.own and at.limit is not None)
                )
                reading = self.shared(counter_request, reading, elsewhere)
            readings.append(reading)
        admitted = all(reading.fits for reading in readings)
        if admitted:
            granted = tuple(
                one._replace(amount=min(one.amount, one.limit - reading.used)) if one.at_least and one.limit else one
                for one, reading in zip(counter_requests, readings, strict=True)
            )
            self.running[name] = Held(self.clock.now + lease, granted, dict(self.epochs), self.second)
            for counter_request in counter_requests:
                if counter_request.kind == Kind.WINDOW:
                    self.entries.append(Entry(name, counter_request.counter, self.second, counter_request.amount))
                if counter_request.own and counter_request.limit is not None:
                    self.waiting.pop((counter_request.counter, counter_request.own), None)
        return Decision(admitted=admitted, readings=tuple(readings))

    def shared(self, counter_request: CounterRequest, reading: Reading, fits_elsewhere: bool) -> Reading:
        me, limit = (counter_request.counter, counter_request.own), counter_request.limit
        self.asked[me] = max(self.asked.get(me, 0), self.second + 61)
        others = [
            waiting
            for who, waiting in self.waiting.items()
            if who[0] == counter_request.counter and who != me and waiting[1] > self.second
        ]
        people = sum(who[0] == counter_request.counter and until > self.second for who, until in self.asked.items())
        mine = sum(self.seconds(counter_request.own).values())
        below = mine < limit / people
        if not reading.fits:
            if below and fits_elsewhere:
                free_at = self.free_at(counter_request.counter, reading.used, counter_request.amount, limit)
                until = max(free_at, self.second) + 5
                self.waiting[me] = (counter_request.amount, until)
                self.asked[me] = max(self.asked[me], until)
            return reading
        kept = sum(amount for amount, _ in others)
        if below or not others or reading.used + counter_request.amount + kept <= limit:
            return reading
        free_at = self.free_at(counter_request.counter, reading.used + kept, counter_request.amount, limit)
        free_at = min(free_at, max(until for _, until in others))
        return reading._replace(fits=False, wait=max(0, free_at - self.clock.now))

    def commit(self, name: str, counter_requests: tuple[CounterRequest, ...]) -> None:
        self.expire()
        held = self.running.pop(name, None)
        for counter_request in counter_requests:
            known = held is not None and counter_request.counter in {
                reserved.counter for reserved in held.counter_requests
            }
            if counter_request.kind == Kind.WINDOW and known:
                (entry,) = (
                    entry
                    for entry in self.entries
                    if (entry.reservation, entry.counter) == (name, counter_request.counter)
                )
                if self.second - entry.second <= 60:
                    entry.amount = counter_request.amount
                else:
                    rest = max(0, counter_request.amount - entry.amount)
                    self.entries.append(Entry(name, counter_request.counter, self.second, rest))
            elif counter_request.kind == Kind.WINDOW:
                self.entries.append(Entry(name, counter_request.counter, self.second, counter_request.amount))
            elif counter_request.kind == Kind.TOTAL and counter_request.counter in self.spent:
                self.spent[counter_request.counter] += counter_request.amount

    def renew(self, names: list[str], lease: float) -> None:
        self.expire()
        for name in names:
            if name in self.running:
                self.running[name].ends_at = self.clock.now + lease

    def look(self, counter_requests: tuple[CounterRequest, ...]) -> Decision:
        self.expire()
        uninitialised = self.uninitialised(counter_requests)
        readings = () if uninitialised else tuple(self.read(counter_request) for counter_request in counter_requests)
        admitted = not uninitialised and all(reading.fits for reading in readings)
        return Decision(admitted=admitted, readings=readings, uninitialised=uninitialised)

    def uninitialised(self, counter_requests: tuple[CounterRequest, ...]) -> tuple[str, ...]:
        return tuple(
            counter_request.counter
            for counter_request in counter_requests
            if counter_request.kind == Kind.TOTAL and not self.knows(counter_request.counter)
        )

    def knows(self, counter: str) -> bool:
        if counter not in self.spent:
            return False
        age = self.second - self.initialised_at[counter]
        return age <= 600 or (age <= 3600 and self.held(counter) > 0)

    def initialise(self, counter: str, used: int) -> None:
        self.expire()
        if not self.knows(counter):
            self.spent[counter] = used
            self.initialised_at[counter] = self.second
            self.epochs[counter] = secrets.randbits(53)

    def forget(self, counter: str) -> None:
        self.spent.pop(counter, None)
        self.epochs.pop(counter, None)


amounts = st.integers(0, 6)


def request(
    person: str, amount: int, limits: list[int | None], wanted: set[str], at_least: int | None = None
) -> tuple[CounterRequest, ...]:
    """What one of the people wants of some of the counters; few choices, so that Hypothesis gets far."""
    own = CounterRequest(counter=f"{person}:tokens", kind=Kind.WINDOW, amount=amount, limit=limits[0])
    counter_requests = [
        own,
        CounterRequest(counter="all:tokens", kind=Kind.WINDOW, amount=amount, limit=limits[1], own=own.counter),
        CounterRequest(counter="all:requests", kind=Kind.WINDOW, amount=1, limit=limits[2], own=own.counter),
        CounterRequest(counter="all:parallel", kind=Kind.GAUGE, amount=1, limit=limits[0]),
        CounterRequest(
            counter="usd",
            kind=Kind.TOTAL,
            amount=amount if at_least is None else amount + at_least,
            limit=limits[1],
            at_least=at_least,
        ),
        CounterRequest(counter="requests", kind=Kind.TOTAL, amount=1, limit=limits[2]),
    ]
    return tuple(
        counter_request
        for counter_request in counter_requests
        if counter_request is own or counter_request.counter in wanted
    )


REQUESTS = st.builds(
    request,
    st.sampled_from(PEOPLE),
    amounts,
    st.sampled_from([[None, 10, 10], [10, 10, None], [4, 10, 6], [6, 20, 4], [None, None, None]]),
    st.sampled_from(
        [
            {"all:tokens"},
            {"all:tokens"},
            {"all:tokens", "all:requests"},
            {"all:parallel"},
            {"usd"},
            {"usd", "requests"},
            {"all:tokens", "all:requests", "all:parallel", "usd", "requests"},
        ]
    ),
    st.sampled_from([None, None, 1, 3]),
)


ALL = (
    *(CounterRequest(counter=f"{person}:tokens", kind=Kind.WINDOW, amount=1, limit=3) for person in PEOPLE),
    CounterRequest(counter="all:tokens", kind=Kind.WINDOW, amount=2, limit=10),
    CounterRequest(counter="all:requests", kind=Kind.WINDOW, amount=2, limit=5),
    CounterRequest(counter="all:parallel", kind=Kind.GAUGE, amount=2, limit=10),
    *(CounterRequest(counter=counter, kind=Kind.TOTAL, amount=2, limit=10) for counter in TOTALS),
)


class Comparison(RuleBasedStateMachine):
    """Does everything to the store and to the model; both must say the same."""

    def __init__(self, open_store: Any) -> None:
        super().__init__()
        self.clock = Clock()
        self.model = Model(self.clock)
        self.opened = ExitStack()
        self.start = open_store(self.opened, self.clock)
        self.store = self.start()
        self.made: dict[str, tuple[CounterRequest, ...]] = {}
        self.names = itertools.count()

    def teardown(self) -> None:
        self.opened.close()

    @initialize(used=st.integers(0, 3))
    def begin(self, used: int) -> None:
        for counter in TOTALS:
            self.initialise(counter, used)

    @rule(seconds=st.sampled_from([0.25, 0.75, 1, 3, 5, 20, 59.75, 60, 61, 100]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        seconds=st.sampled_from([480, 541, 600, 601, 3540, 3600, 3601]),
        held=st.integers(0, 3),
        used=st.none() | st.integers(0, 5),
    )
    def grow_old(self, seconds: int, held: int, used: int | None) -> None:
        """Nothing happens for long, with a request that holds something meanwhile, and totals are initialised again."""
        lease = 10_000 if held else 10
        self.reserve([(request("ada", held, [None, None, None], {"usd"}), 0)], lease)
        self.clock.advance(seconds)
        if used is not None:
            for counter in TOTALS:
                self.initialise(counter, used)
        self.look()

    @rule(
        several=st.lists(st.tuples(REQUESTS, st.sampled_from([0, 0, 0.25, 5])), min_size=1, max_size=8),
        lease=st.sampled_from([0.5, 10, 90, 1000, 1000]),
    )
    def reserve(self, several: list[tuple[tuple[CounterRequest, ...], float]], lease: float) -> None:
        for counter_requests, seconds in several:
            name = f"request {next(self.names)}"
            self.made[name] = counter_requests

            assert self.model.reserve(name, counter_requests, lease) == self.store.reserve(
                name, counter_requests, lease=lease
            )
            self.clock.advance(seconds)

    @rule(
        people=st.permutations(PEOPLE),
        first=st.integers(1, 9),
        wanted=st.integers(1, 4),
        again=st.integers(1, 9),
        pauses=st.lists(st.sampled_from([0.25, 1, 5, 55, 56]), min_size=3, max_size=3),
    )
    def run_short(self, people: list[str], first: int, wanted: int, again: int, pauses: list[float]) -> None:
        """One takes all, others come too late, and all of them come again."""
        hog, early, late = people
        tokens, limits = {"all:tokens"}, [None, 10, 10]
        steps = [(hog, first), (hog, 10 - first), (early, wanted), (late, wanted), (hog, again), (late, wanted)]
        for (person, amount), pause in zip(steps, [pauses[0], 0, 0, pauses[1], pauses[2], 0], strict=True):
            self.reserve([(request(person, amount, limits, tokens), pause)], 1000)

    @rule(data=st.data(), amounts=st.lists(amounts, min_size=1, max_size=4), running=st.booleans())
    def commit(self, data: Any, amounts: list[int], running: bool) -> None:
        for amount in amounts:
            names = [name for name in self.made if not running or name in self.model.running]
            if names:
                name = data.draw(st.sampled_from(names))
                counter_requests = tuple(
                    counter_request._replace(amount=amount) for counter_request in self.made.pop(name)
                )
                self.model.commit(name, counter_requests)
                self.store.commit([Commit(name, counter_requests)])
        self.look()

    @rule(data=st.data(), lease=st.sampled_from([0.5, 30, 1000]))
    def renew(self, data: Any, lease: float) -> None:
        names = data.draw(st.lists(st.sampled_from([*self.made, "unheard of"]), unique=True))
        self.model.renew(names, lease)
        self.store.renew(names, lease=lease)

    @rule(counter=st.sampled_from(TOTALS), used=st.integers(0, 5))
    def initialise(self, counter: str, used: int) -> None:
        self.model.initialise(counter, used)
        self.store.initialise(counter, used, until=None)

    @rule(counter=st.sampled_from(TOTALS), used=st.none() | st.integers(0, 5))
    def forget(self, counter: str, used: int | None) -> None:
        self.model.forget(counter)
        self.store.forget([counter])
        if used is not None:
            self.initialise(counter, used)

    @rule()
    def restart(self) -> None:
        """The process stops gently, and another one goes on."""
        self.store.flush()
        self.store = self.start()

    @rule()
    def look(self) -> None:
        assert self.model.look(ALL) == self.store.look(ALL)


def check(open_store: Any) -> None:
    # A failure is shown as it was found: to make it short takes minutes. Add Phase.shrink to look for the cause.
    found = settings(max_examples=150, stateful_step_count=40, deadline=None, phases=[Phase.reuse, Phase.generate])
    run_state_machine_as_test(lambda: Comparison(open_store), settings=found)


def test_sqlite_counts_like_the_model(tmp_path):
    """In a file."""

    def open_store(opened, clock):
        stored = open_sqlite(opened, clock, tmp_path)
        return lambda: stored

    check(open_store)


def test_memory_counts_like_the_model(tmp_path):
    """In the process, which writes everything down when it stops; and in a file in between."""

    def open_store(opened, clock):
        stored = open_sqlite(opened, clock, tmp_path)
        kinds = itertools.cycle([lambda: MemoryCounters(clock=clock, stored=stored), lambda: stored])
        return lambda: next(kinds)()

    check(open_store)


def open_sqlite(opened: ExitStack, clock: Clock, folder: Path) -> SQLiteCounters:
    path = folder / f"{secrets.token_hex(6)}.sqlite"
    database = opened.enter_context(closing(SQLiteDatabase(path, migrations=COUNTERS, durable=False)))
    return SQLiteCounters(database, clock=clock)


def test_redis_counts_like_the_model(redis_server):
    """In Redis."""

    def open_store(opened, clock):
        connection = RedisConnection(redis_server.url, namespace=f"test-{secrets.token_hex(6)}", timeout=10)
        opened.enter_context(closing(connection))
        return lambda: RedisCounters(connection, clock=clock)

    check(open_store)
