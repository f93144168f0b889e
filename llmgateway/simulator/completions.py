"""What the model says, and how Azure writes it down: as one object or as a stream of events.

The answer is predictable: :func:`answer_to` a conversation, unless the script has another
text; JSON where the request wants JSON (:func:`~llmgateway.simulator.samples.sample` of its
schema); the arguments of a function where one is called. Answers after the first of ``n``
carry their number. One token is one event.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, zip_longest
from typing import Any

import orjson

from ..records import Usage
from . import tokens
from .chat import Chat
from .deployments import Deployment
from .samples import sample
from .scripts import Script

_SAFE = (
    b'{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},'
    b'"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}'
)
_HATEFUL = _SAFE.replace(b'"filtered":false,"severity":"safe"', b'"filtered":true,"severity":"high"', 1)
_SAFE_WHOLE = (
    b'{"hate":{"filtered":false,"severity":"safe"},"protected_material_code":{"detected":false,"filtered":false},'
    b'"protected_material_text":{"detected":false,"filtered":false},"self_harm":{"filtered":false,"severity":"safe"},'
    b'"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}'
)
"""In answers that are not streamed, Azure also checks for protected material (recorded 2026-03-31)."""
_PROMPT_RESULTS = (
    b'[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"},"jailbreak":'
    b'{"detected":false,"filtered":false},"self_harm":{"filtered":false,"severity":"safe"},"sexual":'
    b'{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}}]'
)
_PROMPT_EVENT = b'data: {"choices":[],"created":0,"id":"","model":"","object":"","%b":' + _PROMPT_RESULTS + b"}\n\n"
_OUTAGE = (
    b'"content_filter_result":{"error":{"code":"content_filter_error","message":"The contents are not filtered"}},'
    b'"content_filter_results":{}'
)
_STREAM_ERROR = (
    b'data: {"error":{"message":"The server had an error while processing your request. Sorry about that!",'
    b'"type":"server_error","param":null,"code":null}}\n\n'
)
"""The form of OpenAI; there is no recording from Azure."""
_DONE = b"data: [DONE]\n\n"

_NOISE = [b"Ji7xTq0bRk2mWz9a"[:length] for length in (6, 4, 8, 3, 11, 2, 9, 5, 12, 1, 7, 10)]
"""Filling that hides a token's length from whoever watches encrypted traffic; here without chance."""

_THOUGHT = 64
"""Number of reasoning tokens of a reasoning model; Azure counts them in steps of 64."""
_ECHOED = 40
"""Maximum number of tokens of the prompt that an answer repeats."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers of a completion."""

    index: int
    pieces: Sequence[str]
    finish_reason: str
    tool: str | None = None
    """Name of the function that is called with the pieces as arguments."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """All data that is needed to write a completion."""

    id: str
    created: int
    """Seconds since the epoch."""
    deployment: Deployment
    chat: Chat
    script: Script
    choices: Sequence[Choice]
    usage: Usage


def answer_to(messages: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of an answer: ``You said: `` and the first 40 tokens of the user's last message."""
    said = [tokens.text_of(message) for message in messages if message.get("role") == "user"]
    if not said:
        return "You said nothing."
    return "You said: " + "".join(tokens.pieces(said[-1])[:_ECHOED])


def complete(chat: Chat, *, deployment: Deployment, script: Script, request_id: str, created: int) -> Completion:
    """Create the answers of a completion, and count their tokens."""
    thought = script.reasoning_tokens
    if thought is None:
        thought = _THOUGHT if deployment.reasons else 0
    if chat.max_tokens is not None:
        thought = min(thought, chat.max_tokens)
    choices = [_choice(index, chat, script, thought=thought) for index in range(chat.answers)]
    prompt = chat.prompt_tokens
    said = sum(len(choice.pieces) + tokens.count(choice.tool or "") for choice in choices) + thought * len(choices)
    usage = Usage(
        prompt_tokens=prompt,
        completion_tokens=said,
        total_tokens=prompt + said,
        cached_tokens=script.cached_tokens,
        reasoning_tokens=thought * len(choices),
    )
    return Completion(
        id=request_id,
        created=created,
        deployment=deployment,
        chat=chat,
        script=script,
        choices=choices,
        usage=usage,
    )


