"""The body on its way back: whole events, one ending."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.errors import ClientGone, UpstreamBroken, UpstreamTimeout
from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.proxy.stream import (
    LARGEST_EVENT,
    LARGEST_PLAIN_ANSWER,
    PLENTY,
    EventStream,
    ReadCoalescing,
    ReadToEnd,
    finish_plain,
    read_plain,
)
from llmgateway.records import Outcome, Usage, UsageSource
from llmgateway.usage.tokens import StreamMeter
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
USAGE = Usage(prompt_tokens=7, completion_tokens=3, total_tokens=10)


class Relay:
    """An event stream with a scripted answer, and books to look into."""

    def __init__(
        self,
        *script: bytes | Exception,
        withhold: bool = False,
        read_to_end: ReadToEnd | None = None,
        coalescing: ReadCoalescing | None = None,
    ) -> None:
        self.timer = Stopwatch()
        self.slots = ConcurrencyLimit(2)
        self.slots.take()
        self.entries = Entries()
        self.answer = ScriptedAnswer(*script)
        made = call(self.entries, self.timer, concurrency=self.slots)
        self.cancellation = made.cancellation
        self.body = EventStream(
            self.answer,
            made,
            withhold_usage=withhold,
            read_to_end=read_to_end or ReadToEnd(seconds=0, at_once=0, timer=self.timer),
            coalescing=coalescing,
        )

    def ended_once(self) -> bool:
        """Whether there is one record, one slot freed and no connection left."""
        return (1, 1) == (len(self.entries.ended), self.slots.taken) and self.answer.closed >= 1


def passed(relay: Relay) -> bytes:
    return b"".join(relay.body)


def error_of(data: bytes) -> dict[str, object]:
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    return json.loads(data[6:])["error"]


@given(TEXTS, CUTS)
def test_any_split_gives_the_same_bytes_and_the_same_record(texts, cuts):
    """However the network cuts a stream, even within a character, the client and the books get the same."""
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
    """The event that the client did not ask for is taken out, and nothing else, however the stream is cut."""
    events = stream(*texts)
    relay = Relay(*split(b"".join(events), cuts), withhold=True)

    assert b"".join(events[:-2]) + DONE == passed(relay)

    assert 10 == relay.entries.only.total_tokens


@given(TEXTS, CUTS)
def test_lines_may_end_as_something_on_the_way_likes_it(texts, cuts):
    """A stream whose lines end with CR and LF leaves as it came, event by event, and counts the same."""
    events = [one.replace(b"\n", b"\r\n") for one in stream(*texts)]
    relay = Relay(*split(b"".join(events), cuts), withhold=True)
    pieces = list(relay.body)

    assert b"".join([*events[:-2], events[-1]]) == b"".join(pieces)
    assert all(piece.endswith(b"\r\n\r\n") for piece in pieces)
    assert (Outcome.OK, 10) == (relay.entries.only.outcome, relay.entries.only.total_tokens)


@given(TEXTS, CUTS)
def test_only_whole_events_leave(texts, cuts):
    """Every piece that is passed on ends where an event ends."""
    relay = Relay(*split(b"".join(stream(*texts)), cuts), withhold=True)

    assert all(piece.endswith(b"\n\n") for piece in relay.body)


def test_passes_on_what_has_come_without_waiting_for_more():
    """An event that is complete leaves before the next one arrives."""
    relay = Relay(FIRST, chunk("a"), chunk("b") + DONE)

    assert FIRST == next(relay.body)
    assert 1 == relay.answer.reads
    assert chunk("a") == next(relay.body)
    assert 2 == relay.answer.reads


def test_measures_the_first_text_not_the_first_event():
    """Azure's first events are verdicts and a role; the user waits for words."""
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
    """The client gets what was whole, then an error event, and no [DONE]; the books get an estimate."""
    relay = Relay(FIRST + chunk("a") + chunk("b") + rest, error)

    *pieces, last = relay.body

    assert FIRST + chunk("a") + chunk("b") == b"".join(pieces)
    assert (code, str(error)) == (error_of(last)["code"], error_of(last)["message"])
    assert relay.ended_once()
    record = relay.entries.only
    assert (outcome, UsageSource.ESTIMATED) == (record.outcome, record.usage_source)
    assert (10, 2, 12) == (record.prompt_tokens, record.completion_tokens, record.total_tokens)


