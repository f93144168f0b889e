"""Which deployments are asked, in which order, and for how long one is left alone."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from llmgateway.azure.credentials import StaticKey
from llmgateway.azure.deployments import Target
from llmgateway.azure.endpoint import Endpoint
from llmgateway.errors import UpstreamLimited
from llmgateway.proxy.failover import (
    FAILURES,
    FAILURES_TO_OPEN,
    LIMIT_SECONDS,
    LONGEST_SECONDS,
    OPEN_SECONDS,
    TEST_SECONDS,
    Failover,
    with_retry_after,
)
from llmgateway.stores.cooldowns import MemoryCooldowns
from tests.parts import Stopwatch


def target(name: str, *, priority: int = 1, weight: float = 1.0) -> Target:
    return Target(
        name=name,
        endpoint=Endpoint.parse(f"https://{name}.openai.azure.com/openai/v1"),
        deployment="gpt-4o",
        credential=StaticKey("api-key", "secret"),
        model="gpt-4o",
        priority=priority,
        weight=weight,
    )


EAST, WEST, NORTH = target("east"), target("west", priority=2), target("north", priority=3)
REGIONS = [NORTH, WEST, EAST]


@pytest.fixture
def timer():
    return Stopwatch()


@pytest.fixture
def cooldowns(timer):
    return MemoryCooldowns(clock=timer)


@pytest.fixture
def failover(cooldowns, timer):
    return Failover(cooldowns, seconds=60, clock=timer, timer=timer)


def names(failover: Failover, targets: list[Target] = REGIONS, sticky: bytes = b"") -> list[str]:
    return [each.name for each in failover.order(targets, sticky=sticky)]


def fail(failover: Failover, failing: Target) -> None:
    for _ in range(FAILURES_TO_OPEN):
        failover.failed(failing)


class TestOrder:
    def test_is_by_priority(self, failover):
        """The smallest number comes first, whatever the order of registration is."""
        assert ["east", "west", "north"] == names(failover)

    def test_is_the_same_for_the_same_beginning(self, failover):
        """So Azure finds the beginning of a conversation in its cache."""
        equals = [target(name) for name in ("east", "west", "north")]

        for number in range(20):
            sticky = b"key and prompt %d" % number
            assert names(failover, equals, sticky) == names(failover, equals[::-1], sticky)

    @pytest.mark.parametrize("weights", [(1, 1), (3, 1), (1, 1, 2), (0.5, 0.25)])
    def test_gives_each_its_part_by_weight(self, failover, weights):
        """Over many different conversations; 5,000 are within three per cent."""
        targets = [target(f"region-{number}", weight=weight) for number, weight in enumerate(weights)]

        chosen = Counter(names(failover, targets, b"%d" % number)[0] for number in range(5000))

        for number, weight in enumerate(weights):
            assert weight / sum(weights) == pytest.approx(chosen[f"region-{number}"] / 5000, abs=0.03)

    def test_changes_for_few_conversations_when_a_deployment_leaves(self, failover):
        """Those of the others stay where they are, with what is in their caches."""
        three = [target(name) for name in ("east", "west", "north")]

        for number in range(200):
            sticky = b"%d" % number
            before = names(failover, three, sticky)[0]
            assert before == "north" or before == names(failover, three[:2], sticky)[0]


class TestCooldown:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ([("retry-after", "22")], 22),
            ([("retry-after-ms", "1500")], 1.5),
            ([("retry-after", "2"), ("retry-after-ms", "1500")], 1.5),
            ([("retry-after", "2"), ("retry-after-ms", "soon")], 2),
            ([], LIMIT_SECONDS),
            ([("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], LIMIT_SECONDS),
            ([("retry-after", "-5")], LIMIT_SECONDS),
            ([("retry-after", "nan")], LIMIT_SECONDS),
            ([("retry-after", "1e999")], LIMIT_SECONDS),
            ([("retry-after", "86400")], LONGEST_SECONDS),
        ],
    )
    def test_lasts_as_long_as_azure_says(self, failover, timer, headers, seconds):
        """Then the deployment is asked first again."""
        assert failover.learn(EAST, 429, headers)
        assert ["west", "north"] == names(failover)

        timer.advance(seconds - 0.01)
        assert ["west", "north"] == names(failover)
        timer.advance(0.02)
        assert ["east", "west", "north"] == names(failover)

    def test_of_no_time_is_none(self, failover):
        """Azure sends 0 if the next request may come at once."""
        assert failover.learn(EAST, 429, [("retry-after", "0")])

        assert "east" == names(failover)[0]

    def test_of_all_is_a_429_with_the_earliest_time(self, failover):
        """Nothing is sent to Azure: requests over the limit count, too."""
        for each, seconds in ((EAST, "30"), (WEST, "7.25"), (NORTH, "50")):
            failover.learn(each, 429, [("retry-after", seconds)])

        with pytest.raises(UpstreamLimited, match=r"in 8 s") as raised:
            failover.order(REGIONS, sticky=b"")
        assert (429, 8, "7250") == (
            raised.value.status,
            raised.value.retry_after,
            raised.value.headers["retry-after-ms"],
        )

    def test_is_shared_by_models_with_the_same_deployment(self, failover):
        """Azure's limits are those of the deployment."""
        failover.learn(EAST, 429, [])
        again = Target(
            name="other", endpoint=EAST.endpoint, deployment="gpt-4o", credential=EAST.credential, model="other"
        )

        assert ["west"] == names(failover, [again, WEST])

    def test_is_not_shortened_by_a_failure(self, failover, timer):
        """A deployment that is at its limit for a minute may also fail."""
        failover.learn(EAST, 429, [("retry-after", "60")])
        fail(failover, EAST)
        timer.advance(OPEN_SECONDS + 1)

        assert ["west", "north"] == names(failover)

    def test_is_logged_once(self, failover, caplog):
        """Under load, hundreds of requests learn the same within a second. The log names the deployment."""
        for _ in range(5):
            failover.learn(EAST, 429, [("retry-after", "30")])

        (line,) = caplog.messages
        assert "'east' of the model 'gpt-4o'" in line
        assert "secret" not in caplog.text

    def test_does_not_concern_the_base_url(self, failover):
        """There is no other deployment, so its 429 goes to the client."""
        only = Target(name="", endpoint=EAST.endpoint, deployment="gpt-4o", credential=EAST.credential)

        assert not failover.learn(only, 429, [])
        assert failover.earliest([only]) is None


