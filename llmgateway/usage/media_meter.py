"""Reads a stream of events that is not a completion: a transcript, speech or pictures.

Such an event may have millions of bytes, a picture for example. So nothing is held back: each part is passed on as it
comes, and only the beginning and the end of an event are kept to be read.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any

from .answers import name_of, parse_object
from .events import LINE_ENDS, end_of_events, read_fields, split_events
from .seen import Seen

LARGEST_READ = 64 * 1024
"""The most bytes of an event that is parsed as a whole. Of a larger one, the type and the count are read."""

_BEGINNING, _END = 1024, 16 * 1024
_TYPE = re.compile(rb'"type"\s*:\s*"([a-z._]{1,60})"')
_USAGE = re.compile(rb'"usage"\s*:\s*')
_LAST = (".done", ".completed")
"""Ends of the types of the events with the whole result, and with the count: ``transcript.text.done``,
``speech.audio.done``, ``image_generation.completed``, ``image_edit.completed`` (OpenAI, API reference, 2026)."""

SeeEvent = Callable[[Seen, dict[str, Any], int], None]
"""Adds to what was seen what one event says: its object, and its bytes. Of a large event, the object has ``type`` and
``usage`` only."""


class MediaMeter:
    """A :class:`~llmgateway.usage.meter.Meter` for events with results that are not completions.

    Args:
        see: Reads the events.
        results: How many results the client has asked for. Each has an event of its own at its end.
    """

    def __init__(self, see: SeeEvent, *, results: int = 1) -> None:
        self.seen = Seen()
        self.done = False
        self.failed = False
        self._see = see
        self._results = results
        self._complete = 0
        self._held = b""  # line ends that may be the first half of a blank line
        self._beginning, self._end, self._bytes = b"", b"", 0  # of the event that has not ended

    def feed(self, data: bytes) -> bytes:
        """Read *data*, and return it, but for line ends at its end."""
        data = self._held + data
        end = end_of_events(data)
        rest = data[end:].rstrip(LINE_ENDS)
        self._held = data[end + len(rest) :]
        for event in split_events(data[:end])[0][:-1]:
            self._add(event)
            self._read()
        self._add(rest)
        return data[:end] + rest

    def end(self) -> bytes:
        """Read what came last as an event, and return what was held back."""
        self._read()
        self.done = self.done or self._complete > 0
        rest, self._held = self._held, b""
        return rest

    @property
    def is_inside_event(self) -> bool:
        """Whether a part of an event was passed on, and its end was not."""
        return self._bytes > 0

    def count_rest(self) -> None:
        """Count the part of an event whose end will never come."""
        if self._bytes:
            self._see(self.seen, {}, self._bytes)

    def _add(self, part: bytes) -> None:
        self._bytes += len(part)
        if self._bytes <= LARGEST_READ:
            self._beginning += part
            return
        kept = self._end or self._beginning
        if not self._end:
            self._beginning = (self._beginning + part[:_BEGINNING])[:_BEGINNING]
        self._end = (kept + part)[-_END:]

    def _read(self) -> None:
        beginning, end, size = self._beginning, self._end, self._bytes
        self._beginning, self._end, self._bytes = b"", b"", 0
        name, data = read_fields(beginning.removeprefix(BOM_UTF8).lstrip(LINE_ENDS))
        if data.strip() == b"[DONE]":
            self.done = True
            return
        document = parse_object(data) if not end else _parts(beginning, end)
        self.failed = self.failed or name == b"error"
        if document is None:
            return
        seen, kind = self.seen, document.get("type")
        if document.get("error") or kind == "error":
            self.failed = True
        seen.see_filters(document, data)
        seen.model = name_of(document, "model") or seen.model
        self._see(seen, document, size)
        if isinstance(kind, str) and kind.endswith(_LAST):
            self._complete += 1
            self.done = self.done or self._complete >= self._results


def _parts(beginning: bytes, end: bytes) -> dict[str, Any]:
    """Return what can be read of a large event."""
    found: dict[str, Any] = {}
    if kind := _TYPE.search(beginning):
        found["type"] = kind[1].decode()
    for part in (beginning, end):
        for usage in _USAGE.finditer(part):
            try:
                found["usage"], _ = json.JSONDecoder().raw_decode(part[usage.end() :].decode("utf-8", "replace"))
            except (ValueError, RecursionError):
                continue
    return found
