"""The lifecycle of one request: it leaves one record, and ends once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmgateway.azure.credentials import StaticKey
from llmgateway.azure.deployments import Target
from llmgateway.azure.endpoint import Endpoint
from llmgateway.errors import ClientGone, UpstreamBroken, UpstreamCredentials, UpstreamTimeout, UpstreamUnreachable
from llmgateway.proxy.call import UpstreamCall
from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.proxy.disconnects import DisconnectWatcher
from llmgateway.proxy.read_on import ReadOn
from llmgateway.records import Bound, ModelSettings, Outcome, Prices, Usage, UsageSource
from llmgateway.usage.booking import Asked
from llmgateway.usage.observed import ObservedDeployments
from llmgateway.usage.seen import Seen
from tests.parts import Claimed, Entries, Stopwatch, call, draft, new_call
from tests.stores.contract import at_once

USAGE = Usage(prompt_tokens=100, completion_tokens=20, total_tokens=120, cached_tokens=50, reasoning_tokens=5)


@pytest.fixture
def entries():
    return Entries()


def test_is_recorded_before_it_is_sent(entries):
    """The record that counts if the process dies is written when the call begins."""
    call(entries)

    assert [draft()] == entries.begun
    assert [] == entries.ended


def test_the_record_has_what_became_known(entries):
    """The record contains the head of Azure's answer, its count, the times and the cost."""
    timer = Stopwatch()
    made = call(entries, timer, group="physics", prompt_version=3, client_address="10.0.0.1")
    timer.advance(0.25)
    made.accounting.answered(status=200, region="East US 2", upstream_request_id="a-1")
    timer.advance(0.25)
    made.accounting.text_arrived()
    timer.advance(1)
    made.accounting.text_arrived()
    made.finish(Outcome.OK, Seen(usage=USAGE, model="gpt-4o-mini", content_filter={"violence", "hate"}))

    assert replace(
        draft(group="physics", prompt_version=3, client_address="10.0.0.1"),
        status=200,
        outcome=Outcome.OK,
        prompt_tokens=100,
        completion_tokens=20,
        total_tokens=120,
        cached_tokens=50,
        reasoning_tokens=5,
        usage_source=UsageSource.UPSTREAM,
        content_filter=("hate", "violence"),
        ttft_ms=500.0,
        duration_ms=1500.0,
        upstream_request_id="a-1",
        region="East US 2",
        admitted_ms=0.0,
        limits=("key.budget",),
    ) == replace(entries.only, cost_usd=None)
    assert 0 < entries.only.cost_usd < 1


@pytest.mark.parametrize("outcome", [Outcome.BROKEN, Outcome.TIMEOUT, Outcome.CLIENT_CLOSED, Outcome.UPSTREAM_ERROR])
def test_estimates_where_azure_did_not_count(entries, outcome):
    """Without Azure's count, the record has the estimate of the prompt and of the answer, however it ended."""
    timer = Stopwatch()
    made = call(entries, timer)
    timer.advance(7)
    made.accounting.answered(status=200, region=None, upstream_request_id=None)
    timer.advance(7)
    made.accounting.text_arrived()
    timer.advance(1)
    made.finish(outcome, Seen(completion_tokens=4))

    record = entries.only
    assert (10, 4 + 450, 464) == (record.prompt_tokens, record.completion_tokens, record.total_tokens)
    assert (outcome, UsageSource.ESTIMATED) == (record.outcome, record.usage_source)
    assert record.cost_usd > 0


def test_a_model_that_thinks_unseen_is_booked_at_the_bound(entries):
    """It thinks for 100 s and says ten words; then its client leaves."""
    timer = Stopwatch()
    own = {"our-thinker": ModelSettings(tokens_per_second=200.0)}
    made = call(entries, timer, models=own, deployment="our-thinker")
    made.accounting.answered(status=200, region=None, upstream_request_id=None)
    timer.advance(100)
    made.accounting.text_arrived()
    made.finish(Outcome.CLIENT_CLOSED, Seen(completion_tokens=12))

    record = entries.only
    assert (10, 20_100, UsageSource.BOUND) == (record.prompt_tokens, record.completion_tokens, record.usage_source)


