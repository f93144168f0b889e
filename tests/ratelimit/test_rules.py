"""Rules: the counter requests for the limits of a request."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from llmgateway.accounts.principal import Principal
from llmgateway.local_time import TimeZones
from llmgateway.ratelimit.reservations import CounterRequest, Kind
from llmgateway.ratelimit.rules import Estimate, Use, has_budget_in_dollars, limits_of, totals_of, used_by
from llmgateway.records import UNLIMITED, Budget, Group, KeyRecord, Limits, Organisation, Outcome, Period, Unit
from tests.parts import NEW_YEAR, draft

NOW = datetime(2026, 2, 27, 23, 59, 59, 999000, UTC)
SMALL = Estimate.bounded(40, 0.0000015)


def in_utc(_: Organisation) -> TimeZones:
    return TimeZones()


def budget(amount: float = 5, unit: Unit = Unit.USD, period: Period = Period.MONTH) -> Limits:
    return Limits(budget=Budget(amount=amount, unit=unit, period=period))


def principal(key: Limits = UNLIMITED, group: Limits = UNLIMITED, everybody: Limits = UNLIMITED) -> Principal:
    record = KeyRecord(id="key_1", digest="0", user="ada", name="x", created_at=NEW_YEAR, group="ml", limits=key)
    groups = {"ml": Group(name="ml", created_at=NEW_YEAR, limits=group)}
    return Principal(record, Organisation(limits=everybody, groups=groups))


def counter_requests(*limits: Limits, estimate: Estimate = SMALL) -> list[CounterRequest]:
    return [limit.counter_request for limit in limits_of(principal(*limits), estimate, NOW, in_utc)]


def test_no_limit_counter_requests_nothing():
    """A request without limits has no counter requests."""
    assert [] == counter_requests()


def test_each_limit_of_each_scope_is_a_counter_request():
    """Key, group and organisation have separate counters, and the names of limits contain the scope."""
    everything = Limits(requests_per_minute=10, tokens_per_minute=100, parallel_requests=2, budget=budget().budget)

    limits = limits_of(principal(everything, everything, everything), SMALL, NOW, in_utc)

    parts = ("requests_per_minute", "tokens_per_minute", "parallel_requests", "budget")
    assert [f"{scope}.{part}" for scope in ("key", "group", "organisation") for part in parts] == [
        limit.name for limit in limits
    ]
    assert 12 == len({limit.counter_request.counter for limit in limits})
    assert [Kind.WINDOW, Kind.WINDOW, Kind.GAUGE, Kind.TOTAL] * 3 == [limit.counter_request.kind for limit in limits]
    assert [1, 40, 1, 1500] * 3 == [limit.counter_request.amount for limit in limits]
    assert [10, 100, 2, 5 * 10**9] * 3 == [limit.counter_request.limit for limit in limits]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(tokens_per_minute=100), 100),
        (budget(10, Unit.TOKENS), 10),
        (budget(0.001), 1_000_000),
        (budget(1000), 2_000_000_000),
    ],
)
def test_an_estimate_above_the_limit_is_taken_as_the_limit(limits, expected):
    """A request whose estimate exceeds the whole limit is admitted if nothing else is used."""
    (counter_request,) = counter_requests(limits, estimate=Estimate.bounded(1000, 2.0))

    assert expected == counter_request.amount


UNBOUNDED = Estimate(Use(16_000, 0.16), Use(2000, 0.02), Use(300, 0.003), 700, choices=1)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (budget(20_000, Unit.TOKENS), [(16_000, 300), (2000, 300), (2000, 300)]),
        (budget(1), [(160_000_000, 3_000_000), (20_000_000, 3_000_000), (20_000_000, 3_000_000)]),
        (budget(100, Unit.REQUESTS), [(1, None)] * 3),
        (Limits(tokens_per_minute=100_000), [(700, None)] * 3),
        (Limits(requests_per_minute=100), [(1, None)] * 3),
        (Limits(parallel_requests=100), [(1, None)] * 3),
    ],
)
def test_a_request_without_a_limit_of_its_own_reserves_most_of_what_is_its_own(limits, expected):
    """Of the key's budget as much as the model can write, of shared ones as much as is likely, of windows the usual."""
    found = counter_requests(limits, limits, limits, estimate=UNBOUNDED)

    assert expected == [(counter_request.amount, counter_request.at_least) for counter_request in found]


@pytest.mark.parametrize(
    ("amount", "expected"), [(5000, (5000, 300)), (1000, (1000, 300)), (300, (300, None)), (200, (200, None))]
)
def test_enough_of_a_small_budget_is_all_of_it(amount, expected):
    """A request whose least estimate exceeds the whole budget is admitted if nothing else is used."""
    (counter_request,) = counter_requests(budget(amount, Unit.TOKENS), estimate=UNBOUNDED)

    assert expected == (counter_request.amount, counter_request.at_least)


