"""How the body of an answer is relayed: complete events only, and each stream ends once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.errors import ClientGone, UpstreamBroken, UpstreamTimeout
from llmgateway.proxy.coalescing import ReadCoalescing
from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.proxy.dialect import Dialect, editor
from llmgateway.proxy.disconnects import DisconnectWatcher
from llmgateway.proxy.operations.chat import error_event
from llmgateway.proxy.plain import see_completion
from llmgateway.proxy.read_on import ReadOn
from llmgateway.proxy.stream import PLENTY, EventStream
from llmgateway.records import Outcome, Usage, UsageSource
from llmgateway.usage.meter import LARGEST_EVENT, StreamMeter
from tests.parts import (
    DONE,
    FIRST,
    Claimed,
    Entries,
    ScriptedAnswer,
    Stopwatch,
    call,
    chunk,
    draft,
    event,
    split,
    stream,
    usage_event,
)
from tests.stores.contract import at_once

TEXTS = st.lists(
    st.sampled_from(['"prompt_tokens"', "data: [DONE]", "\n\n", "日本", "{}"]) | st.text(max_size=5), max_size=5
)
CUTS = st.lists(st.integers(0, 10_000), max_size=30)
FIRED = {"filtered": True, "severity": "high"}


class Relay:
    """An event stream with a scripted answer, whose slots and records can be checked."""

    def __init__(
        self,
        *script: bytes | Exception,
        withhold: bool = False,
        dialect: Dialect = Dialect.AZURE,
        read_on: ReadOn | None = None,
        disconnects: DisconnectWatcher | None = None,
        coalescing: ReadCoalescing | None = None,
        send_head: Callable[[], None] | None = None,
        **fields: object,
    ) -> None:
        self.timer = Stopwatch()
        self.slots = ConcurrencyLimit(2)
        self.slots.take()
        self.entries = Entries()
        self.answer = ScriptedAnswer(*script)
        made = call(
            self.entries, self.timer, concurrency=self.slots, read_on=read_on, disconnects=disconnects, **fields
        )
        self.cancellation = made.cancellation
        self.body = EventStream(
            self.answer,
            made,
            meter=StreamMeter(editor(dialect, withhold_usage=withhold)),
            see=see_completion,
            error_event=error_event,
            send_head=send_head,
            coalescing=coalescing,
        )

    def ended_once(self) -> bool:
        """Return whether there is one record, one slot was freed, and the answer is closed."""
        return (1, 1) == (len(self.entries.ended), self.slots.taken) and self.answer.closed >= 1


def passed(relay: Relay) -> bytes:
    return b"".join(relay.body)


def error_of(data: bytes) -> dict[str, object]:
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    return json.loads(data[6:])["error"]


@given(TEXTS, CUTS)
def test_any_split_gives_the_same_bytes_and_the_same_record(texts, cuts):
    """However the network splits a stream, even within a character, the bytes and the usage record are the same."""
    events = stream(*texts)
    relay = Relay(*split(b"".join(events), cuts))

    assert b"".join(events) == passed(relay)

    assert relay.ended_once()
    record = relay.entries.only
    assert (Outcome.OK, UsageSource.UPSTREAM, 7, 3) == (
        record.outcome,
        record.usage_source,
        record.prompt_tokens,
        record.completion_tokens,
    )
    assert (record.ttft_ms is not None) == any(texts)


@given(TEXTS, CUTS)
def test_the_usage_event_is_withheld_in_any_split(texts, cuts):
    """Only the usage event is removed, however the stream is split."""
    events = stream(*texts)
    relay = Relay(*split(b"".join(events), cuts), withhold=True)

    assert b"".join(events[:-2]) + DONE == passed(relay)

    assert 10 == relay.entries.only.total_tokens


@given(TEXTS, CUTS)
def test_lines_may_end_with_cr_lf(texts, cuts):
    """A stream with CR LF line ends is relayed unchanged, event by event, and counted in the same way."""
    events = [one.replace(b"\n", b"\r\n") for one in stream(*texts)]
    relay = Relay(*split(b"".join(events), cuts), withhold=True)
    pieces = list(relay.body)

    assert b"".join([*events[:-2], events[-1]]) == b"".join(pieces)
    assert all(piece.endswith(b"\r\n\r\n") for piece in pieces)
    assert (Outcome.OK, 10) == (relay.entries.only.outcome, relay.entries.only.total_tokens)


@given(TEXTS, CUTS)
def test_only_whole_events_leave(texts, cuts):
    """Every piece that is passed on ends at the end of an event."""
    relay = Relay(*split(b"".join(stream(*texts)), cuts), withhold=True)

    assert all(piece.endswith(b"\n\n") for piece in relay.body)


def test_passes_on_what_has_come_without_waiting_for_more():
    """A complete event is passed on before the next one arrives."""
    relay = Relay(FIRST, chunk("a"), chunk("b") + DONE)

    assert FIRST == next(relay.body)
    assert 1 == relay.answer.reads
    assert chunk("a") == next(relay.body)
    assert 2 == relay.answer.reads


def test_measures_the_first_text_not_the_first_event():
    """Azure's first events contain filter results and a role; the time is measured until the first text."""
    relay = Relay(FIRST, chunk(""), chunk("a"), chunk("b"), DONE)
    for _ in relay.body:
        relay.timer.advance(1)

    assert 2000.0 == relay.entries.only.ttft_ms


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (UpstreamBroken("broke"), Outcome.BROKEN, "upstream_unreachable"),
        (UpstreamTimeout("silent"), Outcome.TIMEOUT, "upstream_timeout"),
    ],
)
@pytest.mark.parametrize("rest", [b"", b'data: {"choices":[{"del'])
def test_a_stream_that_breaks_says_so(error, outcome, code, rest):
    """The client gets the complete events, then an error event and no [DONE].

    The usage is estimated: the text that was seen, and what can have been written within half a second.
    """
    relay = Relay(FIRST + chunk("a") + chunk("b") + rest, error)

    *pieces, last = relay.body

    assert FIRST + chunk("a") + chunk("b") == b"".join(pieces)
    assert (code, str(error)) == (error_of(last)["code"], error_of(last)["message"])
    assert relay.ended_once()
    record = relay.entries.only
    assert (outcome, UsageSource.ESTIMATED) == (record.outcome, record.usage_source)
    assert (10, 152, 162) == (record.prompt_tokens, record.completion_tokens, record.total_tokens)


