"""The arguments and results of counter stores. Standard library only.

Before a request is sent to Azure, it reserves amounts of several counters in one step. It is admitted only if every
amount fits. The store saves the reservation under the identifier of the request, with a lease. At the end of the
request, a commit replaces the reserved amounts by the true amounts. If the process dies before that, the lease runs
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

WINDOW_SECONDS = 60
"""Length of a sliding window. Windows move in steps of a second. An amount leaves the window when its own second is
more than 60 seconds ago, so that no period of 60 seconds exceeds the limit."""
TRUSTED_SECONDS = 600
"""A budget total must be initialised again when its last initialisation is older than this and running requests hold
nothing of it. A counter can be wrong without a sign of it: Redis was restarted from an old snapshot, the power failed,
or a process was killed before it committed. So the total is read again from the usage log, which is always right."""
TRUSTED_AT_MOST_SECONDS = 3600
"""The same for a budget total of which running requests always hold something."""


class Kind(StrEnum):
    """The kind of a counter. SQLite stores these values."""

    WINDOW = "window"
    """Sliding window: the amounts that were reserved within the last minute."""
    GAUGE = "level"
    """The amount that running requests hold now. They give it back when they end."""
    TOTAL = "total"
    """Budget total: the amount that was used in a period. The caller initialises it with the sum from the usage log.
    This is repeated after ``TRUSTED_SECONDS`` if running requests hold nothing of it, and after
    ``TRUSTED_AT_MOST_SECONDS`` in any case."""


class CounterRequest(NamedTuple):
    """The amount that a request needs of one counter. A tuple, because each request creates about a dozen of them."""

    counter: str
    """Name of the counter. A name is always used with the same kind."""
    kind: Kind
    amount: int
    limit: int | None = None
    """The amount fits if the counter does not exceed this limit with it. ``None``: the amount always fits."""
    until: int | None = None
    """For a budget total: the end of its period, in seconds since the epoch; ``None`` if it has no end."""
    own: str | None = None
    """For a window that keys share fairly: the name of the key's own window. The counter requests must contain that
    window, too. See ``fair_share.py``."""
    at_least: int | None = None
    """For a budget total with a limit: an amount below ``amount`` that is enough if no running request holds anything
    of the total. Then everything that is left is reserved. So requests whose ``amount`` is more than what is left run
    one at a time, and all of them together exceed the limit by no more than one of them alone. ``None``: ``amount``
    must fit. Other kinds ignore it."""

    def with_amount(self, amount: int, at_least: int | None = None) -> CounterRequest:
        if amount == self.amount and at_least == self.at_least:
            return self
        # Not _replace(), which takes three times as long.
        return CounterRequest(self.counter, self.kind, amount, self.limit, self.until, self.own, at_least)

    def granted(self, used: int) -> int:
        """Return the amount that is reserved if the request fits and the counter is at *used* before."""
        if self.at_least is None or self.limit is None:
            return self.amount
        return min(self.amount, self.limit - used)


class Reading(NamedTuple):
    """The state of one counter before the reservation."""

    used: int
    """Used amount, including the amount that running requests hold."""
    held: int
    """The part of a budget total or a gauge that running requests hold."""
    fits: bool
    """Whether the requested amount fits, or what is enough instead of it."""
    wait: float
    """Seconds until the amount fits into a window, without other requests; 0 if it fits, and for other kinds."""
    empties_in: float
    """Seconds until a window is empty; 0 for other kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The result of the counter requests of one request."""

    admitted: bool
    """True if every amount was reserved; False if nothing was reserved."""
    readings: tuple[Reading, ...]
    """One for each counter request, in their order; empty if there are ``uninitialised`` ones."""
    uninitialised: tuple[str, ...] = ()
    """Budget totals that must be initialised first. If there are any, nothing was reserved."""


class Commit(NamedTuple):
    """The end of a reservation."""

    reservation: str
    counter_requests: tuple[CounterRequest, ...]
    """The reserved counter requests, with the true amounts instead of the estimates. The amounts of gauges are ignored.
    A counter that was reserved and is missing here was not used."""
