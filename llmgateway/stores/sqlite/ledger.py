"""What is known of the counters while they are worked with, and how it is kept in the database."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import orjson

from llmgateway.ratelimit.reservations import Commit, CounterRequest, Decision, Kind, Reading

from .fair_share import FairShare
from .rows import insert, places, some_at_once
from .tallies import TALLIES, Tally, Total, Window

RETURNED_AT_ONCE = 50
"""Leases that ran out and are cleared away by one transaction: dead processes are paid for in small coins."""
SWEPT_AT_ONCE = 100
"""Counters that are looked at once a second, for whether anybody has used them lately."""
KEPT_TALLIES = 20_000
"""Of earlier seconds; some 10 MB."""

_Held: TypeAlias = tuple[str, str, int, int]
"""What a lease holds of one counter: counter, kind, amount, mark."""


class Ledger:
    """The counters, as far as somebody has asked for them: read when first needed, written by :meth:`store`.

    It lasts for many transactions of one connection, as long as nobody else writes; with the first that fails
    it is to be thrown away. Within a transaction each of its jobs is done wholly or not at all: what may be wrong
    with one is found before anything is changed, so that those before it, who know already what they got, lose
    nothing.

    Args:
        asked: Who is known to be counted in fair shares, until when; of one second.
    """

    def __init__(self, connection: sqlite3.Connection, *, asked: dict[tuple[str, str], int]) -> None:
        self.connection = connection
        self.now = 0.0
        self.second = 0
        self.owes = False
        """Whether more leases have run out than one transaction clears away."""
        self._asked = asked
        self._tallies: dict[str, Tally] = {}
        self._earlier: dict[str, Tally] = {}  # as they were in another second
        self._changed: set[str] = set()
        self._leases: dict[str, _Lease] = {}
        self._unwritten: set[str] = set()
        self._gone: list[str] = []
        self._shares: dict[str, FairShare] = {}

    def begin(self, now: float) -> None:
        """Be in a new transaction; what the one before changed is stored."""
        self.now = now
        if self.second != int(now):
            self.second = int(now)
            if len(self._earlier) > KEPT_TALLIES:
                self._earlier.clear()
            self._earlier.update(self._tallies)
            self._tallies.clear()
            self._shares.clear()
        self._give_back()

    # What the counters are asked

    def reserve(self, reservation: str, counter_requests: Sequence[CounterRequest], *, lease: float) -> Decision:
        _check(counter_requests)
        tallies = self._found(counter_requests)
        shared = _shared(counter_requests)
        decision = self._judge(counter_requests, tallies, shared)
        if decision.admitted and counter_requests:
            held = [
                (
                    counter_request.counter,
                    counter_request.kind,
                    counter_request.amount,
                    tally.counter_request(counter_request),
                )
                for counter_request, tally in zip(counter_requests, tallies, strict=True)
            ]
            self._changed.update([counter_request.counter for counter_request in counter_requests])
            self._leases[reservation] = _Lease(self.now + lease, held)
            self._unwritten.add(reservation)
            for _, counter_request in shared:
                self._share(counter_request).admit(counter_request)
        return decision

    def look(self, counter_requests: Sequence[CounterRequest]) -> Decision:
        tallies = self._found(counter_requests)
        unknown = _unknown(counter_requests, tallies)
        return _decision([] if unknown else self._read(counter_requests, tallies), unknown)

    def commit(self, commits: Sequence[Commit]) -> None:
        self.fetch([commit.reservation for commit in commits])
        for commit in commits:
            _check(commit.counter_requests)
            self._found(commit.counter_requests)
            lease = self._leases.get(commit.reservation)
            if lease is not None:
                self.load([held[:2] for held in lease.held if held[0] not in self._tallies])
        for commit in commits:
            self._commit(commit)

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        self.fetch(reservations)
        for reservation in reservations:
            if reservation in self._leases:
                self._leases[reservation].expires_at = self.now + lease
                self._unwritten.add(reservation)

    def seed(self, counter: str, used: int, *, until: int | None) -> None:
        total = self._total(counter)
        if not total.is_known:
            total.seed(used, until=until)
            self._changed.add(counter)

    def confirm(self, counter: str) -> bool:
        total = self._total(counter)
        if not total.numbers:
            return False
        total.confirm()
        self._changed.add(counter)
        return True

    def forget(self, counters: Sequence[str]) -> None:
        self.connection.executemany("DELETE FROM counters WHERE name = ?", [(counter,) for counter in counters])
        for counter in counters:
            self._earlier.pop(counter, None)
            if counter in self._tallies:
                self._tallies[counter] = Total(array("q"), self.second)
            self._changed.discard(counter)

    # What is kept

    def load(self, counters: Iterable[tuple[str, str]]) -> None:
        """Know these counters, of these kinds."""
        kinds = {name: kind for name, kind in counters if name not in self._tallies}
        for name in [*kinds]:
            earlier = self._earlier.get(name)
            if earlier is not None and earlier.numbers and earlier.expires_at() > self.second:
                self._tallies[name] = TALLIES[kinds.pop(name)](earlier.numbers, self.second)
        for names in some_at_once(list(kinds)):
            found = dict(
                self.connection.execute(
                    f"SELECT name, numbers FROM counters WHERE name IN ({places(names)}) AND expires_at > ?",  # noqa: S608
                    (*names, self.second),
                )
            )
            for name in names:
                self._tallies[name] = TALLIES[kinds[name]](array("q", found.get(name, b"")), self.second)

    def fetch(self, reservations: Iterable[str]) -> None:
        """Know the leases of these, as far as there are any; those that ran out have been given back."""
        for some in some_at_once([name for name in reservations if name not in self._leases]):
            rows = self.connection.execute(
                f"SELECT reservation, expires_at, claims FROM leases WHERE reservation IN ({places(some)})",  # noqa: S608
                some,
            )
            for reservation, expires_at, held in rows.fetchall():
                self._leases[reservation] = _Lease(expires_at, orjson.loads(held), is_written=True)

    def store(self) -> None:
        """Write what has changed."""
        for some in some_at_once(self._gone):
            self.connection.execute(f"DELETE FROM leases WHERE reservation IN ({places(some)})", some)  # noqa: S608
        self._gone.clear()
        insert(
            self.connection,
            "INSERT INTO counters VALUES {} "
            "ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, numbers = excluded.numbers",
            [
                (name, tally.expires_at(), tally.numbers.tobytes())
                for name, tally in [(name, self._tallies[name]) for name in self._changed]
                if tally.numbers or not isinstance(tally, Total)
            ],
        )
        insert(
            self.connection,
            "INSERT INTO leases VALUES {} ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at",
            [*map(self._row, self._unwritten)],
        )
        self._unwritten.clear()

    def kept(self) -> None:
        """Take note that what was written is there for good."""
        self._changed.clear()

    def changed_totals(self) -> list[str]:
        """Those that would be others again if the transaction were undone."""
        return [name for name in self._changed if isinstance(self._tallies.get(name), Total)]

    def _row(self, reservation: str) -> tuple[str, float, bytes]:
        lease = self._leases[reservation]
        lease.is_written = True
        return reservation, lease.expires_at, orjson.dumps(lease.held)

    def _give_back(self) -> None:
        """Let levels and totals have again what is held by leases that ran out."""
        expired = self.connection.execute(
            "SELECT reservation, claims FROM leases WHERE expires_at <= ? LIMIT ?", (self.now, RETURNED_AT_ONCE)
        ).fetchall()
        self.owes = len(expired) == RETURNED_AT_ONCE
        if not expired:
            return
        self.connection.executemany("DELETE FROM leases WHERE reservation = ?", [(row[0],) for row in expired])
        for reservation, _ in expired:
            self._leases.pop(reservation, None)
        counter_requests: list[_Held] = [
            counter_request for _, held in expired for counter_request in orjson.loads(held)
        ]
        returning = [counter_request for counter_request in counter_requests if counter_request[1] != Kind.WINDOW]
        self.load((counter, kind) for counter, kind, _, _ in returning)
        for counter, _, amount, mark in returning:
            self._changed.add(counter)
            self._tallies[counter].commit(amount, mark, 0)

    def sweep(self, after: str) -> str:
        """Forget some of what nobody uses any more, behind *after* in the order of names; return where to go on."""
        names = self.connection.execute(
            "SELECT name FROM counters WHERE name > ? ORDER BY name LIMIT ?", (after, SWEPT_AT_ONCE)
        ).fetchall()
        last: str = names[-1][0] if names else ""
        self.connection.execute(
            "DELETE FROM counters WHERE name > ? AND name <= ? AND expires_at <= ?", (after, last, self.second)
        )
        if len(names) == SWEPT_AT_ONCE:
            return last
        self.connection.execute("DELETE FROM askers WHERE until <= ?", (self.second,))
        self.connection.execute("DELETE FROM waiting WHERE until <= ?", (self.second,))
        return ""

    def _commit(self, commit: Commit) -> None:
        tallies = self._tallies
        true_amounts = {counter_request.counter: counter_request.amount for counter_request in commit.counter_requests}
        self._changed.update(true_amounts)
        for counter, _, amount, mark in self._take(commit.reservation):
            self._changed.add(counter)
            tallies[counter].commit(amount, mark, true_amounts.pop(counter, 0))
        for counter, amount in true_amounts.items():
            tallies[counter].add(amount)

    def _take(self, reservation: str) -> Sequence[_Held]:
        """End the lease, and say what it holds."""
        lease = self._leases.pop(reservation, None)
        if lease is None:
            return ()
        self._unwritten.discard(reservation)
        if lease.is_written:
            self._gone.append(reservation)
        return lease.held

    def _found(self, counter_requests: Sequence[CounterRequest]) -> list[Tally]:
        try:
            return [
                self._tallies[counter_request.counter] for counter_request in counter_requests
            ]  # nearly always, where it lasts
        except KeyError:
            self.load((counter_request.counter, counter_request.kind) for counter_request in counter_requests)
            return [self._tallies[counter_request.counter] for counter_request in counter_requests]

    def _total(self, counter: str) -> Total:
        self.load([(counter, Kind.TOTAL)])
        total = self._tallies[counter]
        if not isinstance(total, Total):
            raise TypeError(f"{counter!r} is no total")
        return total

    def _judge(
        self,
        counter_requests: Sequence[CounterRequest],
        tallies: Sequence[Tally],
        shared: Sequence[tuple[int, CounterRequest]],
    ) -> Decision:
        """Say of each claim whether it fits, with regard to those who share a window."""
        unknown = _unknown(counter_requests, tallies)
        if unknown:
            return _decision((), unknown)
        readings = self._read(counter_requests, tallies)
        if shared:
            refused = {place for place, reading in enumerate(readings) if not reading.fits}
            fits_elsewhere = refused.issubset(place for place, _ in shared)
            windows = [
                (self._window(counter_request.counter), self._window(counter_request.own))
                for _, counter_request in shared
            ]
            for (place, counter_request), (window, own) in zip(shared, windows, strict=True):
                readings[place] = self._share(counter_request).judge(
                    counter_request, readings[place], window, own, now=self.now, fits_elsewhere=fits_elsewhere
                )
        return _decision(readings, ())

    def _read(self, counter_requests: Sequence[CounterRequest], tallies: Sequence[Tally]) -> list[Reading]:
        now = self.now
        return [
            tally.read(counter_request, now) for counter_request, tally in zip(counter_requests, tallies, strict=True)
        ]

    def _window(self, name: str | None) -> Window:
        window = self._tallies.get(name or "")
        if not isinstance(window, Window):
            raise TypeError(f"{name!r} is no window among the claims")
        return window

    def _share(self, counter_request: CounterRequest) -> FairShare:
        share = self._shares.get(counter_request.counter)
        if share is None:
            share = self._shares[counter_request.counter] = FairShare(
                self.connection, counter_request.counter, self.second, asked=self._asked
            )
        return share


class _Lease:
    """What a running request holds."""

    __slots__ = ("expires_at", "held", "is_written")

    def __init__(self, expires_at: float, held: Sequence[_Held], *, is_written: bool = False) -> None:
        self.expires_at = expires_at
        self.held = held
        self.is_written = is_written


def _check(counter_requests: Sequence[CounterRequest]) -> None:
    """Let amounts that no counter can take fail now, and not in the middle."""
    array("q", [counter_request.amount for counter_request in counter_requests])


def _unknown(counter_requests: Sequence[CounterRequest], tallies: Sequence[Tally]) -> tuple[str, ...]:
    return tuple(
        [
            counter_request.counter
            for counter_request, tally in zip(counter_requests, tallies, strict=True)
            if not tally.is_known
        ]
    )


def _shared(counter_requests: Sequence[CounterRequest]) -> list[tuple[int, CounterRequest]]:
    """The claims of windows that are shared fairly, with their places."""
    return [
        (place, counter_request)
        for place, counter_request in enumerate(counter_requests)
        if counter_request.own is not None and counter_request.limit is not None
    ]


def _decision(readings: Sequence[Reading], unknown: tuple[str, ...]) -> Decision:
    admitted = not unknown and False not in [reading.fits for reading in readings]
    return Decision(admitted=admitted, readings=tuple(readings), unknown=unknown)
