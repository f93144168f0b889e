"""The lifecycle of one request: it leaves one record, and ends once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmgateway.errors import ClientGone, UpstreamBroken, UpstreamCredentials, UpstreamTimeout
from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.proxy.disconnects import DisconnectWatcher
from llmgateway.records import Outcome, Prices, Usage, UsageSource
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
    made.answered(status=200, region="East US 2", upstream_request_id="a-1")
    timer.advance(0.25)
    made.first_text()
    timer.advance(1)
    made.first_text()
    made.finish(Outcome.OK, usage=USAGE, model="gpt-4o-mini", content_filter={"violence", "hate"})

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
    ) == replace(entries.only, cost_usd=None)
    assert 0 < entries.only.cost_usd < 1


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.BROKEN, Outcome.TIMEOUT, Outcome.CLIENT_CLOSED])
def test_estimates_where_azure_did_not_count(entries, outcome):
    """Without Azure's count, the record has the estimate of the prompt and one token for each piece of the answer."""
    call(entries).finish(outcome, estimated_completion_tokens=4)

    record = entries.only
    assert (10, 4, 14) == (record.prompt_tokens, record.completion_tokens, record.total_tokens)
    assert (outcome, UsageSource.ESTIMATED) == (record.outcome, record.usage_source)
    assert record.cost_usd > 0


def test_an_error_costs_nothing(entries):
    """A request that Azure refused has no tokens and costs nothing."""
    call(entries).finish(Outcome.UPSTREAM_ERROR)

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
        *[lambda: made.finish(Outcome.OK, usage=USAGE)] * 8,
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
    own = {"house-model": Prices(prompt=1.0, cached=1.0, completion=1.0)}

    call(entries, prices=own, model="house-model").finish(Outcome.OK, usage=USAGE, model="gpt-4o-mini")

    assert 120e-6 == pytest.approx(entries.only.cost_usd)


def test_an_unknown_model_has_no_price(entries):
    """If no price is known, the record has tokens but no cost."""
    call(entries, model="x", deployment="y").finish(Outcome.OK, usage=USAGE, model="z")

    assert (None, 120) == (entries.only.cost_usd, entries.only.total_tokens)


def test_warns_once_about_a_missing_price(entries, caplog):
    """A budget in dollars does not count such a model, so the admin gets one warning, and not one for each request."""
    for _ in range(3):
        made = call(entries, model="house", deployment="our-own-model")
        made.commit(usage=USAGE)
        made.finish(Outcome.OK, usage=USAGE)
    call(entries, deployment="cheap").finish(Outcome.UPSTREAM_ERROR)
    call(entries, deployment="ours").finish(Outcome.OK, usage=USAGE, model="gpt-4o-mini")

    (warning,) = caplog.messages
    assert "'our-own-model'" in warning
    assert "PUT /admin/models" in warning


def test_is_committed_before_it_is_recorded():
    """A budget that is counted again from the usage log, which may have the record by then, counts it once."""
    entries, admission = Entries(), Claimed()
    order = []
    admission.commit = lambda record: order.append(("committed", record.total_tokens))
    entries.end = lambda record: order.append(("written", record.total_tokens))
    going = call(entries, admission=admission)

    going.finish(Outcome.OK, usage=Usage(total_tokens=9))
    going.finish(Outcome.OK, usage=Usage(total_tokens=9))

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

    going.commit(usage=Usage(total_tokens=9))
    assert [] == entries.ended
    going.commit(usage=Usage(total_tokens=9))
    going.finish(Outcome.CLIENT_CLOSED, usage=Usage(total_tokens=9))

    assert [9] == [record.total_tokens for record in admission.committed]
    assert Outcome.CLIENT_CLOSED is entries.only.outcome


def test_gives_everything_back_if_its_client_cannot_be_watched(entries):
    """If the thread that watches clients cannot start, everything is released."""

    class Exhausted(DisconnectWatcher):
        def add(self, cancellation: object, gone: object) -> None:
            super().add(cancellation, gone)
            raise RuntimeError("can't start new thread")

    slots, admission, disconnects = ConcurrencyLimit(1), Claimed(), Exhausted()
    made = new_call(entries, slots, disconnects=disconnects)
    with pytest.raises(RuntimeError, match="thread") as failed:
        made.begin(draft(), admission, prices={}, client_gone=lambda: False)

    made.fail(failed.value)

    assert (0, 1, 0) == (slots.taken, admission.refunds, disconnects.watched)
    assert (["req-1"], []) == (entries.cancelled, entries.ended)


def test_gives_everything_back_from_the_moment_it_exists():
    """The slot is freed if the call never began, and the reservation is refunded if its record cannot be written."""

    class Failing(Entries):
        def begin(self, record: object) -> None:
            raise OSError("disk")

    slots, admission, entries = ConcurrencyLimit(1), Claimed(), Failing()
    new_call(entries, slots).close()
    assert 0 == slots.taken

    made = new_call(entries, slots)
    with pytest.raises(OSError, match="disk") as failed:
        made.begin(draft(), admission, prices={})
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