def test_a_deployment_that_has_thought_is_known_to_think(entries):
    """The name gpt-4o-mini says that it does not, but its answers contained reasoning."""
    observed = ObservedDeployments()
    for _ in range(3):
        call(entries, observed=observed).finish(Outcome.OK, Seen(usage=USAGE))
    call(entries, observed=observed).finish(Outcome.CLIENT_CLOSED)

    assert UsageSource.BOUND is entries.ended[-1].usage_source


def test_a_name_that_the_client_made_up_says_nothing(entries):
    """Where Azure's URL contains the deployment, clients can send any name for the model."""
    call(entries, deployment="ours", model="gpt-4o").finish(Outcome.CLIENT_CLOSED)

    assert UsageSource.BOUND is entries.only.usage_source


def test_a_predicted_output_is_work_that_nobody_sees(entries):
    """The tokens that the model rejects are billed."""
    permits = ReadOn(seconds=20, at_once=1, thinking_only=True)
    made = call(entries, read_on=permits, asked=Asked(predicted_tokens=10))
    assert made.goes_on_without_client()
    made.finish(Outcome.CLIENT_CLOSED)

    assert UsageSource.BOUND is entries.only.usage_source


@pytest.mark.parametrize("stream", [False, True])
def test_learns_the_speed_of_the_deployment(entries, stream):
    """A stream is written from the head to its last text; a plain answer from when it was sent."""
    observed = ObservedDeployments()
    for _ in range(10):
        timer = Stopwatch()
        made = call(entries, timer, observed=observed, stream=stream)
        timer.advance(5)
        made.accounting.answered(status=200, region=None, upstream_request_id=None)
        timer.advance(5)
        if stream:
            made.accounting.text_arrived()
            timer.advance(60)  # the client reads slowly
        made.finish(Outcome.OK, Seen(usage=Usage(completion_tokens=600), model="gpt-4o-mini-2024-07-18"), ended=True)

    assert (120.0 if stream else 60.0) == observed.tokens_per_second("gpt-4o-mini")
    assert "gpt-4o-mini-2024-07-18" == observed.model("gpt-4o-mini")


def test_the_same_is_committed_and_recorded(entries):
    """An estimate from the time grows, so the one that was committed is recorded."""
    timer, admission = Stopwatch(), Claimed()
    made = call(entries, timer, admission=admission, model="o3", deployment="o3")
    seen = Seen(completion_tokens=4)
    timer.advance(2)
    made.commit(seen)
    timer.advance(2)
    made.finish(Outcome.OK, seen, ended=True)

    assert [750] == [record.completion_tokens for record in admission.committed]
    assert 750 == entries.only.completion_tokens


def test_the_bound_is_recorded_before_the_request_is_sent(entries):
    """If the process dies, it limits what is booked: two choices of at most 500 tokens."""
    call(entries, asked=Asked(choices=2, most_tokens=500))

    assert [Bound(most_tokens=1000, tokens_per_second=600.0)] == entries.bounds