class TestCircuit:
    @pytest.mark.parametrize("status", FAILURES)
    def test_opens_after_some_failures_in_a_row(self, failover, status):
        """Then the deployment is asked last."""
        for _ in range(FAILURES_TO_OPEN - 1):
            assert failover.learn(EAST, status, [])
        assert "east" == names(failover)[0]

        failover.learn(EAST, status, [])
        assert ["west", "north", "east"] == names(failover)

    def test_stays_closed_if_answers_come_between(self, failover):
        """Single failures are no reason to leave a deployment alone."""
        for _ in range(10):
            failover.failed(EAST)
            failover.answered(EAST)
            failover.failed(EAST)
            failover.answered(EAST)

        assert "east" == names(failover)[0]

    @pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 408, 422])
    def test_is_not_concerned_by_other_statuses(self, failover, status):
        """They say something about the request or the key, and are not hidden by asking another deployment."""
        assert not failover.learn(EAST, status, [])

    def test_tests_itself_with_one_request(self, failover, timer):
        """The others go on without it until the test has ended."""
        fail(failover, EAST)
        timer.advance(OPEN_SECONDS + 0.1)

        assert "east" == names(failover)[0]
        assert ["west", "west"] == [names(failover)[0] for _ in range(2)]
        failover.answered(EAST)
        assert ["east", "east"] == [names(failover)[0] for _ in range(2)]

    def test_is_not_tested_by_a_request_that_asks_another_one(self, failover, timer):
        """Otherwise it would be blocked by a test that never takes place."""
        fail(failover, WEST)
        timer.advance(OPEN_SECONDS + 0.1)

        assert ["east", "north", "west"] == names(failover)
        assert ["west", "north"] == names(failover, [WEST, NORTH])

    def test_stays_open_if_the_test_fails(self, failover, timer):
        """One failure is enough then."""
        fail(failover, EAST)
        timer.advance(OPEN_SECONDS + 0.1)
        assert "east" == names(failover)[0]
        failover.failed(EAST)

        assert "west" == names(failover)[0]
        timer.advance(OPEN_SECONDS + 0.1)
        assert "east" == names(failover)[0]

    def test_is_tested_again_if_the_test_says_nothing(self, failover, timer):
        """The client of the test may have left, or its worker may have died."""
        fail(failover, EAST)
        timer.advance(OPEN_SECONDS + 0.1)
        assert "east" == names(failover)[0]
        failover.end_test(EAST)
        assert "east" == names(failover)[0]

        timer.advance(TEST_SECONDS + 0.1)
        assert "east" == names(failover)[0]

    def test_alone_never_refuses_a_request(self, failover):
        """To ask a deployment that has failed is better than to refuse."""
        for each in REGIONS:
            fail(failover, each)

        assert ["east", "west", "north"] == names(failover)

    def test_is_the_last_resort_beside_limits(self, failover):
        """The one that has failed is asked, and those at their limits are not."""
        fail(failover, EAST)
        for each in (WEST, NORTH):
            failover.learn(each, 429, [])

        assert ["east"] == names(failover)

    def test_of_another_process_is_tested_here_too(self, failover, cooldowns, timer):
        """This process has seen no failure, but must not send all its requests when the time is over."""
        cooldowns.rest(EAST.resource, 5, limited=False)
        assert "west" == names(failover)[0]
        timer.advance(5.1)

        assert ["east", "west", "west"] == [names(failover)[0] for _ in range(3)]


class TestTime:
    def test_is_halved_while_others_could_answer(self, failover):
        """Else a time-out would use up the time of all others."""
        assert 30 == failover.seconds_for(0, others=True, is_first=True)
        assert 15 == failover.seconds_for(30, others=True, is_first=False)

    def test_is_what_is_left_for_the_last_one(self, failover):
        """One budget holds for all attempts together."""
        assert 25 == failover.seconds_for(35, others=False, is_first=False)

    def test_is_not_limited_for_the_only_one(self, failover):
        """The time-out in the settings holds then."""
        assert math.inf == failover.seconds_for(0, others=False, is_first=True)

    def test_ends(self, failover):
        assert failover.has_time(59.9)
        assert not failover.has_time(60)


def test_a_state_for_admins(failover, timer):
    """What the status shows of each deployment."""
    failover.learn(EAST, 429, [("retry-after", "30")])
    fail(failover, WEST)
    timer.advance(5)

    assert [("limited", 25.0), ("failing", OPEN_SECONDS - 5), ("ok", 0.0)] == [
        failover.state(each) for each in (EAST, WEST, NORTH)
    ]


def test_replaces_the_times_of_one_deployment():
    """A client that is told another deployment's time would come too late."""
    headers = [("retry-after", "60"), ("content-type", "application/json"), ("retry-after-ms", "60000")]

    assert [("content-type", "application/json"), ("retry-after", "3"), ("retry-after-ms", "2500")] == with_retry_after(
        headers, 2.5
    )
