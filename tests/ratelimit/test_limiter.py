"""Limits: which requests are admitted, the errors for the others, and what remains after a request."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from llmgateway.accounts.principal import Principal
from llmgateway.errors import BudgetSpent, GatewayError, RateLimited, StoreUnavailable
from llmgateway.local_time import TimeZones
from llmgateway.ratelimit.limiter import Limiter
from llmgateway.ratelimit.memory import MemoryCounters
from llmgateway.ratelimit.rules import Estimate, Use, limits_of
from llmgateway.ratelimit.running import LEASE_SECONDS, RunningReservations
from llmgateway.ratelimit.scopes import scopes_of
from llmgateway.records import (
    UNLIMITED,
    Batch,
    Budget,
    Group,
    KeyRecord,
    Limits,
    Organisation,
    Outcome,
    Period,
    ReportQuery,
    Unit,
    UsageRecord,
    UsageSource,
    moment,
)
from llmgateway.stores.circuit import Circuit
from llmgateway.stores.spending import LoggedSpending
from llmgateway.stores.sqlite import COUNTERS, SQLiteCounters, SQLiteDatabase, SQLiteUsageLog
from tests.parts import NEW_YEAR, draft


def in_utc(_: Organisation) -> TimeZones:
    return TimeZones()


HUNDRED = Estimate.bounded(100, 0.01)
UNBOUNDED = Estimate(Use(16_000, 0.16), Use(2000, 0.02), Use(300, 0.003), 300, choices=1)


def budget(amount: float = 1, unit: Unit = Unit.USD, period: Period = Period.MONTH) -> Limits:
    return Limits(budget=Budget(amount=amount, unit=unit, period=period))


def principal(
    key: Limits = UNLIMITED, group: Limits = UNLIMITED, everybody: Limits = UNLIMITED, *, name: str = "key_1"
) -> Principal:
    record = KeyRecord(id=name, digest="0", user="ada", name="x", created_at=NEW_YEAR, group="ml", limits=key)
    groups = {"ml": Group(name="ml", created_at=NEW_YEAR, limits=group)}
    return Principal(record, Organisation(limits=everybody, groups=groups))


class Desk:
    """A limiter with real counters and a real usage log, which can be made unavailable."""

    def __init__(self, database: SQLiteDatabase, clock) -> None:
        self.clock = clock
        self.use(MemoryCounters(clock=clock))
        self.log = SQLiteUsageLog(database)
        self.log_is_away = False
        self.unshipped: list[UsageRecord] = []
        self._batches = 0
        self._requests = 0
        self.renewed: list[list[str]] = []

    def use(self, counters: MemoryCounters) -> None:
        self.counters = counters
        self.running = RunningReservations(self, gather_seconds=3600)
        self.limiter = Limiter(counters, self, running=self.running, ship=self._ship, clock=self.clock)

    def so_far(self, **filters):
        if self.log_is_away:
            raise StoreUnavailable("away")
        (row,) = self.log.report(ReportQuery(**filters))
        return row

    def by_name(self, groupings, names, *, first_day):
        if self.log_is_away:
            raise StoreUnavailable("away")
        return LoggedSpending(self.log, circuit=Circuit("the log", retry_after=1, clock=self.clock)).by_name(
            groupings, names, first_day=first_day
        )

    def left(self, who: Principal) -> dict[str, dict[str, float | None]]:
        """What is left of each limit, by scope."""
        scopes = [*scopes_of(who, moment(self.clock()))]
        return {
            scope.kind: {part: allowance.left for part, allowance in allowances.items()}
            for scope, allowances in zip(scopes, self.limiter.allowances.of(scopes), strict=True)
        }

    def commit(self, commits) -> None:
        self.counters.commit(commits)

    def renew(self, reservations, *, lease: float) -> None:
        self.renewed.append(reservations)
        self.counters.renew(reservations, lease=lease)

    def _ship(self) -> None:
        if self.unshipped:
            self._batches += 1
            self.log.append(self.unshipped, batch=Batch("desk", self._batches))
            self.unshipped = []

    def admit(self, who: Principal, estimate: Estimate = HUNDRED):
        self._requests += 1
        return self.limiter.admit(f"req-{self._requests}", who, estimate)

    def record(self, *, tokens: int = 0, cost_usd: float | None = None, **fields) -> UsageRecord:
        """Add a record to the journal that is not in the usage log yet."""
        self._requests += 1
        fields = {"id": f"record-{self._requests}", "timestamp": moment(self.clock()), "group": "ml"} | fields
        record = draft(total_tokens=tokens, cost_usd=cost_usd, **fields)
        self.unshipped.append(record)
        return record

    def refusal(self, who: Principal, estimate: Estimate = HUNDRED) -> GatewayError:
        with pytest.raises((RateLimited, BudgetSpent)) as refused:
            self.admit(who, estimate)
        assert 429 == refused.value.status
        return refused.value


@pytest.fixture
def desk(tmp_path, clock):
    with closing(SQLiteDatabase(tmp_path / "gateway.sqlite")) as database:
        yield Desk(database, clock)


@pytest.mark.parametrize(
    ("limits", "tokens", "awaited"),
    [
        (Limits(tokens_per_minute=1000), 100, False),
        (Limits(tokens_per_minute=1000), 500, False),
        (Limits(tokens_per_minute=1000), 501, True),
        (Limits(tokens_per_minute=150), 1, True),
        (Limits(parallel_requests=7), 1, True),
        (Limits(parallel_requests=8), 1, False),
        (Limits(tokens_per_minute=1000, requests_per_minute=1), 1, True),
    ],
)
def test_commits_before_it_returns_where_somebody_may_wait(desk, limits, tokens, awaited):
    """Commits are urgent for gauges, for limits that are more than half used, and after underestimates."""
    admission = desk.admit(principal(limits))

    admission.commit(draft(total_tokens=tokens))

    assert awaited is not desk.running.flush()  # there is nothing left to commit


def test_what_costs_nothing_needs_no_budget(desk):
    """A spent budget refuses nothing that is free. It counts as a request per minute, and as a parallel one."""
    spent = principal(budget(10, Unit.REQUESTS), budget(0.01), Limits(requests_per_minute=3, parallel_requests=1))
    desk.record(cost_usd=1.0)

    for number in range(3):
        admitted = desk.limiter.admit_free(f"free-{number}", spent)
        with pytest.raises(RateLimited):
            desk.limiter.admit_free(f"parallel-{number}", spent)
        admitted.leave()
    desk.limiter.close()
    with pytest.raises(RateLimited, match="3 requests per minute"):
        desk.limiter.admit_free("free-4", spent)
    assert 10 == desk.left(spent)["key"]["budget"] + 1  # the one record
    desk.clock.advance(61)
    desk.limiter.admit_free("free-5", spent).leave()


def test_commits_what_has_gathered_when_it_closes(desk):
    """A process that stops commits everything; it does not leave that to its leases."""
    who = principal(Limits(tokens_per_minute=1000))
    desk.admit(who).commit(draft(total_tokens=1))

    desk.limiter.close()

    (reading,) = desk.counters.look(
        [limit.counter_request for limit in limits_of(who, HUNDRED, NEW_YEAR, in_utc)]
    ).readings
    assert 1 == reading.used


def test_keeps_what_was_counted_when_it_closes(tmp_path, desk, clock):
    """Also in memory."""
    path = tmp_path / "counters.sqlite"
    who = principal(Limits(tokens_per_minute=1000))
    counter_requests = [limit.counter_request for limit in limits_of(who, HUNDRED, NEW_YEAR, in_utc)]
    with closing(SQLiteDatabase(path, migrations=COUNTERS)) as database:
        stored = SQLiteCounters(database, clock=clock)
        desk.use(MemoryCounters(clock=clock, stored=stored))
        desk.admit(who).commit(draft(total_tokens=1))

        desk.limiter.close()

        (reading,) = stored.look(counter_requests).readings
    assert 1 == reading.used


def test_who_has_no_limits_is_admitted_without_a_question(desk):
    """Without limits nothing is counted, and the store is not asked."""
    desk.use(None)

    admission = desk.admit(principal())
    admission.commit(draft())

    assert {} == admission.headers


def test_requests_are_counted_over_a_sliding_minute(desk, clock):
    """Ten requests per minute means ten in any 60 seconds, not in each calendar minute."""
    who = principal(Limits(requests_per_minute=2))
    clock.advance(59)
    desk.admit(who)
    clock.advance(2)
    desk.admit(who)

    refused = desk.refusal(who)

    assert ("rate_limit_exceeded", "key.requests_per_minute") == (refused.code, refused.headers["x-llmgateway-limit"])
    assert (59, "59000") == (refused.retry_after, refused.headers["retry-after-ms"])
    assert "Your key may make 2 requests per minute. Try again in 59 s." == refused.message
    clock.advance(58.999)
    desk.refusal(who)
    clock.advance(0.001)
    desk.admit(who)


def test_the_wait_is_one_that_official_clients_believe(desk, clock):
    """OpenAI's clients ignore a wait above a minute, and retry after half a second."""
    who = principal(Limits(requests_per_minute=1))
    desk.admit(who)

    assert 60 == desk.refusal(who).retry_after