class TestAClientThatLeaves:
    def test_is_noticed_by_two_and_takes_one_permit(self, entries):
        """The watcher and the server may both notice it. The permit is given back when the call ends."""
        permits, watcher = ReadOn(seconds=20, at_once=1), DisconnectWatcher(timer=Stopwatch())
        made = call(entries, read_on=permits, disconnects=watcher, client_gone=lambda: False)

        at_once(*[lambda: made.goes_on_without_client()] * 8)

        assert made.goes_on_without_client()
        assert 1 == permits.running
        made.finish(Outcome.OK, Seen(usage=USAGE))
        assert (0, 0) == (permits.running, watcher.watched)

    @pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.TIMEOUT, Outcome.BROKEN])
    def test_has_left_however_its_answer_ends_then(self, entries, outcome):
        """Nobody got it, also if it was read to its end."""
        made = call(entries, read_on=ReadOn(seconds=20, at_once=1))
        made.goes_on_without_client()

        made.finish(outcome, Seen(usage=USAGE))

        assert Outcome.CLIENT_CLOSED is entries.only.outcome

    def test_after_its_end_takes_no_permit(self, entries):
        """The watcher may be late."""
        permits = ReadOn(seconds=20, at_once=1)
        made = call(entries, read_on=permits)
        made.finish(Outcome.BROKEN)

        assert not made.goes_on_without_client()
        assert 0 == permits.running

    def test_is_closed_at_once_if_too_many_are_read_on(self, entries):
        """And it stays closed when a permit becomes free."""
        permits = ReadOn(seconds=20, at_once=1)
        first, second = (call(entries, read_on=permits) for _ in range(2))
        assert first.goes_on_without_client()
        assert not second.goes_on_without_client()
        first.finish(Outcome.OK, Seen(usage=USAGE))

        assert not second.goes_on_without_client()
        second.finish(Outcome.CLIENT_CLOSED)
        assert 0 == permits.running

    def test_without_a_permit_is_cut_by_the_watcher(self, entries):
        """The next look of the watcher ends the request."""
        watcher = DisconnectWatcher(timer=Stopwatch())
        made = call(entries, disconnects=watcher, client_gone=lambda: True)

        watcher.look()

        assert made.cancellation.was_cut
        made.finish(Outcome.CLIENT_CLOSED)


def test_an_error_costs_nothing(entries):
    """A request that Azure refused has no tokens and costs nothing."""
    made = call(entries)
    made.accounting.answered(status=429, region=None, upstream_request_id=None)
    made.finish(Outcome.UPSTREAM_ERROR)

    record = entries.only
    assert (0, 0, 0, 0.0) == (record.prompt_tokens, record.completion_tokens, record.total_tokens, record.cost_usd)
    assert UsageSource.NONE == record.usage_source


def test_one_that_was_not_sent_leaves_no_record(entries):
    """The record of a request that was not sent is cancelled."""
    slots = ConcurrencyLimit(1)

    made = call(entries, concurrency=slots)
    made.close()
    made.finish(Outcome.OK)
    made.close()

    assert (["req-1"], [], 0) == (entries.cancelled, entries.ended, slots.taken)


def test_ends_once_however_many_end_it(entries):
    """If many threads end a call, one of them has an effect: one record, one slot freed, one commit or refund."""
    slots, admission = ConcurrencyLimit(2), Claimed()
    slots.take()
    made = call(entries, admission=admission, concurrency=slots)

    at_once(
        *[lambda: made.finish(Outcome.OK, Seen(usage=USAGE))] * 8,
        *[lambda: made.finish(Outcome.CLIENT_CLOSED)] * 8,
        *[lambda: made.fail(RuntimeError())] * 8,
        *[made.close] * 8,
    )

    assert 1 == len(entries.ended) + len(entries.cancelled)
    assert 1 == len(admission.committed) + admission.refunds
    assert 1 == slots.taken


@pytest.mark.parametrize("end", [lambda made: made.finish(Outcome.OK), lambda made: made.close()])
def test_gives_its_slot_back_even_if_the_recorder_fails(end):
    """A slot is freed even if the record cannot be written."""

    class Failing(Entries):
        def end(self, record: object) -> None:
            raise OSError("disk")

        def cancel(self, record_id: str) -> None:
            raise OSError("disk")

    slots = ConcurrencyLimit(1)
    made = call(Failing(), concurrency=slots)

    with pytest.raises(OSError, match="disk"):
        end(made)

    assert 0 == slots.taken


def test_the_organisations_price_counts(entries):
    """The price that an admin has set for the requested model takes precedence."""
    own = {"house-model": ModelSettings(prices=Prices(prompt=1.0, cached=1.0, completion=1.0))}

    call(entries, models=own, model="house-model").finish(Outcome.OK, Seen(usage=USAGE, model="gpt-4o-mini"))

    assert 120e-6 == pytest.approx(entries.only.cost_usd)