def _choice(index: int, chat: Chat, script: Script, *, thought: int) -> Choice:
    tool = script.tool_call or chat.tool
    if tool is not None:
        pieces = tokens.pieces(orjson.dumps(_arguments(tool, chat.tools)).decode())
        # A function that was demanded by name ends with "stop" (OpenAI's guide to function calling).
        finish = "stop" if chat.tool_named and not script.tool_call else "tool_calls"
    else:
        pieces = tokens.pieces(_text(index, chat, script))
        if script.tokens is not None:
            pieces = _repeated(pieces, script.tokens)
        if script.oversized_line is not None:
            pieces = ["x" * script.oversized_line, *pieces]
        finish = "stop"
    if chat.max_tokens is not None and len(pieces) > chat.max_tokens - thought:
        pieces, finish = pieces[: chat.max_tokens - thought], "length"
    if script.filter in ("completion", "late_block"):
        finish = "content_filter"
    return Choice(index, pieces, finish, tool)


def _arguments(tool: str, tools: Sequence[Any]) -> Any:
    for entry in tools:
        function = entry.get("function", {}) if isinstance(entry, dict) else {}
        if function.get("name") == tool:
            return sample(function.get("parameters"))
    return {}


def _text(index: int, chat: Chat, script: Script) -> str:
    text = answer_to(chat.messages) if script.answer is None else script.answer
    if index:
        text += f" ({index + 1})"
    kind = chat.response_format.get("type")
    if script.answer is not None or kind not in ("json_object", "json_schema"):
        return text
    if kind == "json_schema":
        return orjson.dumps(sample(chat.response_format.get("json_schema", {}).get("schema"))).decode()
    return orjson.dumps({"answer": text}).decode()


def _repeated(pieces: list[str], wanted: int) -> list[str]:
    pieces = pieces or ["word"]
    if wanted <= len(pieces):
        return pieces[:wanted]
    again = [" " + pieces[0].lstrip(), *pieces[1:]]
    return [*pieces, *islice(cycle(again), wanted - len(pieces))]


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return the ``usage`` object in Azure's form since 2025."""
    return {
        "completion_tokens": usage.completion_tokens,
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "audio_tokens": 0,
            "reasoning_tokens": usage.reasoning_tokens,
            "rejected_prediction_tokens": 0,
        },
        "prompt_tokens": usage.prompt_tokens,
        "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": usage.cached_tokens},
        "total_tokens": usage.total_tokens,
    }


def write_whole(completion: Completion) -> bytes:
    """Return the body of an answer that is not streamed. It ends with a newline, like Azure's."""
    deployment = completion.deployment
    return b"".join(
        (
            b'{"choices":[',
            b",".join(_whole_choice(choice, completion.script) for choice in completion.choices),
            b'],"created":%d,"id":"%b","model":' % (completion.created, completion.id.encode()),
            orjson.dumps(deployment.model_version),
            b',"object":"chat.completion","prompt_filter_results":',
            _PROMPT_RESULTS,
            b',"system_fingerprint":',
            orjson.dumps(deployment.fingerprint),
            b',"usage":',
            orjson.dumps(usage_object(completion.usage)),
            b"}\n",
        )
    )


def _whole_choice(choice: Choice, script: Script) -> bytes:
    filtered = choice.finish_reason == "content_filter"
    if script.filter == "outage":
        results = _OUTAGE
    else:
        results = b'"content_filter_results":' + (_HATEFUL if filtered else b"{}" if choice.tool else _SAFE_WHOLE)
    head = b'{%b,"finish_reason":"%b","index":%d,"logprobs":null' % (
        results,
        choice.finish_reason.encode(),
        choice.index,
    )
    # What was filtered has no message at all (recorded 2024).
    return head + (b"}" if filtered else b',"message":' + orjson.dumps(_message(choice)) + b"}")


