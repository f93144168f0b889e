"""Answers that are not streamed: read whole, counted, and told apart from streams."""

from __future__ import annotations

import orjson
import pytest

from llmgateway.errors import UpstreamBroken, UpstreamTimeout
from llmgateway.proxy import plain
from llmgateway.proxy.plain import (
    LARGEST_PLAIN_ANSWER,
    finish_plain,
    read_beginning,
    read_plain,
    see_completion,
)
from llmgateway.records import Outcome, UsageSource
from llmgateway.usage.seen import Seen
from tests.parts import FIRST, Entries, ScriptedAnswer, call, stream


def see_plain(body: bytes) -> Seen:
    return plain.see_plain(body, see_completion)


def test_reads_a_plain_answer_whole():
    """A plain answer is read completely, so that a break in it can still become an error."""
    assert b"abc" == read_plain(ScriptedAnswer(b"a", b"bc"))


@pytest.mark.parametrize("error", [UpstreamBroken("x"), UpstreamTimeout("x")])
def test_a_plain_answer_that_breaks_is_no_answer(error):
    """The client never gets half a JSON document."""
    with pytest.raises(type(error)):
        read_plain(ScriptedAnswer(b"{", error))


def test_a_plain_answer_has_a_largest_size():
    """An answer that is too large for a completion is not collected in memory."""
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
        (408, b'{"error":{"code":"408"}}', Outcome.UPSTREAM_ERROR, UsageSource.ESTIMATED, 10, ()),
        (204, b"", Outcome.UPSTREAM_ERROR, UsageSource.NONE, 0, ()),
        (
            400,
            b'{"error":{"code":"content_filter","innererror":{"content_filter_result":{"sexual":{"filtered":true}}}}}',
            Outcome.UPSTREAM_ERROR,
            UsageSource.ESTIMATED,
            10,
            ("sexual",),
        ),
    ],
)
def test_records_a_plain_answer(status, body, outcome, source, total, fired):
    """Azure's count is used, and without one the usage is estimated. Errors cost nothing, except those Azure bills."""
    entries = Entries()
    made = call(entries)
    made.accounting.answered(status=status, region=None, upstream_request_id=None)

    finish_plain(made, status, body, see_completion)

    record = entries.only
    assert (outcome, source, total, fired) == (
        record.outcome,
        record.usage_source,
        record.total_tokens,
        record.content_filter,
    )


def answer(message: dict[str, object], **fields: object) -> bytes:
    document = {"choices": [{"finish_reason": "stop", "index": 0, "message": message}], "model": "gpt-4o"} | fields
    return orjson.dumps(document)


WORDS = "word " * 400


@pytest.mark.parametrize(
    "message",
    [
        {"content": WORDS},
        {"content": None, "refusal": WORDS},
        {"content": "", "reasoning_content": WORDS},
        {
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": WORDS}}],
        },
        {"content": None, "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "f", "input": WORDS}}]},
        {"content": [{"type": "text", "text": WORDS}]},
        {"audio": {"transcript": WORDS}},
    ],
)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"usage": None},
        {"usage": {}},
        {"usage": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}},
        {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
    ],
)
def test_an_answer_without_a_count_is_estimated(message, fields):
    """400 words are about 500 tokens, wherever they are; zeros beside text are no count."""
    seen = see_plain(answer(message, **fields))

    assert (None, None, "gpt-4o") == (seen.usage, seen.prompt_tokens, seen.model)
    assert seen.completion_tokens in (500, 501)


def test_an_answer_with_half_a_count():
    """The half that Azure has counted is used, and the other one is estimated."""
    seen = see_plain(answer({"content": WORDS}, usage={"prompt_tokens": 20, "completion_tokens": 0}))
    assert (None, 20, 500) == (seen.usage, seen.prompt_tokens, seen.completion_tokens)

    seen = see_plain(answer({"content": WORDS}, usage={"prompt_tokens": None, "completion_tokens": 900}))
    assert (None, None, 900) == (seen.usage, seen.prompt_tokens, seen.completion_tokens)

    entries = Entries()
    finish_plain(call(entries), 200, answer({"content": WORDS}, usage={"prompt_tokens": 20}), see_completion)
    record = entries.only
    assert (UsageSource.ESTIMATED, 20, 500, 520) == (
        record.usage_source,
        record.prompt_tokens,
        record.completion_tokens,
        record.total_tokens,
    )


