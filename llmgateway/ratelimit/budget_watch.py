"""Reads in the background what is spent and left of the budgets of groups and of the organisation, for metrics.

The processes of a host share a file with the latest numbers. Each process that is asked for them looks at the file
every few seconds, and the first one that finds it old reads the stores. So the numbers are the same in all processes,
nobody adds them up, and no request waits for a store.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import orjson

from ..background import Background
from ..clock import Clock
from ..errors import StoreUnavailable
from ..records import BudgetState, Organisation
from .allowances import AllowanceReader
from .scopes import Scope

log = logging.getLogger(__name__)

READ_SECONDS = 30.0
"""How old the numbers are when they are read again. Prometheus usually asks every 15 to 60 seconds."""
LOOK_SECONDS = 5.0
"""How often a process looks whether they are that old."""
KEPT_SECONDS = 300.0
"""How old numbers may be that are shown, while the stores do not answer."""
UNASKED_SECONDS = 600.0
"""Numbers for which nobody has asked within this time are not read any more."""
MOST_GROUPS = 200
"""The most groups whose budgets are read, in the order of their names."""


class BudgetWatch:
    """The latest numbers of all budgets that are watched. Thread-safe; may be created before a fork.

    Args:
        read: Reads the numbers from the stores.
        file: Where the processes of this host share them.
    """

    def __init__(
        self, read: Callable[[], Sequence[BudgetState]], file: Path, *, clock: Clock, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._read = read
        self._file = file
        self._clock = clock
        self._asked_at = 0.0
        self._reading = Background("budgets", self.turn, seconds=look_seconds)

    def latest(self) -> Sequence[BudgetState]:
        """Return the latest numbers, and have them read again while somebody asks; empty at first. Asks no store."""
        self._asked_at = self._clock()
        self._reading.need()
        at, states = self._stored()
        return states if 0 <= self._clock() - at < KEPT_SECONDS else ()

    def turn(self) -> bool:
        """Read the numbers if they are old; False if nobody wants them any more."""
        now = self._clock()
        if now - self._asked_at >= UNASKED_SECONDS:
            return False
        at, _ = self._stored()
        if not 0 <= now - at < READ_SECONDS:
            with suppress(StoreUnavailable):  # its circuit has logged that; the numbers grow old
                self._store(now, self._read())
        return True

    def _stored(self) -> tuple[float, Sequence[BudgetState]]:
        try:
            document = orjson.loads(self._file.read_bytes())
            return document["at"], [*map(BudgetState._make, document["budgets"])]
        except (OSError, ValueError, KeyError, TypeError):  # missing, or written by another version
            return 0.0, ()

    def _store(self, at: float, states: Sequence[BudgetState]) -> None:
        new = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        try:
            new.write_bytes(orjson.dumps({"at": at, "budgets": [*map(tuple, states)]}))
            new.replace(self._file)
        except OSError as error:
            log.warning("The numbers of budgets cannot be written to %s: %s.", self._file, error.strerror)


def read_budgets(organisation: Organisation, allowances: AllowanceReader, now: datetime) -> list[BudgetState]:
    """Read what is spent and left of the budgets of *organisation* and of its groups."""
    groups = [group for _, group in sorted(organisation.groups.items()) if group.limits.budget is not None]
    if len(groups) > MOST_GROUPS:
        log.info("The metrics have the budgets of %d groups, and not of %d.", MOST_GROUPS, len(groups))
    scopes = [Scope.of_organisation(organisation)] if organisation.limits.budget is not None else []
    scopes += [Scope.of_group(group, now) for group in groups[:MOST_GROUPS]]
    states = []
    for scope, found in zip(scopes, allowances.of(scopes), strict=True):
        limit, used, left, _, budget = found["budget"]
        if budget is not None:
            states.append(BudgetState(scope.kind, scope.name, budget.unit, budget.period, limit, used, left))
    return states
