"""Writes completions as Azure does: as one object or as a stream of events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, NamedTuple

import orjson

from . import usages
from .completions import Choice, Completion
from .faults import STREAM_ERROR
from .filters import HATEFUL, OUTAGE, PROMPT_RESULTS, SAFE, SAFE_WHOLE

_PROMPT_EVENT = b'data: {"choices":[],"created":0,"id":"","model":"","object":"","%b":' + PROMPT_RESULTS + b"}\n\n"
_DONE = b"data: [DONE]\n\n"

NOISE = [b"Ji7xTq0bRk2mWz9a"[:length] for length in (6, 4, 8, 3, 11, 2, 9, 5, 12, 1, 7, 10)]
"""Filling that hides a token's length from whoever watches encrypted traffic; here without chance."""


class Event(NamedTuple):
    """One event of a stream."""

    data: bytes
    """With the empty line at its end."""
    position: int
    """Where the model has to have come before the event can be sent."""


def write_whole(completion: Completion) -> bytes:
    """Return the body of an answer that is not streamed. It ends with a newline, like Azure's."""
    script = completion.script
    unfiltered = script.filter == "absent"
    return b"".join(
        (
            b'{"choices":[',
            b",".join(_whole_choice(choice, script.filter) for choice in completion.choices),
            b'],"created":%d,"id":"%b","model":' % (completion.created, completion.id.encode()),
            orjson.dumps(completion.model),
            b',"object":"chat.completion"',
            b"" if unfiltered else b',"prompt_filter_results":' + PROMPT_RESULTS,
            _tier(completion),
            b',"system_fingerprint":',
            orjson.dumps(completion.deployment.fingerprint),
            usages.written(completion.work.whole, script.usage),
            b"}\n",
        )
    )


def _tier(completion: Completion) -> bytes:
    tier = completion.script.service_tier
    return b"" if tier is None else b',"service_tier":' + orjson.dumps(tier)


def _whole_choice(choice: Choice, mode: str | None) -> bytes:
    filtered = choice.finish_reason == "content_filter"
    if mode == "outage":
        results = OUTAGE + b","
    elif mode == "absent":
        results = b""
    else:
        results = b'"content_filter_results":%b,' % (HATEFUL if filtered else b"{}" if choice.name else SAFE_WHOLE)
    head = b'{%b"finish_reason":"%b","index":%d,"logprobs":null' % (
        results,
        choice.finish_reason.encode(),
        choice.index,
    )
    # What was filtered has no message at all (recorded 2024).
    return head + (b"}" if filtered else b',"message":' + orjson.dumps(_message(choice)) + b"}")


def _message(choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"annotations": [], "content": None, "refusal": None, "role": "assistant"}
    if choice.thoughts:
        message["reasoning_content"] = "".join(choice.thoughts)
    match choice.carrier:
        case "content" | "refusal":
            message[choice.carrier] = choice.text
        case "function_call":
            message["function_call"] = {"arguments": choice.text, "name": choice.name}
        case "custom":
            message["tool_calls"] = [{**_custom(choice.text, choice.name), "id": _call_id(choice)}]
        case "function":
            first = {**_function(choice.text, choice.name), "id": _call_id(choice)}
            others = [
                {**_function("".join(call.pieces), call.name), "id": _call_id(choice, rank)}
                for rank, call in enumerate(choice.more, 1)
            ]
            message["tool_calls"] = [first, *others]
    return message


def _function(arguments: str, name: str) -> dict[str, Any]:
    return {"function": {"arguments": arguments, "name": name}, "type": "function"}


def _custom(text: str, name: str) -> dict[str, Any]:
    """Return a call of a custom tool (OpenAI's API reference, 2026; there is no recording from Azure)."""
    return {"custom": {"input": text, "name": name}, "type": "custom"}


def _call_id(choice: Choice, rank: int = 0) -> str:
    return f"call_{choice.index:012d}{rank:012d}"


def write_events(completion: Completion) -> list[Event]:
    """Return the events of a stream, in Azure's order."""
    script = completion.script
    events = [*_Pen(completion).events()]
    if script.filter != "absent":
        name = b"prompt_annotations" if script.prompt_annotations else b"prompt_filter_results"
        events.insert(0, Event(_PROMPT_EVENT % name, 0))
    events.append(Event(_DONE, completion.work.length))
    if script.error_event_after is not None:
        events = events[: script.error_event_after]
        # The events of several choices come by turns: so far has each of them come.
        turn = events[-len(completion.choices) :]
        events.append(Event(STREAM_ERROR, min((event.position for event in turn), default=0)))
    return events


