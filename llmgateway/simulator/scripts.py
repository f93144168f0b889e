"""Scripts that make the simulator serve a request in a special way."""

from __future__ import annotations

import base64
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, get_args

from .faults import FAULTS

_JSON_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("delay", "gap"), (int, float)),
    **dict.fromkeys(("cut_after_events", "cut_after_bytes", "stall_after_events", "error_event_after"), int),
    **dict.fromkeys(("retry_after", "tokens", "reasoning_tokens", "cached_tokens", "oversized_line"), int),
    **dict.fromkeys(("reset", "refuse", "prompt_annotations"), bool),
    **dict.fromkeys(("framing", "fault", "filter", "answer", "tool_call"), str),
    **dict.fromkeys(("headers", "raw"), dict),
    "split": (int, list),
}

Framing = Literal["chunked", "length", "close"]
Filter = Literal["asynchronous", "late_block", "completion", "outage"]


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

    delay: float = 0.0
    """Seconds before the head of the answer."""
    gap: float = 0.0
    """Seconds from one event to the next."""
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
    fault: str | None = None
    """One of :data:`~llmgateway.simulator.faults.FAULTS` is the answer."""
    retry_after: int | None = None
    """Seconds that a 429 asks for; without it those of the recorded one."""
    filter: Filter | None = None
    """Content filter: in asynchronous mode; that and a block after the text; blocking the completion; out of order."""
    prompt_annotations: bool = False
    """Name the first event's results as some API versions do, instead of ``prompt_filter_results``."""
    answer: str | None = None
    """The text to answer with."""
    tokens: int | None = None
    """So many tokens of visible answer, for which the text is repeated or cut."""
    reasoning_tokens: int | None = None
    """Number of reasoning tokens; the default is 64 for a reasoning model, and 0 for others."""
    cached_tokens: int = 0
    tool_call: str | None = None
    """Name of the function to call, although the request does not demand it."""
    error_event_after: int | None = None
    """End the stream with an error event after this many events, without ``[DONE]``."""
    oversized_line: int | None = None
    """Begin the text with one token that makes its event's line so many bytes long."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that are added to the answer, or replace headers of the answer."""
    raw: Raw | None = None

    def __post_init__(self) -> None:
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(f"fault {self.fault!r} is none of {', '.join(sorted(FAULTS))}")
        if self.framing is not None and self.framing not in get_args(Framing):
            raise ValueError(f"framing {self.framing!r} is none of {', '.join(get_args(Framing))}")
        if self.filter is not None and self.filter not in get_args(Filter):
            raise ValueError(f"filter {self.filter!r} is none of {', '.join(get_args(Filter))}")
        if isinstance(self.split, int) and self.split < 1:
            raise ValueError("split takes at least one byte")

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
        if isinstance(values.get("split"), list):
            values["split"] = tuple(values["split"])
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
