"""Admission: what a key, its group and the organisation may still use, claimed before Azure is asked.

All limits of a request are checked and claimed in one step of the counter store, with an estimate of
what it will use. When it has ended, the truth takes the estimate's place.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from .caller import Caller
from .claims import NANODOLLARS, Estimate, Limit, first_day, limits_of, nanodollars, scopes_of, totals_of, used_by
from .clock import Clock
from .errors import BudgetSpent, GatewayError, Outdated, RateLimited, StoreUnavailable
from .interfaces import CounterStore, Spending
from .leases import LEASE_SECONDS, Leases
from .records import Budget, Limits, Period, Unit, UsageRecord, moment
from .reservations import WINDOW_SECONDS, Claim, Decision, Kind, Proof, Reading, Settlement
from .settlements import Settlements

log = logging.getLogger(__name__)

LONGEST_WAIT = 60
"""Seconds; who asks OpenAI's clients to wait longer is not believed, and they are back in half a second (openai-python
1 and 2, ``_calculate_retry_timeout``; version 3 believes two minutes)."""

BUSY_SECONDS = 1.0
"""When to come back where that depends on requests that are running."""

_ATTEMPTS = 3  # to tell what totals begin with, where somebody empties the store at the same time
_FAR = {Kind.WINDOW: 2, Kind.TOTAL: 2, Kind.LEVEL: 8}
"""How many times what is used a limit has to be, for nobody to reach it in the moment in which settlements gather:
short requests one after the other take and leave many slots in that time."""

_NOTHING = Estimate(tokens=0, cost_usd=0.0)


class Admission:
    """A request that was let in, until it has ended. Whoever ends it does so once."""

    def __init__(
        self,
        limiter: Limiter,
        reservation: str,
        limits: Sequence[Limit],
        readings: Sequence[Reading],
        headers: dict[str, str],
    ) -> None:
        self._limiter = limiter
        self._reservation = reservation
        self._limits = limits
        self._readings = readings
        self.headers = headers
        """``x-ratelimit-*`` of the key."""

    @property
    def has_claims(self) -> bool:
        """Whether there is anything to settle; not where nothing is limited."""
        return bool(self._limits)

    def settle(self, record: UsageRecord) -> None:
        """Put what the request really used in place of the estimate."""
        if self.has_claims:
            self._end(used_by(record))

    def refund(self) -> None:
        """Give everything back: Azure was not reached."""
        if self.has_claims:
            self._end({})

    def _end(self, used: Mapping[Unit, int]) -> None:
        # What was held of a level comes back, whatever its claim says.
        amounts = [used.get(limit.unit, 0) if limit.unit else limit.claim.amount for limit in self._limits]
        claims = [limit.claim.of(amount) for limit, amount in zip(self._limits, amounts, strict=True)]
        self._limiter.settle(
            Settlement(self._reservation, tuple(claims)),
            is_awaited=any(map(_is_awaited, self._limits, self._readings, amounts)),
        )


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one scope may use, and what is left of it now."""

    limits: Limits
    remaining: Mapping[str, float]
    """By part of :class:`~llmgateway.records.Limits` that is set; a budget's in its own unit."""


