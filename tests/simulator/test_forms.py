"""The same answer, written as other servers and machines on the way would write it."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from llmgateway.simulator import DEFAULT_KEY, Script

from .calls import CHAT, HELLO, STREAM, Answer, call, data_of
from .test_recorded_bodies import shape

ODD = "größer\u2028 \N{GRINNING FACE}"

LINES = {
    "crlf": {"line_end": "crlf"},
    "cr": {"line_end": "cr"},
    "mixed": {"line_end": "mixed"},
    "tight": {"blank_after_colon": False},
    "named": {"lines_before": ("event: message", "id: 7", "retry: 1000")},
    "comment": {"lines_before": (": ping",)},
    "comment of its own": {"lines_before": (": ping", "")},
    "bom": {"bom": True},
    "one end less": {"unfinished": 1},
    "no end": {"unfinished": 2},
    "spaced": {"json": "spaced"},
    "shuffled": {"json": "shuffled"},
    "pretty": {"json": "pretty"},
    "pretty cr": {"json": "pretty", "line_end": "cr", "blank_after_colon": False},
    "gzip": {"compress": "gzip"},
    "everything": {
        "json": "pretty",
        "line_end": "mixed",
        "lines_before": (": a", "id: 1"),
        "bom": True,
        "unfinished": 2,
    },
}


def without_ids(event: str) -> object:
    return (
        event if event == "[DONE]" else json.loads(shape(json.dumps(json.loads(event), separators=(",", ":")).encode()))
    )


def unpacked(answer: Answer) -> bytes:
    return gzip.decompress(answer.body) if answer.headers.get("content-encoding") == "gzip" else answer.body


@pytest.mark.parametrize("split", [None, 1], ids=["whole", "split"])
@pytest.mark.parametrize("form", LINES.values(), ids=list(LINES))
def test_a_stream_says_the_same_in_every_form(azure, form, split):
    """A parser of the HTML standard reads the same events; only the last may wait for an end that does not come."""
    azure.script(Script(answer=ODD))
    plain = call(azure, STREAM)
    azure.script(Script(answer=ODD, split=split, **form))
    odd = call(azure, STREAM)

    expected = [without_ids(data) for data in data_of(plain.body, ended=True)]
    assert expected == [without_ids(data) for data in data_of(unpacked(odd), ended=not form.get("unfinished"))]
    assert odd.body != plain.body


@pytest.mark.parametrize(
    ("form", "inside"),
    [
        ({"json": "spaced"}, b'data: {"choices": [], "created": 0, "id": ""'),
        ({"json": "spaced"}, b'"delta": {"content": "You"}'),
        ({"json": "pretty"}, b'data: {\ndata:   "choices": [\n'),
        ({"json": "shuffled"}, b'data: {"usage":null,"system_fingerprint":"fp_b6f445fc1c"'),
        ({"blank_after_colon": False}, b'data:{"choices":[],'),
        ({"blank_after_colon": False}, b"data:[DONE]\n\n"),
        ({"line_end": "crlf"}, b"data: [DONE]\r\n\r\n"),
        ({"line_end": "cr"}, b"data: [DONE]\r\r"),
        ({"lines_before": ("event: message", "id: 7")}, b"event: message\nid: 7\ndata: [DONE]\n\n"),
        ({"bom": True}, b'\xef\xbb\xbfdata: {"choices":[],'),
    ],
    ids=str,
)
def test_a_form_is_the_one_that_was_asked_for(azure, form, inside):
    """Down to the bytes."""
    azure.script(Script(**form))

    assert inside in call(azure, STREAM).body


@pytest.mark.parametrize(("unfinished", "end"), [(1, b"[DONE]\r\n"), (2, b"[DONE]")])
def test_the_last_line_ends_can_be_missing(azure, unfinished, end):
    """Both bytes of a line end go at once."""
    azure.script(Script(unfinished=unfinished, line_end="crlf"))
    answer = call(azure, STREAM)

    assert answer.body.endswith(end)
    assert answer.complete


@pytest.mark.parametrize("form", ["spaced", "shuffled", "pretty"])
def test_a_plain_answer_has_the_forms_of_json_too(azure, form):
    """The same object in other bytes."""
    azure.script(Script(answer=ODD))
    plain = call(azure)
    azure.script(Script(answer=ODD, json=form))
    odd = call(azure)

    assert without_ids(plain.body.decode()) == without_ids(odd.body.decode())
    assert odd.body != plain.body
    assert (b": " in odd.body) == (form != "shuffled")


@pytest.mark.parametrize(
    ("coding", "window", "name"), [("gzip", 31, "gzip"), ("deflate", 15, "deflate"), ("raw_deflate", -15, "deflate")]
)
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
def test_an_answer_is_compressed_whatever_the_client_accepts(azure, coding, window, name, body):
    """Each event can be unpacked when it has come."""
    azure.script(Script(compress=coding))
    answer = call(azure, body, headers={"api-key": DEFAULT_KEY, "Accept-Encoding": "identity"})
    unpacker = zlib.decompressobj(window)
    parts = [unpacker.decompress(piece) for piece in azure.served[0].sent]

    assert answer.headers["content-encoding"] == name
    assert unpacker.eof
    if body is STREAM:
        assert len(parts) == 9
        assert all(part.endswith(b"\n\n") for part in parts)
    else:
        assert json.loads(parts[0])["choices"][0]["message"]["content"] == "You said: hello there"


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({"Content-Type": None}, None),
        ({"content-type": "text/plain"}, "text/plain"),
        ({}, "text/event-stream; charset=utf-8"),
    ],
    ids=["none", "other", "own"],
)
def test_the_content_type_can_be_another_or_missing(azure, headers, value):
    """The body stays the stream that it is."""
    azure.script(Script(headers=headers))
    answer = call(azure, STREAM)

    assert answer.headers.get("content-type") == value
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_an_error_can_be_compressed_and_pretty(azure):
    """Whoever stands in front of Azure does that with everything."""
    azure.script(Script(fault="capacity", json="pretty", compress="gzip"))
    answer = call(azure, {**CHAT, "messages": HELLO})

    assert answer.status == 429
    assert unpacked(answer).startswith(b'{\n  "error": {\n')
