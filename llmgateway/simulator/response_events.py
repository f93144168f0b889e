"""Writes responses as Azure does: as one object, or as a stream of events.

Names, order and fields of the events: recorded from Azure (charmbracelet/fantasy ``TestAzureResponses…``, 2026-03 and
2026-06; vercel/ai ``packages/azure/src/__fixtures__``, 2025-10 to 2026-02), those of MCP, image generation, file search
and custom tools from openai 3.57.0. There is no ``[DONE]``. Only the last event has the usage, the results of the
content filter, and the tier that served the response.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson

from ..records import Usage
from .operations import event, with_usage
from .response_output import Output, Outputs, part
from .response_request import Wanted
from .scripts import Script
from .writing import NOISE, Event

_SAFE = {"filtered": False, "severity": "safe"}
_CATEGORIES = {"hate": _SAFE, "sexual": _SAFE, "violence": _SAFE, "self_harm": _SAFE}
_UNDETECTED = {"detected": False, "filtered": False}

_FAILURES: Mapping[str, str] = {
    "rate_limit_exceeded": "Too Many Requests: your requests have exceeded the token rate limit. Please retry later.",
    "server_error": "An error occurred while processing your request. You can retry your request, or contact us "
    "through an Azure support request at: https://go.microsoft.com/fwlink/?linkid=2213926 if you keep seeing this "
    "error.",
}
"""Codes and what they are said with; that a rate limit comes so is reported in pi#1458, its words are not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All data that is needed to write a response."""

    id: str
    created: int
    """Seconds since the epoch."""
    model: str
    wanted: Wanted
    outputs: Outputs
    usage: Usage
    tier: str
    script: Script

    @property
    def status(self) -> str:
        """The status at the end."""
        if self.script.failed is not None:
            return "failed"
        return "completed" if self.outputs.reason is None else "incomplete"

    def begun(self, status: str = "in_progress") -> dict[str, Any]:
        """Return the response as the first events contain it."""
        return self._document(status, output=[], ended=False)

    def ended(self) -> dict[str, Any]:
        """Return the response as the last event contains it."""
        failed = self.script.failed is not None
        return self._document(self.status, output=[] if failed else [o.item for o in self.outputs.items], ended=True)

    def _document(self, status: str, *, output: Sequence[Mapping[str, Any]], ended: bool) -> dict[str, Any]:
        asked, script = self.wanted.document, self.script
        counted = ended and script.failed is None
        reason = self.outputs.reason if counted else None
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": self.wanted.background,
            "completed_at": self.created if status == "completed" else None,
            "content_filters": _filters(self) if counted and script.filter != "absent" else None,
            "error": _failure(script.failed) if ended and script.failed is not None else None,
            "frequency_penalty": 0.0,
            "incomplete_details": None if reason is None else {"reason": reason},
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "max_tool_calls": asked.get("max_tool_calls"),
            "model": self.model,
            "moderation": None,
            "output": output,
            "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
            "presence_penalty": 0.0,
            "previous_response_id": asked.get("previous_response_id"),
            "prompt_cache_key": asked.get("prompt_cache_key"),
            "prompt_cache_retention": asked.get("prompt_cache_retention", "in_memory"),
            "reasoning": {"context": None, **_reasoning(asked)},
            "safety_identifier": asked.get("safety_identifier"),
            "service_tier": self.tier if ended else asked.get("service_tier") or "auto",
            "store": self.wanted.store,
            "temperature": _or(asked, "temperature", 1.0),
            "text": {"format": _format(self.wanted.format), "verbosity": _verbosity(asked)},
            "tool_choice": _or(asked, "tool_choice", "auto"),
            "tools": [_tool(tool) for tool in asked.get("tools") or []],
            "top_logprobs": _or(asked, "top_logprobs", 0),
            "top_p": _or(asked, "top_p", 1.0),
            "truncation": _or(asked, "truncation", "disabled"),
            **(with_usage(_usage(self.usage), script) if counted else {"usage": None}),
            "user": asked.get("user"),
            "metadata": asked.get("metadata") or {},
        }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


def _filters(answer: Answer) -> list[dict[str, Any]]:
    blocked = answer.outputs.reason == "content_filter"
    results: dict[str, Any] = {
        "protected_material_code": _UNDETECTED,
        "protected_material_text": _UNDETECTED,
        **_CATEGORIES,
    }
    if blocked:
        results["hate"] = {"filtered": True, "severity": "high"}
    length = sum(len(output.text) for output in answer.outputs.items)
    return [
        _filter("prompt", {**_CATEGORIES, "jailbreak": _UNDETECTED}, answer.usage.prompt_tokens * 4, blocked=False),
        _filter("completion", results, length, blocked=blocked),
    ]


