"""Where server-sent events end, and what they contain (HTML standard, section 9.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.usage.events import begins_like_events, end_of_events, read_fields, split_events

BYTES = st.text(st.sampled_from("ab:\r\n")).map(str.encode)


@pytest.mark.parametrize(
    ("data", "end"),
    [
        (b"", 0),
        (b"a\n", 0),
        (b"a\n\n", 3),
        (b"a\n\nb", 3),
        (b"a\r\n\r\nb", 5),
        (b"a\r\rb", 3),
        (b"a\r\nb\r\n", 0),
        (b"a\r\n\nb", 4),
        (b"a\n\r\nb", 4),
        (b"a\r\n\r", 0),
        (b"a\r\n\rb", 4),
        (b"a\n\r", 3),
    ],
)
def test_finds_the_end_of_the_last_event(data, end):
    """An event ends with an empty line, whatever the line ends are."""
    assert end == end_of_events(data)


@given(BYTES)
def test_nothing_is_lost_in_splitting(data):
    """The events and their ends are the data; no event contains an empty line after its first line."""
    events, ends = split_events(data)

    assert data == b"".join(part for pair in zip(events, [*ends, b""], strict=True) for part in pair)
    for event in events:
        lines = event.lstrip(b"\r\n").splitlines()
        assert b"" not in lines


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (b"data: x", (b"", b"x")),
        (b"data:x", (b"", b"x")),
        (b"data:  x", (b"", b" x")),
        (b"data:x\r\ndata:y\rdata: z", (b"", b"x\ny\nz")),
        (b"event: error\ndata: x", (b"error", b"x")),
        (b": data: x\nid: 5\nretry: 3\ndata\nDATA: y", (b"", b"")),
        (b"data: a:b", (b"", b"a:b")),
        (b"", (b"", b"")),
    ],
)
def test_reads_fields(event, fields):
    """One blank behind the colon is left out; comments and unknown fields are ignored."""
    assert fields == read_fields(event)


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        *((text, True) for text in (b"data:", b"data: {", b":", b"\n\n: x", b"event:x", b"id: 1", b"retry: 1")),
        (b"\xef\xbb\xbfdata:", True),
        *((text, None) for text in (b"", b"d", b"data", b"eve", b"  \r\n", b"\xef", b"\xef\xbb", b"\xef\xbb\xbf")),
        *((text, False) for text in (b"{", b"[", b"<", b"dat:", b"Data: x", b"database", b"error", b" {", b" " * 5000)),
    ],
)
def test_tells_a_stream_by_its_beginning(beginning, expected):
    """The first field or comment decides; before that more is needed."""
    assert expected is begins_like_events(beginning)