def test_tokens_are_reserved_by_estimate_and_committed_by_truth(desk):
    """The estimate is reserved at once; the unused part is given back when the request has ended."""
    who = principal(Limits(tokens_per_minute=250))
    first, _ = desk.admit(who), desk.admit(who)
    refused = desk.refusal(who)
    assert "key.tokens_per_minute" == refused.headers["x-llmgateway-limit"]
    assert "200 are used, and this request may need 100" in refused.message

    first.commit(draft(total_tokens=30))

    desk.admit(who)
    assert "230 are used" in desk.refusal(who).message


def test_a_request_that_did_not_reach_azure_gets_everything_back(desk):
    """Nothing was sent, so neither tokens nor the request count."""
    limits = Limits(requests_per_minute=1, tokens_per_minute=100, parallel_requests=1, budget=budget(0.01).budget)

    for _ in range(5):
        desk.admit(principal(limits, limits, limits)).refund()


@pytest.mark.parametrize("end", [lambda admission: admission.commit(draft()), lambda admission: admission.refund()])
def test_what_is_reserved_is_kept_until_the_request_ends(desk, end):
    """The lease of a long answer is renewed; the lease of an ended request is not."""
    admission = desk.admit(principal(Limits(parallel_requests=1)))

    desk.running.renew()
    end(admission)
    desk.running.renew()

    assert [["req-1"]] == desk.renewed


