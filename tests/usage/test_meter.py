"""A streamed answer is read as it passes: its events, its count, and what was seen if no count comes."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.records import Usage
from llmgateway.usage.meter import LARGEST_EVENT, StreamMeter
from tests.parts import DONE, FIRST, SAFE, chunk, event, split, stream, usage_event

FIRED = {"filtered": True, "severity": "high"}
IMITATIONS = [
    '"prompt_tokens"',
    '{"usage":{"prompt_tokens":1000000}}',
    '"choices":[],"usage":{"prompt_tokens":1000000,"completion_tokens":1}',
    '"filtered":true',
    '{"hate":{"filtered":true}}',
    '"detected":true',
    "data: [DONE]",
    "\n\ndata: [DONE]\n\n",
    'data: {"error":{}}',
    '\n\ndata: {"error":{}}\n\n',
    '"content":"',
    '"arguments":"',
    '\\"content\\":\\"',
    "\\",
    '"',
    "\u2028日本\U0001f600",
]
TEXTS = st.lists((st.sampled_from(IMITATIONS) | st.text(max_size=8)).filter(bool), max_size=6)


def metered(*chunks: bytes, choices: int = 1) -> StreamMeter:
    meter = StreamMeter(choices=choices)
    for data in chunks:
        meter.feed(data)
    meter.end()
    return meter


def state(meter: StreamMeter) -> tuple[object, ...]:
    seen = meter.seen
    return seen.usage, seen.model, seen.content_filter, seen.completion_tokens, meter.done, meter.failed


@given(TEXTS, st.lists(st.booleans(), min_size=12, max_size=12))
def test_any_grouping_of_events_counts_the_same(texts, joins):
    """Any division of the events into reads gives the same usage."""
    events = stream(*texts, usage=usage_event(70, 30, cached=5, reasoning=20))
    groups = [b""]
    for number, one in enumerate(events):
        groups[-1] += one
        if joins[number % len(joins)]:
            groups.append(b"")

    meter = metered(*filter(None, groups))

    assert state(metered(*events)) == state(meter)
    usage = Usage(
        prompt_tokens=70, completion_tokens=30, total_tokens=100, cached_tokens=5, reasoning_tokens=20
    )  # fmt: skip
    said = meter.seen.completion_tokens
    assert (usage, "gpt-4o-mini-2024-07-18", set(), said, True, False) == state(meter)
    assert len(texts) <= said <= len("".join(texts).encode())


@given(TEXTS)
def test_text_is_never_taken_for_a_report(texts):
    """Text about usage, filters and ends of streams is only text."""
    tool = event({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "".join(texts)}}]}}]})

    meter = metered(b"".join(map(chunk, texts)) + tool)

    seen = meter.seen
    assert (None, None, None, set()) == (seen.usage, seen.prompt_tokens, seen.service_tier, seen.content_filter)
    assert (False, False) == (meter.done, meter.failed)
    assert bool(texts) == bool(seen.completion_tokens)


def editing(*chunks: bytes, edit) -> list[bytes]:
    meter = StreamMeter(edit)
    return [*map(meter.feed, chunks), meter.end()]


def without_usage(event: bytes, document: dict[str, object]) -> bytes:
    return b"" if document["choices"] == [] and document.get("usage") else event


def test_removes_an_event_with_its_blank_line():
    """An event that is removed leaves no trace; all others are passed on byte for byte."""
    events = FIRST + chunk("a") + chunk(finish="stop") + usage_event() + DONE

    assert events.replace(usage_event(), b"") == b"".join(editing(events, edit=without_usage))


def test_changes_an_event_where_it_stands():
    """An event may be replaced by another one."""

    def stop(one: bytes, _document: object) -> bytes:
        return one.replace(b'"stop"', b'"end"')

    before, after = chunk("b") + chunk(finish="stop"), chunk("b") + chunk(finish="end")
    assert [FIRST, after + DONE, b""] == editing(FIRST, before + DONE, edit=stop)


LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
CUTS = st.lists(st.integers(0, 10_000), max_size=30)
MARK = st.sampled_from([b"", b"\xef\xbb\xbf"])


def written(events: list[bytes], ends: list[bytes], *, blank: bytes = b" ", extra: bytes = b"") -> bytes:
    """*events* in another form that the standard allows: other line ends, with and without a blank, more lines."""
    lines = b"".join(extra + one.replace(b"data: ", b"data:" + blank, 1) for one in events).split(b"\n")
    data = lines[0]
    for line, end in zip(lines[1:], itertools.cycle(ends), strict=False):
        # LF right after CR would be a part of the same line end.
        data += (b"\r" if end == b"\n" and data.endswith(b"\r") else end) + line
    return data


EXTRA = st.sampled_from([b"", b": a comment\n", b"event: message\nid: 5\n", b"\n", b": keep-alive\n\n", b"retry: 10\n"])


@given(TEXTS, st.lists(LINE_ENDS, min_size=1, max_size=5), st.sampled_from([b"", b" "]), EXTRA, CUTS, MARK)
def test_every_form_of_the_standard_is_read_the_same(texts, ends, blank, extra, cuts, mark):
    """Line ends, blanks, comments, other fields, and any division into reads change nothing of what is read."""
    events = stream(*texts, usage=usage_event(70, 30))
    data = mark + written(events, ends, blank=blank, extra=extra)
    meter = StreamMeter()

    passed = [*map(meter.feed, split(data, cuts)), meter.end()]

    assert data == b"".join(passed)
    assert state(metered(*events)) == state(meter)


@given(TEXTS, st.lists(LINE_ENDS, min_size=1, max_size=5), EXTRA, CUTS)
def test_every_division_removes_the_same_bytes(texts, ends, extra, cuts):
    """What a client gets does not depend on how the network divides a stream."""
    data = written(stream(*texts), ends, extra=extra)

    assert b"".join(editing(data, edit=without_usage)) == b"".join(editing(*split(data, cuts), edit=without_usage))


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n", b"\r\n\r", b"\n\r"])
def test_a_line_end_may_be_divided(end):
    """CR and LF that arrive one after the other are one line end: both of it are removed, or none."""
    before, last, after = (one.replace(b"\n\n", end) for one in (chunk("a"), usage_event(), DONE))
    for cut in range(len(before) - 5, len(before + last) + 5):
        data = before + last + after

        pieces = editing(data[:cut], data[cut:], edit=without_usage)

        assert before + after == b"".join(pieces), cut


@given(st.lists(st.text(max_size=30), max_size=5), CUTS, LINE_ENDS)
def test_one_event_may_have_several_lines_of_data(texts, cuts, end):
    """They are joined (HTML standard, section 9.2.6): JSON may be written over several lines."""
    events = stream(*texts, usage=usage_event(70, 30))
    forms = [one.replace(b',"', b',\ndata:"') if one != DONE else one for one in events]

    meter = metered(*split(b"".join(forms).replace(b"\n", end), cuts))

    assert (True, 70, 30) == (meter.done, meter.seen.usage.prompt_tokens, meter.seen.usage.completion_tokens)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1000, 50_000])
def test_the_end_of_an_oversized_event_stays(end, size):
    """If an event is passed on in parts, and a part ends between its two line ends, the blank line is not removed."""
    giant = chunk("x" * 3 * LARGEST_EVENT).replace(b"\n", end)
    last = (usage_event() + DONE).replace(b"\n", end)
    for cut in range(len(giant) - 3, len(giant) + 3):
        data = giant + last
        chunks = [*(data[start : min(start + size, cut)] for start in range(0, cut, size)), data[cut:]]

        pieces = editing(*chunks, edit=without_usage)

        assert giant + DONE.replace(b"\n", end) == b"".join(pieces)
        assert max(map(len, pieces)) <= LARGEST_EVENT + size


def test_an_oversized_event_counts_by_its_length():
    """It is not read, but it has text."""
    meter = metered(chunk("word " * 40_000)[: 3 * LARGEST_EVENT], chunk("b"))

    assert 3 * LARGEST_EVENT / 4 == pytest.approx(meter.seen.completion_tokens, rel=0.01)


def test_text_in_an_oversized_event_is_only_text():
    """Wherever a part of an event begins, it is not taken for an event."""
    giant = chunk("x" * LARGEST_EVENT + "data: [DONE]" + "y" * LARGEST_EVENT)
    start = giant.index(b"data: [DONE]")

    meter = metered(giant[:start], giant[start:] + chunk("a"))

    assert (False, False) == (meter.done, meter.failed)


def counted(prompt: int, completion: int, **choice: object) -> bytes:
    """An event with a choice and a count."""
    choices = [{"index": 0, "delta": {}, "finish_reason": None} | choice]
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event({"choices": choices, "usage": usage})


def usage_of(*events: bytes, choices: int = 1) -> tuple[int, int] | None:
    usage = metered(*events, choices=choices).seen.usage
    return usage and (usage.prompt_tokens, usage.completion_tokens)


def estimate_of(*events: bytes, choices: int = 1) -> tuple[int | None, int]:
    meter = metered(*events, choices=choices)
    assert meter.seen.usage is None
    return meter.seen.prompt_tokens, meter.seen.completion_tokens


def test_a_count_with_the_last_choice_is_final():
    """Mistral's count comes in the event with the finish_reason, and not in one of its own."""
    assert (20, 41) == usage_of(*[chunk("word ")] * 40, counted(20, 41, finish_reason="stop"))
    assert (20, 41) == usage_of(*[chunk("word ")] * 40, chunk(finish="stop"), counted(20, 41))


