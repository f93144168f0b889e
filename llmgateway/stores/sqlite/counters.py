"""The counters behind limits, in an embedded database: a file that the processes of a host share, or memory."""

from __future__ import annotations

import os
import sqlite3
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeVar

import orjson

from llmgateway.clock import Clock
from llmgateway.errors import StoreUnavailable
from llmgateway.reservations import Claim, Decision, Kind, Proof, Reading, Settlement

from .fair_share import FairShare
from .tallies import TALLIES, Tally, Total, Window

T = TypeVar("T")

RETURNED_AT_ONCE = 50
"""Leases that ran out and are cleared away by one turn: dead processes are paid for in small coins."""
SWEPT_AT_ONCE = 100
"""Counters that are looked at once a second, for whether anybody has used them lately."""
SETTLED_AT_ONCE = 100
"""Settlements of one turn, so that those who reserve do not wait long."""
JOBS_AT_ONCE = 100
"""What one turn does for the threads that wait for it."""
ROWS_AT_ONCE = 16
"""So many rows are written, and names looked up, by one statement: few statements, and not many different ones."""

COUNTERS: tuple[tuple[str, ...], ...] = (
    (
        # The whole numbers of tallies.py, eight bytes each: one row to read and one to write for
        # each counter, however many seconds a window has.
        """CREATE TABLE counters (
            name TEXT NOT NULL PRIMARY KEY,
            expires_at INTEGER NOT NULL,
            numbers BLOB NOT NULL
        )""",
        # What each holds is JSON: [[counter, kind, amount, mark], …].
        """CREATE TABLE leases (
            reservation TEXT NOT NULL PRIMARY KEY,
            expires_at REAL NOT NULL,
            claims BLOB NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX leases_end ON leases (expires_at)",
        # Those who share a window: who asked within the last minute, and who waits.
        """CREATE TABLE askers (
            counter TEXT NOT NULL,
            own TEXT NOT NULL,
            until INTEGER NOT NULL,
            PRIMARY KEY (counter, own)
        ) WITHOUT ROWID""",
        """CREATE TABLE waiting (
            counter TEXT NOT NULL,
            own TEXT NOT NULL,
            amount INTEGER NOT NULL,
            until INTEGER NOT NULL,
            PRIMARY KEY (counter, own)
        ) WITHOUT ROWID""",
    ),
)
"""The shape of the database, as the list of steps that lead to it; see ``schema.py``."""


class Database(Protocol):
    """What the counters need of one."""

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]: ...


class SQLiteCounters:
    """A :class:`~llmgateway.interfaces.CounterStore`: every call is one transaction, and they take turns.

    What several threads want at the same time is done in one: each statement lets go of Python's lock, and
    in a busy process getting it back takes longer than the statement. Whoever comes first does the work of
    those who have come meanwhile.

    Args:
        database: Of the shape ``COUNTERS``.
        clock: Seconds since the epoch, the same for everybody who shares the database.
    """

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._by_process: dict[int, _Queue] = {}

    def reserve(
        self, reservation: str, claims: Sequence[Claim], *, lease: float, proof: Proof | None = None
    ) -> Decision:
        if proof is not None:  # keys are not kept here
            return Decision(admitted=False, readings=(), proven=False)
        return self._do(lambda turn: turn.reserve(reservation, claims, lease=lease), _named(claims))

    def settle(self, settlements: Sequence[Settlement]) -> None:
        for start in range(0, len(settlements), SETTLED_AT_ONCE):
            self._settle(settlements[start : start + SETTLED_AT_ONCE])

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        self._do(lambda turn: turn.renew(reservations, lease=lease))

    def look(self, claims: Sequence[Claim]) -> Decision:
        return self._do(lambda turn: turn.look(claims), _named(claims))

    def seed(self, counter: str, used: int, *, until: int | None) -> None:
        self._do(lambda turn: turn.seed(counter, used, until=until), [(counter, Kind.TOTAL)])

    def confirm(self, counter: str) -> bool:
        return self._do(lambda turn: turn.confirm(counter), [(counter, Kind.TOTAL)])

    def forget(self, counters: Sequence[str]) -> None:
        self._do(lambda turn: turn.forget(counters))

    def _settle(self, settlements: Sequence[Settlement]) -> None:
        self._do(
            lambda turn: turn.settle(settlements),
            _named(claim for settlement in settlements for claim in settlement.claims),
            ending=[settlement.reservation for settlement in settlements],
        )

    def _do(
        self,
        work: Callable[[_Turn], T],
        counters: Sequence[tuple[str, str]] = (),
        *,
        ending: Sequence[str] = (),
    ) -> T:
        queue = self._queue()
        job = _Job(work, counters, ending)
        queue.jobs.append(job)  # type: ignore[arg-type]
        with queue.working:
            while not job.is_done:
                self._work(queue)
        return job.result()

    def _queue(self) -> _Queue:
        # By process: a child never touches its parent's, whose lock may have been held when it forked.
        queue = self._by_process.get(os.getpid())
        return queue or self._by_process.setdefault(os.getpid(), _Queue())

    def _work(self, queue: _Queue) -> None:
        jobs = [queue.jobs.popleft() for _ in range(min(len(queue.jobs), JOBS_AT_ONCE))]
        try:
            self._try(jobs, queue)
        finally:
            for job in jobs:
                job.is_done = True

    def _try(self, jobs: Sequence[_Job[object]], queue: _Queue) -> None:
        """Do *jobs* in one transaction. If it is one of them that fails, only that one does."""
        try:
            self._do_all(jobs, queue)
        except Exception as error:  # noqa: BLE001 - the threads raise it
            # Nothing of it is done, and nobody was counted.
            queue.asked.clear()
            if len(jobs) > 1 and not isinstance(error, StoreUnavailable):
                for job in jobs:
                    self._try([job], queue)
                return
            for job in jobs:
                job.error = error

    def _do_all(self, jobs: Sequence[_Job[object]], queue: _Queue) -> None:
        with self._database.transaction() as connection:
            turn = self._turn(connection, queue)
            turn.take([reservation for job in jobs for reservation in job.ending])
            turn.load({counter: kind for job in jobs for counter, kind in job.counters}.items())
            for job in jobs:
                job.do(turn)
            turn.store()

    def _turn(self, connection: sqlite3.Connection, queue: _Queue) -> _Turn:
        # The time is asked when the transaction has begun: then it goes the way of the transactions.
        turn = _Turn(connection, self._clock(), queue.asked)
        turn.give_back()
        if turn.second != queue.swept_at:
            queue.swept_at = turn.second
            queue.swept_to = turn.sweep(queue.swept_to)
            queue.asked.clear()
        return turn


class _Queue:
    """What the threads of one process want done, who does it, and what that one remembers from turn to turn."""

    __slots__ = ("asked", "jobs", "swept_at", "swept_to", "working")

    def __init__(self) -> None:
        self.jobs: deque[_Job[object]] = deque()
        self.working = threading.Lock()
        self.swept_at = 0
        self.swept_to = ""
        self.asked: dict[tuple[str, str], int] = {}


class _Job(Generic[T]):
    """What one thread wants done, and what came of it."""

    __slots__ = ("_result", "_work", "counters", "ending", "error", "is_done")

    def __init__(self, work: Callable[[_Turn], T], counters: Sequence[tuple[str, str]], ending: Sequence[str]) -> None:
        self._work = work
        self._result: T | None = None
        self.counters = counters
        self.ending = ending
        self.error: Exception | None = None
        self.is_done = False

    def do(self, turn: _Turn) -> None:
        self._result = self._work(turn)

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]


class _Turn:
    """What one transaction knows of the counters: read when first needed, written at its end."""

    def __init__(self, connection: sqlite3.Connection, now: float, asked: dict[tuple[str, str], int]) -> None:
        self._connection = connection
        self.now = now
        self.second = int(now)
        self._asked = asked
        self._tallies: dict[str, Tally] = {}
        self._changed: set[str] = set()
        self._taken: dict[str, bytes] = {}
        self._leases: list[tuple[str, float, bytes]] = []
        self._shares: dict[str, FairShare] = {}

    # What the counters are asked

    def reserve(self, reservation: str, claims: Sequence[Claim], *, lease: float) -> Decision:
        decision = self._judge(claims)
        if decision.admitted and claims:
            held = [
                (claim.counter, claim.kind, claim.amount, self._to_change(claim.counter).claim(claim))
                for claim in claims
            ]
            self._leases.append((reservation, self.now + lease, orjson.dumps(held)))
            for _, claim in _shared(claims):
                self._share(claim).admit(claim)
        return decision

    def look(self, claims: Sequence[Claim]) -> Decision:
        unknown = self._unknown(claims)
        readings = () if unknown else tuple(self._read(claims))
        return _decision(readings, unknown)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        for settlement in settlements:
            self._settle(settlement)

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        self._connection.executemany(
            "UPDATE leases SET expires_at = ? WHERE reservation = ?",
            [(self.now + lease, reservation) for reservation in reservations],
        )

    def seed(self, counter: str, used: int, *, until: int | None) -> None:
        total = self._tallies[counter]
        if isinstance(total, Total) and not total.is_known:
            total.seed(used, until=until)
            self._changed.add(counter)

    def confirm(self, counter: str) -> bool:
        total = self._tallies[counter]
        if not (isinstance(total, Total) and total.numbers):
            return False
        total.confirm()
        self._changed.add(counter)
        return True

    def forget(self, counters: Sequence[str]) -> None:
        self._connection.executemany("DELETE FROM counters WHERE name = ?", [(counter,) for counter in counters])
        for counter in counters:
            if counter in self._tallies:
                self._tallies[counter] = Total(array("q"), self.second)
            self._changed.discard(counter)

    # What they remember

    def load(self, counters: Iterable[tuple[str, str]]) -> None:
        kinds = {name: kind for name, kind in counters if name not in self._tallies}
        for names in _some_at_once(list(kinds)):
            found = dict(
                self._connection.execute(
                    f"SELECT name, numbers FROM counters WHERE name IN ({_places(names)}) AND expires_at > ?",  # noqa: S608
                    (*names, self.second),
                )
            )
            for name in names:
                self._tallies[name] = TALLIES[kinds[name]](array("q", found.get(name, b"")), self.second)

    def take(self, reservations: Sequence[str]) -> None:
        """Take the leases that are about to end; those that ran out have been given back."""
        for some in _some_at_once(reservations):
            self._taken.update(
                self._connection.execute(
                    f"DELETE FROM leases WHERE reservation IN ({_places(some)}) RETURNING reservation, claims",  # noqa: S608
                    some,
                ).fetchall()
            )

    def store(self) -> None:
        rows = [(name, self._tallies[name]) for name in self._changed]
        written = [
            (name, tally.expires_at(), tally.numbers.tobytes())
            for name, tally in rows
            if tally.numbers or not isinstance(tally, Total)
        ]
        self._write(
            "INSERT INTO counters VALUES {} "
            "ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, numbers = excluded.numbers",
            written,
        )
        self._write("INSERT INTO leases VALUES {}", self._leases)

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        for some in _some_at_once(rows):
            self._connection.execute(
                statement.format(", ".join(["(?, ?, ?)"] * len(some))), [value for row in some for value in row]
            )

    def give_back(self) -> None:
        """Let levels and totals have again what is held by leases that ran out."""
        expired = self._connection.execute(
            "SELECT reservation, claims FROM leases WHERE expires_at <= ? LIMIT ?", (self.now, RETURNED_AT_ONCE)
        ).fetchall()
        if not expired:
            return
        self._connection.executemany("DELETE FROM leases WHERE reservation = ?", [(row[0],) for row in expired])
        claims = [claim for _, held in expired for claim in orjson.loads(held)]
        returning = [claim for claim in claims if claim[1] != Kind.WINDOW]
        self.load((counter, kind) for counter, kind, _, _ in returning)
        for counter, _, amount, mark in returning:
            self._to_change(counter).settle(amount, mark, 0)

    def sweep(self, after: str) -> str:
        """Forget some of what nobody uses any more, behind *after* in the order of names; return where to go on."""
        names = self._connection.execute(
            "SELECT name FROM counters WHERE name > ? ORDER BY name LIMIT ?", (after, SWEPT_AT_ONCE)
        ).fetchall()
        last: str = names[-1][0] if names else ""
        self._connection.execute(
            "DELETE FROM counters WHERE name > ? AND name <= ? AND expires_at <= ?", (after, last, self.second)
        )
        if len(names) == SWEPT_AT_ONCE:
            return last
        self._connection.execute("DELETE FROM askers WHERE until <= ?", (self.second,))
        self._connection.execute("DELETE FROM waiting WHERE until <= ?", (self.second,))
        return ""

    def _settle(self, settlement: Settlement) -> None:
        found = self._taken.pop(settlement.reservation, None)
        held = orjson.loads(found) if found else []
        true_amounts = {claim.counter: claim.amount for claim in settlement.claims}
        self.load((counter, kind) for counter, kind, _, _ in held)
        for counter, _, amount, mark in held:
            self._to_change(counter).settle(amount, mark, true_amounts.pop(counter, 0))
        for counter, amount in true_amounts.items():
            self._to_change(counter).add(amount)

    def _to_change(self, counter: str) -> Tally:
        self._changed.add(counter)
        return self._tallies[counter]

    def _judge(self, claims: Sequence[Claim]) -> Decision:
        """Say of each claim whether it fits, with regard to those who share a window."""
        unknown = self._unknown(claims)
        if unknown:
            return _decision((), unknown)
        readings = self._read(claims)
        shared = _shared(claims)
        if shared:
            places = {place for place, _ in shared}
            fits_elsewhere = all(reading.fits for place, reading in enumerate(readings) if place not in places)
            for place, claim in shared:
                windows = self._window(claim.counter), self._window(claim.own)
                readings[place] = self._share(claim).judge(
                    claim, readings[place], *windows, fits_elsewhere=fits_elsewhere
                )
        return _decision(tuple(readings), ())

    def _unknown(self, claims: Sequence[Claim]) -> tuple[str, ...]:
        return tuple(
            claim.counter for claim in claims if claim.kind == Kind.TOTAL and not self._is_known(claim.counter)
        )

    def _is_known(self, counter: str) -> bool:
        total = self._tallies[counter]
        return isinstance(total, Total) and total.is_known

    def _read(self, claims: Sequence[Claim]) -> list[Reading]:
        return [self._tallies[claim.counter].read(claim, self.now) for claim in claims]

    def _window(self, name: str | None) -> Window:
        window = self._tallies.get(name or "")
        if not isinstance(window, Window):
            raise TypeError(f"{name!r} is no window among the claims")
        return window

    def _share(self, claim: Claim) -> FairShare:
        share = self._shares.get(claim.counter)
        if share is None:
            share = self._shares[claim.counter] = FairShare(
                self._connection, claim.counter, self.now, asked=self._asked
            )
        return share


def _named(claims: Iterable[Claim]) -> list[tuple[str, str]]:
    return [(claim.counter, claim.kind) for claim in claims]


def _shared(claims: Sequence[Claim]) -> list[tuple[int, Claim]]:
    """The claims of windows that are shared fairly, with their places."""
    return [(place, claim) for place, claim in enumerate(claims) if claim.own is not None and claim.limit is not None]


def _decision(readings: tuple[Reading, ...], unknown: tuple[str, ...]) -> Decision:
    admitted = not unknown and all(reading.fits for reading in readings)
    return Decision(admitted=admitted, readings=readings, unknown=unknown)


def _some_at_once(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