def test_an_error_of_azures_costs_a_request_and_no_tokens(desk):
    """Azure counts requests that it refuses, and so do limits; tokens and money are given back."""
    who = principal(Limits(requests_per_minute=2, tokens_per_minute=100, budget=budget(0.01).budget))
    error = draft(outcome=Outcome.UPSTREAM_ERROR, usage_source=UsageSource.NONE, prompt_tokens=0, total_tokens=0)

    desk.admit(who).commit(error)
    desk.admit(who).commit(error)

    assert "key.requests_per_minute" == desk.refusal(who).headers["x-llmgateway-limit"]


def test_parallel_requests_are_free_when_one_has_ended(desk):
    """The next request is admitted as soon as a running one has ended."""
    who = principal(Limits(parallel_requests=2))
    first, _ = desk.admit(who), desk.admit(who)

    refused = desk.refusal(who)
    assert ("key.parallel_requests", 1) == (refused.headers["x-llmgateway-limit"], refused.retry_after)

    first.commit(draft())
    desk.admit(who)


@pytest.mark.parametrize(
    ("limits", "whose", "says"),
    [
        ((Limits(requests_per_minute=1), UNLIMITED, UNLIMITED), "key", "Your key"),
        ((UNLIMITED, Limits(requests_per_minute=1), UNLIMITED), "group", "Your group 'ml'"),
        ((UNLIMITED, UNLIMITED, Limits(requests_per_minute=1)), "organisation", "The organisation"),
    ],
)
def test_says_whose_limit_it_was(desk, limits, whose, says):
    """Other keys can reach a limit of the group or the organisation, and the error names the scope."""
    desk.admit(principal(*limits))

    refused = desk.refusal(principal(*limits))

    assert f"{whose}.requests_per_minute" == refused.headers["x-llmgateway-limit"]
    assert refused.message.startswith(says)


def test_a_refused_request_takes_nothing_of_anybody(desk):
    """If one limit is reached, nothing is reserved of the others."""
    full = Limits(requests_per_minute=1)
    for _ in range(5):
        desk.admit(principal(full, name="key_full")) if not _ else desk.refusal(
            principal(full, full, full, name="key_full")
        )

    desk.admit(principal(UNLIMITED, full, full, name="key_other"))