def _message(choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {
        "annotations": [],
        "content": None if choice.tool else choice.text,
        "refusal": None,
        "role": "assistant",
    }
    if choice.tool:
        function = {"arguments": choice.text, "name": choice.tool}
        message["tool_calls"] = [{"function": function, "id": _call_id(choice), "type": "function"}]
    return message


def _call_id(choice: Choice) -> str:
    return f"call_{choice.index:024d}"


def write_events(completion: Completion) -> list[bytes]:
    """Return the events of a stream, in Azure's order. Each one ends with an empty line."""
    script = completion.script
    first = b"prompt_annotations" if script.prompt_annotations else b"prompt_filter_results"
    events = [_PROMPT_EVENT % first, *_Pen(completion).events(), _DONE]
    if script.error_event_after is not None:
        events = [*events[: script.error_event_after], _STREAM_ERROR]
    return events


class _Pen:
    """Writes the events of one completion; what they have in common is written once."""

    def __init__(self, completion: Completion) -> None:
        self._completion = completion
        self._asynchronous = completion.script.filter in ("asynchronous", "late_block")
        self._usage_null = b',"usage":null' if completion.chat.include_usage else b""
        self._tails = [self._tail(noise) for noise in _NOISE]
        self._written = 0

    def events(self) -> Iterator[bytes]:
        completion = self._completion
        for choice in completion.choices:
            yield self._first(choice)
        yield from self._contents()
        for choice in completion.choices:
            yield from self._last(choice)
        if completion.chat.include_usage:
            usage = b',"usage":' + orjson.dumps(usage_object(completion.usage))
            yield b'data: {"choices":[]' + self._tail(b"", usage=usage)

    def _contents(self) -> Iterator[bytes]:
        """One event for each token, those of several answers by turns."""
        writers = [self._argument_events(c) if c.tool else self._text_events(c) for c in self._completion.choices]
        if len(writers) == 1:
            yield from writers[0]
            return
        for turn in zip_longest(*writers):
            yield from (event for event in turn if event is not None)

    def _first(self, choice: Choice) -> bytes:
        delta: dict[str, Any] = {"content": "", "refusal": None, "role": "assistant"}
        if choice.tool:
            call = {
                "function": {"arguments": "", "name": choice.tool},
                "id": _call_id(choice),
                "index": 0,
                "type": "function",
            }
            delta |= {"content": None, "tool_calls": [call]}
        return self._event(choice, b'"content_filter_results":{},', orjson.dumps(delta))

    def _text_events(self, choice: Choice) -> Iterator[bytes]:
        head = b'data: {"choices":[{' + self._results() + b'"delta":{"content":'
        foot = b'},"finish_reason":null,"index":%d,"logprobs":null}]' % choice.index
        pieces = iter(choice.pieces)
        oversized = self._completion.script.oversized_line
        if oversized is not None:
            tail = self._next_tail()
            room = oversized - len(head) - len(foot) - len(tail.rstrip()) - len(b'""')
            yield head + orjson.dumps(next(pieces, "")[: max(0, room)]) + foot + tail
        half = len(choice.pieces) // 2
        for rank, piece in enumerate(pieces):
            if self._asynchronous and rank == half:
                yield self._annotation(choice, 0, len("".join(choice.pieces[:half])))
            yield head + orjson.dumps(piece) + foot + self._next_tail()

    def _argument_events(self, choice: Choice) -> Iterator[bytes]:
        for piece in choice.pieces:
            delta = {"tool_calls": [{"function": {"arguments": piece}, "index": 0}]}
            yield self._event(choice, b'"content_filter_results":{},', orjson.dumps(delta))

    def _last(self, choice: Choice) -> Iterator[bytes]:
        if self._completion.script.filter == "late_block":
            yield self._annotation(choice, len(choice.text) // 2, len(choice.text), blocked=True)
            return
        filtered = choice.finish_reason == "content_filter"
        results = b'"content_filter_results":' + (_HATEFUL if filtered else b"{}") + b","
        yield self._event(choice, results, b"{}", finish=b'"%b"' % choice.finish_reason.encode())
        if self._asynchronous:
            yield self._annotation(choice, len(choice.text) // 2, len(choice.text))

    def _results(self) -> bytes:
        if self._asynchronous:
            return b""
        if self._completion.script.filter == "outage":
            return _OUTAGE + b","
        return b'"content_filter_results":' + _SAFE + b","

    def _event(self, choice: Choice, results: bytes, delta: bytes, *, finish: bytes = b"null") -> bytes:
        return b'data: {"choices":[{%b"delta":%b,"finish_reason":%b,"index":%d,"logprobs":null}]%b' % (
            b"" if self._asynchronous else results,
            delta,
            finish,
            choice.index,
            self._next_tail(),
        )

    def _annotation(self, choice: Choice, start: int, end: int, *, blocked: bool = False) -> bytes:
        """What the asynchronous filter has found in the characters from *start* to *end*, after they were sent."""
        results = b'{"protected_material_text":{"detected":true,"filtered":true}}' if blocked else _SAFE
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
            self._usage_null,
        )

    def _next_tail(self) -> bytes:
        self._written += 1
        return self._tails[self._written % len(self._tails)]

    def _tail(self, noise: bytes, *, usage: bytes | None = None) -> bytes:
        completion = self._completion
        obfuscation = b'"obfuscation":"%b",' % noise if completion.chat.obfuscate else b""
        return (
            b',"created":%d,"id":"%b","model":%b,%b"object":"chat.completion.chunk","system_fingerprint":%b%b}\n\n'
            % (
                completion.created,
                completion.id.encode(),
                orjson.dumps(completion.deployment.model_version),
                obfuscation,
                orjson.dumps(completion.deployment.fingerprint),
                self._usage_null if usage is None else usage,
            )
        )
