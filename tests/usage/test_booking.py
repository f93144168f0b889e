"""What is booked for an answer, also if Azure's count never came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.records import Bound, Usage, UsageSource
from llmgateway.usage.booking import Asked, Times, book, bound_of, written_at_most
from llmgateway.usage.models import ModelFacts
from llmgateway.usage.seen import Seen

USAGE = Usage(prompt_tokens=58, completion_tokens=12, total_tokens=70)
BOUND = Bound(most_tokens=128_000, tokens_per_second=200.0)


def booked(seen: Seen | None = None, times: Times | None = None, bound: Bound = BOUND, **facts: object):
    """Return prompt tokens, completion tokens and source; a stream of a model that thinks, left by its client."""
    given = {"prompt_tokens": 58, "status": 200, "stream": True, "thinks": True, "ended": False} | facts
    usage, source = book(seen or Seen(), times or Times(100.5, 99.5, 0.0), bound, **given)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return usage.prompt_tokens, usage.completion_tokens, source


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("thinks", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_azures_count_is_believed(stream, thinks, ended):
    """Whatever else is known."""
    assert (58, 12, UsageSource.UPSTREAM) == booked(Seen(usage=USAGE), stream=stream, thinks=thinks, ended=ended)


def test_a_model_that_thought_unseen_and_was_left():
    """100 s of thoughts at 200 tokens/s, then ten words: some 20,000 tokens, and not the 12 that were seen."""
    assert (58, 20_000, UsageSource.BOUND) == booked(Seen(completion_tokens=12))


def test_a_model_that_thought_until_the_regular_end():
    """[DONE] came, but no count: the thoughts are still unseen."""
    assert (58, 20_000, UsageSource.BOUND) == booked(Seen(completion_tokens=12), ended=True)


def test_a_model_that_writes_faster_than_assumed():
    """What was seen is a fact, and the speed an assumption."""
    assert (58, 30_100, UsageSource.BOUND) == booked(Seen(completion_tokens=30_000))


def test_a_stream_without_a_head():
    """The time counts from when the request was sent."""
    assert (58, 2100, UsageSource.BOUND) == booked(times=Times(10.0))


def test_a_model_that_does_not_think():
    """What was seen, and what can have been written since the last text arrived."""
    times = Times(100.0, 99.0, 2.0)

    assert (58, 12 + 500, UsageSource.ESTIMATED) == booked(Seen(completion_tokens=12), times, thinks=False)


def test_a_model_that_does_not_think_and_has_written_nothing():
    """Its first text may be on its way since the head, or since the request was sent."""
    assert (58, 300, UsageSource.ESTIMATED) == booked(times=Times(9.0, 1.0), thinks=False)
    assert (58, 1900, UsageSource.ESTIMATED) == booked(times=Times(9.0), thinks=False)


def test_a_stream_that_ended_regularly_without_a_count():
    """Everything was seen."""
    assert (58, 12, UsageSource.ESTIMATED) == booked(Seen(completion_tokens=12), thinks=False, ended=True)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_the_filter_blocked_without_a_count(stream):
    """Azure bills the text that it has kept back, so the time decides, whether the model thinks or not."""
    seen = Seen(completion_tokens=12, blocked=True)
    times = Times(10.0, 10.0 if stream else 0.0)

    assert (58, 2100, UsageSource.BOUND) == booked(seen, times, stream=stream, thinks=False, ended=True)


@pytest.mark.parametrize("thinks", [False, True])
def test_a_plain_answer_that_never_ended(thinks):
    """Nothing of it was seen, whatever the model, and its head comes last: the time counts from the sending."""
    times = Times(10.0, 0.1)

    assert (58, 2100, UsageSource.BOUND) == booked(times=times, stream=False, thinks=thinks)


def test_a_plain_answer_without_a_count():
    """The text is estimated; thoughts can only be bounded."""
    seen, times = Seen(completion_tokens=500), Times(10.0, 0.1)

    assert (58, 500, UsageSource.ESTIMATED) == booked(seen, times, stream=False, thinks=False, ended=True)
    assert (58, 2100, UsageSource.BOUND) == booked(seen, times, stream=False, thinks=True, ended=True)


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500, 503])
@pytest.mark.parametrize("ended", [False, True])
def test_an_error_costs_nothing(status, ended):
    """Azure has not worked for it, even if the error itself breaks off."""
    assert (0, 0, UsageSource.NONE) == booked(status=status, stream=False, ended=ended)


def test_an_error_that_azure_bills():
    """The prompt was evaluated: it is marked by the caller, or by its status."""
    assert (58, 0, UsageSource.ESTIMATED) == booked(status=400, ended=True, billed_error=True)
    assert (58, 0, UsageSource.ESTIMATED) == booked(status=408)


def test_the_prompt_that_azure_has_counted_replaces_its_estimate():
    """Some servers report it with each event."""
    assert (7, 12, UsageSource.ESTIMATED) == booked(
        Seen(prompt_tokens=7, completion_tokens=12), thinks=False, ended=True
    )


seconds = st.floats(0, 1e6)
seens = st.builds(Seen, completion_tokens=st.integers(0, 200_000))
moments = st.builds(Times, seconds, st.none() | seconds, st.none() | seconds)
bounds = st.builds(Bound, most_tokens=st.integers(1, 200_000), tokens_per_second=st.floats(1, 40_000))
statuses = st.sampled_from([None, 200])


@given(seens, moments, bounds, statuses, st.booleans(), st.booleans(), st.booleans())
def test_never_above_the_cap_and_never_below_what_was_seen(seen, times, bound, status, stream, thinks, ended):
    """The client's limit and the model's maximum hold, unless twice as much was seen; and what was seen is booked."""
    prompt, completion, source = booked(seen, times, bound, status=status, stream=stream, thinks=thinks, ended=ended)

    assert 58 == prompt
    if seen.completion_tokens > 2 * bound.most_tokens + 10:
        assert completion == seen.completion_tokens
    else:
        assert min(seen.completion_tokens, bound.most_tokens) <= completion <= bound.most_tokens
    assert source in (UsageSource.ESTIMATED, UsageSource.BOUND)


@given(seens, bounds, st.booleans(), st.booleans(), st.floats(0, 1000), st.floats(0, 1), st.floats(0, 1))
def test_never_below_what_the_model_has_written(seen, bound, stream, thinks, total, thinking, unseen):
    """A model that writes at the given speed since the head is never booked too low, wherever its client leaves.

    It thinks for a part of the time, then it writes visible text; the last part of that has not arrived.
    """
    if not thinks:
        thinking = 0.0
    written = int(bound.tokens_per_second * total)
    visible = total * (1 - thinking)
    last_text = visible * unseen
    seen = Seen(completion_tokens=int(bound.tokens_per_second * (visible - last_text)) if stream else 0)
    times = Times(total + 1, total, last_text if stream else None)

    _, completion, _ = booked(seen, times, bound, stream=stream, thinks=thinks)

    assert completion >= min(written, bound.most_tokens)


def test_the_bound_is_for_all_choices():
    """They are written at the same time; the client's limit and the model's maximum are those of each."""
    facts = ModelFacts(reasoning=True, max_output_tokens=1000, tokens_per_second=None)

    assert Bound(most_tokens=1000, tokens_per_second=80.0) == bound_of(Asked(), facts, tokens_per_second=80.0)
    assert Bound(most_tokens=300, tokens_per_second=240.0) == bound_of(Asked(3, 100), facts, tokens_per_second=80.0)
    assert Bound(most_tokens=3000, tokens_per_second=240.0) == bound_of(Asked(3, 9999), facts, tokens_per_second=80.0)


def test_the_speed_that_an_admin_has_set_wins():
    """Also below the observed one."""
    facts = ModelFacts(reasoning=True, max_output_tokens=1000, tokens_per_second=20.0)

    assert 20.0 == bound_of(Asked(), facts, tokens_per_second=300.0).tokens_per_second


@pytest.mark.parametrize(("seconds", "tokens"), [(-5, 100), (0, 100), (10, 2100), (10_000, 128_000)])
def test_how_much_can_have_been_written_within_a_time(seconds, tokens):
    """A clock that was set back makes no negative time."""
    assert tokens == written_at_most(BOUND, seconds=seconds)


def test_a_limit_that_the_model_has_ignored():
    """Text that was seen is a fact. The limit holds as long as the estimate of the text may be above the truth."""
    bound = Bound(most_tokens=16, tokens_per_second=200.0)

    assert (58, 431, UsageSource.BOUND) == booked(Seen(completion_tokens=431), bound=bound)
    assert (58, 16, UsageSource.BOUND) == booked(Seen(completion_tokens=42), bound=bound)


def test_a_predicted_output_is_unseen_work_that_takes_no_time():
    """The model may have rejected all of it before the client left."""
    assert (58, 10_000 + 300, UsageSource.BOUND) == booked(times=Times(1.0, 1.0), predicted_tokens=10_000)


def test_the_parts_of_an_estimate_that_may_be_audio():
    """All of the answer if it may be spoken, and the recordings in the prompt."""
    text = Usage(prompt_tokens=58, completion_tokens=12, total_tokens=70)

    assert text is Asked().with_audio(text)
    heard = Asked(audio_prompt_tokens=40).with_audio(text)
    assert (40, 0) == (heard.audio_prompt_tokens, heard.audio_completion_tokens)
    spoken = Asked(audio_prompt_tokens=99, speaks=True).with_audio(text)
    assert (58, 12) == (spoken.audio_prompt_tokens, spoken.audio_completion_tokens)