def test_members_of_a_group_share_its_limits(desk):
    """The limits of a group apply to all its keys together."""
    for name in ("key_1", "key_2"):
        desk.admit(principal(UNLIMITED, Limits(requests_per_minute=2), name=name))

    desk.refusal(principal(UNLIMITED, Limits(requests_per_minute=2), name="key_3"))


def test_a_spent_budget_says_when_it_renews_and_is_not_retried(desk, clock):
    """OpenAI's clients do not retry; the message says when the budget renews, and then requests work."""
    who = principal(budget(0.02))
    desk.admit(who).commit(draft(cost_usd=0.02, total_tokens=1))

    refused = desk.refusal(who)

    assert ("insufficient_quota", "key.budget") == (refused.code, refused.headers["x-llmgateway-limit"])
    assert "false" == refused.headers["x-should-retry"]
    assert (
        "Your key has used its budget of 0.02 USD per month. It renews at 2026-02-01 00:00:00 UTC." == refused.message
    )
    assert 31 * 24 * 3600 == refused.retry_after
    clock.advance(31 * 24 * 3600)
    desk.admit(who)


def test_a_budget_in_total_does_not_renew(desk):
    """A total budget does not renew, so there is no Retry-After."""
    who = principal(budget(1, Unit.REQUESTS, Period.TOTAL))
    desk.admit(who).commit(draft())

    refused = desk.refusal(who)

    assert refused.retry_after is None
    assert "1 requests in total. It does not renew: ask the admin" in refused.message


def test_what_is_left_of_a_budget_can_be_used_by_a_smaller_request(desk):
    """If a request may need more than what is left, the message says how much is left."""
    who = principal(budget(150, Unit.TOKENS, Period.DAY))
    desk.admit(who).commit(draft(total_tokens=100))

    refused = desk.refusal(who)
    assert "has 50 tokens left" in refused.message
    assert "may need 100 tokens. Ask for fewer tokens (max_tokens)." in refused.message

    desk.admit(who, Estimate.bounded(50, 0))


def test_what_running_requests_hold_of_a_budget_is_worth_waiting_for(desk):
    """If running requests may give amounts back, OpenAI's clients are asked to retry soon."""
    who = principal(budget(150, Unit.TOKENS, Period.DAY))
    first = desk.admit(who)

    refused = desk.refusal(who)
    assert ("rate_limit_exceeded", 1) == (refused.code, refused.retry_after)
    assert "x-should-retry" not in refused.headers

    first.commit(draft(total_tokens=20))
    desk.admit(who)


def test_requests_that_may_use_more_than_is_left_run_one_at_a_time(desk):
    """Whatever the answers cost, the budget is exceeded by no more than the last one; then it is spent."""
    who = principal(budget(5000, Unit.TOKENS, Period.DAY))
    for _ in range(3):
        running = desk.admit(who, UNBOUNDED)
        assert "rate_limit_exceeded" == desk.refusal(who, UNBOUNDED).code
        assert "rate_limit_exceeded" == desk.refusal(who, Estimate.bounded(1, 0)).code
        running.commit(draft(total_tokens=1500))

    desk.admit(who, UNBOUNDED).commit(draft(total_tokens=20_000))

    assert "insufficient_quota" == desk.refusal(who, UNBOUNDED).code
    assert {"budget": 0} == desk.left(who)["key"]


def test_requests_run_side_by_side_while_there_is_enough_for_all(desk):
    """A large budget does not make anybody wait."""
    who = principal(budget(100_000, Unit.TOKENS, Period.DAY))

    for _ in range(6):
        desk.admit(who, UNBOUNDED)

    assert "rate_limit_exceeded" == desk.refusal(who, UNBOUNDED).code
    desk.admit(who, HUNDRED)  # 4,000 are left


def test_models_with_longer_answers_wait_longer(desk):
    """Requests for several models share one budget, and each reserves what its own model can write."""
    who = principal(budget(50_000, Unit.TOKENS, Period.DAY))
    long = UNBOUNDED._replace(most=Use(100_000, 1.0))
    running = [desk.admit(who, UNBOUNDED), desk.admit(who, UNBOUNDED)]

    assert "rate_limit_exceeded" == desk.refusal(who, long).code
    desk.admit(who, UNBOUNDED).refund()
    for one in running:
        one.commit(draft(total_tokens=10_000))

    desk.admit(who, long)
    assert "rate_limit_exceeded" == desk.refusal(who, HUNDRED).code


