"""Reads a streamed answer while it is relayed: divides it into events, and collects what the usage record needs."""

from __future__ import annotations

import contextlib
import re
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import orjson

from ..records import Usage
from .answers import choices_of, is_blocked, name_of, parse_object, said_tokens, texts_of
from .counts import is_whole, parse_usage, usage_in_choices
from .error_codes import error_code
from .events import BLANK_LINE, LINE_ENDS, end_of_events, read_fields, split_events
from .seen import Seen
from .tokens import CHARACTERS_PER_TOKEN, ONE_TOKEN, text_tokens

LARGEST_EVENT = 64 * 1024
"""The most bytes of an incomplete event that are held back. A longer one is passed on in parts, and is not read; its
text is estimated by its length. A usage event has about 500 bytes."""

_LONGEST_WITHOUT_TEXT = 1024
"""The bytes of an event without text, at most: filter results, or a count."""

MOST_PATTERNS = 4
"""The most patterns (see :class:`_Pattern`) that are compared: one for each of the choices of a request, if they are
few."""

_INSIDE_STRING = re.compile(rb'(?:[^"\\]|\\.)*')
"""What is left of a JSON string, up to its quotation mark if that has come."""

_PADDING = re.compile(rb'("obfuscation"\s*:\s*")([^"\\]*)"')

Edit = Callable[[bytes, dict[str, Any]], bytes]
"""Takes an event without its blank line, and its JSON object. Returns what takes the event's place; ``b""`` removes it
together with its blank line."""


def keep(event: bytes, _document: dict[str, Any]) -> bytes:
    """The :data:`Edit` that changes nothing."""
    return event


class Meter(Protocol):
    """Reads a stream while it is relayed. One thread at a time may use it."""

    seen: Seen
    """What was read so far."""
    done: bool
    """Whether the stream has said that it is complete."""
    failed: bool
    """Whether Azure has sent an error event."""

    def feed(self, data: bytes) -> bytes:
        """Read *data*, and return what may go to the client now."""
        ...

    def end(self) -> bytes:
        """Read what was held back, because nothing follows, and return it."""
        ...

    @property
    def is_inside_event(self) -> bool:
        """Whether a part of an event was passed on, and its end was not."""
        ...

    def count_rest(self) -> None:
        """Count the text in an event whose end will never come. Call this if the stream ended too early."""
        ...


class _Pattern(NamedTuple):
    """The parts that events of a stream have in common: all but the text and the padding.

    Azure pads each event with random letters in the field ``obfuscation``, to hide the length of the text.
    """

    before_text: bytes
    after_text: bytes
    """Up to the padding, or to the end of the event if there is none."""
    after_padding: bytes


