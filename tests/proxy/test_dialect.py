"""OpenAI's dialect and Azure's: which events of a stream are removed, changed, or left as they are."""

from __future__ import annotations

import json

import orjson
import pytest

from llmgateway.proxy.dialect import Dialect, editor
from llmgateway.usage.meter import StreamMeter
from tests.parts import FIRST, SAFE, chunk, event, usage_event

ANNOTATIONS = FIRST.replace(b"prompt_filter_results", b"prompt_annotations")
LATE = event(
    {
        "id": "",
        "object": "",
        "created": 0,
        "model": "",
        "choices": [
            {
                "index": 0,
                "finish_reason": None,
                "content_filter_results": {"hate": SAFE},
                "content_filter_offsets": {"check_offset": 44, "start_offset": 44, "end_offset": 198},
            }
        ],
        "usage": None,
    }
)


def edited(one: bytes, dialect: Dialect, *, withhold_usage: bool = True) -> bytes:
    """What becomes of an event."""
    text = one.removesuffix(b"\n\n")
    return editor(dialect, withhold_usage=withhold_usage)(text, orjson.loads(text[5:]))


def spaced(one: bytes) -> bytes:
    """The same event with blanks."""
    return b"data: " + json.dumps(orjson.loads(one[5:])).encode() + b"\n\n"


@pytest.mark.parametrize(
    "one",
    [
        FIRST,
        ANNOTATIONS,
        spaced(FIRST),
        spaced(ANNOTATIONS),
        event({"choices": []}),
        event({"prompt_filter_results": []}),
    ],
)
@pytest.mark.parametrize("withhold_usage", [False, True])
def test_the_event_with_the_filter_results_is_azures(one, withhold_usage):
    """OpenAI sends no event without choices but the one with the usage."""
    assert b"" == edited(one, Dialect.OPENAI, withhold_usage=withhold_usage)
    assert one == edited(one, Dialect.AZURE, withhold_usage=withhold_usage) + b"\n\n"


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    "one",
    [
        usage_event(),
        spaced(usage_event()),
        usage_event(0, 0),
        event({"id": "c-1", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
        event({"choices": None, "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
    ],
)
def test_the_usage_event_is_for_clients_that_asked(dialect, one):
    """In both dialects."""
    assert b"" == edited(one, dialect, withhold_usage=True)
    assert one == edited(one, dialect, withhold_usage=False) + b"\n\n"


def test_a_placeholder_does_not_make_a_usage_event():
    """Some models count in every event, and the first one has zeros."""
    one = FIRST.replace(b'"model"', b'"usage":{"prompt_tokens":0},"model"')

    assert b"" == edited(one, Dialect.OPENAI, withhold_usage=False)
    assert one == edited(one, Dialect.AZURE, withhold_usage=True) + b"\n\n"


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    "one",
    [
        chunk("a"),
        chunk(finish="stop"),
        event({"choices": [{"index": 0, "delta": {}}], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}),
        event({"choices": [], "error": {"message": "x"}}),
        event({"error": {"message": "x"}}),
        event({"type": "ping"}),
        event({"type": "error", "message": "x", "usage": {"prompt_tokens": 7}}),
        event({"choices": "x"}),
        event({"choices": [1, None]}),
        event({"choices": {"index": 0}}),
    ],
)
def test_everything_else_stays_as_it_is(dialect, one):
    """Text, errors, a count beside a choice, and what nobody knows."""
    assert one == edited(one, dialect) + b"\n\n"


@pytest.mark.parametrize("finish", [b"null", b'"content_filter"'])
def test_an_annotation_gets_an_empty_delta(finish):
    """Programs read choices[0].delta.content. Nothing but the delta is added."""
    late = LATE.replace(b'"finish_reason":null', b'"finish_reason":' + finish)

    result = edited(late, Dialect.OPENAI)

    assert late.replace(b'"choices":[{', b'"choices":[{"delta":{},') == result + b"\n\n"
    assert late == edited(late, Dialect.AZURE) + b"\n\n"


@pytest.mark.parametrize(
    "one",
    [
        spaced(LATE),
        event({"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1}]}),
        event({"choices": [{"index": 0}, {"index": 1}]}),
        event({"choices": [{"index": 0, "delta": None}]}),
        event({"choices": [{}]}),
        event({"x": [{"choices": [{"a": 1}]}], "choices": [{"index": 0}]}),
        b": comment\nevent: x\n" + LATE,
        LATE.replace(b',"usage"', b',\ndata:"usage"'),
    ],
)
def test_every_choice_gets_its_delta(one):
    """Whatever the event looks like: all else that it says stays."""
    fields = [line for line in one.splitlines() if line.startswith(b"data:")]
    before = orjson.loads(b"\n".join(line[5:] for line in fields))
    text = one.removesuffix(b"\n\n")

    result = editor(Dialect.OPENAI, withhold_usage=True)(text, before)

    lines = result.splitlines()
    after = orjson.loads(b"\n".join(line[5:] for line in lines if line.startswith(b"data:")))
    assert [choice.get("delta") or {} for choice in before["choices"]] == [
        choice["delta"] for choice in after["choices"]
    ]
    for document in (before, after):
        for choice in document["choices"]:
            choice.pop("delta", None)
    assert before == after
    assert [line for line in one.splitlines() if line and line not in fields] == [
        line for line in lines if not line.startswith(b"data:")
    ]


def relayed(one: bytes) -> bytes:
    """What becomes of an event of any content on its way through the meter."""
    return StreamMeter(editor(Dialect.OPENAI, withhold_usage=True)).feed(one)


def test_half_a_character_stands_beside_a_choice_without_delta():
    """An emoji can be divided between two events; JSON names each half."""
    one = b'data: {"choices":[{"index":0,"delta":{"content":"a\\ud83d"}},{"index":1}],"n":18446744073709551615}\n\n'

    assert {
        "choices": [{"index": 0, "delta": {"content": "a\ud83d"}}, {"index": 1, "delta": {}}],
        "n": 18446744073709551615,
    } == json.loads(relayed(one)[5:])


@pytest.mark.parametrize("depth", [250, 260, 300, 600, 900, 950, 980, 1000, 1020, 5000])
@pytest.mark.parametrize("first", [b'{"index":0,"delta":{"content":"a"}},', b""])
def test_a_deeply_nested_event_is_no_error(depth, first):
    """It gets its delta, or is passed on as it came."""
    nested = b"[" * depth + b"]" * depth
    one = b'data: {"choices":[%b{"index":1,"x":%b}]}\n\n' % (first, nested)

    result = relayed(one)

    assert result == one or (nested in result and b'"delta":{}' in result)
    assert result != one or depth >= 900