def test_a_refusal_by_a_held_budget_says_what_helps(desk):
    """It is worth waiting a second; max_tokens lets more requests run at once."""
    who = principal(budget(5, Unit.USD, Period.MONTH), budget(0.1, Unit.USD, Period.MONTH))
    desk.admit(who, Estimate.bounded(1, 0.1))

    refused = desk.refusal(who, UNBOUNDED)

    assert ("rate_limit_exceeded", 1, "1000") == (refused.code, refused.retry_after, refused.headers["retry-after-ms"])
    assert "x-should-retry" not in refused.headers
    assert "group.budget" == refused.headers["x-llmgateway-limit"]
    assert (
        "Your group 'ml' has a budget of 0.1 USD per month. It is not used up, but running requests hold what is left "
        "of it until they end. A request holds what its answer may cost at most: set max_tokens, so that more requests "
        "can run at once. Try again in 1 s." == refused.message
    )


def test_max_tokens_does_not_help_where_requests_are_counted(desk):
    """So the message does not speak of it."""
    who = principal(budget(1, Unit.REQUESTS, Period.DAY))
    desk.admit(who, UNBOUNDED)

    assert "max_tokens" not in desk.refusal(who, UNBOUNDED).message


def test_a_shared_budget_lets_several_run_until_little_is_left(desk):
    """Each reserves a likely answer; what is left in the end goes to one at a time."""
    students = [principal(UNLIMITED, budget(5000, Unit.TOKENS), name=f"key_{number}") for number in range(3)]
    running = [desk.admit(who, UNBOUNDED) for who in students[:2]]
    assert "rate_limit_exceeded" == desk.refusal(students[2], UNBOUNDED).code
    for one in running:
        one.commit(draft(total_tokens=2000))

    last = desk.admit(students[2], UNBOUNDED)  # 1,000 are left, enough for a short answer
    assert "rate_limit_exceeded" == desk.refusal(students[0], UNBOUNDED).code
    last.commit(draft(total_tokens=800))

    refused = desk.refusal(students[0], UNBOUNDED)
    assert "insufficient_quota" == refused.code
    assert "has 200 tokens left" in refused.message
    assert "may need 300 tokens. Ask for fewer tokens (max_tokens)." in refused.message
    desk.admit(students[0], HUNDRED)


def test_a_spent_budget_says_what_is_left_when_nothing_runs(desk):
    """What running requests hold is not spent, so a smaller request may get it in a moment."""
    who = principal(budget(1000, Unit.TOKENS, Period.DAY))
    desk.admit(who).commit(draft(total_tokens=800))
    desk.admit(who, HUNDRED)

    assert "has 200 tokens left" in desk.refusal(who, UNBOUNDED).message


def test_a_budget_that_is_lowered_while_requests_run_holds_at_once(desk):
    """And one that is raised lets more in; what runs is counted in both."""
    first = desk.admit(principal(budget(5000, Unit.TOKENS)), UNBOUNDED)

    assert "rate_limit_exceeded" == desk.refusal(principal(budget(4000, Unit.TOKENS)), UNBOUNDED).code
    second = desk.admit(principal(budget(25_000, Unit.TOKENS)), UNBOUNDED)
    for one in (first, second):
        one.commit(draft(total_tokens=3000))

    assert "insufficient_quota" == desk.refusal(principal(budget(6000, Unit.TOKENS)), HUNDRED).code
    assert {"budget": 19_000} == desk.left(principal(budget(25_000, Unit.TOKENS)))["key"]


def test_a_refund_gives_back_what_was_left(desk):
    """Azure was not reached, so the next one may have it."""
    who = principal(budget(5000, Unit.TOKENS))

    for _ in range(3):
        desk.admit(who, UNBOUNDED).refund()


def test_a_lease_that_ran_out_lets_one_more_in(desk, clock):
    """Nobody knows that the request still runs. When it ends, all of its tokens count."""
    who = principal(budget(5000, Unit.TOKENS))
    late = desk.admit(who, UNBOUNDED)
    clock.advance(LEASE_SECONDS)
    desk.admit(who, UNBOUNDED).commit(draft(total_tokens=2000))

    late.commit(draft(total_tokens=2500))

    assert {"budget": 500} == desk.left(who)["key"]