class _Pen:
    """Writes the events of one completion; what they have in common is written once."""

    def __init__(self, completion: Completion) -> None:
        script = completion.script
        self._completion = completion
        self._script = script
        self._asynchronous = script.filter in ("asynchronous", "late_block")
        self._unmarked = self._asynchronous or script.filter == "absent"
        asked = completion.chat.include_usage and script.usage != "missing"
        self._in_last = asked and script.usage_in != "finish"
        zeros = usages.written(completion.work.whole, "zeros")
        places = {"last": b',"usage":null' if asked else b"", "placeholder": zeros}
        self._usage_before = places.get(script.usage_in, b"")
        self._tails = [self._tail(noise) for noise in NOISE]
        self._written = 0

    def events(self) -> Iterator[Event]:
        completion = self._completion
        length = completion.work.length
        for choice in completion.choices:
            yield Event(self._first(choice), choice.start - len(choice.thoughts))
        yield from self._contents()
        for choice in completion.choices:
            yield from (Event(event, length) for event in self._last(choice))
        if self._in_last:
            usage = usages.written(completion.work.whole, self._script.usage)
            yield Event(b'data: {"choices":[]' + self._tail(b"", usage=usage), length)

    def _contents(self) -> Iterator[Event]:
        """The tokens of all answers, those of several by turns."""
        writers = [self._tokens(choice) for choice in self._completion.choices]
        if len(writers) == 1:
            yield from writers[0]
            return
        for turn in zip_longest(*writers):
            yield from (event for event in turn if event is not None)

    def _tokens(self, choice: Choice) -> Iterator[Event]:
        for text, position in self._grouped(choice.thoughts, choice.start - len(choice.thoughts)):
            yield self._delta(choice, {"content": None, "reasoning_content": text}, position)
        if choice.carrier in ("content", "refusal"):
            yield from self._text_events(choice)
            return
        for text, position in self._grouped(choice.pieces, choice.start):
            yield self._delta(choice, _fragment(choice, text), position)
        for rank, call in enumerate(choice.more, 1):
            begun = {**_function("", call.name), "id": _call_id(choice, rank), "index": rank}
            yield self._delta(choice, {"tool_calls": [begun]}, call.start)
            for text, position in self._grouped(call.pieces, call.start):
                fragment = {"tool_calls": [{"function": {"arguments": text}, "index": rank}]}
                yield self._delta(choice, fragment, position)

    def _grouped(self, pieces: Iterable[str], start: int) -> Iterator[tuple[str, int]]:
        """Return the text of each event, and the position behind it."""
        size = self._script.tokens_per_event
        texts = list(pieces)
        for rank in range(0, len(texts), size):
            group = texts[rank : rank + size]
            yield "".join(group), start + rank + len(group)

    def _delta(self, choice: Choice, delta: dict[str, Any], position: int) -> Event:
        event = self._event(choice, b'"content_filter_results":{},', orjson.dumps(delta), position)
        return Event(event, position)

    def _first(self, choice: Choice) -> bytes:
        delta: dict[str, Any] = {"content": "", "refusal": None, "role": "assistant"}
        match choice.carrier:
            case "function_call":
                delta |= {"content": None, "function_call": {"arguments": "", "name": choice.name}}
            case "custom":
                call = {**_custom("", choice.name), "id": _call_id(choice), "index": 0}
                delta |= {"content": None, "tool_calls": [call]}
            case "function":
                call = {
                    "function": {"arguments": "", "name": choice.name},
                    "id": _call_id(choice),
                    "index": 0,
                    "type": "function",
                }
                delta |= {"content": None, "tool_calls": [call]}
        position = choice.start - len(choice.thoughts)
        return self._event(choice, b'"content_filter_results":{},', orjson.dumps(delta), position)

    def _text_events(self, choice: Choice) -> Iterator[Event]:
        head = b'data: {"choices":[{%b"delta":{"%b":' % (self._results(), choice.carrier.encode())
        foot = b'},"finish_reason":null,"index":%d,"logprobs":null}]' % choice.index
        pieces, start = choice.pieces, choice.start
        oversized = self._script.oversized_line
        if oversized is not None and pieces:
            tail = self._next_tail(start + 1)
            room = oversized - len(head) - len(foot) - len(tail.rstrip()) - len(b'""')
            yield Event(head + orjson.dumps(pieces[0][: max(0, room)]) + foot + tail, start + 1)
            pieces, start = pieces[1:], start + 1
        half = start + len(pieces) // 2
        annotated = not self._asynchronous
        sent = 0
        for text, position in self._grouped(pieces, start):
            if not annotated and position > half:
                annotated = True
                yield Event(self._annotation(choice, 0, sent, half), half)
            sent += len(text)
            yield Event(head + orjson.dumps(text) + foot + self._next_tail(position), position)

    def _last(self, choice: Choice) -> Iterator[bytes]:
        length = self._completion.work.length
        half, end = len(choice.text) // 2, len(choice.text)
        if self._script.filter == "late_block":
            yield self._annotation(choice, half, end, length, blocked=True)
            return
        filtered = choice.finish_reason == "content_filter"
        results = b'"content_filter_results":' + (HATEFUL if filtered else b"{}") + b","
        yield self._event(choice, results, b"{}", length, finish=b'"%b"' % choice.finish_reason.encode())
        if self._asynchronous:
            yield self._annotation(choice, half, end, length)

    def _results(self) -> bytes:
        if self._unmarked:
            return b""
        if self._script.filter == "outage":
            return OUTAGE + b","
        return b'"content_filter_results":' + SAFE + b","

    def _event(self, choice: Choice, results: bytes, delta: bytes, position: int, *, finish: bytes = b"null") -> bytes:
        usage = self._usage_at_finish(choice) if finish != b"null" else None
        tail = self._next_tail(position) if usage is None else self._tail(b"", usage=usage)
        return b'data: {"choices":[{%b"delta":%b,"finish_reason":%b,"index":%d,"logprobs":null}]%b' % (
            b"" if self._unmarked else results,
            delta,
            finish,
            choice.index,
            tail,
        )

    def _annotation(self, choice: Choice, start: int, end: int, position: int, *, blocked: bool = False) -> bytes:
        """What the asynchronous filter has found in the characters from *start* to *end*, after they were sent."""
        results = b'{"protected_material_text":{"detected":true,"filtered":true}}' if blocked else SAFE
        return (
            b'data: {"id":"","object":"","created":0,"model":"","choices":[{"index":%d,"finish_reason":%b,'
            b'"content_filter_results":%b,"content_filter_offsets":{"check_offset":%d,"start_offset":%d,'
            b'"end_offset":%d}}]%b}\n\n'
        ) % (
            choice.index,
            b'"content_filter"' if blocked else b"null",
            results,
            start,
            start,
            end,
            (self._usage_at_finish(choice) if blocked else None) or self._usage_at(position),
        )

    def _usage_at_finish(self, choice: Choice) -> bytes | None:
        """Return the count that comes with the end of the last choice; None if it comes elsewhere."""
        if self._script.usage_in != "finish" or choice is not self._completion.choices[-1]:
            return None
        return usages.written(self._completion.work.whole, self._script.usage)

    def _usage_at(self, position: int) -> bytes:
        if self._script.usage_in == "every":
            return usages.written(self._completion.work.at(position), self._script.usage)
        return self._usage_before

    def _next_tail(self, position: int) -> bytes:
        self._written += 1
        rank = self._written % len(NOISE)
        if self._script.usage_in == "every":
            return self._tail(NOISE[rank], usage=self._usage_at(position))
        return self._tails[rank]

    def _tail(self, noise: bytes, *, usage: bytes | None = None) -> bytes:
        completion = self._completion
        obfuscation = b'"obfuscation":"%b",' % noise if completion.chat.obfuscate else b""
        return (
            b',"created":%d,"id":"%b","model":%b,%b"object":"chat.completion.chunk"%b,"system_fingerprint":%b%b}\n\n'
            % (
                completion.created,
                completion.id.encode(),
                orjson.dumps(completion.model),
                obfuscation,
                _tier(completion),
                orjson.dumps(completion.deployment.fingerprint),
                self._usage_before if usage is None else usage,
            )
        )


def _fragment(choice: Choice, text: str) -> dict[str, Any]:
    """Return the delta of a part of a call's arguments."""
    if choice.carrier == "function_call":
        return {"function_call": {"arguments": text}}
    if choice.carrier == "custom":
        return {"tool_calls": [{"custom": {"input": text}, "index": 0}]}
    return {"tool_calls": [{"function": {"arguments": text}, "index": 0}]}