class Limiter:
    """Admits requests. Thread-safe.

    Args:
        spending: Says what was used of a budget whose counter is new, or was lost.
        ship: Gets the records of what has ended in this process into the usage log, if that takes no time.
    """

    def __init__(
        self,
        counters: CounterStore,
        spending: Spending,
        *,
        leases: Leases,
        settlements: Settlements,
        ship: Callable[[], object],
        clock: Clock,
    ) -> None:
        self._counters = counters
        self._spending = spending
        self._leases = leases
        self._settlements = settlements
        self._ship = ship
        self._clock = clock

    def admit(self, reservation: str, caller: Caller, estimate: Estimate, *, proof: Proof | None = None) -> Admission:
        """Claim what the request may use, for as long as it runs.

        Args:
            reservation: The request's identifier.
            proof: Of *caller*, who has limits: that it holds is seen in the same step.

        Raises:
            Outdated: the proof does not hold; nothing was claimed.
            RateLimited: it would be too much now.
            BudgetSpent: it would be too much for the rest of a budget's period.
        """
        limits = limits_of(caller, estimate, moment(self._clock()))
        if not limits:
            return Admission(self, reservation, (), (), {})
        limits, decision = self._reserve(reservation, limits, proof)
        if not decision.admitted and self._settlements.flush():
            # What has ended in this process, and was not settled yet, refuses nobody.
            limits, decision = self._reserve(reservation, limits, proof)
        headers = _headers(limits, decision)
        if not decision.admitted:
            raise self._refusal(limits, decision.readings, headers)
        self._leases.add(reservation)
        return Admission(self, reservation, limits, decision.readings, headers)

    def settle(self, settlement: Settlement, *, is_awaited: bool) -> None:
        """End what :meth:`admit` began: before it returns, or soon."""
        self._leases.remove(settlement.reservation)
        if is_awaited:
            self._settlements.at_once(settlement)
        else:
            self._settlements.soon(settlement)

    def close(self) -> None:
        """Settle what has ended, for good."""
        self._settlements.flush()
        self._counters.flush()

    def book(self, record: UsageRecord) -> None:
        """End what a process that died had begun, of which *record* is left."""
        self._settlements.at_once(Settlement(record.id, totals_of(record)))

    def count_anew(self, records: Iterable[UsageRecord]) -> None:
        """Let the totals that *records* belong to begin with what the usage log says, when they are needed next.

        What ended in the last moment of a process that was killed may not have been settled.
        """
        self._counters.forget([*{claim.counter: None for record in records for claim in totals_of(record)}])

    def allowances(self, caller: Caller) -> dict[str, Allowance]:
        """What is left for *caller*, by ``key``, ``group`` and ``organisation``; those without limits are not there."""
        limits = limits_of(caller, _NOTHING, moment(self._clock()), requests=0)
        self._settlements.flush()
        limits, decision = self._ask(limits, self._counters.look)
        left: dict[str, dict[str, float]] = {}
        for limit, reading in zip(limits, decision.readings, strict=True):
            if limit.claim.limit is not None:
                amount = max(0, limit.claim.limit - reading.used)
                in_dollars = limit.part == "budget" and limit.unit is Unit.USD
                left.setdefault(limit.scope.kind, {})[limit.part] = amount / NANODOLLARS if in_dollars else amount
        return {scope.kind: Allowance(scope.limits, left.get(scope.kind, {})) for scope in scopes_of(caller)}

    def headers(self, caller: Caller) -> dict[str, str]:
        """``x-ratelimit-*`` for an answer to a request that claims nothing."""
        limits = limits_of(caller, _NOTHING, moment(self._clock()), requests=0)
        windows = [limit for limit in limits if limit.scope.kind == "key" and limit.claim.kind is Kind.WINDOW]
        return _headers(windows, self._counters.look([limit.claim for limit in windows])) if windows else {}

    def _reserve(self, reservation: str, limits: list[Limit], proof: Proof | None) -> tuple[list[Limit], Decision]:
        limits, decision = self._ask(
            limits, lambda claims: self._counters.reserve(reservation, claims, lease=LEASE_SECONDS, proof=proof)
        )
        if not decision.proven:
            raise Outdated
        return limits, decision

    def _ask(
        self, limits: list[Limit], question: Callable[[Sequence[Claim]], Decision]
    ) -> tuple[list[Limit], Decision]:
        """Ask the store, tell it what it does not know, and ask again; returns what was asked for in the end."""
        for _ in range(_ATTEMPTS):
            decision = question([limit.claim for limit in limits])
            if not decision.unknown:
                return limits, decision
            limits = [limit for limit in limits if limit.claim.counter not in decision.unknown or self._tell(limit)]
        limits = [limit for limit in limits if limit.claim.kind is not Kind.TOTAL]
        return limits, question([limit.claim for limit in limits])

    def _tell(self, limit: Limit) -> bool:
        """Tell the store what a total begins with; False if nobody knows that now."""
        budget = limit.scope.limits.budget
        if budget is None:
            return False
        try:
            used = self._used_so_far(limit, budget)
        except StoreUnavailable:
            # What was told long ago holds on. Where nothing was told nobody is refused because something of ours
            # is down; as it is still unknown, the next one asks again. The log says once what is away.
            return self._counters.confirm(limit.claim.counter)
        self._counters.seed(limit.claim.counter, used, until=limit.claim.until)
        return True

    def _used_so_far(self, limit: Limit, budget: Budget) -> int:
        self._settlements.flush()  # or the counters would add what the log has, too
        self._ship()
        row = self._spending.so_far(
            first_day=first_day(budget.period, moment(self._clock()).date()),
            key_id=limit.scope.name if limit.scope.kind == "key" else None,
            group=limit.scope.name if limit.scope.kind == "group" else None,
        )
        used = {Unit.USD: nanodollars(row.cost_usd), Unit.TOKENS: row.total_tokens, Unit.REQUESTS: row.requests}
        return used[budget.unit]

    def _refusal(self, limits: Sequence[Limit], readings: Sequence[Reading], headers: dict[str, str]) -> GatewayError:
        """The error that says whose limit it was; of several, the one that lasts longest."""
        refused = [(limit, reading) for limit, reading in zip(limits, readings, strict=True) if not reading.fits]
        spent = [(limit, reading) for limit, reading in refused if _is_spent(limit, reading)]
        if spent:
            return _budget_spent(
                *max(spent, key=lambda pair: pair[0].claim.until or math.inf), headers, now=self._clock()
            )
        return _rate_limited(*max(refused, key=lambda pair: pair[1].wait), headers)