@pytest.mark.parametrize(
    ("estimate", "fields", "expected"),
    [
        (UNBOUNDED, {}, 4000),
        (UNBOUNDED._replace(choices=4), {}, 1000),
        (HUNDRED, {}, 256),
        (UNBOUNDED, {"outcome": Outcome.CLIENT_CLOSED}, 4000),
        (UNBOUNDED, {"outcome": Outcome.UPSTREAM_ERROR, "completion_tokens": 0}, 256),
    ],
)
def test_learns_how_long_the_answers_of_a_key_are(desk, estimate, fields, expected):
    """From answers that the client did not limit, each choice for itself."""
    who = principal(Limits(tokens_per_minute=100_000))
    record = draft(**{"completion_tokens": 4000, "outcome": Outcome.OK} | fields)

    desk.admit(who, estimate).commit(record)

    assert expected == desk.limiter.answers.usual("key_1")


def test_who_leaves_early_does_not_look_harmless(desk):
    """Parts of answers make the estimate longer, never shorter."""
    who = principal(Limits(tokens_per_minute=100_000))
    for tokens, outcome in ((4000, Outcome.OK), (100, Outcome.CLIENT_CLOSED), (8000, Outcome.BROKEN)):
        desk.admit(who, UNBOUNDED).commit(draft(completion_tokens=tokens, outcome=outcome))

    assert 5000 == desk.limiter.answers.usual("key_1")


def test_the_refusal_that_lasts_longest_is_named(desk):
    """The longest wait counts, because a client that waits for a shorter one would be refused again."""
    who = principal(Limits(parallel_requests=1, requests_per_minute=1, budget=budget(1, Unit.REQUESTS).budget))
    desk.admit(who)
    assert "key.requests_per_minute" == desk.refusal(who).headers["x-llmgateway-limit"]

    desk.limiter.book(draft(id="req-1", timestamp=moment(desk.clock())))
    assert "key.budget" == desk.refusal(who).headers["x-llmgateway-limit"]


@pytest.mark.parametrize(
    ("unit", "amount", "left"), [(Unit.USD, 1.0, 0.25), (Unit.TOKENS, 1000, 250), (Unit.REQUESTS, 4, 1)]
)
def test_a_budget_begins_with_what_the_usage_log_says(desk, unit, amount, left):
    """A budget that is set in the middle of a month includes earlier usage, also records in the journal."""
    for _ in range(3):
        desk.record(tokens=250, cost_usd=0.25)
    desk.record(tokens=250, cost_usd=0.25, key_id="key_2", group="other")
    desk.record(tokens=250, cost_usd=0.25, timestamp=moment(desk.clock()) - timedelta(seconds=1))  # last year

    for who in (principal(budget(amount, unit)), principal(UNLIMITED, budget(amount, unit))):
        assert [{"budget": left}] == [*desk.left(who).values()]
    assert {"organisation": {"budget": 0}} == desk.left(principal(UNLIMITED, UNLIMITED, budget(amount, unit)))


def test_budgets_survive_the_loss_of_their_counters(desk):
    """After Redis was emptied, requests work and budgets include what was used before."""
    who = principal(budget(300, Unit.TOKENS))
    running = desk.admit(who)
    desk.admit(who).commit(desk.record(tokens=150))
    desk.counters.forget([limit.counter_request.counter for limit in limits_of(who, HUNDRED, NEW_YEAR, in_utc)])

    desk.admit(who)  # 150 are known, and 100 may be needed
    desk.refusal(who)
    running.commit(desk.record(tokens=40))
    assert {"budget": 110} == desk.left(who)["key"]


def test_while_the_usage_log_is_away_nobody_is_refused_for_a_budget_whose_count_is_unknown(desk):
    """Without the usage log a budget is not checked, but other limits are; later it is checked again."""
    who = principal(Limits(requests_per_minute=2, budget=budget(150, Unit.TOKENS).budget))
    desk.record(tokens=100)
    desk.limiter._ship()
    desk.log_is_away = True

    desk.admit(who)

    desk.log_is_away = False
    assert "key.budget" == desk.refusal(who).headers["x-llmgateway-limit"]


def test_while_the_usage_log_is_away_an_old_count_holds(desk, clock):
    """An outage of several hours does not let a key exceed its budget."""
    who = principal(budget(150, Unit.TOKENS))
    desk.admit(who).commit(desk.record(tokens=100))
    desk.log_is_away = True

    for _ in range(3):
        clock.advance(3601)
        assert "key.budget" == desk.refusal(who).headers["x-llmgateway-limit"]


