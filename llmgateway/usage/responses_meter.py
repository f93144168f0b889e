"""Reads answers of the Responses API: plain ones, and the events of streams.

A stream tells its usage in its last event only: ``response.completed``, ``response.incomplete`` or
``response.failed``. There is no ``[DONE]``. Each event has its type twice, in ``event:`` and in its JSON, and a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .answers import name_of, parse_object
from .counts import is_whole, parse_usage
from .events import LINE_ENDS, end_of_events, read_fields, split_events
from .seen import Seen
from .tokens import CHARACTERS_PER_TOKEN, ONE_TOKEN, text_tokens

LARGEST_EVENT = 64 * 1024 * 1024
"""The most bytes of an incomplete event that are held back, as of an answer that is not streamed. The events that
contain the whole response also contain the instructions, the tools and the images. A longer one is passed on in parts,
and is not read."""

MOST_IDS = 500
"""The most identifiers of one answer that are noted. An answer has a few items."""

_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))
_BEGINNINGS = frozenset(("response.created", "response.queued", "response.in_progress"))
_READ = _ENDS | _BEGINNINGS | {"response.output_item.done", "error"}
"""The types of the events that are parsed, besides the parts of texts. All others are only relayed: there are about
sixty (OpenAI, API reference, 2026), and new ones appear."""

_DELTA = re.compile(rb"event: ?response\.[a-z_.]{1,64}\.delta\n")
_TEXT = b'"delta":"'
_AUDIO = b"response.audio.delta"
"""Its deltas are base64. It is no text."""
_TYPE = re.compile(rb'"type"\s*:\s*"([A-Za-z0-9_.]{1,100})"')
_LONGEST_WITHOUT_TEXT = 1024

_NOT_WRITTEN = frozenset(
    (
        *(
            "annotations",
            "call_id",
            "container_id",
            "content_filters",
            "created_by",
            "encrypted_content",
            "id",
            "logprobs",
        ),
        *(
            "object",
            "phase",
            "result",
            "results",
            "role",
            "server_label",
            "status",
            "tools",
            "type",
            "outputs",
            "output",
        ),
    )
)
"""Parts of an item that the model has not written, or that repeat what it has written."""

_KEPT = ("id", "type", "container_id", "status", "action")
"""The fields of an item that are read again at the end of a stream, if the last event has no items."""

_REFUSALS = frozenset(("429", "ratelimitexceeded", "toomanyrequests", "insufficientquota", "nocapacity"))
"""Codes of errors with which Azure refuses work that it has not begun, as with status 429. Without separators."""

_USED = {
    "code_interpreter_call": "code_interpreter",
    "file_search_call": "file_search",
    "image_generation_call": "image_generation",
    "web_search_call": "web_search",
}
"""Azure's tools that are billed by use, by the type of the items that they leave."""