@pytest.mark.parametrize("error", [UpstreamBroken("x"), UpstreamTimeout("x")])
def test_a_break_behind_the_end_is_none(error):
    """Once [DONE], or an error event of Azure's, has come nothing is missing: no other error is put behind it."""
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
    """A connection that closes in good order before [DONE] has cut the answer short all the same."""
    relay = Relay(FIRST + last)

    *_, error = relay.body

    assert "upstream_unreachable" == error_of(error)["code"]
    assert relay.ended_once()
    assert Outcome.BROKEN == relay.entries.only.outcome


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data: [DONE]\n"])
def test_the_last_blank_line_may_be_missing(end):
    """A stream that says [DONE] is complete, and its last bytes are passed on as well."""
    relay = Relay(chunk("a"), end)

    assert chunk("a") + end == passed(relay)
    assert Outcome.OK == relay.entries.only.outcome


def test_an_error_event_of_azures_is_passed_on():
    """Azure's own error in a stream reaches the client as it is, without one of ours behind it."""
    trouble = event({"error": {"message": "boom", "code": "500"}})
    relay = Relay(FIRST, chunk("a"), trouble)

    assert FIRST + chunk("a") + trouble == passed(relay)
    assert relay.ended_once()
    assert Outcome.UPSTREAM_ERROR == relay.entries.only.outcome


def test_an_oversized_event_is_passed_on_as_it_comes():
    """Memory is bounded: an event beyond any size leaves in pieces, unchanged, and counting goes on behind it."""
    giant = chunk("x" * (3 * LARGEST_EVENT))
    data = FIRST + giant + usage_event() + DONE
    relay = Relay(*[data[start : start + 50_000] for start in range(0, len(data), 50_000)], withhold=True)

    pieces = list(relay.body)

    assert FIRST + giant + DONE == b"".join(pieces)
    assert max(map(len, pieces)) <= LARGEST_EVENT + 50_000
    assert 10 == relay.entries.only.total_tokens


def test_a_stream_that_was_never_read_ends():
    """A client that left before the first byte leaves no connection, no slot and no missing record behind."""
    relay = Relay(*stream("a"))

    relay.body.close()

    assert relay.ended_once()
    assert 0 == relay.answer.reads
    assert Outcome.CLIENT_CLOSED == relay.entries.only.outcome


def test_a_stream_left_in_the_middle_ends():
    """A client that leaves early is billed for what came until then."""
    relay = Relay(FIRST, chunk("a"), chunk("b"), chunk("c"), usage_event(), DONE)
    for _ in range(3):
        next(relay.body)

    relay.body.close()

    assert relay.ended_once()
    record = relay.entries.only
    assert (Outcome.CLIENT_CLOSED, 2) == (record.outcome, record.completion_tokens)
    with pytest.raises(StopIteration):
        next(relay.body)


def test_a_client_that_has_everything_may_leave():
    """Official clients close as soon as they have read [DONE]: that is a good end."""
    relay = Relay(*stream("a"))
    while not next(relay.body).endswith(DONE):
        pass

    relay.body.close()

    assert relay.ended_once()
    record = relay.entries.only
    assert (Outcome.OK, 10) == (record.outcome, record.total_tokens)


def test_a_client_that_was_gone_before_the_end_was_sent_has_left():
    """A whole stream may come in one piece; that it was read does not mean that anybody got it."""
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
    """A transmission that was cut under the reader leaves no error event: nobody would read it."""
    relay = Relay(chunk("a"), ClientGone("gone"))

    assert [chunk("a")] == list(relay.body)
    assert relay.ended_once()
    assert Outcome.CLIENT_CLOSED == relay.entries.only.outcome


@pytest.mark.parametrize("script", [stream("a"), [UpstreamBroken("x")], [UpstreamTimeout("x")], [ClientGone("x")]])
def test_closing_again_changes_nothing(script):
    """The server closes what has ended by itself, maybe twice."""
    relay = Relay(*script)
    passed(relay)
    before = relay.entries.only

    relay.body.close()
    relay.body.close()

    assert before is relay.entries.only
    assert relay.ended_once()


def test_ends_once_when_closed_from_several_threads():
    """A server that closes while it also gives up leaves one record."""
    for _ in range(20):
        relay = Relay(*stream("a"))
        at_once(*[relay.body.close] * 4)
        assert relay.ended_once()


def test_gives_its_slot_back_if_closing_the_answer_fails():
    """Trouble with a socket does not lose the record."""
    relay = Relay(*stream("a"))

    def close() -> None:
        relay.answer.closed += 1
        raise RuntimeError("socket")

    relay.answer.close = close
    with pytest.raises(RuntimeError, match="socket"):
        relay.body.close()

    assert relay.ended_once()


