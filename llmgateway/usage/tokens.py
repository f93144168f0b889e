"""Counting: the tokens Azure reports, and what to believe where it reported nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ..records import Usage

CHARACTERS_PER_TOKEN = 4
"""What Azure itself assumes when it estimates a prompt on arrival (Microsoft, quota documentation, 2026)."""

TOKENS_PER_IMAGE = 765
"""A 1024 x 1024 image in high detail: 85 + 4 tiles of 170 (OpenAI, vision documentation, 2024)."""

COMPLETION_TOKENS = 256
"""Assumed of an answer where the client sets no bound: a chat's answer has some hundred, and what it really
had is settled at its end."""

LARGEST_COUNT = 2**31
"""Tokens of one request, estimated or reported; no model takes or gives more, and in nanodollars they are whole numbers
that every counter holds."""

_ENCODED = ("image_url", "input_audio", "file")

DONE = b"data: [DONE]"

BLANK_LINES = (b"\r\n\r\n", b"\n\n")
"""What ends an event: Azure sends the second, something on the way may have made the first of it
(HTML standard, section 9.2.5)."""


class StreamMeter:
    """Watches the events of a completion pass and remembers what the usage record needs.

    Feed it whole events, any number at a time. It looks at an event's JSON only where the bytes
    say that it can carry usage or a content filter's verdict: inside a JSON string a quotation
    mark and a line's end are always escaped, so text that somebody wrote can never look like these.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.content_filter: set[str] = set()
        self.pieces = 0
        """Events with text or tool arguments in them; Azure sends about one token in each."""
        self.done = False
        """The stream said that it is complete."""
        self.failed = False
        """Azure sent an error in the middle of the stream."""

    def feed(self, events: bytes) -> bytes | None:
        """Take note of *events*; return the usage event among them, as it stands there, if there is one."""
        self.pieces += (
            events.count(b'"content":"')
            - events.count(b'"content":""')
            + events.count(b'"arguments":"')
            - events.count(b'"arguments":""')
        )
        if b'"filtered":true' in events or b'"detected":true' in events:
            for _, document in _documents(events):
                self.content_filter.update(fired_filters(document))
        if b'data: {"error"' in events:
            self.failed = True
        if events.startswith(DONE) or b"\n" + DONE in events:
            self.done = True
        if b'"prompt_tokens"' in events:
            return self._read_usage(events)
        return None

    def _read_usage(self, events: bytes) -> bytes | None:
        for event, document in _documents(events):
            usage = parse_usage(document)
            if usage is not None:
                self.usage = usage
                self.model = model_name(document)
                if document.get("choices") == []:
                    return event
        return None


def _documents(events: bytes) -> Iterable[tuple[bytes, dict[str, Any]]]:
    """Give every event that is a JSON object, as its bytes with their end and as what they mean."""
    blank_line = BLANK_LINES[0] if BLANK_LINES[0] in events else BLANK_LINES[1]
    for event in events.split(blank_line):
        data = event.strip()
        if data.startswith(b"data:"):
            try:
                document = orjson.loads(data[5:])
            except orjson.JSONDecodeError:
                continue
            if isinstance(document, dict):
                yield event + blank_line, document


def parse_usage(document: Any) -> Usage | None:
    """Return the ``usage`` of a completion or of a stream's usage event, if it has one."""
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=_count(usage, "total_tokens") or prompt + completion,
        cached_tokens=_count(usage.get("prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(usage.get("completion_tokens_details"), "reasoning_tokens"),
    )


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and 0 <= value <= LARGEST_COUNT else 0


def model_name(document: dict[str, Any]) -> str | None:
    """Return the name that Azure gave the model, if it gave one."""
    name = document.get("model")
    return name if isinstance(name, str) and name else None


def fired_filters(document: Any) -> set[str]:
    """Return the categories of every content filter in *document* that found or blocked something.

    Wherever they stand: beside a choice, a prompt or an error, in the singular or the plural.
    """
    found: set[str] = set()
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            for name, child in value.items():
                if isinstance(child, dict) and (child.get("filtered") is True or child.get("detected") is True):
                    found.add(name)
                elif isinstance(child, dict | list):
                    waiting.append(child)
    return found


def estimate_prompt_tokens(messages: Iterable[Any], prompt: str = "", *, definitions: Iterable[Any] = ()) -> int:
    """Estimate what Azure will bill for *messages* with the organisation's *prompt* in front.

    Text counts by its characters, an image (a recording, a file) by a fixed amount: its base64 says nothing
    about it. *definitions* of tools and the like count as the JSON that they are.
    """
    characters = len(prompt) + sum(map(_length, definitions))
    images = 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
        elif isinstance(content, list):
            for part in content:
                if not isinstance(part, dict):
                    continue
                text = part.get("text")
                if isinstance(text, str):
                    characters += len(text)
                if part.get("type") in _ENCODED:
                    images += 1
        characters += _characters_of_calls(message.get("tool_calls"))
    return -(-characters // CHARACTERS_PER_TOKEN) + images * TOKENS_PER_IMAGE


def estimate_completion_tokens(document: Mapping[str, Any]) -> int:
    """The most that the answer may have, as Azure counts it on arrival: the client's bound, for each choice.

    Of two bounds the larger: which of them holds is the model's to say. What is no number is Azure's to refuse
    and counts as not given.
    """
    bound = max(_bound(document.get("max_completion_tokens")), _bound(document.get("max_tokens"))) or COMPLETION_TOKENS
    return min(bound * max(_bound(document.get("n")), 1), LARGEST_COUNT)


def _length(value: Any) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError:  # an integer beyond 64 bits, half of a surrogate pair
        return len(json.dumps(value))


def _characters_of_calls(calls: Any) -> int:
    """What an earlier answer called, which is a part of the prompt now."""
    characters = 0
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            texts = (function.get("name"), function.get("arguments"))
            characters += sum(len(text) for text in texts if isinstance(text, str))
    return characters


def _bound(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