def test_prices_matter_to_budgets_in_dollars_of_every_scope():
    """And to nothing else."""
    limits = Limits(tokens_per_minute=1, budget=Budget(amount=1, unit=Unit.TOKENS, period=Period.DAY))

    assert not has_budget_in_dollars(principal(limits, limits, limits))
    for scopes in ([budget(), limits, limits], [limits, budget(), limits], [limits, limits, budget()]):
        assert has_budget_in_dollars(principal(*scopes))


@pytest.mark.parametrize(
    ("period", "now", "counter", "until"),
    [
        (Period.DAY, NOW, "2026-02-27", "2026-02-28"),
        (Period.DAY, datetime(2026, 12, 31, tzinfo=UTC), "2026-12-31", "2027-01-01"),
        (Period.MONTH, NOW, "2026-02-01", "2026-03-01"),
        (Period.MONTH, datetime(2026, 1, 31, 23, tzinfo=UTC), "2026-01-01", "2026-02-01"),
        (Period.MONTH, datetime(2026, 12, 1, tzinfo=UTC), "2026-12-01", "2027-01-01"),
        (Period.TOTAL, NOW, "", None),
    ],
)
def test_periods_are_those_of_the_calendar(period, now, counter, until):
    """A budget has a counter for each day or month, in UTC, that ends when the next one begins."""
    (limit,) = limits_of(principal(budget(period=period)), SMALL, now, in_utc)

    ends = None if until is None else int(datetime.fromisoformat(f"{until}T00:00:00+00:00").timestamp())
    assert (f"key:key_1:usd:{period}:{counter}", ends) == (limit.counter_request.counter, limit.counter_request.until)


def test_a_principal_goes_on_into_the_next_day():
    """The cached limits of a principal change with the day, and each request has its own estimate."""
    daily = principal(budget(100, Unit.TOKENS, Period.DAY))

    wanted = [
        (limit.counter_request.counter, limit.counter_request.amount)
        for tokens, now in ((40, NOW), (50, NOW), (60, NOW + timedelta(seconds=1)), (40, NOW))
        for limit in limits_of(daily, Estimate.bounded(tokens, 0), now, in_utc)
    ]

    yesterday, today = "key:key_1:tokens:day:2026-02-27", "key:key_1:tokens:day:2026-02-28"
    assert [(yesterday, 40), (yesterday, 50), (today, 60), (yesterday, 40)] == wanted


def test_a_look_counter_requests_nothing():
    """Reading what is left does not count as a request."""
    everything = Limits(requests_per_minute=10, tokens_per_minute=100, parallel_requests=2, budget=budget().budget)
    nothing = Estimate.bounded(0, 0.0)

    assert [0] * 4 == [
        limit.counter_request.amount for limit in limits_of(principal(everything), nothing, NOW, in_utc, requests=0)
    ]


@pytest.mark.parametrize("own", [None, 500])
def test_the_organisations_tokens_are_shared_by_what_the_key_has_used(own):
    """If the organisation has a token limit, the key's tokens are counted, even if the key has no limit."""
    mine, everybodys = counter_requests(Limits(tokens_per_minute=own), UNLIMITED, Limits(tokens_per_minute=1000))

    assert ("key:key_1:tokens", own, 40) == (mine.counter, mine.limit, mine.amount)
    assert ("organisation:tokens", mine.counter) == (everybodys.counter, everybodys.own)


def test_only_the_organisations_tokens_are_shared():
    """The limit of a group is not shared fairly: the first request gets it."""
    assert [None] == [
        counter_request.own for counter_request in counter_requests(UNLIMITED, Limits(tokens_per_minute=1000))
    ]


def test_what_a_record_used_is_counted_as_limits_count():
    """Costs are whole nanodollars, and every request counts as one, even after an error."""
    record = draft(total_tokens=40, cost_usd=0.0000015, outcome=Outcome.UPSTREAM_ERROR)

    assert {Unit.USD: 1500, Unit.TOKENS: 40, Unit.REQUESTS: 1} == used_by(record)
    assert 0 == used_by(replace(record, cost_usd=None))[Unit.USD]


def test_every_total_that_may_have_been_reserved_is_named():
    """The totals of a record of a dead process include every possible budget."""
    record = draft(timestamp=NOW, group="ml", total_tokens=40, cost_usd=0.0000015)
    named = {
        counter_request.counter: (counter_request.amount, counter_request.until)
        for counter_request in totals_of(record, TimeZones())
    }

    for unit in Unit:
        for period in Period:
            for limit in limits_of(principal(*[budget(100, unit, period)] * 3), SMALL, NOW, in_utc):
                assert (limit.counter_request.amount, limit.counter_request.until) == named[
                    limit.counter_request.counter
                ]
    assert 5 * 3 * 4 == len(named)
    assert 3 * 3 * 4 == len(totals_of(replace(record, group=None), TimeZones()))
