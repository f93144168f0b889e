"""What the counters behind limits are asked, and what they answer. Standard library only.

A request claims an amount of several counters at once, before it goes to Azure, and is admitted only
if every claim fits. What it claimed is kept under its identifier, as a lease: when it has ended, the
truth takes the place of what was claimed; if its process dies, the lease runs out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

WINDOW_SECONDS = 60
"""Windows slide in steps of a second, and an amount leaves when it is older than this and its own second is
over: no 60 seconds, wherever they begin, see more than the limit."""
RETOLD_SECONDS = 600
"""A total of which nothing is held is unknown again when it was told longer ago than this. What counts may be
wrong without knowing: a Redis that was restarted from an old snapshot, a file after loss of power, a process that
was killed before it settled. The usage log has the truth, and is asked often enough for an error to end soon."""
RETOLD_AT_LAST_SECONDS = 3600
"""So is one of which something is always held, this long after it was told."""


class Kind(StrEnum):
    """What a counter counts."""

    WINDOW = "window"
    """What was claimed within the last minute."""
    LEVEL = "level"
    """What is held now; it comes back when the request ends."""
    TOTAL = "total"
    """What was used in a period. It begins with what the usage log says, is unknown until it is told, and unknown
    again some time later, since the usage log is right in the end: after ``RETOLD_SECONDS`` as soon as nothing is
    held of it, after ``RETOLD_AT_LAST_SECONDS`` in any case."""


class CounterRequest(NamedTuple):
    """What a request wants of one counter. A tuple, since each request makes some dozen of them."""

    counter: str
    """Its name; the same counter is always claimed with the same kind."""
    kind: Kind
    amount: int
    limit: int | None = None
    """It fits if not more than this is used with it; ``None`` counts and always fits."""
    until: int | None = None
    """Of a total: when its period ends, in seconds since the epoch; ``None`` for never."""
    own: str | None = None
    """Of a window that is shared fairly: the window of the one who asks, which must be among the claims, too.

    Whoever has used an equal share of the limit (among all who asked within the last minute, or wait) does not
    fit while somebody who has used less waits for what has become free.
    """

    def of(self, amount: int) -> CounterRequest:
        """The same for *amount*."""
        if amount == self.amount:
            return self
        # Not _replace(), which takes three times as long: a request makes some dozen.
        return CounterRequest(self.counter, self.kind, amount, self.limit, self.until, self.own)


class Reading(NamedTuple):
    """One counter, as it was before the claim."""

    used: int
    """With what running requests hold."""
    held: int
    """The part of a total or a level that running requests hold."""
    fits: bool
    """Whether the claim fits."""
    wait: float
    """Seconds until the claim fits a window, if nobody else comes; 0 where it fits and for other kinds."""
    empties_in: float
    """Seconds until a window has nothing in it any more; 0 for other kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to the claims of one request."""

    admitted: bool
    """All of them were claimed; else none was."""
    readings: tuple[Reading, ...]
    """One for each claim, in their order; empty if ``unknown`` is not."""
    unknown: tuple[str, ...] = ()
    """Totals that nobody has told what was used, or not lately; nothing was claimed."""


class Commit(NamedTuple):
    """How a reservation ended."""

    reservation: str
    counter_requests: tuple[CounterRequest, ...]
    """As they were reserved, with the true amounts in place of the estimates; those of levels do not matter. What
    was reserved and is not among them was not used."""
