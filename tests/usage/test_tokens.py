"""Token counts: as Azure reports them in JSON and in streams, and estimated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.records import Usage
from llmgateway.usage.tokens import (
    COMPLETION_TOKENS,
    LARGEST_COUNT,
    TOKENS_PER_IMAGE,
    StreamMeter,
    estimate_completion_tokens,
    estimate_prompt_tokens,
    fired_filters,
    model_name,
    parse_usage,
)
from tests.parts import DONE, FIRST, SAFE, chunk, event, stream, usage_event

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


def metered(*groups: bytes) -> StreamMeter:
    meter = StreamMeter()
    for group in groups:
        meter.feed(group)
    return meter


def state(meter: StreamMeter) -> tuple[object, ...]:
    return meter.usage, meter.model, meter.content_filter, meter.pieces, meter.done, meter.failed


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
    assert (usage, "gpt-4o-mini-2024-07-18", set(), len(texts), True, False) == state(meter)


@given(TEXTS)
def test_text_is_never_taken_for_a_report(texts):
    """Text about usage, filters and ends of streams is only text."""
    tool = event({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "".join(texts)}}]}}]})

    meter = metered(b"".join(map(chunk, texts)) + tool)

    assert (None, None, set(), False, False) == (
        meter.usage,
        meter.model,
        meter.content_filter,
        meter.done,
        meter.failed,
    )
    assert len(texts) + bool(texts) == meter.pieces


def test_gives_the_usage_event_as_it_stands():
    """The usage event is found among others, byte for byte."""
    meter = StreamMeter()

    assert usage_event() == meter.feed(FIRST + chunk("a") + chunk(finish="stop") + usage_event() + DONE)


@pytest.mark.parametrize("first", [FIRST, FIRST.replace(b"prompt_filter_results", b"prompt_annotations")])
def test_the_first_event_is_no_usage_event(first):
    """The first event of Azure and the usage event have no choices; only the usage event is withheld."""
    meter = StreamMeter()

    assert meter.feed(first) is None
    assert meter.usage is None


def test_usage_beside_text_counts_and_stays():
    """Usage may come with the last piece of text; that event is not withheld."""
    both = event({"choices": [{"delta": {"content": "a"}}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    meter = StreamMeter()

    assert meter.feed(both) is None
    assert Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3) == meter.usage


def test_counts_pieces_of_text_and_of_tool_arguments():
    """Without usage, each piece counts as one token; empty pieces do not count."""
    tool = event({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]})
    empty_tool = event({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "", "name": "f"}}]}}]})

    assert 0 == metered(FIRST, chunk(""), empty_tool, chunk(finish="stop")).pieces
    assert 3 == metered(FIRST, chunk(""), chunk("a"), chunk('"'), empty_tool, tool).pieces


def test_sees_an_error_in_the_stream():
    """After Azure's error event the stream has failed, with or without [DONE]."""
    meter = metered(chunk("a") + event({"error": {"message": "boom", "code": "500"}}))

    assert (True, False) == (meter.failed, meter.done)


@pytest.mark.parametrize("end", [DONE, b"data: [DONE]\n", b"data: [DONE]"])
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

    meter = metered(prompt, chunk("a", content_filter_results={"hate": FIRED, "violence": SAFE}) + late)

    assert {"jailbreak", "hate", "protected_material_text"} == meter.content_filter
    assert 1 == meter.pieces


def test_garbage_is_passed_over():
    """Events that are not JSON objects are ignored."""
    meter = metered(
        b'data: {"usage":{"prompt_tokens":1\n\n',
        b'data: ["prompt_tokens","filtered":true]\n\n',
        b'data: ["prompt_tokens"]\n\n',
        b': "prompt_tokens" "filtered":true\n\n',
        b'event: x "prompt_tokens"\n\n',
        usage_event(),
    )

    assert (7, 3) == (meter.usage.prompt_tokens, meter.usage.completion_tokens)


