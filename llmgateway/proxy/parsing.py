"""Parses the body of a request, and writes it again without losing anything.

What the gateway checks must be what Azure reads. So a body is refused if it can be read in two ways: if a name appears
twice in an object that the gateway reads, or if a name differs from a known one in upper and lower case only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NoReturn

import orjson

from ..errors import InvalidRequest
from .json_errors import why_not_json
from .nesting import MOST_CONTAINERS, check_nesting

# orjson reads an integer beyond 64 bits, and a float beyond 1e308, as a float whose absolute value is at least this.
_LARGE = 2.0**63

_QUOTABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


class _Names:
    """Names that the gateway reads in one kind of object."""

    def __init__(self, names: str) -> None:
        self.known = frozenset(names.split())
        self._folded = {_folded(name): name for name in self.known}

    def meant_by(self, name: str) -> str | None:
        """Return the known name that *name* differs from in case only; None if there is none.

        A server that compares names without case may also stop at a NUL, as C does.
        """
        # No known name is longer, and the longest way to write a letter has three code points.
        beginning = name[:100].partition("\0")[0]
        meant = self._folded.get(_folded(beginning))
        return None if meant == name else meant


def _folded(name: str) -> str:
    # The long s, the Kelvin sign, and both of the Turkish letters i fold to ASCII letters.
    return name.upper().casefold().replace("\u0307", "")


class BodyFormat:
    """The names that the gateway reads in the bodies of one operation.

    Args:
        names: The names at the top, separated by blanks.
        example: The fields that a body needs, for messages.
        read_whole: The fields whose objects are read down to the lowest level, because the tokens of everything in
            them are estimated.
        check_within: Checks the names within fields of a body. Raises InvalidRequest.
    """

    def __init__(
        self,
        names: str,
        *,
        example: str,
        read_whole: tuple[str, ...] = (),
        check_within: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> None:
        self.top = _Names(names)
        self.example = example
        self.read_whole = read_whole
        self.check_within = check_within


_CHAT_NAMES = (
    "model messages stream stream_options max_tokens max_completion_tokens n tools functions tool_choice "
    "function_call response_format data_sources prediction modalities audio service_tier reasoning_effort "
    "web_search_options temperature top_p stop seed user store metadata logprobs logit_bias parallel_tool_calls"
)
_RESPONSES_NAMES = (
    "model input instructions previous_response_id conversation store background stream stream_options "
    "max_output_tokens max_tool_calls tools tool_choice include truncation service_tier reasoning text prompt metadata "
    "context_management prompt_cache_key temperature top_p user parallel_tool_calls top_logprobs safety_identifier"
)
_ITEM = _Names(
    "id type role content summary encrypted_content output arguments name call_id status "  # of an item
    "text image_url file_id file_data file_url filename detail input_audio data format refusal container_id"
)
_TOOL = _Names("type container container_id environment name description parameters")
_PLACES = ("container", "environment")
"""Objects within a tool that can name a container. Others, such as headers, may have any names."""
_OPTIONS = _Names("include_usage include_obfuscation")
_MESSAGE = _Names(
    "role content name tool_calls tool_call_id function_call refusal audio reasoning_content "  # of a message
    "type text image_url input_audio file detail url data format file_id file_data filename "  # of its parts
    "id index function custom arguments input output"  # of its calls
)
_PREDICTION = _Names("type content text")
_PLAIN = frozenset(("role", "content", "name", "tool_call_id"))
"""The names of most messages."""

_OBJECTS = ("image_url", "input_audio", "file", "function", "custom")
"""Objects within the parts and the calls of a message."""


def parse(body: bytes, form: BodyFormat, *, most_containers: int = MOST_CONTAINERS) -> dict[str, Any]:
    """Parse *body*, so that :func:`dump` gives the same values back.

    Args:
        form: The names that must not be misspelt or repeated.
        most_containers: The most objects and arrays; bounds names and values, too.

    Raises:
        InvalidRequest: it is not a JSON object, or can be read in two ways. The message quotes no text of the body.
    """
    if not body:
        raise InvalidRequest(f"The request has no body. Send a JSON object with {form.example}.")
    check_nesting(body, most_containers=most_containers)
    try:
        document = _load(body, form)
    except ValueError as error:
        # The error's own text may quote the body, which is a private conversation.
        reason = why_not_json(body) or (f": {error}" if isinstance(error, _NotJSON) else "")
        raise InvalidRequest(f"The body is not valid JSON{reason}.") from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"The body must be a JSON object with {form.example}.")
    _check_case(document, form)
    return document


def dump(document: dict[str, Any]) -> bytes:
    """Return *document* as JSON."""
    try:
        return orjson.dumps(document)
    except TypeError:
        # An integer beyond 64 bits or a lone surrogate, see _load().
        return json.dumps(document, separators=(",", ":")).encode()


def _load(body: bytes, form: BodyFormat) -> Any:
    document: Any = None
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        exact = False  # orjson refuses a lone surrogate, which JavaScript clients can send
    else:
        # orjson keeps the last of two equal names and does not tell. But if it writes exactly the client's bytes
        # again, there were no others, and no number has lost digits. OpenAI's clients for Python and JavaScript write
        # JSON as orjson does. This takes 0.4 ms for 1 MB; the standard library's parser, which tells, takes 3 ms; to
        # search the bytes for each name takes 4 ms.
        if orjson.dumps(document) == body:
            return document
        exact = _is_exact(document)
    repeating: list[_Repeating] = []
    complete = _decoder(repeating).decode(body.decode("utf-8", "strict"))
    if repeating:  # seldom; to visit every object of many tools takes half as long as to parse them
        _check_repeats(complete, form)
    return document if exact else complete


class _Repeating(dict[str, Any]):
    """An object of a body that contains a name twice. The last value counts."""

    __slots__ = ("name",)
    name: str
    """The first name that is repeated."""


def _object(found: list[_Repeating], pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    repeating = _Repeating(made)
    found.append(repeating)
    seen: set[str] = set()
    repeating.name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    return repeating


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NotJSON("a number is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise _NotJSON(f"{name} is not JSON")


class _NotJSON(ValueError):
    """What RFC 8259, section 6, does not permit. Its text quotes nothing but names of constants."""


def _decoder(repeating: list[_Repeating]) -> json.JSONDecoder:
    """Return a parser that adds each object with a repeated name to *repeating*."""
    return json.JSONDecoder(
        parse_float=_finite, parse_constant=_refuse_constant, object_pairs_hook=partial(_object, repeating)
    )


def _is_exact(document: Any) -> bool:
    """Return whether no number of *document* can have lost digits."""
    # This looks at the parsed values. To search the text for long numbers would take ten times as long.
    level = [document]
    while level:
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                below.extend(value.values())
            elif kind is list:
                below.extend(value)
            elif kind is float and not -_LARGE < value < _LARGE:
                return False
        level = below
    return True


def _check_repeats(document: Any, form: BodyFormat) -> None:
    """Raise InvalidRequest if a name is repeated in an object that the gateway reads."""
    if not isinstance(document, dict):
        return
    for where, each in _objects(document, form):
        if isinstance(each, _Repeating):
            quoted = f"The name '{each.name}'" if _QUOTABLE.match(each.name) else "A name"
            place = f"in '{where}'" if where else "in the body"
            raise InvalidRequest(f"{quoted} appears twice {place}. Send it once.", param=_param(where, each.name))


def _objects(document: dict[str, Any], form: BodyFormat) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object that the gateway reads, and where it is."""
    yield "", document
    options = document.get("stream_options")
    if isinstance(options, dict):
        yield "stream_options", options
    for name in form.read_whole:
        field = document.get(name)
        if isinstance(field, list):
            for index, value in enumerate(field):
                yield from _within(f"{name}[{index}]", value)
        else:
            yield from _within(name, field)


