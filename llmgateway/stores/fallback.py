"""Counts in the memory of each process while the shared counters are unavailable."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ..errors import StoreUnavailable
from ..interfaces import CounterStore
from ..ratelimit.reservations import Commit, CounterRequest, Decision, Kind
from .circuit import Circuit

T = TypeVar("T")

log = logging.getLogger(__name__)


class FallbackCounters:
    """A :class:`~llmgateway.interfaces.CounterStore` that uses *own* while *shared* is unavailable. Raises nothing.

    A reservation is committed in the store in which it was made. Budget totals that were used while *shared* was
    unavailable are made uninitialised there before it is used again, so that they are read from the usage log.

    Args:
        own: Counts for this process only.
        circuit: Prevents waiting for *shared* when it has just failed. None if *shared* has a circuit itself.
    """

    def __init__(self, shared: CounterStore, own: CounterStore, *, circuit: Circuit | None) -> None:
        self._shared = shared
        self._own = own
        self._circuit = circuit
        self._lock = threading.Lock()
        self._alone = False
        self._made_here: set[str] = set()
        self._to_forget: dict[str, object] = {}

    def reserve(self, reservation: str, counter_requests: Sequence[CounterRequest], *, lease: float) -> Decision:
        try:
            return self._ask(lambda: self._shared.reserve(reservation, counter_requests, lease=lease))
        except StoreUnavailable:
            decision = self._own.reserve(reservation, counter_requests, lease=lease)
            if decision.admitted:
                self._made_here.add(reservation)
            return decision

    def commit(self, commits: Sequence[Commit]) -> None:
        here = [commit for commit in commits if commit.reservation in self._made_here]
        elsewhere = [commit for commit in commits if commit.reservation not in self._made_here]
        self._own.commit(here)
        self._made_here.difference_update(commit.reservation for commit in here)
        # A shared total that was initialised after the failure does not contain the requests that ran here.
        totals_here = [
            Commit(reservation, totals)
            for reservation, counter_requests in here
            if (totals := _totals(counter_requests))
        ]
        if not elsewhere and not totals_here:
            return
        try:
            self._ask(lambda: self._shared.commit([*elsewhere, *totals_here]))
        except StoreUnavailable:
            self._own.commit(elsewhere)
            self._forget_later(total.counter for commit in commits for total in _totals(commit.counter_requests))

    def renew(self, reservations: Sequence[str], *, lease: float) -> None:
        self._own.renew([name for name in reservations if name in self._made_here], lease=lease)
        elsewhere = [name for name in reservations if name not in self._made_here]
        if not elsewhere:
            return
        try:
            self._ask(lambda: self._shared.renew(elsewhere, lease=lease))
        except StoreUnavailable:
            return  # the amounts of expired leases are added when they are committed

    def look(self, counter_requests: Sequence[CounterRequest]) -> Decision:
        try:
            return self._ask(lambda: self._shared.look(counter_requests))
        except StoreUnavailable:
            return self._own.look(counter_requests)

    def initialise(self, counter: str, used: int, *, until: int | None) -> None:
        try:
            self._ask(lambda: self._shared.initialise(counter, used, until=until))
        except StoreUnavailable:
            self._own.initialise(counter, used, until=until)
            self._forget_later([counter])

    def confirm(self, counter: str) -> bool:
        try:
            return self._ask(lambda: self._shared.confirm(counter))
        except StoreUnavailable:
            return self._own.confirm(counter)

    def forget(self, counters: Sequence[str]) -> None:
        self._own.forget(counters)
        try:
            self._ask(lambda: self._shared.forget(counters))
        except StoreUnavailable:
            self._forget_later(counters)

    def flush(self) -> None:
        self._shared.flush()

    def _ask(self, question: Callable[[], T]) -> T:
        def ask() -> T:
            if self._to_forget:
                self._forget_now()
            return question()

        try:
            answer = ask() if self._circuit is None else self._circuit.call(ask)
        except StoreUnavailable:
            self._turn(alone=True)
            raise
        if self._alone:
            self._turn(alone=False)
        return answer

    def _turn(self, *, alone: bool) -> None:
        with self._lock:
            turned, self._alone = self._alone != alone, alone
        if turned and alone:
            log.warning("the shared counters are unavailable: this process counts limits for itself")
        elif turned:
            log.warning("the shared counters are available again: all processes count limits together")

    def _forget_later(self, counters: Iterable[str]) -> None:
        with self._lock:
            self._to_forget.update((counter, object()) for counter in counters)

    def _forget_now(self) -> None:
        with self._lock:
            due = dict(self._to_forget)
        self._shared.forget([*due])
        # Also in this process: its totals would be out of date at the next failure.
        self._own.forget([*due])
        with self._lock:
            for counter, entry in due.items():
                # Another thread may have added the counter again in the meantime.
                if self._to_forget.get(counter) is entry:
                    del self._to_forget[counter]


def _totals(counter_requests: Iterable[CounterRequest]) -> tuple[CounterRequest, ...]:
    return tuple(counter_request for counter_request in counter_requests if counter_request.kind == Kind.TOTAL)