def test_an_answer_that_the_filter_removed_has_a_count():
    """It has no message, and may have no completion tokens."""
    body = orjson.dumps({"choices": [{"finish_reason": "content_filter"}], "usage": {"prompt_tokens": 20}})

    assert 20 == see_plain(body).usage.total_tokens


def test_a_count_in_the_choice_counts():
    """Moonshot's models put it there. If there are several choices, it is not known which of them it counts."""
    usage = {"prompt_tokens": 20, "completion_tokens": 700, "total_tokens": 720}
    choice = {"index": 0, "message": {"content": "word"}, "finish_reason": "stop", "usage": usage}

    assert 700 == see_plain(orjson.dumps({"choices": [choice]})).usage.completion_tokens
    assert None is see_plain(orjson.dumps({"choices": [choice, choice]})).usage


def test_all_choices_count():
    """With n, each choice has its own text."""
    choices = [{"index": index, "message": {"content": WORDS}} for index in range(3)]

    assert 1500 == see_plain(orjson.dumps({"choices": choices})).completion_tokens


def test_the_tier_that_served_the_request():
    """The answer says it; it decides the price."""
    assert "priority" == see_plain(answer({"content": "a"}, service_tier="priority")).service_tier
    assert None is see_plain(answer({"content": "a"}, service_tier=None)).service_tier


STREAM = b"".join(stream("a"))


@pytest.mark.parametrize(
    "body",
    [
        STREAM,
        b"\xef\xbb\xbf" + STREAM,
        b"\r\n\n" + STREAM,
        b": comment\n\n" + STREAM,
        b":\n",
        b"event: message\n" + STREAM,
        b"id:1\r" + STREAM,
        b"retry: 5\n" + STREAM,
        STREAM.replace(b"data: ", b"data:"),
    ],
)
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_stream_is_known_by_its_beginning(body, typed, size):
    """Not by its Content-Type, and in any division; nothing that was read is lost."""
    source = ScriptedAnswer(*[body[start : start + size] for start in range(0, len(body), size)])
    source.is_event_stream = typed

    is_stream, beginning = read_beginning(source)

    assert is_stream
    assert beginning == body[: len(beginning)]
    assert len(beginning) <= 10 + size
    assert 0 == source.closed


@pytest.mark.parametrize("body", [b'{"error":{}}', b" \n[1]", b"<html>", b'{"choices":[]}', b"\xef\xbb\xbf{}"])
@pytest.mark.parametrize("typed", [False, True])
def test_a_document_is_known_by_its_beginning(body, typed):
    """Also if it says that it is a stream."""
    source = ScriptedAnswer(*[body[start : start + 1] for start in range(len(body))])
    source.is_event_stream = typed

    is_stream, beginning = read_beginning(source)

    assert (False, body) == (is_stream, read_plain(source, beginning))


def test_a_body_that_ends_before_it_can_be_told():
    """An empty stream is a stream that was broken off; an empty body of another type is an answer."""
    for typed, body, expected in [
        (True, [], True),
        (False, [], False),
        (True, [b"dat"], True),
        (False, [b"dat"], False),
    ]:
        source = ScriptedAnswer(*body)
        source.is_event_stream = typed
        assert (expected, b"".join(body)) == read_beginning(source)


def test_white_space_is_not_read_for_ever():
    """A body of blanks is no stream."""
    source = ScriptedAnswer(*[b" " * 1000] * 100)
    source.is_event_stream = False

    assert not read_beginning(source)[0]
    assert source.reads < 10


def test_other_words_are_only_a_stream_if_the_type_says_so():
    """A field that the standard does not name is ignored."""
    source = ScriptedAnswer(b"x-trace: 1\n" + FIRST)
    assert read_beginning(source)[0]
    source = ScriptedAnswer(b"not found: 1\n")
    source.is_event_stream = False
    assert not read_beginning(source)[0]


def test_an_answer_that_breaks_at_once_is_closed():
    """The connection is released."""
    source = ScriptedAnswer(UpstreamBroken("x"))

    with pytest.raises(UpstreamBroken):
        read_beginning(source)
    assert 1 == source.closed


def test_knows_that_the_filter_kept_the_text_back():
    """A choice that is blocked has no message at all; without a count nobody knows how long it was."""
    assert see_plain(b'{"choices":[{"finish_reason":"content_filter","index":0}],"usage":null}').blocked
    assert not see_plain(answer({"content": "Hi"})).blocked