def _within(where: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield *value* and everything in it that is an object."""
    unvisited = [value]
    while unvisited:
        value = unvisited.pop()
        if isinstance(value, dict):
            yield where, value
            unvisited.extend(value.values())
        elif isinstance(value, list):
            unvisited.extend(value)


def _check_case(document: dict[str, Any], form: BodyFormat) -> None:
    """Raise InvalidRequest if a name differs from one that the gateway reads in upper and lower case only."""
    _check_names("", document, form.top)
    options = document.get("stream_options")
    if isinstance(options, dict):
        _check_names("stream_options", options, _OPTIONS)
    form.check_within(document)


def _check_messages(document: dict[str, Any]) -> None:
    prediction = document.get("prediction")
    for part in _parts(prediction) if isinstance(prediction, dict) else ():
        _check_names("prediction", part, _PREDICTION)
    messages = document.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if type(message) is not dict or (message.keys() <= _PLAIN and type(message.get("content")) is str):
            continue
        for part in _parts(message):
            _check_names(f"messages[{index}]", part, _MESSAGE)


def _parts(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects of *message*, or of a prediction, whose names the gateway reads. Others may have any names."""
    yield message
    for value in message.values():
        for part in value if type(value) is list else (value,):
            if type(part) is dict:
                yield part
                yield from (part[name] for name in _OBJECTS if type(part.get(name)) is dict)


def _check_names(where: str, names: Iterable[str], known: _Names) -> None:
    for name in names:
        if name in known.known:
            continue
        meant = known.meant_by(name)
        if meant is not None:
            quoted = f"'{name}'" if _QUOTABLE.match(name) else "A name"
            place = f" in '{where}'" if where else ""
            raise InvalidRequest(
                f"{quoted}{place} differs from '{meant}' in upper and lower case only. Write '{meant}'.",
                param=_param(where, meant),
            )


def _param(where: str, name: str) -> str | None:
    if not _QUOTABLE.match(name):
        return where or None
    return f"{where}.{name}" if where else name


CHAT_FORMAT = BodyFormat(
    _CHAT_NAMES,
    example="'model' and 'messages'",
    read_whole=("messages", "tools", "functions", "response_format", "data_sources", "prediction"),
    check_within=_check_messages,
)
"""Of chat completions."""


def _check_input(document: dict[str, Any]) -> None:
    for name, known, within in (("input", _ITEM, ("content", "summary", "output")), ("tools", _TOOL, _PLACES)):
        values = document.get(name)
        for index, value in enumerate(values if isinstance(values, list) else ()):
            if type(value) is not dict:
                continue
            _check_names(f"{name}[{index}]", value, known)
            for field in within:
                inner = value.get(field)
                for part in inner if type(inner) is list else (inner,):
                    if type(part) is dict:
                        _check_names(f"{name}[{index}]", part, known)


RESPONSES_FORMAT = BodyFormat(
    _RESPONSES_NAMES,
    example="'model' and 'input'",
    read_whole=("input", "tools", "text", "prompt"),
    check_within=_check_input,
)
"""Of the Responses API."""
