"""Scripts that make the simulator serve a request in a special way."""

from __future__ import annotations

import base64
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, get_args

from .faults import FAULTS
from .usages import UsageForm, UsagePlace

Framing = Literal["chunked", "length", "close"]
Filter = Literal["asynchronous", "late_block", "completion", "outage", "absent"]
AnswerIn = Literal["content", "refusal", "function_call", "custom"]
ErrorEvent = Literal["nested", "flat"]
Json = Literal["spaced", "shuffled", "pretty"]
LineEnd = Literal["lf", "crlf", "cr", "mixed"]
Coding = Literal["gzip", "deflate", "raw_deflate"]

HOSTED_TOOLS = ("web_search", "code_interpreter", "file_search", "mcp", "image_generation")
"""The tools of responses that Azure runs itself."""

_JSON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("delay", "gap", "tokens_per_second"), (int, float)),
    **dict.fromkeys(("cut_after_events", "cut_after_bytes", "stall_after_events", "error_event_after"), int),
    **dict.fromkeys(("retry_after", "tokens", "tokens_per_event", "oversized_line", "unfinished"), int),
    **dict.fromkeys(("prompt_tokens", "cached_tokens", "reasoning_tokens"), int),
    **dict.fromkeys(("audio_prompt_tokens", "audio_completion_tokens", "image_prompt_tokens"), int),
    **dict.fromkeys(("reset", "refuse", "prompt_annotations", "visible_reasoning", "blank_after_colon", "bom"), bool),
    **dict.fromkeys(("framing", "fault", "filter", "answer", "answer_in", "tool_call", "model", "service_tier"), str),
    **dict.fromkeys(("usage_in", "json", "line_end", "compress"), str),
    **dict.fromkeys(("failed", "error_event"), str),
    "background_looks": int,
    **dict.fromkeys(("headers", "raw", "hosted_calls"), dict),
    **dict.fromkeys(("lines_before", "fault_if", "tool_calls"), list),
    "split": (int, list),
    "usage": (str, dict),
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "fault": tuple(sorted(FAULTS)),
    "framing": get_args(Framing),
    "filter": get_args(Filter),
    "answer_in": get_args(AnswerIn),
    "error_event": get_args(ErrorEvent),
    "usage_in": get_args(UsagePlace),
    "json": get_args(Json),
    "line_end": get_args(LineEnd),
    "compress": get_args(Coding),
}
"""The possible values of fields that have few."""


