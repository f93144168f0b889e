"""The completions that were before chat: ``POST …/completions``, which a few models and many old programs still use.

Form of the answer: Azure's reference of 2024-10-21 (Microsoft, ``completions-create``); streams as chat has them, with
``text`` in the place of ``delta``. There is no recording from Azure.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import orjson

from . import tokens, usages
from .chat import FILTERED_PHRASE, MOST_ANSWERS
from .completions import repeated
from .faults import CONTENT_FILTER, STREAM_ERROR, invalid, unknown_parameter
from .operations import Asked, Made, Operation, Refused, integer, missing, parse_json, prompt_usage, with_usage
from .production import Work
from .writing import Event

_USUAL_TOKENS = 16
"""Of an answer, if the request does not say (Azure's reference of 2024-10-21)."""
_ECHOED = 40
_SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
_KNOWN_PARAMETERS = frozenset(
    [
        "best_of",
        "echo",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_tokens",
        "model",
        "n",
        "presence_penalty",
        "prompt",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "suffix",
        "temperature",
        "top_p",
        "user",
    ]
)

Prompt = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class _Choice:
    index: int
    echo: str
    """The prompt, if the answer repeats it."""
    pieces: Sequence[str]
    finish_reason: str


def _prompts(document: Mapping[str, Any]) -> list[Prompt]:
    """Return the prompts of a request: texts or arrays of tokens. The body has not been checked."""
    given = document.get("prompt")
    prompts = [given] if isinstance(given, str) or _is_tokens(given) else given
    return [one for one in prompts if isinstance(one, str) or _is_tokens(one)] if isinstance(prompts, list) else []


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _size(prompt: Prompt) -> int:
    return tokens.count(prompt) if isinstance(prompt, str) else len(prompt)


def _checked(document: Mapping[str, Any], *, strict: bool) -> list[Prompt]:
    if strict:
        for name in document.keys() - _KNOWN_PARAMETERS:
            raise Refused(unknown_parameter(name))
    if "prompt" not in document:
        raise missing("prompt")
    prompts = _prompts(document)
    given = document["prompt"]
    if not prompts or (isinstance(given, list) and not _is_tokens(given) and len(given) != len(prompts)):
        raise Refused(
            invalid(
                "Invalid type for 'prompt': expected a string, or an array of strings or tokens.",
                param="prompt",
                code="invalid_type",
            )
        )
    if any(isinstance(prompt, str) and FILTERED_PHRASE in prompt for prompt in prompts):
        raise Refused(CONTENT_FILTER)
    return prompts


def _answer(asked: Asked) -> Made:
    document, script = asked.document, asked.script
    prompts = _checked(document, strict=asked.strict)
    answers = integer(document, "n", most=MOST_ANSWERS) or 1
    best_of = integer(document, "best_of", most=MOST_ANSWERS) or answers
    if best_of < answers:
        raise Refused(invalid("Invalid value for 'best_of': must be at least 'n'.", param="best_of"))
    most = integer(document, "max_tokens") or _USUAL_TOKENS
    choices = [_choice(index, prompts[index // answers], asked, most) for index in range(len(prompts) * answers)]
    # Azure bills the candidates that best_of throws away, too.
    written = [len(choice.pieces) for choice in choices for _ in range(best_of if answers == 1 else 1)]
    work = Work(
        prompt=prompt_usage(sum(map(_size, prompts)), script),
        written=tuple(written),
        rate=script.tokens_per_second,
        scripted=usages.read(script.usage) if isinstance(script.usage, Mapping) else None,
    )
    stream = document.get("stream") is True
    common = {
        "id": "cmpl-" + secrets.token_hex(15)[:29],
        "object": "text_completion",
        "created": asked.created,
        "model": script.model or asked.deployment.model_version,
    }
    if not stream:
        return Made(parts=[_whole(choices, common, len(prompts), work, asked)], work=work, positions=[work.length])
    events = [*_events(choices, common, work, asked)]
    return Made(
        parts=[event.data for event in events],
        content_type="text/event-stream; charset=utf-8",
        stream=True,
        work=work if script.error_event_after is None else replace(work, until=events[-1].position),
        positions=[event.position for event in events],
        units={"stream": True},
    )


def _choice(index: int, prompt: Prompt, asked: Asked, most: int) -> _Choice:
    script = asked.script
    text = prompt if isinstance(prompt, str) else f"{len(prompt)} tokens"
    said = "You said: " + "".join(tokens.pieces(text)[:_ECHOED]) if script.answer is None else script.answer
    pieces = tokens.pieces(said)
    if script.tokens is not None:
        pieces = repeated(pieces, script.tokens)
    finish = "length" if len(pieces) > most else "stop"
    if script.filter in ("completion", "late_block"):
        finish = "content_filter"
    return _Choice(index, text if asked.document.get("echo") is True else "", pieces[:most], finish)


def _shown(choice: _Choice, text: str, finish: str | None) -> dict[str, Any]:
    return {
        "content_filter_results": _SAFE,
        "finish_reason": finish,
        "index": choice.index,
        "logprobs": None,
        "text": text,
    }


def _whole(choices: Sequence[_Choice], common: Mapping[str, Any], prompts: int, work: Work, asked: Asked) -> bytes:
    shown = [_shown(choice, choice.echo + "".join(choice.pieces), choice.finish_reason) for choice in choices]
    filters = [{"prompt_index": index, "content_filter_results": _SAFE} for index in range(prompts)]
    counted = usages.usage_object(work.whole)
    return orjson.dumps(
        {"choices": shown, **common, "prompt_filter_results": filters, **with_usage(counted, asked.script)}
    )


def _events(choices: Sequence[_Choice], common: Mapping[str, Any], work: Work, asked: Asked) -> Iterator[Event]:
    """Return the events of a stream, those of several answers by turns."""
    options = asked.document.get("stream_options")
    counts = isinstance(options, dict) and options.get("include_usage") is True
    before = {"usage": None} if counts else {}
    events = [event for turn in zip_longest(*(_pieces(choice, asked) for choice in choices)) for event in turn if event]
    after = asked.script.error_event_after
    for shown, position in events[:after]:
        yield _event({"choices": [shown], **common, **before}, position)
    if after is not None:
        yield Event(STREAM_ERROR, events[after - 1][1] if 0 < after <= len(events) else 0)
        return
    if counts:
        counted = usages.usage_object(work.whole)
        yield _event({"choices": [], **common, **with_usage(counted, asked.script)}, work.length)
    yield Event(b"data: [DONE]\n\n", work.length)


def _pieces(choice: _Choice, asked: Asked) -> Iterator[tuple[dict[str, Any], int]]:
    if choice.echo:
        yield _shown(choice, choice.echo, None), 0
    size = asked.script.tokens_per_event
    for rank in range(0, len(choice.pieces), size):
        group = choice.pieces[rank : rank + size]
        yield _shown(choice, "".join(group), None), rank + len(group)
    yield _shown(choice, "", choice.finish_reason), len(choice.pieces)


def _event(document: Mapping[str, Any], position: int) -> Event:
    return Event(b"data: " + orjson.dumps(document) + b"\n\n", position)


COMPLETIONS = Operation(
    path="completions",
    name="Completions_Create",
    verb="completion",
    ability="chat",
    parse=parse_json,
    characters=lambda document: sum(4 * len(p) if not isinstance(p, str) else len(p) for p in _prompts(document)),
    prompt_tokens=lambda document: sum(map(_size, _prompts(document))),
    answer=_answer,
    limits_output=True,
)