def test_what_a_dead_process_held_is_booked_with_its_record(desk, clock):
    """The estimate in an interrupted record replaces the reserved amount, before and after the lease ends."""
    who = principal(replace(budget(150, Unit.TOKENS), parallel_requests=1))
    desk.admit(who)
    desk.limiter.book(desk.record(id="req-1", tokens=20))

    assert {"budget": 130, "parallel_requests": 1} == desk.left(who)["key"]

    desk.admit(who)
    clock.advance(LEASE_SECONDS)
    desk.limiter.book(desk.record(id="req-3", tokens=20))
    assert {"budget": 110, "parallel_requests": 1} == desk.left(who)["key"]


@pytest.mark.parametrize("scope", ["key", "group", "organisation"])
def test_what_a_dead_process_had_not_committed_is_counted_anew(desk, scope):
    """Budgets include the last requests of a killed process as soon as its journal is found."""
    limits = dict.fromkeys(("key", "group", "organisation"), UNLIMITED) | {scope: budget(150, Unit.TOKENS)}
    who = principal(*limits.values())
    desk.admit(who).refund()
    record = desk.record(tokens=20, key_id=who.key.id, group=who.key.group)
    assert {"budget": 150} == desk.left(who)[scope]

    desk.limiter.count_anew([record])

    assert {"budget": 130} == desk.left(who)[scope]


def test_the_tightest_windows_are_in_the_headers(desk):
    """The headers are OpenAI's. For requests and tokens each, they show the limit of which least is left."""
    limits = Limits(requests_per_minute=10, tokens_per_minute=1000)

    headers = desk.admit(
        principal(limits, replace(limits, requests_per_minute=5), replace(limits, tokens_per_minute=2000))
    ).headers

    assert {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "61s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "61s",
    } == headers


def test_a_refusal_has_the_headers_too(desk, clock):
    """The headers show what is left without the refused request."""
    who = principal(Limits(requests_per_minute=1, tokens_per_minute=1000))
    desk.admit(who)
    clock.advance(10)

    headers = desk.refusal(who).headers

    assert ("0", "900") == (headers["x-ratelimit-remaining-requests"], headers["x-ratelimit-remaining-tokens"])
    assert "51s" == headers["x-ratelimit-reset-requests"]