def _filter(source: str, results: Mapping[str, Any], end: int, *, blocked: bool) -> dict[str, Any]:
    return {
        "blocked": blocked,
        "source_type": source,
        "content_filter_raw": [],
        "content_filter_results": results,
        "content_filter_offsets": {"start_offset": 0, "end_offset": end, "check_offset": 0},
    }


def _failure(code: str) -> dict[str, str]:
    return {"code": code, "message": _FAILURES.get(code, _FAILURES["server_error"])}


def _or(asked: Mapping[str, Any], name: str, default: Any) -> Any:
    return default if asked.get(name) is None else asked[name]


def _reasoning(asked: Mapping[str, Any]) -> dict[str, Any]:
    given = asked.get("reasoning") or {}
    summary = given.get("summary")
    return {"effort": given.get("effort", "medium"), "summary": "detailed" if summary == "auto" else summary}


def _format(wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    if wanted.get("type") != "json_schema":
        return wanted or {"type": "text"}
    return {
        "type": "json_schema",
        "description": wanted.get("description"),
        "name": wanted.get("name"),
        "schema": wanted.get("schema"),
        "strict": wanted.get("strict") is True,
    }


def _verbosity(asked: Mapping[str, Any]) -> str:
    return str((asked.get("text") or {}).get("verbosity") or "medium")


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool as the answer repeats it: a function in full, and without what logs into somebody's server."""
    match tool.get("type"):
        case "function":
            named = {name: tool.get(name) for name in ("type", "description", "name", "parameters")}
            return {**named, "strict": tool.get("strict") is not False}
        case "mcp":
            hidden = dict.fromkeys(tool.get("headers") or {}, "<redacted>")
            return {key: value for key, value in tool.items() if key != "authorization"} | {"headers": hidden or None}
    return tool


def write_whole(answer: Answer) -> bytes:
    """Return the body of a response that is not streamed."""
    return orjson.dumps(answer.ended(), option=orjson.OPT_INDENT_2)


def write_events(answer: Answer) -> list[Event]:
    """Return the events of a stream, as the script wants them to end."""
    events = [*_Pen(answer).events()]
    script = answer.script
    after = script.error_event_after
    if script.failed is not None:
        kept = events[: 2 if after is None else after]
        last = {"type": "response.failed", "response": answer.ended(), "sequence_number": len(kept)}
        return [*kept, Event(event(last), kept[-1].position if kept else 0)]
    if after is not None:
        kept = events[:after]
        return [*kept, Event(event(_error(script, len(kept))), kept[-1].position if kept else 0)]
    return events


def _error(script: Script, number: int) -> dict[str, Any]:
    """Return an error event: nested as recorded from Azure (one-api#257), or flat as in openai 3.57.0."""
    about = {"code": "server_error", "message": _FAILURES["server_error"], "param": None}
    if script.error_event == "flat":
        return {"type": "error", "sequence_number": number, **about}
    return {"type": "error", "sequence_number": number, "error": {"type": "server_error", **about}}


class _Pen:
    """Writes the events of one response, and numbers them."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._size = answer.script.tokens_per_event
        self._numbers = count()
        self._noises = 0

    def events(self) -> Iterator[Event]:
        answer = self._answer
        outputs = answer.outputs
        yield self._event(
            "response.created", 0, response=answer.begun("queued" if answer.wanted.background else "in_progress")
        )
        if answer.wanted.background:
            yield self._event("response.queued", 0, response=answer.begun("queued"))
        yield self._event("response.in_progress", 0, response=answer.begun())
        for index, output in enumerate(outputs.items):
            yield from self._item(output, index)
        length = outputs.reasoning + outputs.written
        yield self._event(f"response.{answer.status}", length, response=answer.ended())

    def _event(self, kind: str, position: int, **fields: Any) -> Event:
        return Event(event({"type": kind, **fields, "sequence_number": next(self._numbers)}), position)

    def _item(self, output: Output, index: int) -> Iterator[Event]:
        item = output.item
        start = {**item, **_BEGINNINGS.get(item["type"], {})}
        if "status" in item:
            start["status"] = "in_progress"
        position = 0 if item["type"] == "reasoning" and not index else output.start
        yield self._event("response.output_item.added", position, item=start, output_index=index)
        match item["type"]:
            case "reasoning":
                yield from self._summary(output, index)
            case "message":
                yield from self._message(output, index)
            case "function_call":
                name = "response.function_call_arguments"
                yield from self._pieces(f"{name}.delta", output, index)
                yield self._about(f"{name}.done", output, index, arguments=item["arguments"])
            case "custom_tool_call":
                yield from self._pieces("response.custom_tool_call_input.delta", output, index)
                yield self._about("response.custom_tool_call_input.done", output, index, input=item["input"])
            case "code_interpreter_call":
                yield from self._code(output, index)
            case "mcp_call":
                yield self._about("response.mcp_call.in_progress", output, index)
                yield from self._pieces("response.mcp_call_arguments.delta", output, index)
                yield self._about("response.mcp_call_arguments.done", output, index, arguments=item["arguments"])
                yield self._about("response.mcp_call.completed", output, index)
            case _:
                for stage in _STAGES[item["type"]]:
                    yield self._about(f"response.{item['type']}.{stage}", output, index)
        yield self._event("response.output_item.done", output.end, item=item, output_index=index)

    def _about(self, kind: str, output: Output, index: int, **fields: Any) -> Event:
        return self._event(kind, output.end, item_id=output.item["id"], output_index=index, **fields)

    def _pieces(self, kind: str, output: Output, index: int, **fields: Any) -> Iterator[Event]:
        """Return the deltas of an item."""
        where = {"item_id": output.item["id"], "output_index": index, **fields}
        for rank in range(0, len(output.pieces), self._size):
            group = output.pieces[rank : rank + self._size]
            delta = {"delta": "".join(group), **where, **self._noise()}
            yield self._event(kind, output.start + rank + len(group), **delta)

    def _noise(self) -> dict[str, str]:
        if not self._answer.wanted.obfuscate:
            return {}
        self._noises += 1
        return {"obfuscation": NOISE[self._noises % len(NOISE)].decode()}

    def _message(self, output: Output, index: int) -> Iterator[Event]:
        where = {"content_index": 0, "item_id": output.item["id"], "output_index": index}
        refusal = output.item["content"][0]["type"] == "refusal"
        yield self._event("response.content_part.added", output.start, **where, part=part("", refusal=refusal))
        if refusal:
            yield from self._pieces("response.refusal.delta", output, index, content_index=0)
            yield self._event("response.refusal.done", output.end, **where, refusal=output.text)
        else:
            yield from self._pieces("response.output_text.delta", output, index, content_index=0, logprobs=[])
            yield self._event("response.output_text.done", output.end, **where, logprobs=[], text=output.text)
        yield self._event("response.content_part.done", output.end, **where, part=output.item["content"][0])

    def _summary(self, output: Output, index: int) -> Iterator[Event]:
        if not output.pieces:
            return
        where = {"item_id": output.item["id"], "output_index": index, "summary_index": 0}
        [summary] = output.item["summary"]
        name = "response.reasoning_summary"
        yield self._event(f"{name}_part.added", output.start, **where, part={"type": "summary_text", "text": ""})
        yield from self._pieces(f"{name}_text.delta", output, index, summary_index=0)
        yield self._event(f"{name}_text.done", output.end, **where, text=summary["text"])
        yield self._event(f"{name}_part.done", output.end, **where, part=summary)

    def _code(self, output: Output, index: int) -> Iterator[Event]:
        name = "response.code_interpreter_call"
        yield self._event(f"{name}.in_progress", output.start, item_id=output.item["id"], output_index=index)
        yield from self._pieces(f"{name}_code.delta", output, index)
        yield self._about(f"{name}_code.done", output, index, code=output.item["code"])
        yield self._about(f"{name}.interpreting", output, index)
        yield self._about(f"{name}.completed", output, index)


_BEGINNINGS: Mapping[str, Mapping[str, Any]] = {
    "reasoning": {"summary": []},
    "message": {"content": []},
    "function_call": {"arguments": ""},
    "custom_tool_call": {"input": ""},
    "code_interpreter_call": {"code": "", "outputs": []},
    "mcp_call": {"arguments": "", "output": None},
    "mcp_list_tools": {"tools": []},
    "web_search_call": {"action": {"type": "search"}},
    "file_search_call": {"queries": []},
    "image_generation_call": {"result": None},
}
"""What an item does not have yet when it is added."""

_STAGES: Mapping[str, Sequence[str]] = {
    "web_search_call": ("in_progress", "searching"),
    "file_search_call": ("in_progress", "searching", "completed"),
    "image_generation_call": ("in_progress", "generating", "completed"),
    "mcp_list_tools": ("in_progress", "completed"),
}
