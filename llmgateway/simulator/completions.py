"""What the model says, and how many tokens that takes.

The answer is predictable: :func:`answer_to` a conversation, unless the script has another text; JSON where the request
wants JSON (:func:`~llmgateway.simulator.samples.sample` of its schema); the arguments of a function where one is
called. Answers after the first of ``n`` carry their number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal

from . import tokens, usages
from .chat import Chat
from .deployments import Deployment
from .operations import prompt_usage
from .production import Work
from .samples import sample_json
from .scripts import Script
from .tools import Tool, Turn, json_answer, offered, turn_of, with_name

_REASONING = 64
"""Number of reasoning tokens of a reasoning model; Azure counts them in steps of 64."""
_ECHOED = 40
"""Maximum number of tokens of the prompt that an answer repeats."""


Carrier = Literal["content", "refusal", "function_call", "custom", "function"]
"""What carries the pieces: the text, or the arguments of a call (the last three)."""


@dataclass(frozen=True, slots=True)
class Called:
    """Another call of a function in the same answer."""

    name: str
    pieces: Sequence[str]
    start: int
    """Number of tokens that come before the pieces."""

    @property
    def end(self) -> int:
        return self.start + len(self.pieces)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers of a completion."""

    index: int
    pieces: Sequence[str]
    finish_reason: str
    carrier: Carrier = "content"
    name: str = ""
    """Of the function that is called with the pieces as arguments."""
    thoughts: Sequence[str] = ()
    """Reasoning that the client sees."""
    start: int = 0
    """Number of tokens that come before the pieces: the reasoning, seen or not, and the name."""
    more: Sequence[Called] = ()
    """The functions that are called beside the first one."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def end(self) -> int:
        """Number of tokens up to the end of the answer."""
        return self.more[-1].end if self.more else self.start + len(self.pieces)


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
    work: Work

    @property
    def model(self) -> str:
        """The model that answers."""
        return self.script.model or self.deployment.model_version


def answer_to(messages: Iterable[Mapping[str, Any]]) -> str:
    """Return the text of an answer: ``You said: `` and the first 40 tokens of the user's last message."""
    return answer_after(turn_of(messages))


def answer_after(turn: Turn) -> str:
    """Return what :func:`answer_to` does; ``The tool says: `` and its results, if tools were called for the message."""
    if turn.results:
        return "The tool says: " + "".join(tokens.pieces(", ".join(turn.results))[:_ECHOED])
    if turn.said is None:
        return "You said nothing."
    return "You said: " + "".join(tokens.pieces(turn.said)[:_ECHOED])


def complete(chat: Chat, *, deployment: Deployment, script: Script, request_id: str, created: int) -> Completion:
    """Create the answers of a completion, and count their tokens."""
    most = min((bound for bound in (chat.max_tokens, deployment.max_output_tokens) if bound is not None), default=None)
    reasoning = script.reasoning_tokens
    if reasoning is None:
        reasoning = _REASONING if deployment.reasons else 0
    if most is not None:
        reasoning = min(reasoning, most)
    choices = [_choice(index, chat, script, reasoning=reasoning, most=most) for index in range(chat.answers)]
    return Completion(
        id=request_id,
        created=created,
        deployment=deployment,
        chat=chat,
        script=script,
        choices=choices,
        work=Work(
            prompt=prompt_usage(chat.prompt_tokens, script),
            reasoning=reasoning,
            written=tuple(choice.end - reasoning for choice in choices),
            audio=script.audio_completion_tokens,
            rate=script.tokens_per_second,
            scripted=usages.read(script.usage) if isinstance(script.usage, Mapping) else None,
        ),
    )


def _choice(index: int, chat: Chat, script: Script, *, reasoning: int, most: int | None) -> Choice:
    carrier, calls = _carried(chat, script)
    first = calls[0] if calls else None
    pieces = tokens.pieces(_said(index, chat, script, carrier, first))
    if script.tokens is not None:
        pieces = repeated(pieces, script.tokens)
    if script.oversized_line is not None and first is None:
        pieces = ["x" * script.oversized_line, *pieces]
    finish = _finish(carrier, chat, script)
    name = "" if first is None else first.name
    start = reasoning + tokens.count(name)
    more = _further(calls[1:], chat, start + len(pieces))
    end = more[-1].end if more else start + len(pieces)
    if most is not None and end > most:
        start = min(start, most)
        pieces, more, finish = pieces[: most - start], [], "length"
    if script.filter in ("completion", "late_block"):
        finish = "content_filter"
    thoughts = repeated(["Hm"], reasoning) if script.visible_reasoning else ()
    return Choice(index, pieces, finish, carrier, name, thoughts, start, more)


def _finish(carrier: Carrier, chat: Chat, script: Script) -> str:
    if carrier == "function_call":
        return "function_call"
    scripted = script.tool_call or script.tool_calls
    # A function that was demanded by name ends with "stop" (OpenAI's guide to function calling).
    return "stop" if carrier in ("content", "refusal") or (chat.tool_named and not scripted) else "tool_calls"


def _further(tools: Sequence[Tool], chat: Chat, start: int) -> list[Called]:
    further = []
    for tool in tools:
        start += tokens.count(tool.name)
        call = Called(tool.name, tokens.pieces(tool.arguments(chat.turn.said)), start)
        further.append(call)
        start = call.end
    return further


def _carried(chat: Chat, script: Script) -> tuple[Carrier, list[Tool]]:
    """Return what carries the answer, and the functions that are called."""
    names = script.tool_calls or ((script.tool_call,) if script.tool_call else ())
    calls = [with_name(offered(chat.tools), name) for name in names] or list(chat.calls)
    if script.answer_in in ("function_call", "custom"):
        return script.answer_in, calls[:1] or [Tool("answer")]
    if script.answer_in == "content" and calls:
        return "custom" if calls[0].custom else "function", calls
    return script.answer_in, []


def _said(index: int, chat: Chat, script: Script, carrier: Carrier, tool: Tool | None) -> str:
    scripted = script.answer is not None or script.tokens is not None
    if tool is not None and carrier in ("function", "function_call") and not scripted:
        return tool.arguments(chat.turn.said)
    return _text(index, chat, script)


def _text(index: int, chat: Chat, script: Script) -> str:
    text = answer_to(chat.messages) if script.answer is None else script.answer
    if index:
        text += f" ({index + 1})"
    if script.answer is not None:
        return text
    prompt = [tokens.text_of(message) for message in chat.messages]
    match chat.response_format.get("type"):
        case "json_schema":
            wanted = chat.response_format.get("json_schema")
            return sample_json(wanted.get("schema") if isinstance(wanted, dict) else None, chat.turn.said)
        case "json_object":
            return json_answer(chat.turn.said, text, prompt)
    if any("```json" in part for part in prompt):
        return f"```json\n{json_answer(chat.turn.said, text, prompt)}\n```"
    return text


def repeated(pieces: list[str], wanted: int) -> list[str]:
    """Return as many pieces as *wanted*; there are more of them if they are repeated."""
    pieces = pieces or ["word"]
    if wanted <= len(pieces):
        return pieces[:wanted]
    again = [" " + pieces[0].lstrip(), *pieces[1:]]
    return [*pieces, *islice(cycle(again), wanted - len(pieces))]