def test_a_limit_that_others_have_nearly_used_is_tighter(desk):
    """Not the smallest limit counts, but what is left. Keys without limits see the organisation's, too."""
    everybody = Limits(requests_per_minute=10)
    for _ in range(7):
        desk.admit(principal(UNLIMITED, UNLIMITED, everybody, name="key_2"))

    headers = desk.admit(principal(Limits(requests_per_minute=5), UNLIMITED, everybody)).headers
    assert ("10", "2") == (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"])
    headers = desk.limiter.headers(principal(UNLIMITED, UNLIMITED, everybody))
    assert ("10", "2") == (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"])


def test_of_limits_with_equal_rests_the_longest_wait_is_shown(desk, clock):
    """The client is refused until both have room again."""
    everybody = Limits(requests_per_minute=2)
    desk.admit(principal(UNLIMITED, UNLIMITED, everybody, name="key_2"))
    clock.advance(30)
    desk.admit(principal(UNLIMITED, UNLIMITED, everybody, name="key_2"))
    clock.advance(10)

    headers = desk.refusal(principal(Limits(requests_per_minute=2), UNLIMITED, everybody)).headers
    assert ("2", "0", "51s") == tuple(
        headers[f"x-ratelimit-{what}-requests"] for what in ("limit", "remaining", "reset")
    )


def test_without_limits_per_minute_there_are_no_headers(desk):
    """A budget and parallel requests are no limits per minute."""
    limits = Limits(parallel_requests=1, budget=budget(5).budget)

    assert {} == desk.admit(principal(limits, UNLIMITED, limits)).headers
    assert {} == desk.limiter.headers(principal(limits)) == desk.limiter.count_refused("req", principal(limits))


def test_bad_requests_count_for_their_sender_only(desk):
    """They are requests of the key. Those of the group and of the organisation stay for the others."""
    who = principal(*[Limits(requests_per_minute=3)] * 3)

    for number in range(5):
        headers = desk.limiter.count_refused(f"bad-{number}", who)

    assert "0" == headers["x-ratelimit-remaining-requests"]
    assert [0, 3, 3] == [left["requests_per_minute"] for left in desk.left(who).values()]


def test_bad_requests_of_a_key_without_limits_are_told_what_the_others_left(desk):
    """Nothing is counted, and the headers are those of the group."""
    who = principal(UNLIMITED, Limits(requests_per_minute=3, tokens_per_minute=50))

    headers = [desk.limiter.count_refused(f"bad-{number}", who) for number in range(2)]

    assert headers[0] == headers[1] == desk.limiter.headers(who)
    assert ("3", "50") == tuple(headers[0][f"x-ratelimit-remaining-{unit}"] for unit in ("requests", "tokens"))


@pytest.mark.parametrize(
    ("whose", "limits", "tokens", "says"),
    [
        ("organisation", budget(1000, Unit.TOKENS), 1000, "The organisation has used its budget. It renews at "),
        ("group", budget(12.34), 12.5, "Your group 'ml' has used its budget. It renews at "),
        (
            "organisation",
            budget(1000, Unit.TOKENS, Period.TOTAL),
            850,
            "The organisation has too little left of its budget for this request. Ask for fewer tokens (max_tokens).",
        ),
        ("group", budget(1000, Unit.TOKENS), 850, "Your group 'ml' has too little left of its budget for this"),
    ],
)
def test_a_shared_budget_is_not_told_unless_the_admin_shows_it(desk, whose, limits, tokens, says):
    """The message names whose budget it is and when it renews: not its amount, nor what is left or needed."""
    who = principal(group=limits) if whose == "group" else principal(everybody=limits)
    in_dollars = limits.budget.unit is Unit.USD
    desk.record(cost_usd=tokens) if in_dollars else desk.record(tokens=tokens)
    shown = desk.refusal(who, UNBOUNDED).message

    desk.limiter.shows_shared = False
    hidden = desk.refusal(who, UNBOUNDED)

    assert hidden.message.startswith(says)
    numbers = hidden.message.partition("It renews at")[0]
    assert not any(letter.isdigit() for letter in numbers)
    assert any(letter.isdigit() for letter in shown.partition("It renews at")[0])
    assert f"{whose}.budget" == hidden.headers["x-llmgateway-limit"]


def test_a_shared_budget_that_is_held_is_not_told_either(desk):
    """Running requests hold what is left: how much that is cannot be read from the message."""
    who = principal(UNLIMITED, budget(150, Unit.TOKENS))
    desk.limiter.shows_shared = False
    desk.admit(who)

    message = desk.refusal(who).message

    assert message.startswith("Your group 'ml' has a budget. It is not used up, but running requests hold")
    assert "150" not in message


def test_ones_own_budget_is_always_told(desk):
    """Nobody else can be read from it."""
    desk.limiter.shows_shared = False
    desk.record(tokens=900)

    assert "has 100 tokens left of its budget of 1,000 tokens per month" in (
        desk.refusal(principal(budget(1000, Unit.TOKENS)), UNBOUNDED).message
    )


def test_allowances_take_nothing(desk):
    """Reading the allowances uses no requests or tokens, and returns what is left of each limit."""
    limits = Limits(requests_per_minute=2, tokens_per_minute=150, parallel_requests=1, budget=budget(5).budget)
    who = principal(limits, Limits(requests_per_minute=7))
    for _ in range(3):
        found = desk.left(who)

    assert {"requests_per_minute": 7} == found["group"]
    assert {"requests_per_minute": 2, "tokens_per_minute": 150, "parallel_requests": 1, "budget": 5.0} == found["key"]
    desk.admit(who)
    assert {"requests_per_minute": 1, "tokens_per_minute": 50, "parallel_requests": 0, "budget": 5.0} == (
        desk.left(who)["key"]
    )


def test_one_batch_job_cannot_starve_a_class(desk, clock):
    """If the organisation's tokens are nearly used up, keys below their equal share go first."""
    everybody = Limits(tokens_per_minute=1000)
    batch, student = (principal(UNLIMITED, UNLIMITED, everybody, name=name) for name in ("key_batch", "key_student"))
    for _ in range(10):
        desk.admit(batch)
        clock.advance(1)
    desk.refusal(student)

    clock.advance(51)  # the first hundred tokens have left
    assert "organisation.tokens_per_minute" == desk.refusal(batch).headers["x-llmgateway-limit"]
    desk.admit(student)