def test_a_count_before_the_end_is_a_minimum():
    """Some models count in every event. If the stream breaks off, the model may have written more."""
    events = [counted(20, number, delta={"content": "word "}) for number in range(1, 41)]

    assert (20, 40) == estimate_of(*events)
    assert (20, 43) == estimate_of(*events, *[chunk("word ")] * 3)
    assert (20, 500) == estimate_of(*events, counted(20, 500))


def test_the_last_count_of_a_complete_stream_is_final():
    """Also if no event says so: nothing was written after it."""
    events = [counted(20, number, delta={"content": "word "}) for number in range(1, 41)]

    assert (20, 40) == usage_of(*events, DONE)
    assert (20, 41) == estimate_of(*events, chunk("word "), DONE)


def test_one_of_several_choices_may_end_early():
    """A count that comes with the end of the first choice is not final while the second one goes on."""
    first, second = (chunk("word ", index=index) for index in (0, 1))
    events = [first, second, counted(20, 2, index=0, finish_reason="stop")]

    assert (20, 3) == estimate_of(*events, second)
    assert (20, 9) == usage_of(*events, second, counted(20, 9, index=1, finish_reason="stop"))


@pytest.mark.parametrize("number", [0, 5])
def test_a_count_without_choices_is_no_end(number):
    """It may count the prompt, or what was written so far: the model may think on, and has named no end."""
    words, so_far = [chunk("word ")] * number, usage_event(20, number)

    assert (20, number) == estimate_of(*words, so_far)
    assert (20, number) == usage_of(*words, so_far, DONE)
    assert (20, number) == usage_of(*words, chunk(finish="stop"), so_far)