class Raw(NamedTuple):
    """An answer that is sent unchanged. If it has a framing header, the simulator adds no framing."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How to serve one request. Everything is optional; an empty script is an ordinary answer.

    Events are the ``data:`` messages of a stream, all of them: the filter results that come
    first, the usage and ``[DONE]`` count too. An answer that is no stream is one event.
    Bytes are those of the body, without the chunked framing.

    Raises:
        ValueError: a value is none of those that are possible; the text names them.
    """

    # When the bytes come

    delay: float = 0.0
    """Seconds before the head of the answer."""
    gap: float = 0.0
    """Seconds from one event to the next."""
    tokens_per_second: float | None = None
    """The model produces so many tokens a second for each choice, the reasoning first and unseen. A stream begins at
    once and is then silent until there is text; a plain answer comes at the end. If the client leaves,
    :attr:`Served.billed` is what was produced until then. ``None``: the model works at no time."""
    framing: Framing | None = None
    """How the end of the body is marked. ``None`` as Azure: chunked for streams, else with a length."""
    split: int | tuple[int, ...] | None = None
    """Write the body in pieces of so many bytes, or cut at these offsets, whatever the events are.
    Every piece is a ``send`` of its own and, with chunked framing, a chunk of its own. A gap, a stall
    and a cut send first what waits for its piece to be full."""
    cut_after_events: int | None = None
    """Close the connection after this many events, before the end of the body."""
    cut_after_bytes: int | None = None
    reset: bool = False
    """Close the connection with a TCP reset instead of an orderly close."""
    stall_after_events: int | None = None
    """Send nothing after this many events, until a release or until the client closes; 0 means after the headers."""
    refuse: bool = False
    """Close the connection when the request has been read, without an answer."""

    # Errors

    fault: str | None = None
    """One of :data:`~llmgateway.simulator.faults.FAULTS` is the answer."""
    fault_if: tuple[str, ...] = ()
    """Answer with the fault only if the body has all of these fields, such as ``stream_options`` and
    ``data_sources``."""
    retry_after: int | None = None
    """Seconds that a 429 asks for; without it those of the recorded one."""
    error_event_after: int | None = None
    """End the stream with an error event after this many events, without ``[DONE]``."""
    error_event: ErrorEvent = "nested"
    """Form of the error event of a response: Azure's, or OpenAI's."""
    failed: str | None = None
    """A response fails with this code, such as ``rate_limit_exceeded`` or ``server_error``, although the status is 200:
    ``response.failed`` ends its stream after two events, or after ``error_event_after``."""

    # What the model says

    filter: Filter | None = None
    """Content filter: in asynchronous mode; that and a block after the text; blocking the completion; out of order;
    or without results in any event, as for some models in Foundry."""
    prompt_annotations: bool = False
    """Name the first event's results as some API versions do, instead of ``prompt_filter_results``."""
    answer: str | None = None
    """The text to answer with."""
    answer_in: AnswerIn = "content"
    """What carries the text: ``refusal``, or the arguments of a call, in the form of 2023 or to a custom tool."""
    tool_call: str | None = None
    """Name of the function to call, although the request does not demand it."""
    tool_calls: tuple[str, ...] = ()
    """Names of several functions to call at once."""
    hosted_calls: Mapping[str, int] = field(default_factory=dict)
    """How often a response uses Azure's own tools: ``web_search``, ``code_interpreter``, ``file_search``, ``mcp``,
    ``image_generation``. Without it, each one that the request offers is used once."""
    background_looks: int = 1
    """How often a response in the background is read as ``in_progress`` before it has ended."""
    tokens: int | None = None
    """So many tokens of visible answer, for which the text is repeated or cut."""
    tokens_per_event: int = 1
    reasoning_tokens: int | None = None
    """Number of reasoning tokens; the default is 64 for a reasoning model, and 0 for others."""
    visible_reasoning: bool = False
    """Send the reasoning as ``reasoning_content``, as Grok and DeepSeek do."""
    oversized_line: int | None = None
    """Begin the text with one token that makes its event's line so many bytes long."""
    model: str | None = None
    """The model that the answer names, which a model router has chosen."""
    service_tier: str | None = None
    """The tier that the answer names."""

    # What the answer says about its tokens

    usage: UsageForm | Mapping[str, Any] | None = None
    """The form of ``usage``: ``azure``; only the three numbers; floats; Grok's and DeepSeek's forms; numbers that are
    null, zeros, ``{}``, ``null``; no such key at all; or an object, which is sent as it is."""
    usage_in: UsagePlace = "last"
    """The event that has the usage: the ``last`` one if the request asks for it; the one with the ``finish_reason``,
    as Mistral's; ``every`` one, counted up to there; or the last one, after zeros in every other (``placeholder``).
    All but the first come without being asked for."""
    prompt_tokens: int | None = None
    """The number of tokens of the prompt, if it is not to be counted."""
    cached_tokens: int = 0
    audio_prompt_tokens: int = 0
    audio_completion_tokens: int = 0
    image_prompt_tokens: int = 0

    # How it is written

    json: Json | None = None
    """Blanks behind colons and commas and escapes for what is not ASCII; names in another order; or one value in a
    line, which in a stream takes several ``data:`` lines."""
    line_end: LineEnd = "lf"
    """Of the lines of a stream; ``mixed``: another one for each event."""
    blank_after_colon: bool = True
    """Write ``data: {`` and not ``data:{``."""
    lines_before: tuple[str, ...] = ()
    """Lines before the data of each event, such as ``event: message``, ``id: 7``, or a comment: ``: ping``. After an
    empty one they are an event of their own."""
    bom: bool = False
    """Begin the stream with a byte order mark."""
    unfinished: int = 0
    """Leave away so many line ends, at most two, behind the last event."""
    compress: Coding | None = None
    """Compress the body, each event by itself, whatever the client accepts."""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Headers that are added to the answer, or replace headers of the answer; ``None`` leaves a header away."""
    raw: Raw | None = None

    def __post_init__(self) -> None:
        for name, possible in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in possible:
                raise ValueError(f"{name} {value!r} is none of {', '.join(possible)}")
        if isinstance(self.usage, str) and self.usage not in get_args(UsageForm):
            raise ValueError(f"usage {self.usage!r} is none of {', '.join(get_args(UsageForm))}, and no object")
        if isinstance(self.split, int) and self.split < 1:
            raise ValueError("split takes at least one byte")
        if self.tokens_per_event < 1:
            raise ValueError("tokens_per_event takes at least one token")
        if self.tokens_per_second is not None and (self.gap or self.tokens_per_second <= 0):
            raise ValueError("tokens_per_second is above 0, and needs no gap")
        for name, number in self.hosted_calls.items():
            if name not in HOSTED_TOOLS or not isinstance(number, int):
                raise ValueError(f"hosted_calls has numbers for {', '.join(HOSTED_TOOLS)}")
        if self.fault_if and self.fault is None:
            raise ValueError("fault_if needs a fault")
        if not 0 <= self.unfinished <= 2:
            raise ValueError("unfinished is 0, 1 or 2")

    def __repr__(self) -> str:
        """Name only what differs from an ordinary answer."""
        changed = [name for name in Script.__slots__ if getattr(self, name) != getattr(ORDINARY, name)]
        return f"Script({', '.join(f'{name}={getattr(self, name)!r}' for name in changed)})"

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Script:
        """Read a script from an object with the names of the fields.

        ``raw`` is ``{"status", "headers", "body"}``, bytes that are no text as ``"body_base64"``.

        Raises:
            ValueError: a name or a value is not possible.
        """
        if not isinstance(document, Mapping):
            raise ValueError("a script is an object")
        unknown = set(document) - {known.name for known in fields(cls)}
        if unknown:
            raise ValueError(f"a script has no {', '.join(sorted(unknown))}")
        values = {name: value for name, value in document.items() if value is not None}
        for name, value in values.items():
            if not isinstance(value, _JSON_TYPES.get(name, object)):
                raise ValueError(f"{name} cannot be {value!r}")
        for name in ("split", "lines_before", "fault_if", "tool_calls"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        if "raw" in values:
            values["raw"] = _raw(values["raw"])
        return cls(**values)


def _raw(document: Mapping[str, Any]) -> Raw:
    if "body_base64" in document:
        body = base64.b64decode(document["body_base64"])
    else:
        body = str(document.get("body", "")).encode()
    return Raw(int(document.get("status", 200)), dict(document.get("headers", {})), body)


ORDINARY = Script()


class ScriptQueue:
    """A queue of scripts for the next requests. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Script, int | None]] = deque()

    def add(self, script: Script, *, times: int | None) -> None:
        """Use *script* for the next *times* requests; ``None`` means all requests until :meth:`clear`."""
        if times is not None and times < 1:
            raise ValueError("times is at least 1, or None for every request")
        with self._lock:
            self._waiting.append((script, times))

    def next(self) -> Script:
        if not self._waiting:
            return ORDINARY
        with self._lock:
            if not self._waiting:
                return ORDINARY
            script, times = self._waiting[0]
            if times is not None:
                self._waiting.popleft()
                if times > 1:
                    self._waiting.appendleft((script, times - 1))
            return script

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()
