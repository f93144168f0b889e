"""Who shares a window, and who waits for what becomes free in it."""

from __future__ import annotations

import sqlite3

from llmgateway.ratelimit.reservations import WINDOW_SECONDS, CounterRequest, Reading

from .tallies import Window

PATIENCE = 5
"""Seconds for which what has become free is kept for the one who was told to come back for it."""


class FairShare:
    """The sharing of one window, in one second, as long as nobody else writes.

    Who has used less than an equal share is below it. What one of those wanted and did not get is
    kept for it: those who are not below do not get it.

    Args:
        asked: Who is known to be counted, until when; of one second.
    """

    def __init__(
        self, connection: sqlite3.Connection, counter: str, second: int, *, asked: dict[tuple[str, str], int]
    ) -> None:
        self._connection = connection
        self._counter = counter
        self._second = second
        self._asked = asked
        self._waiting: dict[str, tuple[int, int]] = {
            own: (amount, until)
            for own, amount, until in connection.execute(
                "SELECT own, amount, until FROM waiting WHERE counter = ?", (counter,)
            )
        }

    def judge(
        self,
        counter_request: CounterRequest,
        reading: Reading,
        shared: Window,
        own: Window,
        *,
        now: float,
        fits_elsewhere: bool,
    ) -> Reading:
        """What *claim* gets to hear, which without the others would be *reading*."""
        self._count(counter_request, until=self._second + WINDOW_SECONDS + 1)
        waiting = self._others_waiting(counter_request) if self._waiting else []
        if reading.fits and not waiting:
            return reading  # nearly always
        limit = counter_request.limit or 0
        below = own.used * self._sharing() < limit
        surplus = shared.used + counter_request.amount - limit
        if not reading.fits:
            if below and fits_elsewhere:
                self._wait(counter_request, until=max(shared.leaves_at(surplus), self._second) + PATIENCE)
            return reading
        surplus += sum(amount for amount, _ in waiting)
        if below or surplus <= 0:
            return reading
        free_at = min(shared.leaves_at(surplus), max(until for _, until in waiting))
        return reading._replace(fits=False, wait=max(0.0, free_at - now))

    def admit(self, counter_request: CounterRequest) -> None:
        """Let the one who asked wait no more."""
        if self._waiting.pop(counter_request.own or "", None):
            self._connection.execute(
                "DELETE FROM waiting WHERE counter = ? AND own = ?", (self._counter, counter_request.own)
            )

    def _count(self, counter_request: CounterRequest, *, until: int) -> None:
        who = (self._counter, counter_request.own or "")
        if self._asked.get(who, 0) >= until:
            return
        self._connection.execute(
            "INSERT INTO askers VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET until = excluded.until WHERE until < excluded.until",
            (*who, until),
        )
        self._asked[who] = until

    def _sharing(self) -> int:
        found = self._connection.execute(
            "SELECT count(*) FROM askers WHERE counter = ? AND until > ?", (self._counter, self._second)
        ).fetchone()
        return int(found[0])

    def _others_waiting(self, counter_request: CounterRequest) -> list[tuple[int, int]]:
        return [entry for own, entry in self._waiting.items() if own != counter_request.own and entry[1] > self._second]

    def _wait(self, counter_request: CounterRequest, *, until: int) -> None:
        self._count(counter_request, until=until)
        self._connection.execute(
            "INSERT INTO waiting VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET amount = excluded.amount, until = excluded.until",
            (self._counter, counter_request.own, counter_request.amount, until),
        )
        self._waiting[counter_request.own or ""] = (counter_request.amount, until)