def test_a_count_of_the_prompt_before_the_answer_is_no_count_of_it():
    """Also if the answer has no text: all of its tokens may be hidden."""
    assert (20, 0) == estimate_of(usage_event(20, 0), chunk(finish="length"), DONE)


def test_all_choices_that_were_asked_for_must_end():
    """The count that comes with the first end is not final while another choice is still silent."""
    ends = [counted(20, number, index=number, finish_reason="stop") for number in range(3)]

    assert (20, 2) == estimate_of(chunk("word "), ends[0], ends[2], choices=3)
    assert (20, 2) == estimate_of(ends[0], ends[0], ends[0], counted(20, 2), choices=3)
    assert (20, 2) == usage_of(chunk("word "), ends[0], ends[1], ends[2], choices=3)


def test_a_choice_that_goes_on_has_not_ended():
    """Whatever its finish_reason said: text of it may follow in events that look like those before."""
    word = chunk("word ")

    assert (20, 3) == estimate_of(word, chunk(finish="stop"), word, usage_event(20, 2), word)
    assert (20, 4) == usage_of(word, chunk(finish="stop"), word, chunk(finish="stop"), usage_event(20, 4))


def test_a_count_in_the_choice_counts():
    """Moonshot's models put it there. If there are several choices, it is not known which of them it counts."""
    usage = {"prompt_tokens": 20, "completion_tokens": 700, "total_tokens": 720}
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usage}]})

    assert (20, 700) == usage_of(chunk("word "), last)
    assert (20, 700) == estimate_of(chunk("word "), last, choices=2)
    assert (20, 700) == estimate_of(chunk("word "), last, DONE, choices=2)
    assert (20, 800) == usage_of(chunk("word "), last, usage_event(20, 800), DONE, choices=2)


@pytest.mark.parametrize("place", ["choices", "end"])
def test_placeholders_are_no_counts(place):
    """Zeros in every event, or only at the end: what was seen counts."""
    zeros = usage_event(0, 0) if place == "end" else counted(0, 0)
    events = [one for _ in range(40) for one in (counted(0, 0, delta={"content": "word "}), zeros)]

    assert (None, 40) == estimate_of(*events)
    assert (20, 41) == usage_of(*events, usage_event(20, 41), zeros, DONE)


