"""Knows which models Azure has answered lately, for the list of models, and which it has just said do not exist."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import date, timedelta

from ..clock import Clock
from ..errors import StoreUnavailable
from ..records import UNKNOWN_MODEL, ReportQuery, UsageRow, moment

log = logging.getLogger(__name__)

DAYS = 30
"""How long a model stays in the list after its last answer."""

REFUSED_SECONDS = 3600.0
"""How long a model is taken as missing after Azure has said so. An answer ends this at once."""

RELOAD_SECONDS = 60.0
"""How old the sums may be. The answers of this process count at once."""

MOST_REFUSED = 1000
"""The most names that are remembered as missing; clients can send any."""


class AnsweredModels:
    """The names of models that Azure answers. Thread-safe.

    Args:
        report: Reads the sums of the usage log. Only :meth:`names` calls it, at most once in :data:`RELOAD_SECONDS`.
        clock: Gives points in time.
    """

    def __init__(self, report: Callable[[ReportQuery], Iterable[UsageRow]], *, clock: Clock) -> None:
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._stored: frozenset[str] = frozenset()
        self._next_load = 0.0
        self._answered: dict[str, float] = {}  # when, in seconds since the epoch
        self._refused: dict[str, float] = {}

    def answered(self, model: str) -> None:
        """Note that Azure has answered. The caller bounds the number of names."""
        self._answered[model] = self._clock()
        if self._refused:
            self._refused.pop(model, None)

    def refused(self, model: str) -> None:
        """Note that Azure has said that there is no such model."""
        with self._lock:
            self._refused.pop(model, None)
            self._refused[model] = self._clock() + REFUSED_SECONDS
            if len(self._refused) > MOST_REFUSED:
                self._refused.pop(next(iter(self._refused)), None)

    def is_missing(self, model: str) -> bool:
        """Return whether Azure's last word, within an hour, was that there is no such model."""
        return self._clock() < self._refused.get(model, 0.0)

    def names(self) -> list[str]:
        """Return the names that were answered within :data:`DAYS` and are not missing, in alphabetical order.

        If the store does not answer, these are the names that this process knows.
        """
        with self._lock:
            if self._clock() >= self._next_load:
                self._load()
            first_day = self._first_day()
            recent = {model for model, at in self._answered.copy().items() if moment(at).date() >= first_day}
            return sorted(model for model in recent | self._stored if not self.is_missing(model))

    def _load(self) -> None:
        self._next_load = self._clock() + RELOAD_SECONDS
        query = ReportQuery(by=("model",), first_day=self._first_day(), promptly=True)
        try:
            rows = self._report(query)
        except StoreUnavailable as error:
            log.warning("The list of models is not complete: %s", error)
            return
        # An error is any other outcome than 'ok'. So a row with more requests than errors has an answer.
        named = (row.by["model"] for row in rows if row.requests > row.errors)
        self._stored = frozenset(model for model in named if model and model != UNKNOWN_MODEL)

    def _first_day(self) -> date:
        return moment(self._clock()).date() - timedelta(days=DAYS)
