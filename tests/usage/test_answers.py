"""What an answer says about itself: its model, its text, and the filters that fired."""

from __future__ import annotations

import pytest

from llmgateway.usage.answers import (
    filter_results,
    may_have_filter_results,
    name_of,
    parse_object,
    said_tokens,
    texts_of,
)
from tests.parts import SAFE

FIRED = {"filtered": True, "severity": "high"}


@pytest.mark.parametrize("document", [{}, {"model": None}, {"model": ""}, {"model": 5}, {"model": ["x"]}])
def test_knows_no_model(document):
    """A value that is not a name becomes None."""
    assert name_of(document, "model") is None


@pytest.mark.parametrize(
    ("message", "texts"),
    [
        ({"role": "assistant", "content": "Hi"}, ["Hi"]),
        ({"content": None, "reasoning_content": "Hm"}, ["Hm"]),
        ({"content": "", "reasoning": "Hm"}, ["Hm"]),
        ({"content": None, "refusal": "No"}, ["No"]),
        (
            {"tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            ["f", "{}"],
        ),
        (
            {"tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}]},
            ["sql", "SELECT"],
        ),
        ({"function_call": {"name": "f", "arguments": "[1]"}}, ["f", "[1]"]),
        ({"content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}, "c"]}, ["a", "b", "c"]),
        ({"audio": {"id": "audio_1", "expires_at": 5, "data": "AAAA", "transcript": "Hello"}}, ["Hello"]),
        ({"content": "Hi", "telepathy": {"thought": "!"}}, ["Hi", "!"]),
        # Not written by the model.
        ({"content": "Hi", "annotations": [{"url": "x"}], "context": {"citations": [{"content": "y"}]}}, ["Hi"]),
        ({"content": {"text": 5}, "refusal": []}, []),
        (None, []),
        ("Hi", ["Hi"]),
    ],
)
@pytest.mark.parametrize("name", ["delta", "message"])
def test_finds_everything_that_the_model_wrote(name, message, texts):
    """Text, refusals, visible reasoning, calls, and fields that nobody knows yet."""
    assert sorted(texts) == sorted(texts_of({"index": 0, "finish_reason": "stop", name: message}))


def test_counts_speech_by_its_length():
    """Base64 is no text: a second of speech in a stream has 64,000 characters and is 20 tokens."""
    assert 20 == said_tokens({"delta": {"audio": {"data": "A" * 64_000}}})
    assert 20 == said_tokens({"message": {"audio": {"data": "A" * 4_000}}})


@pytest.mark.parametrize("data", [b"", b"[1]", b"7", b"{", b'{"a":1', b"nothing", b'{"a":' * 5000, b"\xff{"])
def test_knows_what_is_no_object(data):
    """Anything else is None, without an error."""
    assert parse_object(data) is None


def test_a_byte_order_mark_is_ignored():
    """RFC 8259, section 8.1 allows that."""
    assert {"a": 1} == parse_object(b'\xef\xbb\xbf{"a":1}')


@pytest.mark.parametrize(("data", "text"), [(b'{"a":"x\\ud83d"}', "x\ud83d"), (b'{"a":"x\xf0\x9f"}', "x\ufffd")])
def test_half_a_character_is_no_error(data, text):
    """A character may be cut between two events."""
    assert {"a": text} == parse_object(data)


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
    assert fired == filter_results(document)[0]


def severity(name, *, filtered=False):
    return {"filtered": filtered, "severity": name}


@pytest.mark.parametrize(
    ("document", "severities"),
    [
        (choice(hate=severity("low"), violence=severity("safe")), {"hate": "low"}),
        (choice(hate=severity("high", filtered=True)), {"hate": "high"}),
        ([choice(hate=severity("medium")), choice(hate=severity("low"))], {"hate": "medium"}),
        ([choice(hate=severity("low")), choice(hate=severity("high"))], {"hate": "high"}),
        (choice(jailbreak={"detected": True, "filtered": False}), {"jailbreak": "found"}),
        (choice(jailbreak={"detected": False, "filtered": False}), {}),
        (choice(hate=severity("awful")), {}),
        (choice(hate={"severity": "high"}), {}),
    ],
)
def test_finds_how_severe_it_was(document, severities):
    """Also of what was let pass; the highest of several counts, and what is no result does not."""
    assert severities == filter_results(document)[1]


def test_looks_for_results_only_where_there_may_be_any():
    """A word of the answer is no severity: its quotation marks are escaped."""
    assert not may_have_filter_results(b'{"content":"\\"low\\" and \\"high\\"","severity":"safe","filtered":false}')
    for found in (b'"filtered":true', b'"severity": "low"', b'"severity":"medium"', b'"severity":"high"'):
        assert may_have_filter_results(b"{" + found + b"}")


def test_finds_filters_at_any_depth():
    """Deep nesting causes no error."""
    document: object = {"hate": FIRED}
    for _ in range(50_000):
        document = [document]

    assert {"hate"} == filter_results(document)[0]


def test_names_can_be_written_down():
    """Half a character in a name is replaced: the usage record is UTF-8."""
    half = parse_object(b'{"model":"gpt-\\ud83d","r":{"ha\\udc00te":{"filtered":true}}}')

    assert ("gpt-?", {"ha?te"}) == (name_of(half, "model"), filter_results(half)[0])
    assert "gpt-\u00e9\U0001f600" == name_of({"model": "gpt-\u00e9\U0001f600"}, "model")