def test_half_a_count_is_completed_by_the_estimate():
    """A count of the prompt alone is kept, and what was seen is added; the prompt may also come first."""
    prompt_only = event({"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 0, "total_tokens": 20}})

    assert (20, 40) == estimate_of(*[chunk("word ")] * 40, prompt_only, DONE)
    assert (20, 40) == estimate_of(prompt_only, *[chunk("word ")] * 40, DONE)
    assert (20, 0) == usage_of(prompt_only, DONE)  # the filter has removed the answer


def test_the_answer_names_model_and_tier():
    """Also without a count, and in any event."""
    tier = event({"choices": [{"index": 0, "delta": {"content": "a"}}], "service_tier": "priority"})

    seen = metered(FIRST, chunk("a"), tier, chunk("b")).seen
    assert ("gpt-4o-mini-2024-07-18", "priority") == (seen.model, seen.service_tier)
    assert None is metered(FIRST, chunk("a")).seen.service_tier


WORDS = 40


def spaced(document: object) -> bytes:
    """An event as Python's json writes it, with blanks."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def compact(document: object) -> bytes:
    return event(document)


@pytest.mark.parametrize("write", [compact, spaced])
@pytest.mark.parametrize(
    "delta",
    [
        {"content": "word "},
        {"content": None, "reasoning_content": "word "},
        {"content": "", "reasoning": "word "},
        {"content": None, "refusal": "word "},
        {"content": None, "tool_calls": [{"index": 0, "function": {"arguments": "word "}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "word "}}]},
        {"function_call": {"arguments": "word "}},
        {"audio": {"transcript": "word "}},
        {"content": [{"type": "text", "text": "word "}]},
    ],
)
@pytest.mark.parametrize("padded", [False, True])
def test_counts_pieces_of_everything_that_a_model_writes(write, delta, padded):
    """Without usage, each piece counts as one token, in any field and with any spacing."""
    events = []
    for number in range(WORDS):
        document = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}], "object": "chunk", "usage": None}
        if padded:
            document = {"choices": document["choices"], "obfuscation": "x" * (number % 9), "usage": None}
        events.append(write(document))

    assert WORDS == metered(*events).seen.completion_tokens
    assert WORDS == metered(b"".join(events)).seen.completion_tokens


def test_empty_pieces_and_nulls_are_no_text():
    """The first event of a choice has its role, and the last one nothing."""
    empty_tool = event({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "", "name": ""}}]}}]})
    nulls = spaced({"choices": [{"delta": {"content": None, "refusal": None, "role": "assistant"}}]})

    assert 0 == metered(FIRST, chunk(""), nulls, empty_tool, chunk(finish="stop")).seen.completion_tokens


@pytest.mark.parametrize("name", ["content", "reasoning_content"])
def test_counts_the_words_of_long_pieces(name):
    """Some providers send many words at once: 40 words in one event are not one token."""
    pieces = [event({"choices": [{"index": 0, "delta": {name: "word " * WORDS}}]})] * 3

    assert 3 * 50 == metered(*pieces).seen.completion_tokens


def test_counts_all_choices():
    """With n, one event may have several choices, or they alternate."""
    both = event({"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]})

    assert 10 + 2 == metered(*[chunk("a", index=0), chunk("b", index=1)] * 5, both).seen.completion_tokens


@given(TEXTS, st.sampled_from(["content", "reasoning_content"]), st.booleans())
def test_an_event_with_known_bytes_counts_as_if_it_was_parsed(texts, name, padded):
    """To compare an event with a parsed one gives the same tokens as to parse it."""
    padding = {"obfuscation": "ab"} if padded else {}
    events = [event({"choices": [{"index": 0, "delta": {name: text}}], **padding}) for text in texts]

    alone = sum(metered(one).seen.completion_tokens for one in events)
    assert alone == metered(*events).seen.completion_tokens


def test_no_event_is_taken_for_a_known_one():
    """A difference anywhere but in the text is read: a count, an error, a filter result, a second choice."""
    plain = '{"choices":[{"index":0,"delta":{"content":"word "}}],"obfuscation":"ab","usage":null}'
    changes = {
        "count": plain.replace("null", '{"prompt_tokens":1,"completion_tokens":5}'),
        "error": plain.replace("null", 'null,"error":{"message":"x"}'),
        "error of the same length": plain.replace('"usage":null', '"error":"it"'),
        "filter": plain.replace('"index":0', '"index":0,"content_filter_results":{"hate":{"filtered":true}}'),
        "behind": plain.replace('"ab"', '"ab","x":{"hate":{"detected":true}}'),
    }
    for name, changed in changes.items():
        events = [b"data: %b\n\n" % one.encode() for one in (plain, plain.replace("word", "other"), changed)]
        meter = metered(*events)
        assert name.startswith("error") == meter.failed, name
        assert ({"hate"} if name in ("filter", "behind") else set()) == meter.seen.content_filter, name
        assert (1 if name == "count" else None) == meter.seen.prompt_tokens, name


def test_counts_what_was_held_back():
    """If a stream breaks within an event, the text that has come is counted."""
    meter = StreamMeter()
    meter.feed(chunk("word ") + chunk("word " * 100)[:-150])
    assert 1 == meter.seen.completion_tokens

    meter.count_rest()

    assert 60 < meter.seen.completion_tokens < 130


@pytest.mark.parametrize("said", ["word", 'a "quoted" word'])
def test_an_event_that_was_cut_behind_its_text(said):
    """Only the text counts, not the JSON behind it, wherever the event was cut."""
    before, last = chunk("a") + chunk("b"), chunk(said)
    expected = metered(before, last).seen.completion_tokens

    for end in range(last.index(b'"},"finish_reason"'), len(last) - 1):
        meter = StreamMeter()
        meter.feed(before + last[:end])
        meter.count_rest()

        assert expected == meter.seen.completion_tokens


@pytest.mark.parametrize(
    "error",
    [
        b'data: {"error":{"message":"boom","code":"500"}}',
        b'data:{"error" : {"message":"boom"}}',
        b'data: {"id":"c-1","error":{"message":"boom"},"choices":[]}',
        b'data: {"type":"error","message":"boom"}',
        b'event: error\ndata: {"message":"boom"}',
        b"data: boom\nevent:error",
        b'data: {"error": "boom"}',
    ],
)
@pytest.mark.parametrize("end", [b"\n\n", b""])
def test_sees_an_error_in_the_stream(error, end):
    """After Azure's error event the stream has failed, with or without [DONE]."""
    meter = metered(chunk("a"), chunk("b") + error + end)

    assert (True, False) == (meter.failed, meter.done)


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [], "error": None},
        {"choices": [{"delta": {"content": "error"}, "content_filter_result": {"error": {"code": "outage"}}}]},
    ],
)
def test_knows_what_is_no_error(document):
    """An outage of the content filter is reported within a choice."""
    assert not metered(event(document)).failed


