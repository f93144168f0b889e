"""Parts that tests of several modules put around the one they test."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import orjson

from llmgateway.proxy.call import UpstreamCall
from llmgateway.proxy.concurrency import ConcurrencyLimit
from llmgateway.proxy.disconnects import DisconnectWatcher
from llmgateway.proxy.read_on import ReadOn
from llmgateway.records import UNKNOWN_QUOTA, Bound, ModelSettings, Outcome, Owned, UsageRecord, UsageSource
from llmgateway.usage.booking import Asked
from llmgateway.usage.observed import ObservedDeployments

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


class Stopwatch:
    """A timer that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Entries:
    """Books in memory: what was begun, ended and cancelled, in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begun: list[UsageRecord] = []
        self.bounds: list[Bound] = []
        self.amended: list[UsageRecord] = []
        self.ended: list[UsageRecord] = []
        self.cancelled: list[str] = []

    def begin(self, record: UsageRecord, bound: Bound) -> None:
        with self._lock:
            self.begun.append(record)
            self.bounds.append(bound)

    def amend(self, record: UsageRecord, bound: Bound) -> None:
        with self._lock:
            self.amended.append(record)

    def end(self, record: UsageRecord) -> None:
        with self._lock:
            self.ended.append(record)

    def cancel(self, record_id: str) -> None:
        with self._lock:
            self.cancelled.append(record_id)

    @property
    def only(self) -> UsageRecord:
        """The one record there is."""
        (record,) = self.ended
        return record


class Owners:
    """A :class:`~llmgateway.interfaces.StoredResponses` in memory."""

    def __init__(self) -> None:
        self.owned: dict[str, Owned] = {}

    def remember(self, record: UsageRecord) -> None:
        for stored_id in (record.response_id, *record.stored_ids):
            if stored_id:
                self.owned[stored_id] = Owned.of(record)

    def find(self, stored_id: str, *, anew: bool = False) -> Owned | None:
        return self.owned.get(stored_id)


class Claimed:
    """An admission that remembers how it ended."""

    headers: dict[str, str] = {}
    has_counter_requests = True
    limit_names = ("key.budget",)

    def __init__(self) -> None:
        self.committed: list[UsageRecord] = []
        self.refunds = 0

    def commit(self, record: UsageRecord) -> None:
        self.committed.append(record)

    def refund(self) -> None:
        self.refunds += 1


class ScriptedAnswer:
    """An :class:`~llmgateway.interfaces.Answer` whose body is chunks, and errors that reading meets."""

    status = 200
    headers: list[tuple[str, str]] = []
    location = None
    region = "East US 2"
    upstream_request_id = "upstream-1"
    is_event_stream = True
    quota = UNKNOWN_QUOTA
    spilled_to = None

    def __init__(self, *script: bytes | Exception) -> None:
        self._script = list(script)
        self.reads = 0
        self.closed = 0

    def read(self) -> bytes:
        assert not self.closed, "read after close"
        self.reads += 1
        step = self._script.pop(0) if self._script else b""
        if isinstance(step, Exception):
            raise step
        return step

    def arrived(self) -> bytes:
        return self._script[0] if self._script and isinstance(self._script[0], bytes) else b""

    def close(self) -> None:
        self.closed += 1


def draft(**fields: object) -> UsageRecord:
    """The record that a request leaves if nothing more is ever known of it."""
    record = UsageRecord(
        id="req-1",
        timestamp=NEW_YEAR,
        key_id="key_1",
        user="ada",
        model="gpt-4o-mini",
        deployment="gpt-4o-mini",
        endpoint="/v1/chat/completions",
        stream=True,
        outcome=Outcome.INTERRUPTED,
        prompt_tokens=10,
        total_tokens=10,
        usage_source=UsageSource.ESTIMATED,
        duration_ms=0.0,
    )
    return replace(record, **fields)


def new_call(
    entries: Entries,
    concurrency: ConcurrencyLimit,
    *,
    disconnects: DisconnectWatcher | None = None,
    read_on: ReadOn | None = None,
    observed: ObservedDeployments | None = None,
    timer: Stopwatch | None = None,
) -> UpstreamCall:
    """A call that has a place and nothing else."""
    return UpstreamCall(
        "req-1",
        concurrency,
        recorder=entries,
        disconnects=disconnects or DisconnectWatcher(),
        read_on=read_on or ReadOn(seconds=0, at_once=0),
        observed=observed or ObservedDeployments(),
        timer=timer or Stopwatch(),
    )


def call(
    entries: Entries,
    timer: Stopwatch | None = None,
    *,
    models: Mapping[str, ModelSettings] | None = None,
    asked: Asked | None = None,
    read_on: ReadOn | None = None,
    observed: ObservedDeployments | None = None,
    disconnects: DisconnectWatcher | None = None,
    client_gone: Callable[[], bool] | None = None,
    admission: Claimed | None = None,
    concurrency: ConcurrencyLimit | None = None,
    **fields: object,
) -> UpstreamCall:
    """A call that is about to be sent."""
    made = new_call(
        entries,
        concurrency or ConcurrencyLimit(1),
        disconnects=disconnects,
        read_on=read_on,
        observed=observed,
        timer=timer,
    )
    made.begin(
        draft(**fields),
        admission or Claimed(),
        models=models or {},
        asked=asked or Asked(),
        client_gone=client_gone,
    )
    return made


# Azure's events, as recorded in 2026


def event(document: object) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


def chunk(text: str | None = None, *, finish: str | None = None, **choice: object) -> bytes:
    delta = {} if text is None else {"content": text}
    choices = [
        {"content_filter_results": {}, "delta": delta, "finish_reason": finish, "index": 0, "logprobs": None} | choice
    ]
    return event({"choices": choices, "created": 1, "id": "c-1", "model": "gpt-4o-mini-2024-07-18", "usage": None})


def usage_event(prompt: int = 7, completion: int = 3, *, cached: int = 0, reasoning: int = 0) -> bytes:
    usage = {
        "completion_tokens": completion,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
        "prompt_tokens": prompt,
        "prompt_tokens_details": {"cached_tokens": cached},
        "total_tokens": prompt + completion,
    }
    return event({"choices": [], "created": 1, "id": "c-1", "model": "gpt-4o-mini-2024-07-18", "usage": usage})


SAFE = {"filtered": False, "severity": "safe"}
FIRST = event(
    {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": SAFE, "violence": SAFE}}],
    }
)
DONE = b"data: [DONE]\n\n"


def stream(*texts: str, usage: bytes = usage_event()) -> list[bytes]:
    """The events of an ordinary stream that says *texts*."""
    return [FIRST, chunk(""), *map(chunk, texts), chunk(finish="stop"), *([usage] if usage else []), DONE]


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """*data* in pieces that end at *cuts*."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def in_openais_dialect(body: bytes, *, usage: bool = False) -> bytes:
    """What a client of ``/v1`` gets of Azure's stream *body*, with the *usage* event if it asked for it.

    Only the complete events of a stream that breaks off.
    """
    *events, _ = body.split(b"\n\n")
    kept = [event for event in events if b'"choices":[]' not in event or (usage and b'"usage":{' in event)]
    return b"".join(
        (event if b'"delta"' in event else event.replace(b'"choices":[{', b'"choices":[{"delta":{},')) + b"\n\n"
        for event in kept
    )
