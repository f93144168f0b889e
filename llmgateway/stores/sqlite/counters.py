"""The counters behind limits, in an embedded database: a file that the processes of a host share, or memory."""

from __future__ import annotations

import secrets
import sqlite3
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import orjson

from llmgateway.clock import Clock
from llmgateway.reservations import Claim, Decision, Kind, Reading, Settlement

from .fair_share import FairShare
from .tallies import TALLIES, Tally, Total, Window

RETURNED_AT_ONCE = 50
"""Leases that ran out and are cleared away by one call: dead processes are paid for in small coins."""
SWEPT_AT_ONCE = 100
"""Counters that are looked at once a second, for whether anybody has used them lately."""
STORED_AT_ONCE = 100
"""Counters of one statement; a request has twelve at most."""
SETTLED_AT_ONCE = 100
"""Settlements of one transaction, so that those who reserve do not wait long."""

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

    Args:
        database: Of the shape ``COUNTERS``.
        clock: Seconds since the epoch, the same for everybody who shares the database.
    """

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._swept_at = 0
        self._swept_to = ""

    def reserve(self, reservation: str, claims: Sequence[Claim], *, lease: float) -> Decision:
        with self._database.transaction() as connection:
            turn = self._turn(connection)
            turn.load((claim.counter, claim.kind) for claim in claims)
            unknown = turn.unknown(claims)
            if unknown:
                return Decision(admitted=False, readings=(), unknown=unknown)
            shares = turn.shares(claims)
            readings = turn.judge(claims, shares)
            admitted = all(reading.fits for reading in readings)
            if admitted and claims:
                turn.claim(reservation, claims, shares, expires_at=turn.now + lease)
        return Decision(admitted=admitted, readings=tuple(readings))

    def settle(self, settlements: Sequence[Settlement]) -> None:
        for start in range(0, len(settlements), SETTLED_AT_ONCE):
            with self._database.transaction() as connection:
                # Not those that ran out: that is for whoever reserves.
                turn = _Turn(connection, self._clock())
                for settlement in settlements[start : start + SETTLED_AT_ONCE]:
                    turn.settle(settlement)
                turn.store()

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        with self._database.transaction() as connection:
            expires_at = self._turn(connection).now + lease
            connection.executemany(
                "UPDATE leases SET expires_at = ? WHERE reservation = ?",
                [(expires_at, reservation) for reservation in reservations],
            )

    def look(self, claims: Sequence[Claim]) -> Decision:
        with self._database.transaction() as connection:
            turn = self._turn(connection)
            turn.load((claim.counter, claim.kind) for claim in claims)
            unknown = turn.unknown(claims)
            readings = () if unknown else tuple(turn.read(claims))
        return Decision(
            admitted=not unknown and all(reading.fits for reading in readings), readings=readings, unknown=unknown
        )

    def seed(self, counter: str, used: int, *, until: int | None) -> None:
        with self._database.transaction() as connection:
            turn = self._turn(connection)
            turn.load([(counter, Kind.TOTAL)])
            total = turn.tallies[counter]
            if isinstance(total, Total) and not total.numbers:
                total.seed(used, epoch=secrets.randbits(53), until=until)
                turn.store()

    def forget(self, counters: Sequence[str]) -> None:
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM counters WHERE name = ?", [(counter,) for counter in counters])

    def _turn(self, connection: sqlite3.Connection) -> _Turn:
        # The time is asked when the transaction has begun: then it goes the way of the transactions.
        turn = _Turn(connection, self._clock())
        turn.give_back()
        if turn.second != self._swept_at:
            self._swept_at = turn.second
            self._swept_to = turn.sweep(self._swept_to)
        return turn


class _Turn:
    """What one transaction knows of the counters: read when first needed, written at its end."""

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._connection = connection
        self.now = now
        self.second = int(now)
        self.tallies: dict[str, Tally] = {}

    def load(self, counters: Iterable[tuple[str, str]]) -> None:
        kinds = {name: kind for name, kind in counters if name not in self.tallies}
        if not kinds:
            return
        found = dict(
            self._connection.execute(
                f"SELECT name, numbers FROM counters WHERE name IN ({', '.join('?' * len(kinds))}) AND expires_at > ?",  # noqa: S608
                (*kinds, self.second),
            )
        )
        for name, kind in kinds.items():
            self.tallies[name] = TALLIES[kind](array("q", found.get(name, b"")), self.second)

    def store(self) -> None:
        rows = [
            (name, tally.expires_at(), tally.numbers.tobytes())
            for name, tally in self.tallies.items()
            if tally.numbers or not isinstance(tally, Total)
        ]
        # Many in one statement: each lets go of Python's lock, and a busy process waits for that again.
        for start in range(0, len(rows), STORED_AT_ONCE):
            some = rows[start : start + STORED_AT_ONCE]
            self._connection.execute(
                f"INSERT INTO counters VALUES {', '.join(['(?, ?, ?)'] * len(some))} "  # noqa: S608
                "ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, numbers = excluded.numbers",
                [value for row in some for value in row],
            )

    def unknown(self, claims: Sequence[Claim]) -> tuple[str, ...]:
        return tuple(
            claim.counter for claim in claims if claim.kind == Kind.TOTAL and not self.tallies[claim.counter].numbers
        )

    def read(self, claims: Sequence[Claim]) -> list[Reading]:
        return [self.tallies[claim.counter].read(claim, self.now) for claim in claims]

    def shares(self, claims: Sequence[Claim]) -> dict[int, FairShare]:
        """The sharing of each claimed window that is shared, by the place of the claim."""
        return {
            place: FairShare(self._connection, claim, self.now)
            for place, claim in enumerate(claims)
            if claim.own is not None and claim.limit is not None
        }

    def judge(self, claims: Sequence[Claim], shares: Mapping[int, FairShare]) -> list[Reading]:
        """Say of each claim whether it fits, with regard to those who share."""
        readings = self.read(claims)
        fits_elsewhere = all(reading.fits for place, reading in enumerate(readings) if place not in shares)
        for place, share in shares.items():
            readings[place] = share.judge(
                readings[place],
                self._window(claims[place].counter),
                self._window(claims[place].own),
                fits_elsewhere=fits_elsewhere,
            )
        return readings

    def _window(self, name: str | None) -> Window:
        window = self.tallies.get(name or "")
        if not isinstance(window, Window):
            raise TypeError(f"{name!r} is no window among the claims")
        return window

    def claim(
        self, reservation: str, claims: Sequence[Claim], shares: Mapping[int, FairShare], *, expires_at: float
    ) -> None:
        held = [(claim.counter, claim.kind, claim.amount, self.tallies[claim.counter].claim(claim)) for claim in claims]
        self._connection.execute("INSERT INTO leases VALUES (?, ?, ?)", (reservation, expires_at, orjson.dumps(held)))
        for share in shares.values():
            share.admit()
        self.store()

    def settle(self, settlement: Settlement) -> None:
        found = self._connection.execute(
            "DELETE FROM leases WHERE reservation = ? AND expires_at > ? RETURNING claims",
            (settlement.reservation, self.now),
        ).fetchone()
        held = orjson.loads(found[0]) if found else []
        true_amounts = {claim.counter: claim.amount for claim in settlement.claims}
        self.load((claim.counter, claim.kind) for claim in settlement.claims)
        self.load((counter, kind) for counter, kind, _, _ in held)
        for counter, _, amount, mark in held:
            self.tallies[counter].settle(amount, mark, true_amounts.pop(counter, 0))
        for counter, amount in true_amounts.items():
            self.tallies[counter].add(amount)

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
            self.tallies[counter].settle(amount, mark, 0)
        self.store()

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