class ResponsesMeter:
    """Reads the events of a streamed response. Changes none.

    Nearly all events are parts of a text. To parse them would take most of the time of relaying them, so their text is
    found by searching the bytes: the marks of a field cannot occur in a JSON text, where quotation marks are escaped.
    """

    def __init__(self) -> None:
        self.seen = Seen()
        self.done = False
        """Whether the response is complete, or as complete as it will be."""
        self.failed = False
        """Whether it has failed, or Azure has sent an error event."""
        self._held = bytearray()
        self._oversized = False  # in the middle of an event that is passed on in parts
        self._streamed = 0  # tokens of parts of texts
        self._items: list[dict[str, Any]] = []
        self._item_tokens = 0

    def feed(self, data: bytes) -> bytes:
        """Read *data*, and return the events that are complete now. The rest is held back."""
        held = self._held
        if not held:
            end = end_of_events(data)
            complete = data[:end]
            held += data[end:]
            if complete:
                self._read(complete)
        else:
            searched = max(0, len(held) - 3)  # the blank line may have begun
            held += data
            end = end_of_events(bytes(memoryview(held)[searched:]))
            if not end:
                return self._pass_part() if self._oversized or len(held) > LARGEST_EVENT else b""
            complete = bytes(memoryview(held)[: searched + end])
            del held[: searched + end]
            self._read(complete)
        if len(held) > LARGEST_EVENT:
            complete += self._pass_part()
        return complete

    def end(self) -> bytes:
        """Read what was held back as the last event, because nothing follows, and return it."""
        rest = bytes(self._held)
        self._held.clear()
        self._read(rest)
        return rest

    @property
    def is_inside_event(self) -> bool:
        """Whether a part of an event was passed on, and its end was not."""
        return self._oversized

    def count_rest(self) -> None:
        """Count the text in an event whose end will never come. Call this if the stream ended too early."""
        rest = bytes(self._held)
        self._held.clear()
        start = rest.find(_TEXT)
        if start >= 0 and _DELTA.match(rest):
            self._add(text_tokens(rest[start + len(_TEXT) :].partition(b'"')[0]))
        elif len(rest) > _LONGEST_WITHOUT_TEXT and not self.done and b".delta" in rest[:200]:
            self._add(len(rest) // CHARACTERS_PER_TOKEN)

    def _pass_part(self) -> bytes:
        # A line end at the end of this part may be the first half of the blank line.
        part = bytes(self._held).rstrip(LINE_ENDS)
        del self._held[: len(part)]
        self._oversized = True
        return part

    def _read(self, data: bytes) -> None:
        seen = self.seen
        for event in split_events(data)[0]:
            if self._oversized:
                self._oversized = False
                continue  # the end of an event that was passed on in parts
            tokens = _delta_tokens(event)
            if tokens is not None:
                seen.events += 1
                self._add(tokens)
            elif text := event.lstrip(LINE_ENDS + b"\xef\xbb\xbf"):
                self._read_event(text)

    def _add(self, tokens: int) -> None:
        self._streamed += tokens
        if self._streamed > self.seen.completion_tokens:
            self.seen.completion_tokens = self._streamed

    def _read_event(self, event: bytes) -> None:
        name, data = read_fields(event)
        if not data:
            return
        self.seen.events += 1
        kind = name.decode("ascii", "replace") if name else _type_of(data)
        if kind.endswith(".delta"):
            document = parse_object(data)
            text = None if document is None else document.get("delta")
            if isinstance(text, str) and kind != _AUDIO.decode():
                self._add(text_tokens(text.encode("utf-8", "surrogatepass")))
        elif kind in _READ and (document := parse_object(data)) is not None:
            self._read_document(kind, document)

    def _read_document(self, kind: str, document: dict[str, Any]) -> None:
        seen, response = self.seen, document.get("response")
        if kind == "error":
            self.failed = True
            _read_error(seen, document)
        elif kind == "response.output_item.done":
            self._read_item(document.get("item"))
        elif isinstance(response, dict):
            seen.model = name_of(response, "model") or seen.model
            seen.response_id = name_of(response, "id") or seen.response_id
            if kind in _ENDS:
                self.failed = self.failed or kind == "response.failed"
                self.done = not self.failed
                response["output"] = response.get("output") or self._items
                read_response(response, seen)

    def _read_item(self, item: Any) -> None:
        if isinstance(item, dict):
            self._items.append({name: item[name] for name in _KEPT if name in item})
            self._item_tokens += _said_tokens(item)
            self.seen.completion_tokens = max(self.seen.completion_tokens, self._item_tokens)
            _read_output(self._items, self.seen)


def see_response(document: dict[str, Any], _body: bytes = b"") -> Seen:
    """Read a response that is not streamed, or an error."""
    seen = Seen()
    read_response(document, seen)
    return seen


def read_response(response: dict[str, Any], seen: Seen) -> None:
    """Add to *seen* what the whole *response* says about itself."""
    seen.model = name_of(response, "model") or seen.model
    seen.service_tier = name_of(response, "service_tier") or seen.service_tier
    if response.get("object") == "response":
        seen.response_id = name_of(response, "id") or seen.response_id
    output = response.get("output")
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    _read_output(items, seen)
    # Not in the whole document: its tools may have parameters of any name.
    seen.add_filters([response.get("content_filters"), response.get("error")])
    details = response.get("incomplete_details")
    if isinstance(details, dict) and details.get("reason") == "content_filter":
        seen.blocked = True
    usage = parse_usage(response)
    if usage is None or not usage.completion_tokens:
        seen.completion_tokens = max(seen.completion_tokens, sum(map(_said_tokens, items)))
    if usage is not None:
        if is_whole(usage, said_something=seen.completion_tokens > 0):
            seen.usage = usage
        else:
            seen.prompt_tokens = usage.prompt_tokens or seen.prompt_tokens
            seen.completion_tokens = max(seen.completion_tokens, usage.completion_tokens)
    if response.get("error") is not None:
        _read_error(seen, response)


def _read_output(items: list[dict[str, Any]], seen: Seen) -> None:
    ids = [value for item in items for name in ("id", "container_id") if isinstance(value := item.get(name), str)]
    known = dict.fromkeys(value for value in (*seen.stored_ids, *ids) if value.isascii())
    seen.stored_ids = tuple(known)[:MOST_IDS]
    uses: dict[str, int] = {}
    sessions = set()
    for item in items:
        kind = item.get("type")
        tool = _USED.get(kind) if isinstance(kind, str) else None
        if tool is None or item.get("status") == "failed":
            continue
        action = item.get("action")
        if tool == "web_search" and isinstance(action, dict) and action.get("type", "search") != "search":
            continue  # to open a page, or to search in it, is not billed
        if tool == "code_interpreter":  # is billed by the session, which a container is
            if (container := str(item.get("container_id"))) in sessions:
                continue
            sessions.add(container)
        uses[tool] = uses.get(tool, 0) + 1
    if uses:
        seen.tool_uses = uses


def _read_error(seen: Seen, document: dict[str, Any]) -> None:
    """Read an error: within ``error``, as Azure nests it, or flat, as OpenAI's event has it."""
    nested = document.get("error")
    error = nested if isinstance(nested, dict) else document
    code = next((str(error[name]) for name in ("code", "type") if error.get(name) not in (None, "", "error")), "error")
    seen.error_code = code.encode("utf-8", "replace").decode()[:100]
    seen.refused = code.lower().replace("_", "").replace("-", "").replace(" ", "") in _REFUSALS
    seen.add_filters(nested)


def _type_of(data: bytes) -> str:
    """Return the type of an event without a name. A proxy may have removed the line ``event:``."""
    document = parse_object(data) if _TYPE.search(data) else None
    kind = None if document is None else document.get("type")
    return kind if isinstance(kind, str) else ""


def _delta_tokens(event: bytes) -> int | None:
    """Return the tokens of the text in *event*; None if it has to be parsed."""
    if not event.startswith(b"event:") or _DELTA.match(event) is None:
        return None
    start = event.find(_TEXT)
    if start < 0:
        return None
    start += len(_TEXT)
    end = event.find(b'"', start)
    text = event[start:end]
    if b"\\" in text or event.startswith(_AUDIO, event.find(b"response")):
        return None  # the quotation mark may belong to the text
    return _short_text_tokens(text) if len(text) <= ONE_TOKEN else text_tokens(text)


_short_text_tokens = lru_cache(maxsize=4096)(text_tokens)


def _said_tokens(item: dict[str, Any]) -> int:
    """Estimate the tokens of what the model has written in *item*."""
    return sum(text_tokens(text.encode("utf-8", "surrogatepass")) for text in _texts(item))


def _texts(item: dict[str, Any]) -> Iterator[str]:
    unvisited: list[Any] = [item]
    while unvisited:
        value = unvisited.pop()
        if isinstance(value, str):
            if value:
                yield value
        elif isinstance(value, list):
            unvisited.extend(value)
        elif isinstance(value, dict):
            unvisited.extend(child for name, child in value.items() if name not in _NOT_WRITTEN)