def test_an_unknown_model_has_no_price(entries):
    """If no price is known, the record has tokens but no cost."""
    call(entries, model="x", deployment="y").finish(Outcome.OK, Seen(usage=USAGE, model="z"))

    assert (None, 120) == (entries.only.cost_usd, entries.only.total_tokens)


def test_warns_once_about_a_missing_price(entries, caplog):
    """A budget in dollars does not count such a model, so the admin gets one warning, and not one for each request."""
    for _ in range(3):
        made = call(entries, model="house", deployment="our-own-model")
        made.commit(Seen(usage=USAGE))
        made.finish(Outcome.OK, Seen(usage=USAGE))
    call(entries, deployment="cheap").finish(Outcome.UPSTREAM_ERROR)
    call(entries, deployment="ours").finish(Outcome.OK, Seen(usage=USAGE, model="gpt-4o-mini"))

    (warning,) = caplog.messages
    assert "'our-own-model'" in warning
    assert "PUT /admin/models" in warning


def test_no_warning_about_a_made_up_model(entries, caplog):
    """A client can send any number of names. The admin hears of one when Azure has answered it."""
    made_up = {"deployment": "made-up", "model": "made-up", "model_known": False}
    call(entries, **made_up).finish(Outcome.CLIENT_CLOSED)
    assert (None, []) == (entries.only.cost_usd, caplog.messages)

    answered = call(entries, **made_up)
    answered.accounting.model_known = True
    answered.finish(Outcome.OK, Seen(usage=USAGE))

    assert ["'made-up'" in message for message in caplog.messages] == [True]


def test_is_committed_before_it_is_recorded():
    """A budget that is counted again from the usage log, which may have the record by then, counts it once."""
    entries, admission = Entries(), Claimed()
    order = []
    admission.commit = lambda record: order.append(("committed", record.total_tokens))
    entries.end = lambda record: order.append(("written", record.total_tokens))
    going = call(entries, admission=admission)

    going.finish(Outcome.OK, Seen(usage=Usage(total_tokens=9)))
    going.finish(Outcome.OK, Seen(usage=Usage(total_tokens=9)))

    assert [("committed", 9), ("written", 9)] == order


def test_what_was_not_sent_is_refunded():
    """The reservation of a request that was not sent is refunded once."""
    entries, admission = Entries(), Claimed()
    going = call(entries, admission=admission)

    going.close()
    going.close()

    assert (1, []) == (admission.refunds, admission.committed)


def test_a_failing_counter_loses_no_record():
    """If the counters fail, the record is written and the slot is freed."""
    entries, admission, slots = Entries(), Claimed(), ConcurrencyLimit(1)
    admission.commit = lambda record: 1 / 0
    going = call(entries, admission=admission, concurrency=slots)

    with pytest.raises(ZeroDivisionError):
        going.finish(Outcome.OK)

    assert (1, 0) == (len(entries.ended), slots.taken)


def test_can_be_committed_before_it_ends():
    """A reservation is committed once, however much later the call ends."""
    entries, admission = Entries(), Claimed()
    going = call(entries, admission=admission)

    going.commit(Seen(usage=Usage(total_tokens=9)))
    assert [] == entries.ended
    going.commit(Seen(usage=Usage(total_tokens=9)))
    going.finish(Outcome.CLIENT_CLOSED, Seen(usage=Usage(total_tokens=9)))

    assert [9] == [record.total_tokens for record in admission.committed]
    assert Outcome.CLIENT_CLOSED is entries.only.outcome


def test_gives_everything_back_if_its_client_cannot_be_watched(entries):
    """If the thread that watches clients cannot start, everything is released."""

    class Exhausted(DisconnectWatcher):
        def add(self, cancellation: object, gone: object, goes_on: object) -> None:
            super().add(cancellation, gone, goes_on)
            raise RuntimeError("can't start new thread")

    slots, admission, disconnects = ConcurrencyLimit(1), Claimed(), Exhausted()
    made = new_call(entries, slots, disconnects=disconnects)
    with pytest.raises(RuntimeError, match="thread") as failed:
        made.begin(draft(), admission, models={}, asked=Asked(), client_gone=lambda: False)

    made.fail(failed.value)

    assert (0, 1, 0) == (slots.taken, admission.refunds, disconnects.watched)
    assert (["req-1"], []) == (entries.cancelled, entries.ended)


