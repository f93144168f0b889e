"""The counters for limits in an SQLite file, which the processes of one host share."""

from __future__ import annotations

import logging
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import orjson

from llmgateway.clock import Clock
from llmgateway.ratelimit.counters import Counters, Lease
from llmgateway.ratelimit.fair_share import FairShare, MemoryAskers
from llmgateway.ratelimit.kinds import Counter, counter
from llmgateway.ratelimit.reservations import Commit, CounterRequest, Decision

from .database import SQLiteDatabase
from .rows import insert, places, some_at_once

log = logging.getLogger(__name__)

COMMITTED_AT_ONCE = 100
"""Maximum number of commits in one transaction, so that reservations do not wait long."""
RETURNED_AT_ONCE = 50
"""Maximum number of expired leases that one transaction deletes, for the same reason."""
SWEPT_AT_ONCE = 100
"""Number of counters that are checked each second, to delete those that are no longer used."""

COUNTERS: tuple[tuple[str, ...], ...] = (
    (
        # numbers: the numbers of ratelimit/kinds.py, eight bytes each. So a counter is one row, even if its window
        # contains many seconds.
        """CREATE TABLE counters (
            name TEXT NOT NULL PRIMARY KEY,
            expires_at INTEGER NOT NULL,
            numbers BLOB NOT NULL
        )""",
        # claims: the held amounts as JSON: [[counter, kind, amount, mark], …].
        """CREATE TABLE leases (
            reservation TEXT NOT NULL PRIMARY KEY,
            expires_at REAL NOT NULL,
            claims BLOB NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX leases_end ON leases (expires_at)",
        # Keys that share a window: those that asked within the last minute, and those that wait.
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
    # A process that loads all counters into memory needs their kinds. Before, each counter request named the kind.
    (
        "ALTER TABLE counters ADD COLUMN kind TEXT NOT NULL DEFAULT 'total'",
        "UPDATE counters SET kind = 'window' WHERE name LIKE '%:requests' OR name LIKE '%:tokens'",
        "UPDATE counters SET kind = 'level' WHERE name LIKE '%:parallel'",
    ),
)
"""The schema of ``counters.sqlite``, as a list of migrations; see ``schema.py``."""

_STORE = """
    INSERT INTO counters (name, kind, expires_at, numbers) VALUES {}
    ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, numbers = excluded.numbers
"""
_STORE_LEASES = "INSERT INTO leases VALUES {} ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at"
_STORE_ASKERS = """
    INSERT INTO askers VALUES {}
    ON CONFLICT DO UPDATE SET until = excluded.until WHERE until < excluded.until
"""
_STORE_WAITING = """
    INSERT INTO waiting VALUES {}
    ON CONFLICT DO UPDATE SET amount = excluded.amount, until = excluded.until
"""


class Lock(Protocol):
    """Prevents other processes from counting in memory."""

    def share(self) -> bool:
        """Share the lock until this process ends; False if another process counts in memory. Cheap after success."""
        ...


class SQLiteCounters:
    """A :class:`~llmgateway.interfaces.CounterStore` in SQLite. Every call is one write transaction.

    :class:`~llmgateway.ratelimit.memory.MemoryCounters` also loads and saves its counters here.

    Args:
        database: A database with the migrations ``COUNTERS``.
        clock: Seconds since the epoch, the same clock for all processes that share the database.
        lock: Shared from the first call on. None if no other process uses the database.
    """

    def __init__(self, database: SQLiteDatabase, *, clock: Clock, lock: Lock | None = None) -> None:
        self._database = database
        self._clock = clock
        self._lock = lock
        self._has_warned = False
        self._swept_at = 0
        self._swept_to = ""

    def reserve(self, reservation: str, counter_requests: Sequence[CounterRequest], *, lease: float) -> Decision:
        with self._unit_of_work(_names(counter_requests)) as work:
            work.load_shares(counter_requests)
            return work.counters.reserve(reservation, counter_requests, lease=lease, now=work.now)

    def commit(self, commits: Sequence[Commit]) -> None:
        for start in range(0, len(commits), COMMITTED_AT_ONCE):
            some = commits[start : start + COMMITTED_AT_ONCE]
            names = [name for commit in some for name in _names(commit.counter_requests)]
            with self._unit_of_work(names, [commit.reservation for commit in some]) as work:
                work.counters.commit(some, now=work.now)

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        with self._unit_of_work((), reservations) as work:
            work.counters.renew(reservations, lease=lease, now=work.now)

    def look(self, counter_requests: Sequence[CounterRequest]) -> Decision:
        with self._unit_of_work(_names(counter_requests)) as work:
            return work.counters.look(counter_requests, now=work.now)

    def initialise(self, counter: str, used: int, *, until: int | None) -> None:
        with self._unit_of_work([counter]) as work:
            work.counters.initialise(counter, used, until=until, now=work.now)

    def confirm(self, counter: str) -> bool:
        with self._unit_of_work([counter]) as work:
            return work.counters.confirm(counter, now=work.now)

    def forget(self, counters: Sequence[str]) -> None:
        with self._unit_of_work(counters) as work:
            work.counters.forget(counters)

    def flush(self) -> None:
        """Do nothing: everything is in the file."""

    def take(self) -> Counters:
        """Return all counters, and delete them from the file."""
        with self._database.transaction() as connection:
            counters = _everything(connection)
            for table in ("counters", "leases", "askers", "waiting"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constant names
        return counters

    def add(self, counters: Counters) -> None:
        """Add *counters* to the stored ones."""
        with self._unit_of_work([*counters.counters]) as work:
            work.add(counters)

    @contextmanager
    def _unit_of_work(self, counters: Sequence[str], reservations: Sequence[str] = ()) -> Iterator[_UnitOfWork]:
        """Begin a transaction, and load these counters and leases. Store the changes at the end."""
        with self._database.transaction() as connection:
            if self._lock is not None and not self._lock.share() and not self._has_warned:
                self._has_warned = True
                log.warning("Another process counts limits in its memory. Its counts are not used here until it stops.")
            # The clock is read after the transaction has begun, so that times are in the order of the transactions.
            work = _UnitOfWork(connection, self._clock())
            work.load(counters, reservations)
            yield work
            work.store()
            if self._swept_at != work.second:
                self._swept_at = work.second
                self._swept_to = _sweep(connection, work.second, self._swept_to)


class _UnitOfWork:
    """The rows that one transaction needs. They are loaded, changed in memory, and stored if they have changed."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self.now = now
        self.second = int(now)
        self.counters = Counters()
        self._connection = connection
        self._loaded: dict[str, bytes] = {}
        self._leases: dict[str, float] = {}
        self._waiting: dict[str, dict[str, tuple[int, int]]] = {}

    def load(self, names: Sequence[str], reservations: Sequence[str]) -> None:
        """Load these counters and leases, some expired leases, and the counters of which these leases hold amounts."""
        self._load_leases("expires_at <= ? LIMIT ?", (self.now, RETURNED_AT_ONCE))
        for some in some_at_once([name for name in reservations if name not in self._leases]):
            self._load_leases(f"reservation IN ({places(some)})", some)
        held = [held[0] for lease in self.counters.leases.values() for held in lease.held]
        for some in some_at_once([*dict.fromkeys((*names, *held))]):
            for name, kind, numbers in self._connection.execute(
                f"SELECT name, kind, numbers FROM counters WHERE name IN ({places(some)})",  # noqa: S608
                some,
            ):
                self._loaded[name] = numbers
                self.counters.put(name, _unpacked(kind, numbers))

    def load_shares(self, requests: Iterable[CounterRequest]) -> None:
        """Load the keys that wait for free amounts of shared windows."""
        for name in {request.counter for request in requests if request.own and request.limit is not None}:
            rows = self._connection.execute("SELECT own, amount, until FROM waiting WHERE counter = ?", (name,))
            waiting = {own: (amount, until) for own, amount, until in rows}
            self._waiting[name] = dict(waiting)
            self.counters.shares[name] = FairShare(_Askers(self._connection, name), waiting)

    def add(self, counters: Counters) -> None:
        """Add the counters, leases and fair shares of another process."""
        for name, other in counters.counters.items():
            here = self.counters.counters.get(name)
            if here is None:
                self.counters.put(name, other)
            else:
                here.merge(other.numbers)
        for reservation, lease in counters.leases.items():
            self.counters.keep(reservation, lease)
        for name, share in counters.shares.items():
            if isinstance(share.askers, MemoryAskers):
                rows = [(name, own, until) for own, until in share.askers.items()]
                insert(self._connection, _STORE_ASKERS, rows)
            insert(self._connection, _STORE_WAITING, [(name, own, *entry) for own, entry in share.waiting.items()])

    def store(self) -> None:
        """Write the changes."""
        self._store_counters()
        self._store_leases()
        for name, before in self._waiting.items():
            after = self.counters.shares[name].waiting
            self._connection.executemany(
                "DELETE FROM waiting WHERE counter = ? AND own = ?", [(name, own) for own in before.keys() - after]
            )
            changed = [(name, own, *entry) for own, entry in after.items() if before.get(own) != entry]
            insert(self._connection, _STORE_WAITING, changed)

    def _store_counters(self) -> None:
        changed = []
        for name, one in self.counters.counters.items():
            numbers = array("q", one.numbers).tobytes()
            # A new counter without an amount need not be stored.
            if numbers != self._loaded.get(name) and (name in self._loaded or any(one.numbers)):
                changed.append((name, one.kind, one.expires_at(self.second), numbers))
        insert(self._connection, _STORE, changed)

    def _store_leases(self) -> None:
        leases = self.counters.leases
        for some in some_at_once([*(self._leases.keys() - leases.keys())]):
            self._connection.execute(f"DELETE FROM leases WHERE reservation IN ({places(some)})", some)  # noqa: S608
        changed = [
            (reservation, lease.expires_at, orjson.dumps(lease.held))
            for reservation, lease in leases.items()
            if self._leases.get(reservation) != lease.expires_at
        ]
        insert(self._connection, _STORE_LEASES, changed)

    def _load_leases(self, condition: str, parameters: Sequence[object]) -> None:
        for reservation, expires_at, held in self._connection.execute(
            f"SELECT reservation, expires_at, claims FROM leases WHERE {condition}",  # noqa: S608
            parameters,
        ):
            self._leases[reservation] = expires_at
            self.counters.keep(reservation, Lease(expires_at, orjson.loads(held)))


class _Askers:
    """The keys that asked for one shared window recently, in the table ``askers``."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    def add(self, own: str, *, until: int) -> None:
        insert(self._connection, _STORE_ASKERS, [(self._name, own, until)])

    def number(self, second: int) -> int:
        found = self._connection.execute(
            "SELECT count(*) FROM askers WHERE counter = ? AND until > ?", (self._name, second)
        ).fetchone()
        return int(found[0])

    def forget(self, second: int) -> bool:  # noqa: ARG002 - _sweep() deletes them
        return False


def _everything(connection: sqlite3.Connection) -> Counters:
    counters = Counters()
    for name, kind, numbers in connection.execute("SELECT name, kind, numbers FROM counters"):
        counters.put(name, _unpacked(kind, numbers))
    for reservation, expires_at, held in connection.execute("SELECT reservation, expires_at, claims FROM leases"):
        counters.keep(reservation, Lease(expires_at, orjson.loads(held)))
    for name, own, until in connection.execute("SELECT counter, own, until FROM askers"):
        counters.fair_share(name).askers.add(own, until=until)
    for name, own, amount, until in connection.execute("SELECT counter, own, amount, until FROM waiting"):
        counters.fair_share(name).waiting[own] = (amount, until)
    return counters


def _sweep(connection: sqlite3.Connection, second: int, after: str) -> str:
    """Delete unused counters among the next ones after the name *after*; return the name to continue after."""
    names = connection.execute(
        "SELECT name FROM counters WHERE name > ? ORDER BY name LIMIT ?", (after, SWEPT_AT_ONCE)
    ).fetchall()
    last: str = names[-1][0] if names else ""
    connection.execute("DELETE FROM counters WHERE name > ? AND name <= ? AND expires_at <= ?", (after, last, second))
    if len(names) == SWEPT_AT_ONCE:
        return last
    connection.execute("DELETE FROM askers WHERE until <= ?", (second,))
    connection.execute("DELETE FROM waiting WHERE until <= ?", (second,))
    return ""


def _unpacked(kind: str, numbers: bytes) -> Counter:
    return counter(kind, array("q", numbers))


def _names(requests: Iterable[CounterRequest]) -> list[str]:
    return [request.counter for request in requests]