class StreamMeter:
    """Reads the events of a streamed completion.

    To parse every event would take most of the time of relaying it, and nearly all events of a stream differ only in
    their text and their padding. So an event is parsed only if it is not equal to one that was parsed before in all its
    other bytes (:class:`_Pattern`). Whatever else an event can say is in those bytes: a count, an error, a filter
    result.

    Args:
        edit: Is called for each event that is parsed; may change or remove it. An event that equals another one but for
            its text is not edited, so *edit* must not depend on the text.
        choices: How many choices the client has asked for. A count is final when all of them have ended.
    """

    def __init__(self, edit: Edit = keep, *, choices: int = 1) -> None:
        self.seen = Seen()
        self.done = False
        """Whether the stream has sent ``[DONE]``."""
        self.failed = False
        """Whether Azure has sent an error event."""
        self._edit = edit
        self._held = b""
        self._begun = False
        self._oversized = False  # in the middle of an event that is passed on in parts
        self._skip_line_feed = False
        self._patterns: deque[_Pattern] = deque(maxlen=MOST_PATTERNS)
        self._choices = choices
        self._finished: set[int] = set()  # choices with finish_reason
        self._unfinished: set[int] = set()  # choices with text and without finish_reason
        self._counted: Usage | None = None  # the last count, if no text has come since

    def feed(self, data: bytes) -> bytes:
        """Read *data*, and return the events that are complete now, edited. The rest is held back."""
        if self._skip_line_feed and data:
            self._skip_line_feed = False
            data = data.removeprefix(b"\n")
        if self._held:
            data = self._held + data
        if self._oversized:
            return self._feed_oversized(data)
        end = end_of_events(data)
        self._held = data[end:]
        if len(self._held) > LARGEST_EVENT:
            self._oversized = True
            return self._read(data[:end]) + self._pass_part(data[end:])
        return self._read(data[:end]) if end else b""

    def end(self) -> bytes:
        """Read what was held back as the last event, because nothing follows, and return it."""
        rest, self._held = self._held, b""
        return rest if self._oversized else self._read(rest)

    @property
    def is_inside_event(self) -> bool:
        """Whether a part of an event was passed on, and its end was not."""
        return self._oversized

    def count_rest(self) -> None:
        """Count the text in an event whose end will never come. Call this if the stream ended too early."""
        rest, self._held = self._held, b""
        for pattern in self._patterns:
            if rest.startswith(pattern.before_text):
                text = _INSIDE_STRING.match(rest, len(pattern.before_text))
                self._add(_raw_tokens(text[0] if text else b""))
                return
        if len(rest) > _LONGEST_WITHOUT_TEXT:
            self._add(len(rest) // CHARACTERS_PER_TOKEN)

    def _feed_oversized(self, data: bytes) -> bytes:
        blank_line = BLANK_LINE.search(data)
        if blank_line is None:
            return self._pass_part(data)
        self._oversized, self._held = False, b""
        end = blank_line.end()
        self._add(end // CHARACTERS_PER_TOKEN)
        return data[:end] + self.feed(data[end:])

    def _pass_part(self, data: bytes) -> bytes:
        # A line end at the end of this part may be the first half of the blank line.
        part = data.rstrip(LINE_ENDS)
        self._held = data[len(part) :]
        self._add(len(part) // CHARACTERS_PER_TOKEN)
        return part

    def _read(self, data: bytes) -> bytes:
        """Read the events in *data*, and return them edited."""
        events, ends = split_events(data)
        changed = False
        for number, event in enumerate(events):
            tokens = self._tokens_by_pattern(event)
            if tokens is not None:
                self._add(tokens)
                continue
            text = event.lstrip(LINE_ENDS)
            if not self._begun:
                text = text.removeprefix(BOM_UTF8)
                self._begun = True
            if not text or (edited := self._read_event(text)) is text:
                continue
            changed = True
            events[number] = event[: len(event) - len(text)] + edited
            if not edited and number < len(ends):
                if number == len(ends) - 1 and not self._held:
                    # An LF that comes next would be the second half of this line end.
                    self._skip_line_feed = ends[number].endswith(b"\r")
                ends[number] = b""
        if not changed:
            return data
        ends.append(b"")
        return b"".join([part for pair in zip(events, ends, strict=True) for part in pair])

    def _tokens_by_pattern(self, event: bytes) -> int | None:
        """Return the tokens of the text in *event* if an event that was parsed had the same other bytes; else None."""
        for before_text, after_text, after_padding in self._patterns:
            if not event.startswith(before_text):
                continue
            start = len(before_text)
            end = event.find(b'"', start)
            if not event.startswith(after_text, end) or event.endswith(b"\\", start, end):
                continue  # also if the quotation mark belongs to the text
            padding = end + len(after_text)
            if after_padding:
                if event.find(b'"', padding) != len(event) - len(after_padding) or not event.endswith(after_padding):
                    continue
            elif padding != len(event):
                continue
            text = event[start:end]
            return _short_text_tokens(text) if len(text) <= ONE_TOKEN else _raw_tokens(text)
        return None

    def _read_event(self, event: bytes) -> bytes:
        name, data = read_fields(event)
        if data.strip() == b"[DONE]":
            self._finish()
            return event
        if name == b"error":
            self.failed = True
        document = parse_object(data)
        if document is None:
            return event
        seen = self.seen
        seen.model = name_of(document, "model") or seen.model
        seen.service_tier = name_of(document, "service_tier") or seen.service_tier
        fired = seen.see_filters(document, data)
        seen.see_audio(document, data)
        failed = bool(document.get("error")) or document.get("type") == "error"
        if failed:
            self.failed = True
            seen.error_code = error_code(document) or seen.error_code
        choices = choices_of(document)
        for choice in choices:
            self._read_choice(choice)
        if choices and self._counted is not None and not self._counted.completion_tokens:
            self._counted = None  # it counted the prompt alone, and the answer has gone on
        counted = self._read_usage(document)
        edited = self._edit(event, document)
        said_more = len(choices) != 1 or choices[0].get("finish_reason") or fired or failed or counted
        if edited is event and not said_more:
            self._learn(event, choices[0])
        return edited

    def _finish(self) -> None:
        self.done = True
        if self._counted is not None:
            self.seen.usage = self._counted

    def _read_choice(self, choice: dict[str, Any]) -> None:
        tokens = said_tokens(choice)
        self._add(tokens)
        index = choice.get("index")
        number = index if isinstance(index, int) else 0
        if choice.get("finish_reason"):
            self._finished.add(number)
            self._unfinished.discard(number)
            self.seen.blocked = self.seen.blocked or is_blocked(choice)
            self._patterns.clear()  # more text of this choice would mean that it goes on: it must be parsed
        elif tokens:
            self._finished.discard(number)
            self._unfinished.add(number)

    def _add(self, tokens: int) -> None:
        """Add tokens of the answer that were seen. A count that came before them does not include them."""
        if not tokens:
            return
        seen = self.seen
        if seen.usage is not None:
            self._keep_as_minimum(seen.usage)
            seen.usage = None
        self._counted = None
        seen.completion_tokens += tokens

    def _read_usage(self, document: dict[str, Any]) -> bool:
        """Read a count if there is one. Some models send one in every event, or count the prompt before they think.

        So a count is final only if all choices have ended, or nothing else comes before ``[DONE]``.
        """
        usage = parse_usage(document)
        if usage is None:
            usage = usage_in_choices(document)
            if usage is None:
                return False
            if self._choices > 1:
                # Nobody says whether it counts the other choices, too.
                self._keep_as_minimum(usage)
                return True
        if is_whole(usage, said_something=self.seen.completion_tokens > 0):
            self._counted = usage
            if self._all_finished or self.done:
                self.seen.usage = usage
                return True
        self._keep_as_minimum(usage)
        return True

    @property
    def _all_finished(self) -> bool:
        return len(self._finished) >= self._choices and not self._unfinished

    def _keep_as_minimum(self, usage: Usage) -> None:
        self.seen.prompt_tokens = usage.prompt_tokens or self.seen.prompt_tokens
        self.seen.completion_tokens = max(self.seen.completion_tokens, usage.completion_tokens)

    def _learn(self, event: bytes, choice: dict[str, Any]) -> None:
        """Take the parts of *event* around its text as the pattern, if it has one text, and this is found in it."""
        texts = texts_of(choice)
        if len(texts) != 1:
            return
        try:
            text = orjson.dumps(texts[0])
        except orjson.JSONEncodeError:  # a lone surrogate
            return
        if event.count(text) != 1:
            return
        before, _, after = event.partition(text)
        if padding := _PADDING.search(after):
            pattern = _Pattern(before + b'"', b'"' + after[: padding.end(1)], after[padding.end(2) :])
        else:
            pattern = _Pattern(before + b'"', b'"' + after, b"")
        self._patterns.appendleft(pattern)


def _raw_tokens(text: bytes) -> int:
    """Estimate the tokens of *text*, which is the inside of a JSON string."""
    if b"\\" in text:
        with contextlib.suppress(orjson.JSONDecodeError):  # one half of a character: a lone surrogate
            text = orjson.loads(b'"%b"' % text).encode()
    return text_tokens(text)


_short_text_tokens = lru_cache(maxsize=4096)(_raw_tokens)
"""Most events contain one of a few thousand frequent words, and to look it up takes a tenth of the time."""
