"""The body on its way back: read, metered, passed on, ended exactly once.

What is fast here is that little is done. Everything that has arrived is read at once, looked at by a few
searches for bytes, and passed on in one write; JSON is read where the bytes say that there is something in it
for the usage record. And where many streams are under way each waits a moment before it reads again.
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
"""Bytes of an unfinished event that are kept; a longer one is passed on as it comes. A usage
event has some 500."""

PLENTY = 16 * 1024
"""Bytes: where so much came at once, waiting would gather more, but would hold it up for too long."""

LARGEST_PLAIN_ANSWER = 64 * 1024 * 1024


class ReadCoalescing:
    """How long streams let chunks gather before they read again. Thread-safe.

    Each read and each write takes Python's lock once more, and with hundreds of threads handing it around is
    most of the work: 300 streams of 50 chunks a second need three times the CPU when every chunk wakes its
    thread, and a new stream waits for seconds. So the more streams there are, the longer each waits. With a
    few there is nothing to gain, and beyond a point a reader would see it.

    Args:
        sleep: Waits for that many seconds, less if the request is cut meanwhile.
    """

    FEW_STREAMS = 30
    SECONDS_FOR_EACH = 0.00035
    MOST_SECONDS = 0.15

    def __init__(self, *, sleep: Callable[[CancellationToken, float], None] = CancellationToken.rest) -> None:
        self._sleep = sleep
        self._lock = threading.Lock()
        self.streams = 0
        """How many are under way."""

    def begin(self) -> None:
        with self._lock:
            self.streams += 1

    def end(self) -> None:
        with self._lock:
            self.streams -= 1

    def wait(self, cancellation: CancellationToken) -> None:
        """Let the chunks of the request of *cancellation* gather."""
        if self.streams > self.FEW_STREAMS:
            self._sleep(cancellation, min(self.streams * self.SECONDS_FOR_EACH, self.MOST_SECONDS))


class ReadToEnd:
    """Reading abandoned answers to their end for an exact count, within limits. Thread-safe.

    Args:
        seconds: The most that one answer gets.
        at_once: How many answers may be read to their end at the same time; each holds a thread and a place.
    """

    def __init__(self, *, seconds: float, at_once: int, timer: Timer) -> None:
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(at_once) if at_once else None
        self._timer = timer

    def read_on(self, body: EventStream) -> None:
        """Read *body* until it ends or its time is up; return at once if too many are at it."""
        if self._places is None or not self._places.acquire(blocking=False):
            return
        try:
            deadline = self._timer() + self._seconds
            for _ in body:
                if self._timer() > deadline:
                    return
        finally:
            self._places.release()


class EventStream:
    """A streamed answer on its way to the client, as WSGI wants it: an iterator with ``close``.

    It is a class because a generator that was never started skips its ``finally``: the
    connection, the place and the bill of a client that left early would be lost.

    Only whole events leave: an event that the socket has cut waits for its rest. So an event
    can be withheld, and where Azure breaks off, the error that says so is an event of its own.
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
        self._left = False
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
                events = self._pass(self._whole_events(chunk)) if chunk else self._complete()
            if events:  # nothing to say is not said: for some servers an empty piece is the end
                return events
        raise StopIteration

    def close(self) -> None:
        """End whatever has not ended; the server calls this when the client is gone, too."""
        if self._ended:
            return
        # What has been asked for may not have been sent: a whole stream can come in one piece.
        self._left = not self._meter.done or self._call.cancellation.abandoned()
        try:
            if self._left:
                self._read_to_end.read_on(self)
        finally:
            self._end(Outcome.OK)

    def _read(self) -> bytes:
        # Nothing is held up before the first text has been passed on, nor the end once it is known to come.
        if self._meter.pieces and not self._meter.done and self._last_size < PLENTY:
            self._coalescing.wait(self._call.cancellation)
        chunk = self._answer.read()
        self._last_size = len(chunk)
        return chunk

    def _whole_events(self, chunk: bytes) -> bytes:
        arrived = self._held + chunk if self._held else chunk
        end = 0
        for blank_line in BLANK_LINES:
            if (found := arrived.rfind(blank_line)) >= 0:
                end = max(end, found + len(blank_line))
        if len(arrived) - end > LARGEST_EVENT:
            end = len(arrived)
        self._held = arrived[end:]
        return arrived[:end]

    def _pass(self, events: bytes) -> bytes:
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
        rest = self._pass(self._held)
        if not self._meter.done and not self._meter.failed:
            # Azure ends every stream with [DONE]; without it something between us cut it short.
            return self._break_off(Outcome.BROKEN, UpstreamBroken("The model's provider broke off its answer."))
        self._end(Outcome.UPSTREAM_ERROR if self._meter.failed else Outcome.OK)
        return rest

    def _break_off(self, outcome: Outcome, error: GatewayError) -> bytes:
        if self._meter.done or self._meter.failed:
            return self._complete()  # it broke behind its own end: nothing is missing
        self._end(outcome)
        return b"data: " + orjson.dumps(error.as_json()) + EVENT_END

    def _end(self, outcome: Outcome) -> None:
        if self._ended:
            return
        self._ended = True
        self._coalescing.end()
        if outcome is Outcome.OK and self._left:
            # Read to its end or not, nobody was there for it any more.
            outcome = Outcome.CLIENT_CLOSED
        try:
            self._answer.close()
        finally:
            self._call.finish(outcome, content_filter=self._meter.content_filter, **self._counted())

    def _counted(self) -> _Counted:
        meter = self._meter
        return {"usage": meter.usage, "estimated_completion_tokens": meter.pieces, "model": meter.model}


class _Counted(TypedDict):
    """What the meter has counted, as a call takes it."""

    usage: Usage | None
    estimated_completion_tokens: int
    model: str | None


def read_plain(answer: Answer) -> bytes:
    """Read an answer that is not streamed, whole, so that a break in it can still become an error; close it.

    Raises:
        UpstreamTimeout, UpstreamBroken: as the answer does, or if it is larger than any
            completion can be.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := answer.read():
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_PLAIN_ANSWER:
                raise UpstreamBroken("The model's provider sent more than an answer can have.")
    finally:
        answer.close()
    return b"".join(chunks)


def finish_plain(call: UpstreamCall, status: int, body: bytes) -> None:
    """End *call* with what a plain answer says."""
    document = _parsed(body)
    usage = parse_usage(document)
    call.finish(
        Outcome.OK if status < 400 else Outcome.UPSTREAM_ERROR,
        usage=usage,
        model=model_name(document),
        # A verdict that fired says so with a "true", which most answers have nowhere.
        content_filter=fired_filters(document) if b"true" in body else (),
    )


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