def test_gives_everything_back_from_the_moment_it_exists():
    """The slot is freed if the call never began, and the reservation is refunded if its record cannot be written."""

    class Failing(Entries):
        def begin(self, record: object, bound: object) -> None:
            raise OSError("disk")

    slots, admission, entries = ConcurrencyLimit(1), Claimed(), Failing()
    new_call(entries, slots).close()
    assert 0 == slots.taken

    made = new_call(entries, slots)
    with pytest.raises(OSError, match="disk") as failed:
        made.begin(draft(), admission, models={}, asked=Asked())
    made.fail(failed.value)
    assert (0, 1, []) == (slots.taken, admission.refunds, entries.cancelled)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ClientGone("x"), Outcome.CLIENT_CLOSED),
        (UpstreamTimeout("x"), Outcome.TIMEOUT),
        (UpstreamBroken("x"), Outcome.BROKEN),
        (UpstreamCredentials("x"), Outcome.UPSTREAM_ERROR),
        (ValueError("a bug"), Outcome.BROKEN),
        (KeyboardInterrupt(), Outcome.BROKEN),
    ],
)
def test_what_fails_leaves_a_record_if_it_was_sent(entries, error, outcome):
    """The outcome depends on the error. A request that was not sent leaves no record."""
    made = call(entries)
    made.cancellation.mark_sent()
    made.fail(error)
    assert outcome is entries.only.outcome

    call(entries).fail(error)
    assert (1, ["req-1"]) == (len(entries.ended), entries.cancelled)


LEFT = Seen(completion_tokens=1200, model="gpt-4o-audio-preview")


@pytest.mark.parametrize(
    ("asked", "dollars"),
    [
        (Asked(), (58 * 2.5 + 1200 * 10) / 10**6),
        (Asked(audio_prompt_tokens=50), (50 * 40 + 8 * 2.5 + 1200 * 10) / 10**6),
        (Asked(speaks=True), (58 * 2.5 + 1200 * 80) / 10**6),
    ],
)
def test_an_estimate_costs_what_sound_costs(entries, asked, dollars):
    """Audio is dearer than text, and Azure has not said how much of it there was."""
    call(entries, asked=asked, prompt_tokens=58, stream=True).finish(Outcome.OK, LEFT, ended=True)

    assert dollars == pytest.approx(entries.only.cost_usd)


@pytest.mark.parametrize(("answered", "factor"), [(None, 1.7), ("default", 1.0), ("priority", 1.7)])
def test_the_tier_that_was_asked_for_counts_until_the_answer_names_one(entries, answered, factor):
    """A client could otherwise leave before the answer says that it is served faster, and dearer."""
    seen = Seen(completion_tokens=1000, model="gpt-4o", service_tier=answered)
    call(entries, asked=Asked(service_tier="priority"), prompt_tokens=0).finish(Outcome.OK, seen, ended=True)

    assert factor * 0.01 == pytest.approx(entries.only.cost_usd)


def test_the_model_of_earlier_answers_decides_the_price(entries):
    """A deployment's name may say nothing, and the client may leave before the answer names its model."""
    observed = ObservedDeployments()
    observed.learn("my-course", model="gpt-4o-2024-11-20", usage=USAGE)
    made = call(entries, observed=observed, deployment="my-course", model="my-course", prompt_tokens=1_000_000)
    made.finish(Outcome.CLIENT_CLOSED, Seen(), ended=True)

    assert 2.5 == pytest.approx(entries.only.cost_usd)


def target(name: str, deployment: str = "gpt-4o-mini") -> Target:
    return Target(
        name=name,
        endpoint=Endpoint.parse(f"https://{name}.openai.azure.com/openai/v1"),
        deployment=deployment,
        credential=StaticKey("api-key", "secret"),
        model="assistant",
    )


