"""What the model puts out for a response: reasoning, calls of tools and text, and how many tokens each takes.

Shapes of reasoning, messages, function calls, web searches and code: recorded from Azure (charmbracelet/fantasy
``TestAzureResponses…``, 2026-03 and 2026-06; vercel/ai ``packages/azure/src/__fixtures__``, 2025-10 to 2026-02). File
search: vercel/ai, recorded from OpenAI. MCP, image generation and custom tools: openai 3.57.0.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from . import tokens
from .completions import answer_after, repeated
from .deployments import Deployment
from .response_request import HOSTED, Wanted, scripted_calls
from .samples import sample_json
from .scripts import Script
from .tools import Tool, json_answer

REASONING_TOKENS = 64
"""Of a reasoning model; Azure counts them in steps of 64."""
FILTERED_TEXT = "I'm sorry, but I cannot assist with that request."
"""Stands for a text that the filter blocks."""

_AROUND_DELTA = 280
"""About so many bytes has the line of a delta beside its text."""

_PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8ff1f0003000200fe"
        "d2d8cf0000000049454e44ae426082"
    )
).decode()


class Ids:
    """Names things as Azure does: what belongs to one response begins alike."""

    def __init__(self, created: int) -> None:
        self._common = f"{secrets.token_hex(8)}00{created:08x}"

    def new(self, prefix: str) -> str:
        return f"{prefix}_{self._common}{secrets.token_hex(12)}"


@dataclass(frozen=True, slots=True)
class Output:
    """One item of the output."""

    item: Mapping[str, Any]
    """As it is at its end."""
    pieces: Sequence[str] = ()
    """Its text, arguments, input or code, of which each piece is a token."""
    start: int = 0
    """Number of tokens that come before its pieces."""

    @property
    def end(self) -> int:
        return self.start + len(self.pieces)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """The whole output."""

    items: Sequence[Output]
    reasoning: int
    """Number of reasoning tokens."""
    written: int
    """Number of the other tokens."""
    reason: str | None = None
    """Why it is incomplete."""


def put_out(wanted: Wanted, *, deployment: Deployment, script: Script, ids: Ids) -> Outputs:
    """Create the output of a response."""
    bounds = (wanted.most_tokens, deployment.max_output_tokens)
    most = min((bound for bound in bounds if bound is not None), default=None)
    reasoning = script.reasoning_tokens
    if reasoning is None:
        reasoning = REASONING_TOKENS if deployment.reasons else 0
    if most is not None:
        reasoning = min(reasoning, most)
    made: list[Output] = []
    if reasoning or deployment.reasons:
        made.append(_reasoning(wanted, script, reasoning, ids))
    position = reasoning
    for output in _written(wanted, script, ids):
        placed = replace(output, start=position)
        if most is not None and placed.end > most:
            placed = _cut(placed, most - position)
            if placed.pieces:
                made.append(placed)
            return Outputs(items=made, reasoning=reasoning, written=most - reasoning, reason="max_output_tokens")
        made.append(placed)
        position = placed.end
    blocked = script.filter in ("completion", "late_block")
    return Outputs(
        items=made, reasoning=reasoning, written=position - reasoning, reason="content_filter" if blocked else None
    )


def tools_used(items: Sequence[Output]) -> Iterator[tuple[int, str]]:
    """Return what Azure bills by use, and the position at which it is used.

    Web searches, but no opening of a page, each call of a search in files and of image generation, and each session of
    the code interpreter (Microsoft's page on prices, 2026).
    """
    containers = set[str]()
    for output in items:
        item = output.item
        match item["type"]:
            case "web_search_call" if item["action"]["type"] == "search":
                yield output.end, "web_search"
            case "file_search_call" | "image_generation_call" as kind:
                yield output.end, kind.removesuffix("_call")
            case "code_interpreter_call" if item["container_id"] not in containers:
                containers.add(item["container_id"])
                yield output.end, "code_interpreter"


def _reasoning(wanted: Wanted, script: Script, reasoning: int, ids: Ids) -> Output:
    item: dict[str, Any] = {"id": ids.new("rs"), "type": "reasoning", "summary": []}
    thoughts: Sequence[str] = ()
    if wanted.summary or script.visible_reasoning:
        thoughts = repeated(["Hm"], reasoning)
        item["summary"] = [{"type": "summary_text", "text": "".join(thoughts)}]
    if wanted.encrypted:
        item["encrypted_content"] = sealed("reasoning")
    return Output(item, thoughts, reasoning - len(thoughts))


def sealed(text: str) -> str:
    """Return a text as Azure writes what only itself can read."""
    return "gAAAAAB" + base64.urlsafe_b64encode(text.encode()).decode()


def _written(wanted: Wanted, script: Script, ids: Ids) -> Iterator[Output]:
    """Return what follows the reasoning."""
    yield from _hosted(wanted, script, ids)
    calls = wanted.calls
    names = script.tool_calls or ((script.tool_call,) if script.tool_call else ())
    if names:
        calls = scripted_calls(wanted.document, names)
    if script.answer_in in ("function_call", "custom"):
        name = names[0] if names else calls[0].name if calls else "answer"
        calls = [Tool(name, custom=script.answer_in == "custom")]
    for tool in calls:
        yield _call(tool, wanted, script, ids)
    if not calls:
        yield _message(wanted, script, ids)


def _call(tool: Tool, wanted: Wanted, script: Script, ids: Ids) -> Output:
    text = _text(wanted, script) if script.answer is not None or script.tokens is not None else None
    pieces = tokens.pieces(tool.arguments(wanted.turn.said) if text is None else text)
    if script.tokens is not None:
        pieces = repeated(pieces, script.tokens)
    call = {"call_id": "call_" + secrets.token_hex(12), "name": tool.name}
    if tool.custom:
        item = {"id": ids.new("ctc"), "type": "custom_tool_call", "status": "completed", "input": "".join(pieces)}
    else:
        item = {"id": ids.new("fc"), "type": "function_call", "status": "completed", "arguments": "".join(pieces)}
    return Output({**item, **call}, pieces)


def _message(wanted: Wanted, script: Script, ids: Ids) -> Output:
    pieces = tokens.pieces(_text(wanted, script))
    if script.tokens is not None:
        pieces = repeated(pieces, script.tokens)
    if script.filter in ("completion", "late_block"):
        pieces = tokens.pieces(FILTERED_TEXT)
    if script.oversized_line is not None:
        pieces = ["x" * max(0, script.oversized_line - _AROUND_DELTA), *pieces]
    status = "incomplete" if script.filter in ("completion", "late_block") else "completed"
    return Output(_message_of("".join(pieces), ids.new("msg"), status, refusal=script.answer_in == "refusal"), pieces)


def _message_of(text: str, name: str, status: str, *, refusal: bool) -> dict[str, Any]:
    return {
        "id": name,
        "type": "message",
        "status": status,
        "content": [part(text, refusal=refusal)],
        "role": "assistant",
    }


def part(text: str, *, refusal: bool) -> dict[str, Any]:
    """Return a part of a message's content."""
    if refusal:
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _text(wanted: Wanted, script: Script) -> str:
    if script.answer is not None:
        return script.answer
    text = answer_after(wanted.turn)
    match wanted.format.get("type"):
        case "json_schema":
            return sample_json(wanted.format.get("schema"), wanted.turn.said)
        case "json_object":
            return json_answer(wanted.turn.said, text, wanted.texts())
    return text


def _hosted(wanted: Wanted, script: Script, ids: Ids) -> Iterator[Output]:
    """Return the calls of Azure's own tools: each that is offered once, or as often as the script says."""
    left = wanted.most_tool_calls
    container = "cntr_" + secrets.token_hex(24)
    offers = {HOSTED[str(tool["type"])]: tool for tool in wanted.hosted}
    times = dict.fromkeys(offers, 0 if wanted.turn.results else 1) | dict(script.hosted_calls)
    for kind, number in times.items():
        tool = offers.get(kind, {})
        if kind == "mcp" and number:
            yield _mcp_list(tool, ids)
        for _ in range(number):
            if left == 0:
                return
            left = None if left is None else left - 1
            yield _hosted_call(kind, tool, wanted.turn.said or "", container, ids)


def _hosted_call(kind: str, tool: Mapping[str, Any], said: str, container: str, ids: Ids) -> Output:
    query = "".join(tokens.pieces(said)[:8])
    match kind:
        case "code_interpreter":
            code = tokens.pieces(f"print({query!r})")
            logs = [{"type": "logs", "logs": f"{query}\n"}]
            coded: dict[str, Any] = {
                "id": ids.new("ci"),
                "type": "code_interpreter_call",
                "status": "completed",
                "code": "".join(code),
                "container_id": container,
                "outputs": logs,
            }
            return Output(coded, code)
        case "file_search":
            found = {"type": "file_search_call", "status": "completed", "queries": [query], "results": None}
            return Output({"id": ids.new("fs"), **found}, tokens.pieces(query))
        case "image_generation":
            drawn = {"type": "image_generation_call", "status": "completed", "result": _PIXEL}
            return Output({"id": ids.new("ig"), **drawn}, tokens.pieces(query))
        case "mcp":
            return _mcp_call(tool, query, ids)
    # Azure's recorded searches never become "completed".
    action = {"type": "search", "query": query}
    item: dict[str, Any] = {"id": ids.new("ws"), "type": "web_search_call", "status": "searching", "action": action}
    return Output(item, tokens.pieces(query))


def _mcp_list(tool: Mapping[str, Any], ids: Ids) -> Output:
    allowed = tool.get("allowed_tools")
    names = allowed if isinstance(allowed, list) and allowed else ["search"]
    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    listed = [{"name": str(name), "input_schema": schema, "annotations": None, "description": None} for name in names]
    item: dict[str, Any] = {
        "id": ids.new("mcpl"),
        "type": "mcp_list_tools",
        "server_label": tool.get("server_label", "server"),
    }
    return Output({**item, "tools": listed})


def _mcp_call(tool: Mapping[str, Any], query: str, ids: Ids) -> Output:
    allowed = tool.get("allowed_tools")
    name = str(allowed[0]) if isinstance(allowed, list) and allowed else "search"
    arguments = tokens.pieces(orjson.dumps({"query": query}).decode())
    item = {
        "id": ids.new("mcp"),
        "type": "mcp_call",
        "status": "completed",
        "approval_request_id": None,
        "arguments": "".join(arguments),
        "error": None,
        "name": name,
        "output": f"Found: {query}",
        "server_label": tool.get("server_label", "server"),
    }
    return Output(item, arguments)


def _cut(output: Output, length: int) -> Output:
    """Return what remains of an item if the output ends after so many of its tokens."""
    pieces = output.pieces[:length]
    text = "".join(pieces)
    item = {**output.item, "status": "incomplete"}
    if item["type"] == "message":
        refusal = item["content"][0]["type"] == "refusal"
        item = _message_of(text, item["id"], "incomplete", refusal=refusal)
    for name in ("arguments", "input", "code"):
        if name in item:
            item[name] = text
    return replace(output, item=item, pieces=pieces)
