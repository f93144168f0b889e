"""Admits requests within the limits of a key, its person, its group and the organisation.

Before a request is sent to Azure, the counter store checks all of its limits and reserves an estimate of what the
request will use, in one step. When the request has ended, a commit replaces the estimate by the true amounts.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ..accounts.principal import Principal
from ..clock import Clock
from ..errors import BudgetSpent, GatewayError, RateLimited, StoreUnavailable
from ..interfaces import CounterStore, Spending
from ..local_time import TimeZones
from ..records import UNIT_NAMES, Budget, Organisation, Outcome, Period, Unit, UsageRecord, UsageSource, moment
from .allowances import AllowanceReader, used_of
from .answer_lengths import AnswerLengths
from .periods import LocalDay, shown
from .refused import RecentlyRefused
from .reservations import WINDOW_SECONDS, Commit, CounterRequest, Decision, Kind, Reading
from .rules import (
    NANODOLLARS,
    NOTHING,
    Estimate,
    Limit,
    limits_of,
    totals_of,
    used_by,
)
from .running import LEASE_SECONDS, RunningReservations

log = logging.getLogger(__name__)

LONGEST_WAIT = 60
"""Longest ``Retry-After`` in seconds. OpenAI's clients ignore a longer time and retry after half a second
(openai-python 1 and 2, ``_calculate_retry_timeout``; version 3 accepts two minutes)."""

BUSY_SECONDS = 1.0
"""``Retry-After`` in seconds if the wait depends on running requests."""

_SMALLEST = Estimate.bounded(1, 0.0)
"""What every request uses at least."""

_ATTEMPTS = 3  # to initialise budget totals, in case the store is emptied at the same time
_DISTANCE = {Kind.WINDOW: 2, Kind.TOTAL: 2, Kind.GAUGE: 8}
"""If a limit is at least this many times the used amount, other requests cannot reach it while commits are collected.
Gauges need a larger factor, because many short requests can take and release places in that time."""


class Admission:
    """A request that was admitted. The caller must call either :meth:`commit` or :meth:`refund`, exactly once."""

    def __init__(
        self,
        limiter: Limiter,
        reservation: str,
        limits: Sequence[Limit],
        readings: Sequence[Reading],
        headers: dict[str, str],
        *,
        choices: int | None = None,
    ) -> None:
        self._limiter = limiter
        self._reservation = reservation
        self._limits = limits
        self._readings = readings
        self._choices = choices  # as in Estimate
        self.headers = headers
        """``x-ratelimit-*``; see :func:`_headers`."""

    @property
    def has_counter_requests(self) -> bool:
        """Whether there is something to commit; False if no limit applies."""
        return bool(self._limits)

    @property
    def limit_names(self) -> tuple[str, ...]:
        """The limits that have allowed the request: names as in the header ``x-llmgateway-limit``."""
        return tuple([limit.name for limit in self._limits if limit.counter_request.limit is not None])

    def commit(self, record: UsageRecord) -> None:
        """Replace the estimate by the amounts that the request really used."""
        if self.has_counter_requests:
            if self._choices:
                self._learn(record, record.completion_tokens / self._choices)
            self._end(used_by(record))

    def refund(self) -> None:
        """Give everything back, because Azure was not reached."""
        if self.has_counter_requests:
            self._end({})

    def leave(self) -> None:
        """End a request that cost nothing and leaves no record. It still counts as one of the requests per minute."""
        if self.has_counter_requests:
            self._end({Unit.REQUESTS: 1})

    def _learn(self, record: UsageRecord, tokens: float) -> None:
        answers = self._limiter.answers
        # A part of an answer says only that answers can be longer. So it does not help to leave before the end.
        if record.outcome is Outcome.OK or tokens > answers.usual(record.key_id):
            answers.add(record.key_id, tokens)

    def _end(self, used: Mapping[Unit, int]) -> None:
        # A commit ignores the amounts of gauges.
        amounts = [used.get(limit.unit, 0) if limit.unit else limit.counter_request.amount for limit in self._limits]
        counter_requests = [
            limit.counter_request.with_amount(amount) for limit, amount in zip(self._limits, amounts, strict=True)
        ]
        self._limiter.commit(
            Commit(self._reservation, tuple(counter_requests)),
            is_awaited=any(map(_is_awaited, self._limits, self._readings, amounts)),
        )


class Limiter:
    """Admits requests. Thread-safe.

    Args:
        spending: Says what was used of a budget whose counter is not initialised.
        running: The reservations in *counters* of the requests of this process.
        zones: Returns the time zones of an organisation; for None, those of the present one.
        ship: Ships the records of ended requests of this process to the usage log, if that is possible at once.
        shows_shared: As :attr:`shows_shared`.
    """

    def __init__(
        self,
        counters: CounterStore,
        spending: Spending,
        *,
        running: RunningReservations,
        ship: Callable[[], object],
        clock: Clock,
        shows_shared: bool = True,
        zones: Callable[[Organisation | None], TimeZones] = lambda _: TimeZones(),
    ) -> None:
        self._counters = counters
        self._spending = spending
        self._running = running
        self._ship = ship
        self._clock = clock
        self._zones = zones
        self.answers = AnswerLengths()
        """How long the answers of each key are, for :attr:`Estimate.per_minute`."""
        self.allowances = AllowanceReader(counters, spending, settle=running.flush, ship=ship, clock=clock, zones=zones)
        self.shows_shared = shows_shared
        """Whether messages say how large the budgets are that several people share, and what is left of them."""
        self._refused = RecentlyRefused(clock)

    def admit(self, reservation: str, principal: Principal, estimate: Estimate) -> Admission:
        """Reserve what the request may use, until it ends.

        Args:
            reservation: The identifier of the request.

        Raises:
            RateLimited: a limit is reached for now.
            BudgetSpent: a budget is used up until its period ends.
        """
        limits = self._limits_of(principal, estimate)
        return self._admit(reservation, principal, limits, choices=estimate.choices)

    def _admit(
        self, reservation: str, principal: Principal, limits: list[Limit], *, choices: int | None = None
    ) -> Admission:
        if not limits:
            return Admission(self, reservation, (), (), {})
        limits, decision = self._reserve(reservation, limits)
        if not decision.admitted and self._running.flush():
            # The commits of ended requests may have freed enough.
            limits, decision = self._reserve(reservation, limits)
        headers = _headers(limits, decision)
        if not decision.admitted:
            self._refused.add(principal.key.id)
            raise self._refusal(limits, decision.readings, headers)
        self._running.add(reservation)
        return Admission(self, reservation, limits, decision.readings, headers, choices=choices)

    def admit_free(self, reservation: str, principal: Principal) -> Admission:
        """Like :meth:`admit`, for a request that costs nothing: budgets do not count, and may be spent.

        End it with :meth:`Admission.leave`.

        Raises:
            RateLimited: a limit is reached for now.
        """
        every = self._limits_of(principal, NOTHING)
        return self._admit(
            reservation, principal, [limit for limit in every if limit.counter_request.kind is not Kind.TOTAL]
        )

    def look_again(self, principal: Principal) -> None:
        """Refuse a key that this process has refused within the last minute, if its limits are still reached.

        Call this before the body is read: a body of a refused request costs nothing then. Nothing is reserved. For
        other keys this asks no store.

        Raises:
            RateLimited, BudgetSpent: not even the smallest request would be admitted.
        """
        if principal.key.id not in self._refused:
            return
        limits = self._limits_of(principal, _SMALLEST)
        if not limits:
            return
        limits, decision = self._ask(limits, self._counters.look)
        if not decision.admitted and self._running.flush():
            limits, decision = self._ask(limits, self._counters.look)
        if not decision.admitted:
            self._refused.add(principal.key.id)
            raise self._refusal(limits, decision.readings, _headers(limits, decision))

    def commit(self, commit: Commit, *, is_awaited: bool) -> None:
        """End a reservation of :meth:`admit`: before this method returns if *is_awaited*, otherwise soon."""
        if is_awaited:
            self._running.commit_at_once(commit)
        else:
            self._running.commit_soon(commit)

    def close(self) -> None:
        """Commit ended requests, and store what was counted in memory."""
        self._running.flush()
        self._counters.flush()

    def book(self, record: UsageRecord) -> None:
        """Count the request of *record*, which a process left in its journal when it died."""
        self._running.commit_at_once(Commit(record.id, totals_of(record, self._zones(None))))

    def count_anew(self, records: Iterable[UsageRecord]) -> None:
        """Make the budget totals of *records* uninitialised, so that they are read again from the usage log.

        A process that was killed may not have committed its last requests.
        """
        zones = self._zones(None)
        self._counters.forget(
            [*{counter_request.counter: None for record in records for counter_request in totals_of(record, zones)}]
        )

    def forget_person(self, user: str, groups: Iterable[str | None]) -> None:
        """Make the budget totals of *user* uninitialised, as a person and as a member of *groups*.

        Then a person who gets the name of one who was erased begins with nothing used.
        """
        nothing = UsageRecord(
            id="",
            timestamp=moment(self._clock()),
            key_id="",
            user=user,
            model="",
            deployment="",
            endpoint="",
            stream=False,
            outcome=Outcome.OK,
            usage_source=UsageSource.NONE,
            duration_ms=0,
        )
        self.count_anew(replace(nothing, group=group) for group in {None, *groups})

    def headers(self, principal: Principal) -> dict[str, str]:
        """Return the headers ``x-ratelimit-*`` for a request that reserves nothing; see :func:`_headers`."""
        windows = self._windows(principal, requests=0)
        return _headers(windows, self._counters.look([limit.counter_request for limit in windows])) if windows else {}

    def count_refused(self, request: str, principal: Principal) -> dict[str, str]:
        """Count a request that is refused before it is admitted as one of the requests per minute of its sender.

        Limits that several people share do not count it, so that nobody can use them up with bad requests.

        Args:
            request: The identifier of the request.

        Returns:
            What :meth:`headers` returns.
        """
        windows = [
            limit if _counts_refused(limit) else limit.for_estimate(NOTHING, 0)
            for limit in self._windows(principal, requests=1)
        ]
        if not any(map(_counts_refused, windows)):
            return self.headers(principal)
        # An amount stays in its window although nothing is committed.
        decision = self._counters.reserve(request, [*map(_refused_request, windows)], lease=0.0)
        if not decision.admitted:
            self._refused.add(principal.key.id)  # so that its next body is not parsed
        return _headers(windows, decision)

    def _windows(self, principal: Principal, *, requests: int) -> list[Limit]:
        limits = self._limits_of(principal, NOTHING, requests=requests)
        return [limit for limit in limits if _is_limited_window(limit)]

    def _limits_of(self, principal: Principal, estimate: Estimate, *, requests: int = 1) -> list[Limit]:
        return limits_of(principal, estimate, moment(self._clock()), self._zones, requests=requests)

    def _reserve(self, reservation: str, limits: list[Limit]) -> tuple[list[Limit], Decision]:
        limits, decision = self._ask(
            limits,
            lambda counter_requests: self._counters.reserve(reservation, counter_requests, lease=LEASE_SECONDS),
        )
        return limits, decision

    def _ask(
        self, limits: list[Limit], question: Callable[[Sequence[CounterRequest]], Decision]
    ) -> tuple[list[Limit], Decision]:
        """Ask the store, and initialise budget totals until it can answer. Also return the limits of the last question.

        A budget total that cannot be initialised is left out.
        """
        for _ in range(_ATTEMPTS):
            decision = question([limit.counter_request for limit in limits])
            if not decision.uninitialised:
                return limits, decision
            limits = [
                limit
                for limit in limits
                if limit.counter_request.counter not in decision.uninitialised or self._initialise(limit)
            ]
        limits = [limit for limit in limits if limit.counter_request.kind is not Kind.TOTAL]
        return limits, question([limit.counter_request for limit in limits])

    def _initialise(self, limit: Limit) -> bool:
        """Initialise a budget total from the usage log; False if that is not possible."""
        budget = limit.scope.limits.budget
        if budget is None:
            return False
        try:
            used = self._used_so_far(limit, budget)
        except StoreUnavailable:
            # Use an old initialisation for longer. If there is none, the budget is not checked, because a request must
            # not be refused when a store is unavailable. The next request tries again. The circuit logs the failure.
            return self._counters.confirm(limit.counter_request.counter)
        self._counters.initialise(limit.counter_request.counter, used, until=limit.counter_request.until)
        return True

    def _used_so_far(self, limit: Limit, budget: Budget) -> int:
        self._running.flush()  # otherwise the usage log and a later commit would both count these requests
        self._ship()
        day = LocalDay.at(moment(self._clock()), self._zones(None))
        usage = {"key_id" if by == "key" else by: name for by, name in limit.scope.usage.items()}
        row = self._spending.so_far(first_day=day.first_day(budget.period), **usage)
        return used_of(row, budget.unit)

    def _refusal(self, limits: Sequence[Limit], readings: Sequence[Reading], headers: dict[str, str]) -> GatewayError:
        """Return the error for the limit that was reached; of several limits, the one with the longest wait."""
        refused = [(limit, reading) for limit, reading in zip(limits, readings, strict=True) if not reading.fits]
        spent = [(limit, reading) for limit, reading in refused if _is_spent(limit, reading)]
        if spent:
            limit, reading = max(spent, key=lambda pair: pair[0].counter_request.until or math.inf)
            hides, zones = self._hides(limit), self._zones(None)
            return _budget_spent(limit, reading, headers, hides=hides, now=self._clock(), zones=zones)
        limit, reading = max(refused, key=lambda pair: pair[1].wait)
        return _rate_limited(limit, reading, headers, hides=self._hides(limit))

    def _hides(self, limit: Limit) -> bool:
        return limit.scope.is_shared and not self.shows_shared


def _is_limited_window(limit: Limit) -> bool:
    # The window that measures a key's share of the organisation's tokens has no limit.
    return limit.counter_request.kind is Kind.WINDOW and limit.counter_request.limit is not None


def _counts_refused(limit: Limit) -> bool:
    """Whether a request that is refused before it is admitted counts for *limit*."""
    return limit.unit is Unit.REQUESTS and not limit.scope.is_shared


def _refused_request(limit: Limit) -> CounterRequest:
    """Return the counter request of *limit*, without a limit if it only reads: then it refuses nothing."""
    return limit.counter_request if _counts_refused(limit) else limit.counter_request._replace(limit=None)


def _is_awaited(limit: Limit, reading: Reading, used: int) -> bool:
    """Whether another process may refuse a request until this one is committed, because *limit* is nearly reached."""
    counter_request = limit.counter_request
    return (
        counter_request.limit is not None
        and _DISTANCE[counter_request.kind] * (reading.used + max(counter_request.amount, used)) > counter_request.limit
    )


def _is_spent(limit: Limit, reading: Reading) -> bool:
    """Whether the request would exceed the budget even if all running requests used nothing."""
    counter_request = limit.counter_request
    return counter_request.kind is Kind.TOTAL and reading.used - reading.held + _needed(counter_request) > (
        counter_request.limit or 0
    )


def _needed(counter_request: CounterRequest) -> int:
    """Return the amount without which the request is refused."""
    return counter_request.amount if counter_request.at_least is None else counter_request.at_least


def _budget_spent(
    limit: Limit, reading: Reading, headers: dict[str, str], *, hides: bool, now: float, zones: TimeZones
) -> BudgetSpent:
    counter_request, budget = limit.counter_request, limit.scope.limits.budget
    left = (counter_request.limit or 0) - (reading.used - reading.held)
    if left <= 0:
        message = f"{limit.scope} has used its budget{_of_amount(budget, hides)}."
    elif hides:
        # Without what the request may need: several requests would tell what is left.
        message = (
            f"{limit.scope} has too little left of its budget for this request. Ask for fewer tokens (max_tokens)."
        )
    else:
        message = (
            f"{limit.scope} has {_amount(left, limit.unit)} left of its budget{_of_amount(budget, hides)}, and this "
            f"request may need {_amount(_needed(counter_request), limit.unit)}. Ask for fewer tokens (max_tokens)."
        )
    if counter_request.until is None:
        message += " It does not renew: ask the admin of this gateway."
    else:
        message += f" It renews at {shown(datetime.fromtimestamp(counter_request.until, UTC), zones)}."
    return BudgetSpent(
        message,
        retry_after=None if counter_request.until is None else max(1, math.ceil(counter_request.until - now)),
        # Without x-should-retry, OpenAI's clients would retry twice, after half a second.
        headers={**headers, "x-llmgateway-limit": limit.name, "x-should-retry": "false"},
    )


def _rate_limited(limit: Limit, reading: Reading, headers: dict[str, str], *, hides: bool) -> RateLimited:
    counter_request = limit.counter_request
    seconds = min(max(reading.wait, 0.001), LONGEST_WAIT) if counter_request.kind is Kind.WINDOW else BUSY_SECONDS
    later = f"Try again in {math.ceil(seconds)} s."
    messages = {
        "requests_per_minute": f"{limit.scope} may make {counter_request.limit} requests per minute. {later}",
        "tokens_per_minute": f"{limit.scope} may use {counter_request.limit} tokens per minute. {reading.used} are "
        f"used, and this request may need {counter_request.amount}. {later}",
        "parallel_requests": f"{limit.scope} may have {counter_request.limit} requests running at once. "
        "Wait for one to end.",
        "budget": f"{limit.scope} has a budget{_of_amount(limit.scope.limits.budget, hides)}. It is not used up, but "
        f"running requests hold what is left of it until they end.{_advice(limit)} {later}",
    }
    return RateLimited(
        messages[limit.part],
        retry_after=math.ceil(seconds),
        headers={**headers, "retry-after-ms": str(math.ceil(seconds * 1000)), "x-llmgateway-limit": limit.name},
    )


def _advice(limit: Limit) -> str:
    if limit.unit is Unit.REQUESTS:
        return ""
    return " A request holds what its answer may cost at most: set max_tokens, so that more requests can run at once."


def _headers(limits: Sequence[Limit], decision: Decision) -> dict[str, str]:
    """Return the headers ``x-ratelimit-*``, as OpenAI defines them, for the tightest of the limits per minute.

    That is the limit of which least is left, whosever it is: the client can use no more than that. If the same is left
    of several, it is the one that takes longest until all of it is free again.
    """
    tightest: dict[Unit | None, tuple[int, int, int]] = {}  # what is left, minus the seconds, the limit
    for limit, reading in zip(limits, decision.readings, strict=True):
        counter_request = limit.counter_request
        if counter_request.kind is Kind.WINDOW and counter_request.limit is not None:
            reserved = counter_request.amount if decision.admitted else 0
            left = max(0, counter_request.limit - reading.used - reserved)
            full_in = WINDOW_SECONDS + 1 if reserved else math.ceil(reading.empties_in)
            found = (left, -full_in, counter_request.limit)
            if limit.unit not in tightest or found < tightest[limit.unit]:
                tightest[limit.unit] = found
    headers: dict[str, str] = {}
    for unit, (left, full_in, most) in tightest.items():
        headers[f"x-ratelimit-limit-{unit}"] = str(most)
        headers[f"x-ratelimit-remaining-{unit}"] = str(left)
        headers[f"x-ratelimit-reset-{unit}"] = f"{-full_in}s"
    return headers


def _of_amount(budget: Budget | None, hides: bool) -> str:
    """Return how large *budget* is, as the end of a clause; nothing if that is hidden."""
    if budget is None or hides:
        return ""
    period = "in total" if budget.period is Period.TOTAL else f"per {budget.period}"
    return f" of {budget.amount:,.15g} {UNIT_NAMES[budget.unit]} {period}"


def _amount(amount: int, unit: Unit | None) -> str:
    if unit is Unit.USD:
        return f"{amount / NANODOLLARS:.6f} USD"
    return f"{amount:,} {unit}"
