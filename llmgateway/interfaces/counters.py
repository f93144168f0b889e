"""The store of the counters for limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..ratelimit.reservations import Commit, CounterRequest, Decision


class CounterStore(Protocol):
    """The counters for limits. All processes that use the same store share them.

    The store's own clock is used if it has one. Counters that are no longer used are deleted.
    """

    def reserve(self, reservation: str, counter_requests: Sequence[CounterRequest], *, lease: float) -> Decision:
        """Reserve the amounts of all of *counter_requests*, or none. Atomic, and one round trip.

        If the amount of a budget total does not fit, but its ``at_least`` does and nothing is held of the total, all
        that is left of it is reserved.

        Args:
            reservation: The identifier of the request; it must be new.
            counter_requests: One at most for each counter.
            lease: Seconds after which gauges and budget totals get the reserved amounts back, if the reservation is
                neither committed nor renewed. Amounts in windows expire in any case.
        """
        ...

    def commit(self, commits: Sequence[Commit]) -> None:
        """Replace the reserved amounts by the true amounts. Each commit is atomic; a caller commits once.

        - Windows: the amount is replaced in the second in which it was reserved. If that second has left the window,
          only the part that exceeds the reserved amount is added, in the present second.
        - Gauges: the reserved amount is given back.
        - Budget totals: a total that is not initialised does not change. The usage log will initialise it.
        - A counter that was reserved but has no true amount in the commit gets its reserved amount back.
        - If the reservation does not exist (its lease ran out, or the store was emptied), the true amounts are added.
        """
        ...

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        """Extend the leases of *reservations* to *lease* seconds from now. A reservation that is gone is ignored."""
        ...

    def look(self, counter_requests: Sequence[CounterRequest]) -> Decision:
        """Return what :meth:`reserve` would return, without regard to fair shares. Nothing is reserved."""
        ...

    def initialise(self, counter: str, used: int, *, until: int | None) -> None:
        """Set a budget total to what was *used* so far, unless it was initialised recently.

        A total must be initialised again when its last initialisation is older than ``TRUSTED_SECONDS`` and running
        requests hold nothing of it, or older than ``TRUSTED_AT_MOST_SECONDS``. :meth:`reserve` and :meth:`look` report
        this. The amounts that running requests had reserved before are added when they are committed.
        """
        ...

    def confirm(self, counter: str) -> bool:
        """Treat an old initialisation as recent; False if there is none.

        This is used if the usage log is unavailable, so that the total cannot be initialised.
        """
        ...

    def forget(self, counters: Sequence[str]) -> None:
        """Make budget totals uninitialised. The amounts of running requests are added when they are committed."""
        ...

    def flush(self) -> None:
        """Store what this process has counted in memory, before it ends. Raises nothing."""
        ...