@pytest.mark.parametrize(
    "end", [DONE, b"data: [DONE]\n", b"data: [DONE]", b"data:[DONE]", b"data:  [DONE] \r\r", b"id: 1\ndata:[DONE]\n\n"]
)
def test_sees_the_end(end):
    """[DONE] is found with and without its blank line, alone and after other events."""
    assert metered(end).done
    assert metered(chunk("a") + end).done


def test_filters_of_a_stream_that_fired():
    """The filter results of the prompt, of a choice and of late annotations are collected."""
    prompt = event(
        {"choices": [], "prompt_filter_results": [{"content_filter_results": {"jailbreak": {"detected": True}}}]}
    )
    late = event(
        {
            "id": "",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "content_filter",
                    "content_filter_results": {"protected_material_text": {"detected": True, "filtered": True}},
                    "content_filter_offsets": {"check_offset": 44, "start_offset": 44, "end_offset": 198},
                }
            ],
            "usage": None,
        }
    )

    meter = metered(prompt, chunk("a", content_filter_results={"hate": FIRED, "violence": SAFE}))
    assert not meter.seen.blocked

    meter.feed(late)

    assert meter.seen.blocked
    assert {"jailbreak", "hate", "protected_material_text"} == meter.seen.content_filter
    assert 1 == meter.seen.completion_tokens


def test_garbage_is_passed_over():
    """Events that are not JSON objects are ignored."""
    meter = metered(
        b'data: {"usage":{"prompt_tokens":1\n\n',
        b'data: ["prompt_tokens","filtered":true]\n\n',
        b'data: ["prompt_tokens"]\n\n',
        b': "prompt_tokens" "filtered":true\n\n',
        b'event: x "prompt_tokens"\n\n',
        usage_event(),
        DONE,
    )

    assert (7, 3) == (meter.seen.usage.prompt_tokens, meter.seen.usage.completion_tokens)


@given(st.binary(max_size=80), st.sampled_from([b'"prompt_tokens"', b'"filtered":true', b"data: [DONE]", b""]))
def test_no_bytes_make_it_fail(noise, bait):
    """The meter never raises, because this would end the client's stream."""
    metered(noise + bait, b"data: " + noise + bait + b"\n\n", b'data: {"usage":' + noise + bait)