@pytest.mark.parametrize("error", [UpstreamBroken("x"), UpstreamTimeout("x")])
def test_a_break_after_the_end_is_ignored(error):
    """If the connection breaks after [DONE] or after Azure's error event, nothing is missing, and no error is added."""
    whole = stream("a", "b")
    relay = Relay(*whole, error)
    assert b"".join(whole) == passed(relay)
    assert Outcome.OK is relay.entries.only.outcome

    failed = [FIRST, b'data: {"error":{"message":"x"}}\n\n']
    relay = Relay(*failed, error)
    assert b"".join(failed) == passed(relay)
    assert Outcome.UPSTREAM_ERROR is relay.entries.only.outcome


@pytest.mark.parametrize("last", [b"", b'data: {"choices":[]', chunk("a"), usage_event()])
def test_an_end_without_done_is_a_break(last):
    """If the connection closes normally before [DONE], the answer is incomplete."""
    relay = Relay(FIRST + last)

    *_, error = relay.body

    assert "upstream_unreachable" == error_of(error)["code"]
    assert relay.ended_once()
    assert Outcome.BROKEN == relay.entries.only.outcome


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data: [DONE]\n"])
def test_the_last_blank_line_may_be_missing(end):
    """A stream with [DONE] is complete, and its last bytes are passed on."""
    relay = Relay(chunk("a"), end)

    assert chunk("a") + end == passed(relay)
    assert Outcome.OK == relay.entries.only.outcome