class Sleeps(ReadCoalescing):
    """A pace that writes down where streams would have waited, and for how long."""

    def __init__(self, streams: int) -> None:
        super().__init__(sleep=lambda _, seconds: self.slept.append(seconds))
        self.slept: list[float] = []
        for _ in range(streams):
            self.begin()


@pytest.mark.parametrize(
    ("others", "seconds"), [(0, 0), (29, 0), (30, 0.01085), (99, 0.035), (299, 0.105), (599, 0.15), (5000, 0.15)]
)
def test_the_more_streams_the_longer_each_waits(others, seconds):
    """A third of a millisecond for each, nothing where there are few, and never so long that a reader sees it."""
    coalescing = Sleeps(others)
    relay = Relay(chunk("a"), chunk("b") + usage_event() + DONE, coalescing=coalescing)

    assert chunk("a") + chunk("b") + usage_event() + DONE == passed(relay)

    assert ([seconds] if seconds else []) == pytest.approx(coalescing.slept)


def test_a_new_stream_does_not_wait():
    """Whatever comes before the first text, and this itself, is passed on as soon as it is there."""
    coalescing = Sleeps(100)
    relay = Relay(FIRST, chunk(""), chunk("a"), chunk("b"), DONE, coalescing=coalescing)

    assert [FIRST, chunk(""), chunk("a")] == [next(relay.body) for _ in range(3)]
    assert [] == coalescing.slept
    next(relay.body)
    assert 1 == len(coalescing.slept)


def test_nothing_waits_for_the_end_of_a_stream():
    """Once [DONE] has come, what remains is the end of the answer."""
    coalescing = Sleeps(100)
    relay = Relay(chunk("a"), DONE, coalescing=coalescing)

    passed(relay)

    assert 1 == len(coalescing.slept)  # before [DONE], not behind it


def test_a_stream_that_comes_in_large_pieces_does_not_wait():
    """A read that brings plenty needs no gathering."""
    coalescing = Sleeps(100)
    relay = Relay(chunk("a"), *[chunk("x" * PLENTY)] * 5, DONE, coalescing=coalescing)

    passed(relay)

    assert 1 == len(coalescing.slept)  # before the first of them


def test_only_streams_under_way_count():
    """One that has ended, however it did, makes nobody wait."""
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
    """A client that leaves is not waited for."""
    coalescing = ReadCoalescing()
    coalescing.SECONDS_FOR_EACH, coalescing.MOST_SECONDS, coalescing.FEW_STREAMS = 60.0, 60.0, 0
    relay = Relay(chunk("a"), ClientGone("gone"), coalescing=coalescing)
    next(relay.body)
    threading.Timer(0.05, relay.cancellation.cut).start()

    assert [] == list(relay.body)
    assert Outcome.CLIENT_CLOSED == relay.entries.only.outcome


def read_on(*script: bytes | Exception, seconds: float = 60, at_once: int = 1, tick: float = 0) -> Relay:
    timer = Stopwatch()
    relay = Relay(*script, read_to_end=ReadToEnd(seconds=seconds, at_once=at_once, timer=timer))
    read = relay.answer.read

    def read_slowly() -> bytes:
        timer.advance(tick)
        return read()

    relay.answer.read = read_slowly
    next(relay.body)
    relay.body.close()
    return relay


def test_a_stream_read_to_its_end_has_an_exact_count():
    """Read to its end for the books, an abandoned answer is billed as Azure counts, and still was abandoned."""
    relay = read_on(*stream("a", "b"))

    assert relay.ended_once()
    record = relay.entries.only
    assert (Outcome.CLIENT_CLOSED, UsageSource.UPSTREAM, 10) == (
        record.outcome,
        record.usage_source,
        record.total_tokens,
    )


@pytest.mark.parametrize("trouble", [UpstreamBroken("x"), UpstreamTimeout("x")])
def test_trouble_while_reading_to_the_end_ends_it(trouble):
    """An answer that breaks while it is read to its end is estimated."""
    relay = read_on(FIRST, chunk("a"), trouble)

    assert relay.ended_once()
    assert UsageSource.ESTIMATED == relay.entries.only.usage_source


def test_reading_to_the_end_stops_when_its_time_is_up():
    """One abandoned answer holds its thread for no longer than it may."""
    relay = read_on(FIRST, *[chunk("a")] * 1000, seconds=10, tick=1)

    assert relay.ended_once()
    assert relay.answer.reads < 15
    assert (Outcome.CLIENT_CLOSED, UsageSource.ESTIMATED) == (
        relay.entries.only.outcome,
        relay.entries.only.usage_source,
    )