def _is_awaited(limit: Limit, reading: Reading, used: int) -> bool:
    """Whether another process may judge somebody wrongly by what this request held, until it is settled."""
    claim = limit.claim
    return claim.limit is not None and _FAR[claim.kind] * (reading.used + max(claim.amount, used)) > claim.limit


def _is_spent(limit: Limit, reading: Reading) -> bool:
    """Whether it would be too much even if everything that runs came to nothing."""
    claim = limit.claim
    return claim.kind is Kind.TOTAL and reading.used - reading.held + claim.amount > (claim.limit or 0)


def _budget_spent(limit: Limit, reading: Reading, headers: dict[str, str], *, now: float) -> BudgetSpent:
    claim, budget = limit.claim, limit.scope.limits.budget
    left = (claim.limit or 0) - reading.used
    message = f"{limit.scope} has used its budget of {_budget(budget)}."
    if left > 0:
        message = (
            f"{limit.scope} has {_amount(left, limit.unit)} left of its budget of {_budget(budget)}, and this request "
            f"may need {_amount(claim.amount, limit.unit)}. Ask for fewer tokens (max_tokens)."
        )
    if claim.until is None:
        message += " It does not renew: ask the admin of this gateway."
    else:
        message += f" It renews at {datetime.fromtimestamp(claim.until, UTC):%Y-%m-%d %H:%M:%S} UTC."
    return BudgetSpent(
        message,
        retry_after=None if claim.until is None else max(1, math.ceil(claim.until - now)),
        # The official clients would try again in half a second, twice.
        headers={**headers, "x-llmgateway-limit": limit.name, "x-should-retry": "false"},
    )


def _rate_limited(limit: Limit, reading: Reading, headers: dict[str, str]) -> RateLimited:
    claim = limit.claim
    seconds = min(max(reading.wait, 0.001), LONGEST_WAIT) if claim.kind is Kind.WINDOW else BUSY_SECONDS
    later = f"Try again in {math.ceil(seconds)} s."
    messages = {
        "requests_per_minute": f"{limit.scope} may make {claim.limit} requests per minute. {later}",
        "tokens_per_minute": f"{limit.scope} may use {claim.limit} tokens per minute. {reading.used} are used, and "
        f"this request may need {claim.amount}. {later}",
        "parallel_requests": f"{limit.scope} may have {claim.limit} requests running at once. Wait for one to end.",
        "budget": f"{limit.scope} has a budget of which running requests hold the rest. {later}",
    }
    return RateLimited(
        messages[limit.part],
        retry_after=math.ceil(seconds),
        headers={**headers, "retry-after-ms": str(math.ceil(seconds * 1000)), "x-llmgateway-limit": limit.name},
    )


def _headers(limits: Sequence[Limit], decision: Decision) -> dict[str, str]:
    """``x-ratelimit-*`` of the key itself, as OpenAI has them."""
    headers: dict[str, str] = {}
    for limit, reading in zip(limits, decision.readings, strict=True):
        claim = limit.claim
        if limit.scope.kind == "key" and claim.kind is Kind.WINDOW and claim.limit is not None:
            claimed = claim.amount if decision.admitted else 0
            used = reading.used + claimed
            full_in = WINDOW_SECONDS + 1 if claimed else math.ceil(reading.empties_in)
            headers[f"x-ratelimit-limit-{limit.unit}"] = str(claim.limit)
            headers[f"x-ratelimit-remaining-{limit.unit}"] = str(max(0, claim.limit - used))
            headers[f"x-ratelimit-reset-{limit.unit}"] = f"{full_in}s"
    return headers


def _budget(budget: Budget | None) -> str:
    if budget is None:
        return ""
    period = "in total" if budget.period is Period.TOTAL else f"per {budget.period}"
    return f"{budget.amount:,.15g} {_UNITS[budget.unit]} {period}"


def _amount(amount: int, unit: Unit | None) -> str:
    if unit is Unit.USD:
        return f"{amount / NANODOLLARS:.6f} USD"
    return f"{amount:,} {unit}"


_UNITS = {Unit.USD: "USD", Unit.TOKENS: "tokens", Unit.REQUESTS: "requests"}