def attempt(made: UpstreamCall, name: str, status: int | None = None, *, sent: bool = True, ended: bool = True) -> str:
    """Ask a deployment that fails, and return the identifier that it got."""
    identifier = made.ask(target(name))
    if sent:
        made.cancellation.mark_sent()
    if status is not None:
        made.accounting.answered(status=status, region=f"Region {name}", upstream_request_id=f"id-{name}")
    made.attempt_failed(ended=ended)
    return identifier


def answer(made: UpstreamCall, name: str, usage: Usage = USAGE) -> str:
    """Ask a deployment that answers."""
    identifier = made.ask(target(name))
    made.cancellation.mark_sent()
    made.accounting.answered(status=200, region=f"Region {name}", upstream_request_id=f"id-{name}")
    made.finish(Outcome.OK, Seen(usage=usage), ended=True)
    return identifier


class TestAttempts:
    def test_that_were_refused_cost_nothing(self, entries):
        """One record says what was sent where, and each request has its own identifier."""
        made = call(entries, stream=False)

        identifiers = [attempt(made, "east", 429), attempt(made, "west", 503), answer(made, "north")]

        assert ["req-1", "req-1-2", "req-1-3"] == identifiers
        record = entries.only
        assert (120, UsageSource.UPSTREAM, Outcome.OK, 200) == (
            record.total_tokens,
            record.usage_source,
            record.outcome,
            record.status,
        )
        assert ("Region north", "id-north") == (record.region, record.upstream_request_id)
        assert [("east", 429, "id-east", 0), ("west", 503, "id-west", 0), ("north", 200, "id-north", 100)] == [
            (each.deployment, each.status, each.upstream_request_id, each.prompt_tokens) for each in record.attempts
        ]
        assert record.cost_usd == record.attempts[-1].cost_usd > 0

    def test_say_when_each_was_sent(self, entries):
        """After the arrival of the request; the record, when the first one was."""
        timer = Stopwatch()
        made = new_call(entries, ConcurrencyLimit(1), timer=timer)
        timer.advance(0.5)
        made.begin(draft(), Claimed(), models={}, asked=Asked())
        timer.advance(0.25)
        attempt(made, "east", 429)
        timer.advance(1)
        answer(made, "west")

        record = entries.only
        assert (500.0, 750.0) == (record.admitted_ms, record.sent_ms)
        assert [750.0, 1750.0] == [each.sent_ms for each in record.attempts]
        # What a process that dies leaves has the same.
        assert (500.0, 750.0, ("key.budget",)) == (
            entries.amended[-1].admitted_ms,
            entries.amended[-1].sent_ms,
            entries.amended[-1].limits,
        )

    def test_that_ended_in_silence_are_booked_like_an_abandoned_answer(self, entries):
        """Azure may have worked for seven seconds. The record is the sum, and its source the less reliable one."""
        timer = Stopwatch()
        made = call(entries, timer, stream=False)
        made.ask(target("east"))
        made.cancellation.mark_sent()
        timer.advance(7)
        made.attempt_failed(ended=False)
        answer(made, "west")

        record = entries.only
        first, second = record.attempts
        assert (10, None) == (first.prompt_tokens, first.status)
        assert first.completion_tokens >= 7 * 50
        assert (100, 20) == (second.prompt_tokens, second.completion_tokens)
        assert [("gpt-4o-mini", f"https://{name}.openai.azure.com:443") for name in ("east", "west")] == [
            (each.azure_deployment, each.resource) for each in (first, second)
        ]
        assert (110, 20 + first.completion_tokens) == (record.prompt_tokens, record.completion_tokens)
        assert record.prompt_tokens + record.completion_tokens == record.total_tokens
        assert UsageSource.BOUND is record.usage_source
        assert pytest.approx(first.cost_usd + second.cost_usd) == record.cost_usd

    def test_that_break_off_in_the_answer_are_booked_too(self, entries):
        """Status 200 has come, and nothing more."""
        timer = Stopwatch()
        made = call(entries, timer, stream=False)
        made.ask(target("east"))
        made.cancellation.mark_sent()
        timer.advance(5)
        made.accounting.answered(status=200, region=None, upstream_request_id=None)
        made.attempt_failed(ended=False)
        answer(made, "west")

        first, _ = entries.only.attempts
        assert (200, 10) == (first.status, first.prompt_tokens)
        assert first.completion_tokens >= 5 * 50

    def test_that_azure_did_not_receive_leave_no_trace(self, entries):
        """The connection was refused: the sum of attempts is what Azure has seen."""
        timer = Stopwatch()
        made = call(entries, timer, stream=False)
        timer.advance(5)

        assert ["req-1", "req-1"] == [attempt(made, "east", sent=False), answer(made, "west")]
        assert ["west"] == [each.deployment for each in entries.only.attempts]
        assert 120 == entries.only.total_tokens

    def test_without_any_that_was_received_leave_no_record(self, entries):
        """The reservation is refunded, as if there was one deployment that cannot be reached."""
        admission = Claimed()
        made = call(entries, admission=admission)
        attempt(made, "east", sent=False)
        made.ask(target("west"))
        made.fail(UpstreamUnreachable("refused"))

        assert ([], ["req-1"], 1) == (entries.ended, entries.cancelled, admission.refunds)

    def test_that_fail_after_one_that_was_received(self, entries):
        """There is a record, and the last one, which Azure did not receive, costs nothing."""
        made = call(entries)
        attempt(made, "east", 500)
        made.ask(target("west"))
        made.fail(UpstreamUnreachable("refused"))

        record = entries.only
        assert (Outcome.UPSTREAM_ERROR, 0, ["east"]) == (
            record.outcome,
            record.total_tokens,
            [each.deployment for each in record.attempts],
        )

    def test_are_in_the_journal_before_the_next_one_is_sent(self, entries):
        """If the process dies then, all that may have been billed is in the record."""
        timer = Stopwatch()
        made = call(entries, timer, stream=False)
        for name in ("east", "west"):
            made.ask(target(name))
            made.cancellation.mark_sent()
            timer.advance(2)
            made.attempt_failed(ended=False)
        made.ask(target("north", "other"))

        assert 1 == len(entries.begun)  # the metrics count running requests
        left = entries.amended[-1]
        assert ("other", Outcome.INTERRUPTED, 30) == (left.deployment, left.outcome, left.prompt_tokens)
        assert ["east", "west", "north"] == [each.deployment for each in left.attempts]
        assert left.completion_tokens == sum(each.completion_tokens for each in left.attempts) > 0
        made.finish(Outcome.BROKEN)

    def test_are_committed_once_and_as_a_sum(self, entries):
        admission = Claimed()
        made = call(entries, admission=admission, stream=False)
        attempt(made, "east", None, ended=False)
        answer(made, "west")

        assert [entries.only.total_tokens] == [each.total_tokens for each in admission.committed]
        assert 0 == admission.refunds

    def test_of_a_registered_model_are_told_even_if_it_is_one(self, entries):
        """Two regions may have deployments with the same name at Azure."""
        answer(call(entries), "east")

        assert ["east"] == [each.deployment for each in entries.only.attempts]

    def test_have_the_prices_of_the_registered_model(self, entries):
        """Neither the name at Azure nor the alias that a client has sent has a price."""
        own = {"assistant": ModelSettings(prices=Prices(prompt=1, cached=1, completion=1))}
        made = call(entries, models=own, deployment="prod-7", model="an-alias")
        made.ask(target("east", "prod-7"))
        made.cancellation.mark_sent()
        made.accounting.answered(status=200, region=None, upstream_request_id=None)
        made.finish(Outcome.OK, Seen(usage=USAGE), ended=True)

        assert 0.00012 == pytest.approx(entries.only.cost_usd)

    def test_are_over_when_nobody_waits(self, entries):
        """A client that has left, and a key that was revoked."""
        left = call(entries, read_on=ReadOn(seconds=20, at_once=1))
        assert left.is_wanted
        left.goes_on_without_client()
        assert not left.is_wanted
        revoked = call(entries)
        revoked.cancellation.cut()
        assert not revoked.is_wanted
