"""Who shares a window, and who waits for what becomes free in it."""

from __future__ import annotations

import sqlite3

from llmgateway.reservations import WINDOW_SECONDS, Claim, Reading

from .tallies import Window

PATIENCE = 5
"""Seconds for which what has become free is kept for the one who was told to come back for it."""


class FairShare:
    """The sharing of one window, as it concerns one claim, inside one transaction.

    Who has used less than an equal share is below it. What one of those wanted and did not get is
    kept for it: those who are not below do not get it.
    """

    def __init__(self, connection: sqlite3.Connection, claim: Claim, now: float) -> None:
        self._connection = connection
        self._claim = claim
        self._now = now
        self._second = int(now)
        self._waits = False

    def judge(self, reading: Reading, shared: Window, own: Window, *, fits_elsewhere: bool) -> Reading:
        """What the claim gets to hear, which without the others would be *reading*."""
        self._count(until=self._second + WINDOW_SECONDS + 1)
        waiting = self._others_waiting()
        if reading.fits and not waiting:
            return reading  # nearly always
        limit = self._claim.limit or 0
        below = own.used * self._sharing() < limit
        surplus = shared.used + self._claim.amount - limit
        if not reading.fits:
            if below and fits_elsewhere:
                self._wait(until=max(shared.leaves_at(surplus), self._second) + PATIENCE)
            return reading
        surplus += sum(amount for amount, _ in waiting)
        if below or surplus <= 0:
            return reading
        free_at = min(shared.leaves_at(surplus), max(until for _, until in waiting))
        return reading._replace(fits=False, wait=max(0.0, free_at - self._now))

    def admit(self) -> None:
        """Let the one who asked wait no more."""
        if self._waits:
            self._connection.execute(
                "DELETE FROM waiting WHERE counter = ? AND own = ?", (self._claim.counter, self._claim.own)
            )

    def _count(self, *, until: int) -> None:
        self._connection.execute(
            "INSERT INTO askers VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET until = excluded.until WHERE until < excluded.until",
            (self._claim.counter, self._claim.own, until),
        )

    def _sharing(self) -> int:
        found = self._connection.execute(
            "SELECT count(*) FROM askers WHERE counter = ? AND until > ?", (self._claim.counter, self._second)
        ).fetchone()
        return int(found[0])

    def _others_waiting(self) -> list[tuple[int, int]]:
        waiting = self._connection.execute(
            "SELECT own, amount, until FROM waiting WHERE counter = ?", (self._claim.counter,)
        ).fetchall()
        self._waits = any(own == self._claim.own for own, _, _ in waiting)
        return [(amount, until) for own, amount, until in waiting if own != self._claim.own and until > self._second]

    def _wait(self, *, until: int) -> None:
        self._count(until=until)
        self._connection.execute(
            "INSERT INTO waiting VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET amount = excluded.amount, until = excluded.until",
            (self._claim.counter, self._claim.own, self._claim.amount, until),
        )