def test_an_error_event_of_azures_is_passed_on():
    """Azure's own error event is passed on unchanged, and the gateway adds none."""
    error = event({"error": {"message": "boom", "code": "500"}})
    relay = Relay(FIRST, chunk("a"), error)

    assert FIRST + chunk("a") + error == passed(relay)
    assert relay.ended_once()
    assert Outcome.UPSTREAM_ERROR == relay.entries.only.outcome


def test_an_oversized_event_is_passed_on_as_it_comes():
    """Memory is bounded: an event that is too large is passed on in pieces, and counting goes on after it."""
    giant = chunk("x" * (3 * LARGEST_EVENT))
    data = FIRST + giant + usage_event() + DONE
    relay = Relay(*[data[start : start + 50_000] for start in range(0, len(data), 50_000)], withhold=True)

    pieces = list(relay.body)

    assert FIRST + giant + DONE == b"".join(pieces)
    assert max(map(len, pieces)) <= LARGEST_EVENT + 50_000
    assert 10 == relay.entries.only.total_tokens


def test_a_break_within_an_oversized_event_ends_it_first():
    """A part of the event has left. The error must not become the rest of it."""
    half = chunk("x" * 2 * LARGEST_EVENT)[: -LARGEST_EVENT // 2]
    relay = Relay(half, UpstreamBroken("broke"))

    sent, error = passed(relay).split(b"\n\n", 1)

    assert half == sent
    assert "broke" == error_of(error)["message"]


@given(TEXTS, CUTS)
def test_openais_dialect_has_no_event_without_choices(texts, cuts):
    """Azure's first event is withheld, however the stream is split; its filter results stay in the record."""
    first = event({"choices": [], "prompt_filter_results": [{"content_filter_results": {"jailbreak": FIRED}}]})
    _, *others = stream(*texts)
    relay = Relay(*split(b"".join([first, *others]), cuts), dialect=Dialect.OPENAI)

    assert b"".join(others) == passed(relay)
    assert ("jailbreak",) == relay.entries.only.content_filter


def test_the_head_does_not_wait_for_the_first_event():
    """If the first event is withheld, status and headers leave alone: the next event may take minutes."""
    sent: list[int] = []
    relay = Relay(FIRST, chunk("a"), DONE, dialect=Dialect.OPENAI, send_head=lambda: sent.append(relay.answer.reads))

    assert chunk("a") == next(relay.body)
    assert [1] == sent
    assert [DONE] == list(relay.body)
    assert [1] == sent


def test_the_head_leaves_with_the_first_event():
    """If there is a first event at once, status and headers leave with it: that is cheaper."""
    relay = Relay(FIRST + chunk("a"), DONE, dialect=Dialect.OPENAI, send_head=lambda: pytest.fail("too early"))

    assert chunk("a") + DONE == passed(relay)


def test_a_client_that_has_left_gets_no_head():
    """While an abandoned answer is read to its end, nothing is sent."""
    relay = Relay(
        *stream("a"),
        dialect=Dialect.OPENAI,
        read_on=ReadOn(seconds=60, at_once=1),
        send_head=lambda: pytest.fail("nobody is there"),
    )

    relay.body.close()

    assert UsageSource.UPSTREAM == relay.entries.only.usage_source


@pytest.mark.parametrize("size", [1, 1000])
def test_a_document_in_place_of_a_stream(size):
    """It has the type of a stream, but is a whole completion: it is passed on whole, and counted."""
    document = b'{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}'
    relay = Relay(*[document[start : start + size] for start in range(0, len(document), size)])

    assert [document] == list(relay.body)
    assert relay.ended_once()
    assert (Outcome.OK, 10) == (relay.entries.only.outcome, relay.entries.only.total_tokens)


def test_half_a_document_in_place_of_a_stream():
    """Half a JSON document is of no use; the client gets the error event."""
    relay = Relay(b'{"choices":[', UpstreamBroken("broke"))

    assert "broke" == error_of(passed(relay))["message"]
    assert Outcome.BROKEN is relay.entries.only.outcome


def test_a_stream_that_was_never_read_ends():
    """If the client disconnects before the first byte, everything is released, and a record is written."""
    relay = Relay(*stream("a"))

    relay.body.close()

    assert relay.ended_once()
    assert 0 == relay.answer.reads
    assert Outcome.CLIENT_CLOSED == relay.entries.only.outcome


def test_a_stream_left_in_the_middle_ends():
    """If the client disconnects early, the events that were relayed are counted, and what can be on its way."""
    relay = Relay(FIRST, chunk("a"), chunk("b"), chunk("c"), usage_event(), DONE)
    for _ in range(3):
        next(relay.body)

    relay.body.close()

    assert relay.ended_once()
    record = relay.entries.only
    assert (Outcome.CLIENT_CLOSED, 2 + 150) == (record.outcome, record.completion_tokens)
    with pytest.raises(StopIteration):
        next(relay.body)


def test_a_client_that_has_everything_may_leave():
    """OpenAI's clients close as soon as they have read [DONE]; this counts as success."""
    relay = Relay(*stream("a"))
    while not next(relay.body).endswith(DONE):
        pass

    relay.body.close()

    assert relay.ended_once()
    record = relay.entries.only
    assert (Outcome.OK, 10) == (record.outcome, record.total_tokens)


def test_a_client_that_was_gone_before_the_end_was_sent_has_left():
    """A whole stream may arrive in one piece. That it was read does not mean that the client has it."""
    relay = Relay(b"".join(stream("a")))
    relay.cancellation.abandoned = lambda: True
    assert next(relay.body).endswith(DONE)

    relay.body.close()

    record = relay.entries.only
    assert (Outcome.CLIENT_CLOSED, UsageSource.UPSTREAM, 10) == (
        record.outcome,
        record.usage_source,
        record.total_tokens,
    )


def test_a_client_found_gone_ends_the_stream():
    """If the request is cancelled during a read, the stream ends without an error event."""
    relay = Relay(chunk("a"), ClientGone("gone"))

    assert [chunk("a")] == list(relay.body)
    assert relay.ended_once()
    assert Outcome.CLIENT_CLOSED == relay.entries.only.outcome


@pytest.mark.parametrize("script", [stream("a"), [UpstreamBroken("x")], [UpstreamTimeout("x")], [ClientGone("x")]])
def test_closing_again_changes_nothing(script):
    """The server may close a stream that has ended, even twice."""
    relay = Relay(*script)
    passed(relay)
    before = relay.entries.only

    relay.body.close()
    relay.body.close()

    assert before is relay.entries.only
    assert relay.ended_once()


def test_ends_once_when_closed_from_several_threads():
    """A stream that several threads close leaves one record."""
    for _ in range(20):
        relay = Relay(*stream("a"))
        at_once(*[relay.body.close] * 4)
        assert relay.ended_once()


def test_gives_its_slot_back_if_closing_the_answer_fails():
    """If closing the socket fails, the record is not lost."""
    relay = Relay(*stream("a"))

    def close() -> None:
        relay.answer.closed += 1
        raise RuntimeError("socket")

    relay.answer.close = close
    with pytest.raises(RuntimeError, match="socket"):
        relay.body.close()

    assert relay.ended_once()


class Sleeps(ReadCoalescing):
    """Records for how long streams would have waited."""

    def __init__(self, streams: int) -> None:
        super().__init__(sleep=lambda _, seconds: self.slept.append(seconds))
        self.slept: list[float] = []
        for _ in range(streams):
            self.begin()


@pytest.mark.parametrize(
    ("others", "seconds"), [(0, 0), (29, 0), (30, 0.01085), (99, 0.035), (299, 0.105), (599, 0.15), (5000, 0.15)]
)
def test_the_more_streams_the_longer_each_waits(others, seconds):
    """Each stream adds a third of a millisecond. With few streams there is no wait, and the wait has a maximum."""
    coalescing = Sleeps(others)
    relay = Relay(chunk("a"), chunk("b") + usage_event() + DONE, coalescing=coalescing)

    assert chunk("a") + chunk("b") + usage_event() + DONE == passed(relay)

    assert ([seconds] if seconds else []) == pytest.approx(coalescing.slept)


def test_a_new_stream_does_not_wait():
    """Everything up to and including the first text is passed on without a wait."""
    coalescing = Sleeps(100)
    relay = Relay(FIRST, chunk(""), chunk("a"), chunk("b"), DONE, coalescing=coalescing)

    assert [FIRST, chunk(""), chunk("a")] == [next(relay.body) for _ in range(3)]
    assert [] == coalescing.slept
    next(relay.body)
    assert 1 == len(coalescing.slept)


def test_nothing_waits_for_the_end_of_a_stream():
    """After [DONE] there is no wait for the end of the answer."""
    coalescing = Sleeps(100)
    relay = Relay(chunk("a"), DONE, coalescing=coalescing)

    passed(relay)

    assert 1 == len(coalescing.slept)  # before [DONE], not after it


def test_a_stream_that_comes_in_large_pieces_does_not_wait():
    """If a read returned many bytes, the next one does not wait."""
    coalescing = Sleeps(100)
    relay = Relay(chunk("a"), *[chunk("x" * PLENTY)] * 5, DONE, coalescing=coalescing)

    passed(relay)

    assert 1 == len(coalescing.slept)  # before the first of them


def test_only_streams_under_way_count():
    """A stream that has ended in any way is not counted."""
    coalescing = ReadCoalescing()
    relays = [
        Relay(*stream("a"), coalescing=coalescing),
        Relay(UpstreamBroken("x"), coalescing=coalescing),
        Relay(FIRST, coalescing=coalescing),
    ]
    assert 3 == coalescing.streams

    passed(relays[0])
    passed(relays[1])
    relays[2].body.close()
    for relay in relays:
        relay.body.close()

    assert 0 == coalescing.streams


def test_a_cut_ends_the_wait():
    """If the request is cancelled, the wait ends."""
    coalescing = ReadCoalescing()
    coalescing.SECONDS_FOR_EACH, coalescing.MOST_SECONDS, coalescing.FEW_STREAMS = 60.0, 60.0, 0
    relay = Relay(chunk("a"), ClientGone("gone"), coalescing=coalescing)
    next(relay.body)
    threading.Timer(0.05, relay.cancellation.cut).start()

    assert [] == list(relay.body)
    assert Outcome.CLIENT_CLOSED == relay.entries.only.outcome


def left(*script: bytes | Exception, **options: object) -> Relay:
    """A stream whose client leaves after the first read."""
    relay = Relay(*script, **options)
    next(relay.body)
    relay.body.close()
    return relay


def test_an_answer_that_is_read_on_to_its_end_has_an_exact_count():
    """An abandoned answer that was read to its end has Azure's count, and the outcome says that the client left."""
    permits = ReadOn(seconds=60, at_once=1)
    relay = left(*stream("a", "b"), read_on=permits)

    assert relay.ended_once()
    record = relay.entries.only
    assert (Outcome.CLIENT_CLOSED, UsageSource.UPSTREAM, 10) == (
        record.outcome,
        record.usage_source,
        record.total_tokens,
    )
    assert 0 == permits.running


@pytest.mark.parametrize("error", [UpstreamBroken("x"), UpstreamTimeout("x")])
def test_an_error_while_an_answer_is_read_on_ends_it(error):
    """If an answer breaks while it is read on, its usage is estimated."""
    permits = ReadOn(seconds=60, at_once=1)
    relay = left(FIRST, chunk("a"), error, read_on=permits)

    assert relay.ended_once()
    assert UsageSource.ESTIMATED == relay.entries.only.usage_source
    assert 0 == permits.running


def test_reading_on_stops_when_its_time_is_over():
    """The watcher cuts the request, although the server does not tell when clients leave."""
    timer = Stopwatch()
    watcher = DisconnectWatcher(timer=timer)
    relay = Relay(read_on=ReadOn(seconds=10, at_once=1), disconnects=watcher)

    def read() -> bytes:
        timer.advance(1)
        watcher.look()
        if relay.cancellation.was_cut:
            raise ClientGone("cut")
        return chunk("a")

    relay.answer.read = read
    began = timer()
    relay.body.close()

    assert 10 == timer() - began
    assert relay.ended_once()
    assert (Outcome.CLIENT_CLOSED, UsageSource.ESTIMATED) == (
        relay.entries.only.outcome,
        relay.entries.only.usage_source,
    )


def test_only_so_many_are_read_on_at_once():
    """If all permits are taken, another answer is closed at once; later ones are read on again."""
    permits = ReadOn(seconds=60, at_once=1)
    second = Relay(*stream("a"), read_on=permits)
    first = Relay(FIRST, read_on=permits)
    read = first.answer.read

    def leave_another_meanwhile() -> bytes:
        second.body.close()
        return read()

    first.answer.read = leave_another_meanwhile
    first.body.close()

    assert 0 == second.answer.reads
    assert second.ended_once()
    assert first.answer.reads > 0

    third = left(*stream("a"), read_on=permits)
    assert UsageSource.UPSTREAM == third.entries.only.usage_source


@pytest.mark.parametrize(("deployment", "reads"), [("gpt-4o-mini", 1), ("gpt-5-mini", 8)])
def test_only_models_that_think_are_read_on(deployment, reads):
    """What another model has written can be estimated without its end."""
    permits = ReadOn(seconds=60, at_once=1, thinking_only=True)

    relay = left(*stream("a", "b"), read_on=permits, deployment=deployment, model=deployment)

    assert reads == relay.answer.reads
    assert relay.ended_once()


def test_an_answer_that_is_counted_is_not_read_on():
    """After the usage event there is nothing to learn."""
    first, *_, usage, done = stream("a")
    relay = Relay(first + chunk("a") + chunk(finish="stop") + usage, done, read_on=ReadOn(seconds=60, at_once=1))
    next(relay.body)

    relay.body.close()

    assert 1 == relay.answer.reads
    assert (Outcome.CLIENT_CLOSED, UsageSource.UPSTREAM) == (
        relay.entries.only.outcome,
        relay.entries.only.usage_source,
    )


def test_agrees_with_the_meter():
    """The record of a stream agrees with a meter that got all events at once."""
    events = stream("a", "b", usage=usage_event(70, 30, cached=5, reasoning=20))
    meter = StreamMeter()
    meter.feed(b"".join(events))
    relay = Relay(*events)
    passed(relay)

    record = relay.entries.only
    assert meter.seen.usage == Usage(
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        total_tokens=record.total_tokens,
        cached_tokens=record.cached_tokens,
        reasoning_tokens=record.reasoning_tokens,
    )
    assert draft().id == record.id


def test_is_committed_before_its_end_leaves():
    """The reservation is committed before [DONE] is passed on: the client may then send its next request at once."""
    entries, admission = Entries(), Claimed()
    going = call(entries, admission=admission)
    body = EventStream(
        ScriptedAnswer(b"".join(stream("Hi"))),
        going,
        meter=StreamMeter(),
        see=see_completion,
        error_event=error_event,
    )

    assert next(body).endswith(DONE)

    assert [10] == [record.total_tokens for record in admission.committed]
    assert [] == entries.ended
    body.close()
    assert (1, 1) == (len(admission.committed), len(entries.ended))