def test_only_so_many_are_read_to_their_end_at_once():
    """While the slots for this are taken, another answer is closed at once; later ones are read to their end."""
    read_to_end = ReadToEnd(seconds=60, at_once=1, timer=Stopwatch())
    second = Relay(*stream("a"), read_to_end=read_to_end)
    first = Relay(FIRST, read_to_end=read_to_end)
    read = first.answer.read

    def leave_another_meanwhile() -> bytes:
        second.body.close()
        return read()

    first.answer.read = leave_another_meanwhile
    first.body.close()

    assert 0 == second.answer.reads
    assert second.ended_once()
    assert first.answer.reads > 0

    third = Relay(*stream("a"), read_to_end=read_to_end)
    third.body.close()
    assert UsageSource.UPSTREAM == third.entries.only.usage_source


def test_reads_a_plain_answer_whole():
    """An answer that is no stream is put together, so that a break in it can still become an error."""
    assert b"abc" == read_plain(ScriptedAnswer(b"a", b"bc"))


@pytest.mark.parametrize("error", [UpstreamBroken("x"), UpstreamTimeout("x")])
def test_a_plain_answer_that_breaks_is_no_answer(error):
    """Half a JSON document goes to nobody."""
    with pytest.raises(type(error)):
        read_plain(ScriptedAnswer(b"{", error))


def test_a_plain_answer_has_a_largest_size():
    """What no completion can be is not collected until the memory is full."""
    megabyte = b"x" * 1024 * 1024
    answer = ScriptedAnswer(*[megabyte] * (LARGEST_PLAIN_ANSWER // len(megabyte) + 100))

    with pytest.raises(UpstreamBroken, match="too large"):
        read_plain(answer)

    assert answer.reads == LARGEST_PLAIN_ANSWER // len(megabyte) + 1


@pytest.mark.parametrize(
    ("status", "body", "outcome", "source", "total", "fired"),
    [
        (
            200,
            b'{"model":"gpt-4o-mini","usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}',
            Outcome.OK,
            UsageSource.UPSTREAM,
            10,
            (),
        ),
        (200, b'{"choices":[]}', Outcome.OK, UsageSource.ESTIMATED, 10, ()),
        (200, b"not json", Outcome.OK, UsageSource.ESTIMATED, 10, ()),
        (200, b"[1]", Outcome.OK, UsageSource.ESTIMATED, 10, ()),
        (200, b'{"model":5,"usage":{"prompt_tokens":1}}', Outcome.OK, UsageSource.UPSTREAM, 1, ()),
        (429, b'{"error":{"code":"429"}}', Outcome.UPSTREAM_ERROR, UsageSource.NONE, 0, ()),
        (
            400,
            b'{"error":{"innererror":{"content_filter_result":{"sexual":{"filtered":true}}}}}',
            Outcome.UPSTREAM_ERROR,
            UsageSource.NONE,
            0,
            ("sexual",),
        ),
    ],
)
def test_books_a_plain_answer(status, body, outcome, source, total, fired):
    """Azure's count is booked, its errors cost nothing, and what says nothing is estimated."""
    entries = Entries()

    finish_plain(call(entries), status, body)

    record = entries.only
    assert (outcome, source, total, fired) == (
        record.outcome,
        record.usage_source,
        record.total_tokens,
        record.content_filter,
    )


def test_agrees_with_the_meter():
    """The record of a stream is what a meter that saw all of it at once would say."""
    events = stream("a", "b", usage=usage_event(70, 30, cached=5, reasoning=20))
    meter = StreamMeter()
    meter.feed(b"".join(events))
    relay = Relay(*events)
    passed(relay)

    record = relay.entries.only
    assert meter.usage == Usage(
        prompt_tokens=record.prompt_tokens,
        completion_tokens=record.completion_tokens,
        total_tokens=record.total_tokens,
        cached_tokens=record.cached_tokens,
        reasoning_tokens=record.reasoning_tokens,
    )
    assert draft().id == record.id


def test_is_committed_before_its_end_leaves():
    """Who has read [DONE] and asks again at once finds that the request before is no longer in the way."""
    entries, admission = Entries(), Claimed()
    going = call(entries, admission=admission)
    read_to_end = ReadToEnd(seconds=0, at_once=0, timer=Stopwatch())
    body = EventStream(ScriptedAnswer(b"".join(stream("Hi"))), going, withhold_usage=True, read_to_end=read_to_end)

    assert next(body).endswith(DONE)

    assert [10] == [record.total_tokens for record in admission.committed]
    assert [] == entries.ended
    body.close()
    assert (1, 1) == (len(admission.committed), len(entries.ended))
