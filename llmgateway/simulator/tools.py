"""Which functions the model calls, and with what arguments; the same for chat and for responses.

A model that is offered functions calls those whose names or descriptions share a word with the question, or else the
first one. When it has the results, it answers in words. If it must call one, it takes those that it has not called for
this question yet, so that the loop of an agent comes to its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from .samples import sample_json, schema_in
from .tokens import text_of

_WORD = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z]{3,}")
_COMMON = frozenset(
    _WORD.findall("and are for from get has have into not that the their this use what when which will with you")
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function, or a custom tool, which takes any text."""

    name: str
    parameters: Any = None
    """JSON schema of the arguments."""
    custom: bool = False
    words: frozenset[str] = frozenset()

    def arguments(self, said: str | None) -> str:
        """Return the arguments of a call as JSON; of a custom tool any text."""
        return (said or "text") if self.custom else sample_json(_without_optional(self.parameters), said)


def _without_optional(parameters: Any) -> Any:
    """Return the schema with no other arguments than the required ones, if it names some.

    A made-up value for an argument that may be left away is seldom one that the function can use.
    """
    if not isinstance(parameters, Mapping):
        return parameters
    properties, required = parameters.get("properties"), parameters.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, list) or not required:
        return parameters
    return {**parameters, "properties": {name: part for name, part in properties.items() if name in required}}


class Turn(NamedTuple):
    """What has happened since the user spoke last."""

    said: str | None = None
    """``None`` if the user has not spoken at all."""
    called: frozenset[str] = frozenset()
    results: tuple[str, ...] = ()
    """What the called functions have returned."""


def turn_of(messages: Iterable[Mapping[str, Any]]) -> Turn:
    """Return what has happened in a chat since the user spoke last."""
    said: str | None = None
    called, results = set[str](), list[str]()
    for message in messages:
        match message.get("role"):
            case "user":
                said, called, results = text_of(message), set(), []
            case "assistant":
                called |= _called(message)
            case "tool" | "function":
                results.append(text_of(message))
    return Turn(said, frozenset(called), tuple(results))


def _called(message: Mapping[str, Any]) -> set[str]:
    calls = message.get("tool_calls")
    listed = calls if isinstance(calls, list) else []
    inner = [call.get(str(call.get("type", "function"))) for call in listed if isinstance(call, Mapping)]
    functions = [one for one in [*inner, message.get("function_call")] if isinstance(one, Mapping)]
    return {str(function.get("name")) for function in functions}


def json_answer(said: str | None, text: str, prompt: Iterable[str]) -> str:
    """Return the answer to a request for any JSON: valid for the schema in its prompt, or else *text* in an object."""
    schema = next((found for part in prompt if (found := schema_in(part)) is not None), None)
    return orjson.dumps({"answer": text}).decode() if schema is None else sample_json(schema, said)


def offered(tools: Any) -> list[Tool]:
    """Return the functions among the tools of a request, in the form of chat or of responses."""
    found = []
    for entry in tools if isinstance(tools, list) else []:
        kind = entry.get("type", "function") if isinstance(entry, Mapping) else ""
        if kind not in ("function", "custom"):
            continue
        inner = entry.get(kind, entry)
        if isinstance(inner, Mapping) and isinstance(inner.get("name"), str):
            words = _words(f"{inner['name']} {inner.get('description') or ''}")
            found.append(Tool(inner["name"], inner.get("parameters"), kind == "custom", words))
    return found


def chosen(tools: Sequence[Tool], choice: Any, turn: Turn, *, parallel: bool) -> list[Tool]:
    """Return what the model calls now.

    Args:
        choice: The ``tool_choice`` of the request.
        parallel: It may call several at once.
    """
    if isinstance(choice, Mapping) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        names = {tool.name for tool in offered(allowed.get("tools", []))}
        tools, choice = [tool for tool in tools if tool.name in names], allowed.get("mode", "auto")
    if isinstance(choice, Mapping):
        name = named(choice)
        return [] if name is None else [with_name(tools, name)]
    if choice == "none" or (choice != "required" and turn.results):
        return []
    left = [tool for tool in tools if tool.name not in turn.called] or list(tools[-1:])
    asked = _words(turn.said or "")
    fitting = [tool for tool in left if tool.words & asked] or left[:1]
    return fitting if parallel else sorted(fitting, key=lambda tool: -len(tool.words & asked))[:1]


def named(choice: Mapping[str, Any]) -> str | None:
    """Return the function that a ``tool_choice`` names."""
    inner = choice.get(str(choice.get("type")), choice)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else None


def with_name(tools: Iterable[Tool], name: str) -> Tool:
    """Return the tool of a name; one without arguments if it was not offered."""
    return next((tool for tool in tools if tool.name == name), Tool(name))


def _words(text: str) -> frozenset[str]:
    return frozenset(word.lower() for word in _WORD.findall(text)) - _COMMON