@given(st.binary(max_size=80), st.sampled_from([b'"prompt_tokens"', b'"filtered":true', b"data: [DONE]", b""]))
def test_no_bytes_make_it_fail(noise, bait):
    """The meter never raises, because this would end the client's stream."""
    metered(noise + bait, b"data: " + noise + bait + b"\n\n", b'data: {"usage":' + noise + bait)


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        ({"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}, (1, 2, 3, 0, 0)),
        ({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, (1, 2, 3, 0, 0)),
        ({"usage": {"prompt_tokens": 5, "total_tokens": 5}}, (5, 0, 5, 0, 0)),
        (
            {
                "usage": {
                    "prompt_tokens": 9,
                    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                    "completion_tokens": 8,
                    "completion_tokens_details": {"reasoning_tokens": 6},
                    "total_tokens": 17,
                }
            },
            (9, 8, 17, 4, 6),
        ),
        ({"usage": {"prompt_tokens": 1, "prompt_tokens_details": None}}, (1, 0, 1, 0, 0)),
        ({"usage": {"prompt_tokens": "9", "completion_tokens": -1, "total_tokens": 1.5}}, (0, 0, 0, 0, 0)),
        ({"usage": {"prompt_tokens": 2**31 + 1, "completion_tokens": 2**31}}, (0, 2**31, 2**31, 0, 0)),
        ({"usage": {"prompt_tokens": 1, "prompt_tokens_details": [], "completion_tokens": None}}, (1, 0, 1, 0, 0)),
    ],
)
def test_reads_usage(document, usage):
    """The counts and their details are read; values that are not counts become 0."""
    read = parse_usage(document)

    assert usage == (
        read.prompt_tokens,
        read.completion_tokens,
        read.total_tokens,
        read.cached_tokens,
        read.reasoning_tokens,
    )


@pytest.mark.parametrize("document", [{}, {"usage": None}, {"usage": []}, [], None, "usage", 3])
def test_knows_no_usage(document):
    """An answer without usage has None, not 0."""
    assert parse_usage(document) is None


@pytest.mark.parametrize("document", [{}, {"model": None}, {"model": ""}, {"model": 5}, {"model": ["x"]}])
def test_knows_no_model(document):
    """A value that is not a name becomes None."""
    assert model_name(document) is None
    assert metered(event(document | {"choices": [], "usage": {"prompt_tokens": 1}})).model is None


def choice(**results: object) -> dict[str, object]:
    return {"choices": [{"content_filter_results": results}]}


@pytest.mark.parametrize(
    ("document", "fired"),
    [
        ({"prompt_filter_results": [{"content_filter_results": {"hate": SAFE, "sexual": FIRED}}]}, {"sexual"}),
        ({"prompt_annotations": [{"content_filter_results": {"violence": FIRED}}]}, {"violence"}),
        (choice(hate=FIRED, self_harm=FIRED, violence=SAFE), {"hate", "self_harm"}),
        ({"error": {"innererror": {"content_filter_result": {"jailbreak": {"detected": True}}}}}, {"jailbreak"}),
        (choice(custom_blocklists={"filtered": True, "details": []}), {"custom_blocklists"}),
        (choice(error={"code": "content_filter_error", "message": "The contents are not filtered"}), set()),
        (choice(hate={"filtered": "true"}, sexual={"detected": 1}), set()),
        ({"choices": [{"message": {"content": '{"hate":{"filtered":true}}'}}]}, set()),
        ([], set()),
        (None, set()),
    ],
)
def test_finds_filters_that_fired(document, fired):
    """Filter results are found wherever Azure reports them; the text of the answer does not count."""
    assert fired == fired_filters(document)


def test_finds_filters_at_any_depth():
    """Deep nesting causes no error."""
    document: object = {"hate": FIRED}
    for _ in range(50_000):
        document = [document]

    assert {"hate"} == fired_filters(document)


@pytest.mark.parametrize(
    ("messages", "prompt", "tokens"),
    [
        ([], "", 0),
        ([{"role": "user", "content": "abcd"}], "", 1),
        ([{"role": "user", "content": "abcde"}], "", 2),
        ([{"role": "user", "content": "ab"}, {"role": "assistant", "content": "cd"}], "", 1),
        ([{"content": "abcd"}], "12345678", 3),
        ([{"content": None}, {}, {"content": 5}, {"content": {"text": "abcd"}}], "", 0),
        ([{"content": [{"type": "text", "text": "abcd"}, "abcd", {"type": "text", "text": 4}, {}]}], "", 1),
        ([{"content": [{"type": "image_url", "image_url": {"url": "data:" + "A" * 1_000_000}}]}], "", TOKENS_PER_IMAGE),
        (
            [{"content": [{"type": "image_url"}, {"type": "image_url"}, {"text": "abcd"}]}],
            "p",
            2 * TOKENS_PER_IMAGE + 2,
        ),
        ([{"content": [{"type": "image_url", "text": ""}]}], "", TOKENS_PER_IMAGE),
        ([{"content": None, "tool_calls": [{"function": {"name": "add", "arguments": "[1,2]"}}]}], "", 2),
        ([{"tool_calls": ["x", {}, {"function": 1}, {"function": {"name": 4}}]}, {"tool_calls": {}}], "", 0),
    ],
)
def test_estimates_prompts(messages, prompt, tokens):
    """Four characters count as one token, an image as a fixed number, and its base64 does not count."""
    assert tokens == estimate_prompt_tokens(messages, prompt)


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({}, COMPLETION_TOKENS),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 5}, 5),
        ({"max_completion_tokens": 1, "max_tokens": 4000}, 4000),
        ({"max_completion_tokens": 4000, "max_tokens": 1}, 4000),
        ({"max_tokens": 5, "n": 3}, 15),
        ({"n": 2}, 2 * COMPLETION_TOKENS),
        ({"max_tokens": 10**30, "n": 10**30}, LARGEST_COUNT),
        ({"max_tokens": -5, "n": -5}, COMPLETION_TOKENS),
        ({"max_tokens": 0, "n": 0}, COMPLETION_TOKENS),
        ({"max_tokens": True, "n": True}, COMPLETION_TOKENS),
        ({"max_tokens": 7.5, "n": "3", "max_completion_tokens": [1]}, COMPLETION_TOKENS),
    ],
)
def test_estimates_answers(document, tokens):
    """The client's limit counts for each choice; without a valid limit there is a default."""
    assert tokens == estimate_completion_tokens(document)
