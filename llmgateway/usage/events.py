"""Server-sent events as bytes: where they end, and what they contain (HTML standard, section 9.2, 2026).

A stream is a sequence of lines, and an empty line ends an event. Each line ends with CR LF, with LF or with CR, also
mixed. Azure uses LF. A proxy on the way, or another provider, may use another form that the standard allows.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8

LINE_ENDS = b"\r\n"
"""The bytes of which line ends consist."""

_LINE_END = rb"(?:\r\n|\n|\r(?!\n))"
BLANK_LINE = re.compile(_LINE_END + _LINE_END)
"""The end of an event: the end of its last line, and an empty line.

If the data ends with CR, an LF that follows in the next data still belongs to this line end. Before the next event it
does no harm there, because it is one more empty line.
"""
_SPLIT = re.compile(b"(" + BLANK_LINE.pattern + b")")

_FIELDS = (b"data:", b"event:", b"id:", b"retry:")
_LONGEST_BLANK = 4096
"""The most white space before the first field of a stream. A JSON document may begin with any amount."""


def end_of_events(data: bytes) -> int:
    """Return where the last complete event in *data* ends; 0 if there is none."""
    if b"\r" not in data:
        found = data.rfind(b"\n\n")
        return found + 2 if found >= 0 else 0
    end = 0
    for blank_line in BLANK_LINE.finditer(data):
        # In a stream with CR LF, the last LF has not arrived yet. Then the event is not complete.
        if blank_line[0] != b"\r\n\r" or blank_line.end() < len(data):
            end = blank_line.end()
    return end


def split_events(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """Split *data* into the events without their ends, and the ends. What follows the last end is the last element.

    An event may begin with line ends: empty lines beyond the one that ends an event.
    """
    if b"\r" not in data:
        events = data.split(b"\n\n")
        return events, [b"\n\n"] * (len(events) - 1)
    parts = _SPLIT.split(data)
    return parts[::2], parts[1::2]


def read_fields(event: bytes) -> tuple[bytes, bytes]:
    """Return the name and the data of *event*. The lines of its data are joined with LF."""
    if event.startswith(b"data:") and b"\n" not in event and b"\r" not in event:
        return b"", event[6:] if event.startswith(b" ", 5) else event[5:]
    name, data = b"", []
    for line in event.splitlines():  # splits bytes at CR LF, LF and CR only
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return name, b"\n".join(data)


def begins_like_events(beginning: bytes) -> bool | None:
    """Return whether a body that begins like this is a stream of events; None if more of it is needed to tell."""
    text = beginning.removeprefix(BOM_UTF8).lstrip()
    if not text:
        # Also while the byte order mark is incomplete.
        return None if len(beginning) < _LONGEST_BLANK else False
    if text.startswith((b":", *_FIELDS)):
        return True
    if any(field.startswith(text) for field in _FIELDS) or BOM_UTF8.startswith(text):
        return None
    return False
