"""What a counter store is asked, and what it answers. Standard library only.

Before a request goes to Azure it reserves an amount of several counters at once, and it is admitted only if every
amount fits. The store keeps what was reserved under the request's identifier, with a lease: at the end of the request
a commit replaces the reserved amounts by the true ones; if the process of the request dies, the lease runs out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

WINDOW_SECONDS = 60
"""Windows slide in steps of a second. An amount leaves when it is older than this and its own second is over, so that
no 60 seconds, wherever they begin, see more than the limit."""
TRUSTED_SECONDS = 600
"""A budget total of which nothing is held has to be initialised again when its last initialisation is older than this.
Counters may be wrong without a trace: a Redis that was restarted from an old snapshot, a file after loss of power, a
process that was killed before it committed. The usage log has the truth and is asked again often enough."""
TRUSTED_AT_MOST_SECONDS = 3600
"""The same for a budget total of which something is always held."""


class Kind(StrEnum):
    """What a counter counts. Redis and SQLite keep these values."""

    WINDOW = "window"
    """Sliding window: what was reserved within the last minute."""
    GAUGE = "level"
    """What running requests hold now. It comes back when they end."""
    TOTAL = "total"
    """Budget total: what was used in a period. The caller initialises it with the sum from the usage log, and again
    after ``TRUSTED_SECONDS`` as soon as nothing is held of it, after ``TRUSTED_AT_MOST_SECONDS`` in any case."""


class CounterRequest(NamedTuple):
    """What a request wants of one counter. A tuple, because each request makes about a dozen of them."""

    counter: str
    """Its name. One name is always used with the same kind."""
    kind: Kind
    amount: int
    limit: int | None = None
    """The amount fits if not more than this is used with it. ``None``: it is counted and always fits."""
    until: int | None = None
    """Of a budget total: when its period ends, in seconds since the epoch; ``None`` for never."""
    own: str | None = None
    """Of a window that is shared fairly: the name of the window of the one who asks, which must be among the counter
    requests, too. See ``fair_share.py``."""

    def with_amount(self, amount: int) -> CounterRequest:
        if amount == self.amount:
            return self
        # Not _replace(), which takes three times as long.
        return CounterRequest(self.counter, self.kind, amount, self.limit, self.until, self.own)


class Reading(NamedTuple):
    """One counter, as it was before anything was reserved."""

    used: int
    """Including what running requests hold."""
    held: int
    """The part of a budget total or a gauge that running requests hold."""
    fits: bool
    """Whether the amount fits."""
    wait: float
    """Seconds until the amount fits into a window if nobody else comes; 0 if it fits, and for other kinds."""
    empties_in: float
    """Seconds until a window is empty; 0 for other kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to the counter requests of one request."""

    admitted: bool
    """Every amount was reserved. If not, none was."""
    readings: tuple[Reading, ...]
    """One for each counter request, in their order; empty if there are ``uninitialised`` ones."""
    uninitialised: tuple[str, ...] = ()
    """Budget totals that have to be initialised first. Nothing was reserved."""


class Commit(NamedTuple):
    """How a reservation ended."""

    reservation: str
    counter_requests: tuple[CounterRequest, ...]
    """As they were reserved, with the true amounts in place of the estimates; the amounts of gauges do not matter.
    What was reserved and is not among them was not used."""
