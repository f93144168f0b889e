"""Relays the events of a streamed answer to the client, and counts its tokens.

Relaying must cost little CPU time, so each step does little. One read returns everything that has arrived. Few events
are parsed (:class:`~llmgateway.usage.meter.StreamMeter`). One write passes everything on. If many streams are open,
each waits a moment between two reads (:class:`~llmgateway.proxy.coalescing.ReadCoalescing`).
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ClientGone, GatewayError, GatewayStopping, KeyRevoked, UpstreamBroken, UpstreamTimeout
from ..interfaces import Answer
from ..records import Outcome
from ..usage.meter import Meter
from ..usage.seen import Seen
from .call import UpstreamCall, outcome_of
from .coalescing import ReadCoalescing
from .plain import See, read_beginning, read_plain, see_plain

EVENT_END = b"\n\n"

PLENTY = 16 * 1024
"""If a read returned this many bytes, the stream does not wait before the next one. It would gain little, and the text
would be late."""


class EventStream:
    """A streamed answer as WSGI expects it: an iterator with a ``close`` method (PEP 3333).

    It is a class and not a generator, because a generator that was never started does not run its ``finally`` block.
    If a client disconnected early, the connection and the slot would not be released, and no usage record written.

    The iterator yields complete events only. If a chunk ends in the middle of an event, the beginning of that event is
    held back until its rest arrives. So the usage event can be removed, and an error event can follow if Azure breaks
    off.

    Args:
        meter: Reads the events, and changes or removes some.
        see: Reads the answer if it is a document and no stream.
        error_event: Returns the event that says why the stream has broken off.
        beginning: What was read of the answer before, to find out that it is a stream; None if nothing was. Then the
            stream itself finds it out, and passes a document on as it is.
        send_head: Sends status and headers to the client before the first event; None if the server cannot do that.
    """

    def __init__(
        self,
        answer: Answer,
        call: UpstreamCall,
        *,
        meter: Meter,
        see: See,
        error_event: Callable[[GatewayError, Seen], bytes],
        coalescing: ReadCoalescing | None = None,
        beginning: bytes | None = None,
        send_head: Callable[[], None] | None = None,
    ) -> None:
        self._answer = answer
        self._call = call
        self._coalescing = coalescing or ReadCoalescing()
        self._coalescing.begin()
        self._meter = meter
        self._see = see
        self._error_event = error_event
        call.accounting.seen = meter.seen
        self._beginning = beginning
        self._document: bytes | None = None
        self._send_head = send_head
        self._last_size = 0
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
            except (KeyRevoked, GatewayStopping, UpstreamTimeout, UpstreamBroken) as error:
                events = self._break_off(error)
            else:
                events = self._relay(self._meter.feed(chunk)) if chunk else self._complete()
            if events:  # never yield b"": some servers take it for the end of the body
                self._send_head = None
                return events
            if self._send_head is not None:
                # The first event was withheld. The next one may take minutes, and the client must not give up.
                self._send_head()
                self._send_head = None
        raise StopIteration

    def close(self) -> None:
        """End the stream if it has not ended. The server also calls this when the client has disconnected."""
        if self._ended:
            return
        # That [DONE] was read does not mean that the client has it: a whole stream can arrive in one chunk.
        self._send_head = None
        self._client_left = not self._meter.done or self._call.cancellation.abandoned()
        try:
            if self._client_left and self._call.goes_on_without_client():
                for _ in self:  # until its end, or until it is cut
                    pass
        finally:
            self._end(Outcome.OK)

    def _read(self) -> bytes:
        if self._beginning != b"":
            return self._read_beginning()
        # Do not delay the first text, nor the end of the stream after [DONE].
        if self._meter.seen.completion_tokens and not self._meter.done and self._last_size < PLENTY:
            self._coalescing.wait(self._call.cancellation)
        chunk = self._answer.read()
        self._last_size = len(chunk)
        return chunk

    def _read_beginning(self) -> bytes:
        beginning, self._beginning = self._beginning, b""
        if beginning is None:
            is_stream, beginning = read_beginning(self._answer)
            if not is_stream:
                self._document = read_plain(self._answer, beginning)
                return b""
        self._last_size = len(beginning)
        return beginning

    def _relay(self, events: bytes) -> bytes:
        """Tell the call what the meter has read, and return *events*."""
        seen = self._meter.seen
        if seen.completion_tokens:
            self._call.accounting.text_arrived()
        if seen.response_id is not None:
            self._call.note(seen, complete=self._meter.done or self._meter.failed)
        if self._meter.done:
            self._call.commit(seen)
        return events

    def _complete(self) -> bytes:
        if self._document is not None:
            return self._complete_document(self._document)
        rest = self._relay(self._meter.end())
        if not self._meter.done and not self._meter.failed:
            # Azure ends every stream with [DONE]. If it is missing, something on the way cut the stream short.
            return self._break_off(UpstreamBroken("The model's provider broke off its answer."))
        self._end(Outcome.UPSTREAM_ERROR if self._meter.failed else Outcome.OK)
        return rest

    def _complete_document(self, document: bytes) -> bytes:
        self._meter.seen = self._call.accounting.seen = see_plain(document, self._see)
        self._call.commit(self._meter.seen)
        self._end(Outcome.OK)
        return document

    def _break_off(self, error: GatewayError) -> bytes:
        if self._meter.done or self._meter.failed:
            return self._complete()  # the connection broke after the end of the stream: nothing is missing
        # An event that was passed on in part must end first. Otherwise the error would become a part of it.
        end = EVENT_END if self._meter.is_inside_event else b""
        self._call.accounting.error_code = error.code
        self._end(outcome_of(error))
        return end + self._error_event(error, self._meter.seen)

    def _end(self, outcome: Outcome) -> None:
        if self._ended:
            return
        self._ended = True
        self._coalescing.end()
        self._meter.count_rest()
        if outcome is Outcome.OK and self._client_left:
            outcome = Outcome.CLIENT_CLOSED  # also if the stream was read to its end
        try:
            self._answer.close()
        finally:
            ended = self._meter.done or self._meter.failed or self._document is not None
            self._call.finish(outcome, self._meter.seen, ended=ended)
