"""Relays the body of Azure's answer to the client, and counts its tokens.

Relaying must cost little CPU time, so each step does little. One read returns everything that has arrived. A few byte
searches find what matters for the usage record; only those events are parsed as JSON. One write passes everything on.
If many streams are open, each waits a moment between two reads (:class:`ReadCoalescing`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypedDict

import orjson

from ..azure.cancellation import CancellationToken
from ..clock import Timer
from ..errors import ClientGone, GatewayError, GatewayStopping, UpstreamBroken, UpstreamTimeout
from ..interfaces import Answer
from ..records import Outcome, Usage
from ..usage.tokens import BLANK_LINES, StreamMeter, fired_filters, model_name, parse_usage
from .call import UpstreamCall

EVENT_END = b"\n\n"

LARGEST_EVENT = 64 * 1024
"""The most bytes of an incomplete event that are held back. A longer one is passed on in parts. A usage event has about
500 bytes."""

PLENTY = 16 * 1024
"""If a read returned this many bytes, the stream does not wait before the next one. It would gain little, and the text
would be late."""

LARGEST_PLAIN_ANSWER = 64 * 1024 * 1024
"""The most bytes of an answer that is not streamed."""


class ReadCoalescing:
    """Makes streams wait between two reads, so that one read returns several chunks. Thread-safe.

    Each read and each write acquires the interpreter's lock (GIL) again. With hundreds of threads, passing the lock
    on is most of the work: 300 streams of 50 chunks a second need three times the CPU time if every chunk wakes its
    thread, and a new stream waits for seconds. So the wait grows with the number of streams. Few streams do not
    wait, because it would gain nothing. The wait has a maximum, above which users would notice it.

    Args:
        sleep: Waits for a number of seconds; returns earlier if the request is cancelled.
    """

    FEW_STREAMS = 30
    SECONDS_FOR_EACH = 0.00035
    MOST_SECONDS = 0.15

    def __init__(self, *, sleep: Callable[[CancellationToken, float], None] = CancellationToken.rest) -> None:
        self._sleep = sleep
        self._lock = threading.Lock()
        self.streams = 0
        """The number of open streams."""

    def begin(self) -> None:
        with self._lock:
            self.streams += 1

    def end(self) -> None:
        with self._lock:
            self.streams -= 1

    def wait(self, cancellation: CancellationToken) -> None:
        """Wait until the next read of the request of *cancellation*."""
        if self.streams > self.FEW_STREAMS:
            self._sleep(cancellation, min(self.streams * self.SECONDS_FOR_EACH, self.MOST_SECONDS))


class ReadToEnd:
    """Reads answers to their end after their clients have disconnected, to get Azure's own token count. Thread-safe.

    Args:
        seconds: The most time for one answer.
        at_once: The most answers that are read at the same time; each of them keeps a thread and a slot.
    """

    def __init__(self, *, seconds: float, at_once: int, timer: Timer) -> None:
        self._seconds = seconds
        self._slots = threading.BoundedSemaphore(at_once) if at_once else None
        self._timer = timer

    def read_on(self, body: EventStream) -> None:
        """Read *body* until it ends or its time is over; return at once if too many answers are being read."""
        if self._slots is None or not self._slots.acquire(blocking=False):
            return
        try:
            deadline = self._timer() + self._seconds
            for _ in body:
                if self._timer() > deadline:
                    return
        finally:
            self._slots.release()


class EventStream:
    """A streamed answer as WSGI expects it: an iterator with a ``close`` method (PEP 3333).

    It is a class and not a generator, because a generator that was never started does not run its ``finally`` block.
    If a client disconnected early, the connection and the slot would not be released, and no usage record written.

    The iterator yields complete events only. If a chunk ends in the middle of an event, the beginning of that event is
    held back until its rest arrives. So the usage event can be removed, and an error event can follow if Azure breaks
    off.

    Args:
        withhold_usage: Whether to remove the usage event, because the client did not ask for it.
    """

    def __init__(
        self,
        answer: Answer,
        call: UpstreamCall,
        *,
        withhold_usage: bool,
        read_to_end: ReadToEnd,
        coalescing: ReadCoalescing | None = None,
    ) -> None:
        self._answer = answer
        self._call = call
        self._withhold_usage = withhold_usage
        self._read_to_end = read_to_end
        self._coalescing = coalescing or ReadCoalescing()
        self._coalescing.begin()
        self._meter = StreamMeter()
        self._last_size = 0
        self._held = b""
        self._client_left = False
        self._ended = False

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> bytes:
        while not self._ended:
            try:
                chunk = self._read()
            except ClientGone:
                self._end(Outcome.CLIENT_CLOSED)
                break
            except GatewayStopping as error:
                events = self._break_off(Outcome.INTERRUPTED, error)
            except UpstreamTimeout as error:
                events = self._break_off(Outcome.TIMEOUT, error)
            except UpstreamBroken as error:
                events = self._break_off(Outcome.BROKEN, error)
            else:
                events = self._relay(self._complete_events(chunk)) if chunk else self._complete()
            if events:  # never yield b"": some servers take it for the end of the body
                return events
        raise StopIteration

    def close(self) -> None:
        """End the stream if it has not ended. The server also calls this when the client has disconnected."""
        if self._ended:
            return
        # That [DONE] was read does not mean that the client has it: a whole stream can arrive in one chunk.
        self._client_left = not self._meter.done or self._call.cancellation.abandoned()
        try:
            if self._client_left:
                self._read_to_end.read_on(self)
        finally:
            self._end(Outcome.OK)

    def _read(self) -> bytes:
        # Do not delay the first text, nor the end of the stream after [DONE].
        if self._meter.pieces and not self._meter.done and self._last_size < PLENTY:
            self._coalescing.wait(self._call.cancellation)
        chunk = self._answer.read()
        self._last_size = len(chunk)
        return chunk

    def _complete_events(self, chunk: bytes) -> bytes:
        """Return the events that are complete now, and hold the rest back."""
        arrived = self._held + chunk if self._held else chunk
        end = 0
        for blank_line in BLANK_LINES:
            if (found := arrived.rfind(blank_line)) >= 0:
                end = max(end, found + len(blank_line))
        if len(arrived) - end > LARGEST_EVENT:
            end = len(arrived)
        self._held = arrived[end:]
        return arrived[:end]

    def _relay(self, events: bytes) -> bytes:
        """Count *events*, and return what goes to the client."""
        if not events:
            return events
        usage_event = self._meter.feed(events)
        if self._meter.pieces:
            self._call.first_text()
        if self._meter.done:
            self._call.commit(**self._counted())
        if usage_event and self._withhold_usage:
            events = events.replace(usage_event, b"", 1)
        return events

    def _complete(self) -> bytes:
        rest = self._relay(self._held)
        if not self._meter.done and not self._meter.failed:
            # Azure ends every stream with [DONE]. If it is missing, something on the way cut the stream short.
            return self._break_off(Outcome.BROKEN, UpstreamBroken("The model's provider broke off its answer."))
        self._end(Outcome.UPSTREAM_ERROR if self._meter.failed else Outcome.OK)
        return rest

    def _break_off(self, outcome: Outcome, error: GatewayError) -> bytes:
        if self._meter.done or self._meter.failed:
            return self._complete()  # the connection broke after the end of the stream: nothing is missing
        self._end(outcome)
        return b"data: " + orjson.dumps(error.as_json()) + EVENT_END

    def _end(self, outcome: Outcome) -> None:
        if self._ended:
            return
        self._ended = True
        self._coalescing.end()
        if outcome is Outcome.OK and self._client_left:
            outcome = Outcome.CLIENT_CLOSED  # also if the stream was read to its end
        try:
            self._answer.close()
        finally:
            self._call.finish(outcome, content_filter=self._meter.content_filter, **self._counted())

    def _counted(self) -> _Counted:
        meter = self._meter
        return {"usage": meter.usage, "estimated_completion_tokens": meter.pieces, "model": meter.model}


class _Counted(TypedDict):
    """What the meter has counted, as keyword arguments for :meth:`UpstreamCall.finish`."""

    usage: Usage | None
    estimated_completion_tokens: int
    model: str | None


def read_plain(answer: Answer) -> bytes:
    """Read the whole body of an answer that is not streamed, and close the answer.

    Nothing goes to the client before the body is complete. So if the connection breaks, the client gets an error.

    Raises:
        UpstreamTimeout: Azure was silent for too long.
        UpstreamBroken: the connection broke, or the body has more than :data:`LARGEST_PLAIN_ANSWER` bytes.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := answer.read():
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_PLAIN_ANSWER:
                raise UpstreamBroken("The answer of the model's provider is too large.")
    finally:
        answer.close()
    return b"".join(chunks)


def finish_plain(call: UpstreamCall, status: int, body: bytes) -> None:
    """End *call* with the usage, the model and the content filters in *body*, an answer that is not streamed."""
    document = _parsed(body)
    usage = parse_usage(document)
    call.finish(
        Outcome.OK if status < 400 else Outcome.UPSTREAM_ERROR,
        usage=usage,
        model=model_name(document),
        # A content filter that found something has the value true. Most answers contain no "true" and need no search.
        content_filter=fired_filters(document) if b"true" in body else (),
    )


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
