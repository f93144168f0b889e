"""Reads the token counts that Azure reports, and estimates them if Azure reports none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ..records import Usage

CHARACTERS_PER_TOKEN = 4
"""Azure assumes the same when it estimates a prompt (Microsoft, quota documentation, 2026)."""

TOKENS_PER_IMAGE = 765
"""The tokens of a 1024 x 1024 image in high detail: 85 + 4 tiles of 170 (OpenAI, vision documentation, 2024)."""

COMPLETION_TOKENS = 256
"""The estimate for an answer if the client sets no limit. Answers in a chat have a few hundred tokens. The reported
count replaces the estimate at the end of the request."""

LARGEST_COUNT = 2**31
"""The most tokens of one request, estimated or reported. No model has more, and their cost in nanodollars is an integer
that every counter can hold."""

_ENCODED = ("image_url", "input_audio", "file")

DONE = b"data: [DONE]"

BLANK_LINES = (b"\r\n\r\n", b"\n\n")
"""The ends of an event (HTML standard, section 9.2.5). Azure sends the second; a proxy may change it to the first."""


class StreamMeter:
    """Reads the events of a streamed completion, and collects what the usage record needs.

    :meth:`feed` takes complete events, any number at a time. It parses an event's JSON only if a byte search finds
    the name of a usage or content filter field in it. This is safe: in a JSON string quotation marks and line breaks
    are always escaped, so the text of a conversation cannot contain what the searches look for.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.model: str | None = None
        self.content_filter: set[str] = set()
        self.pieces = 0
        """The number of events with text or tool arguments. Azure sends about one token in each."""
        self.done = False
        """Whether the stream has sent ``[DONE]``."""
        self.failed = False
        """Whether Azure has sent an error event."""

    def feed(self, events: bytes) -> bytes | None:
        """Read *events*; return the bytes of the usage event if they contain one."""
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
    """Yield each event that is a JSON object: its bytes with the blank line, and the object."""
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
    """Return the ``usage`` of a completion or of a stream's usage event; None if it has none."""
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
    """Return the name of the model in Azure's answer; None if it has none."""
    name = document.get("model")
    return name if isinstance(name, str) and name else None


def fired_filters(document: Any) -> set[str]:
    """Return the categories of all content filters in *document* that found or blocked something.

    It searches the whole document, because Azure puts the results beside choices, prompts and errors, under names in
    the singular and in the plural.
    """
    found: set[str] = set()
    unvisited = [document]
    while unvisited:
        value = unvisited.pop()
        if isinstance(value, list):
            unvisited.extend(value)
        elif isinstance(value, dict):
            for name, child in value.items():
                if isinstance(child, dict) and (child.get("filtered") is True or child.get("detected") is True):
                    found.add(name)
                elif isinstance(child, dict | list):
                    unvisited.append(child)
    return found


def estimate_prompt_tokens(messages: Iterable[Any], prompt: str = "", *, definitions: Iterable[Any] = ()) -> int:
    """Estimate the prompt tokens of a request.

    Each image, recording or file counts as a fixed number of tokens, because the length of its base64 says nothing.

    Args:
        messages: The messages of the client.
        prompt: The system prompt that is put before them.
        definitions: Other values that belong to the prompt, such as tools. They count by the length of their JSON.
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
    """Return the most tokens that the answer may have: the client's limit, for each choice. Azure counts the same.

    If both limits are given, the larger one counts, because it depends on the model which one applies. A value that is
    not a positive integer counts as missing; Azure will refuse it.
    """
    limits = (_positive(document.get("max_completion_tokens")), _positive(document.get("max_tokens")))
    return min((max(limits) or COMPLETION_TOKENS) * max(_positive(document.get("n")), 1), LARGEST_COUNT)


def _length(value: Any) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError:  # an integer beyond 64 bits, or a lone surrogate
        return len(json.dumps(value))


def _characters_of_calls(calls: Any) -> int:
    """Return the characters of the tool calls of an earlier answer, which are a part of the prompt now."""
    characters = 0
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            texts = (function.get("name"), function.get("arguments"))
            characters += sum(len(text) for text in texts if isinstance(text, str))
    return characters


def _positive(value: Any) -> int:
    """Return *value* if it is a positive integer, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
