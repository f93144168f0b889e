"""Azure's part, as fast as one process can play it: every answer is made beforehand.

A request says itself how it is answered, in fields that every gateway passes on: ``max_tokens`` words of
a plain answer or chunks of a stream, ``seed`` microseconds before the first of them and between two of a
stream (0: as fast as they can be sent). The order of a stream's events and their fields are Azure's.

Needs only the standard library: ``python upstream.py PORT`` serves on loopback until it is ended.
"""

from __future__ import annotations

import functools
import heapq
import re
import select
import socket
import sys
import time
from collections import deque
from typing import NoReturn

_BACKLOG = 4096
_BURST = 16  # chunks that one stream may send before it is another one's turn
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TOKENS = re.compile(rb'"max_(?:completion_)?tokens": ?(\d+)')
_SEED = re.compile(rb'"seed": ?(\d+)')
_STREAM = re.compile(rb'"stream": ?true')
_INCLUDE_USAGE = re.compile(rb'"include_usage": ?true')

_SAFE = b",".join(
    b'"%s":{"filtered":false,"severity":"safe"}' % name for name in (b"hate", b"self_harm", b"sexual", b"violence")
)
_HEADERS = (
    b"apim-request-id: 5d0a3c7e-1a2b-4c3d-8e4f-001122334455\r\n"
    b"x-ms-region: East US 2\r\n"
    b"x-ratelimit-remaining-requests: 119\r\n"
    b"x-ratelimit-remaining-tokens: 119986\r\n"
    b"x-request-id: 6e1b4d8f-2b3c-4d5e-9f60-112233445566\r\n"
)
_COMMON = (
    b'"created":1774890000,"id":"chatcmpl-Dq3b7yVt0xW9mK2","model":"gpt-4o-mini-2024-07-18",'
    b'"object":"chat.completion.chunk","system_fingerprint":"fp_efad92c60b"'
)


@functools.cache
def plain_answer(tokens: int) -> bytes:
    """A whole answer of *tokens* words."""
    body = (
        b'{"choices":[{"content_filter_results":{%s},"finish_reason":"stop","index":0,"logprobs":null,"message":'
        b'{"annotations":[],"content":"%s","refusal":null,"role":"assistant"}}],"created":1774890000,'
        b'"id":"chatcmpl-Dq3b7yVt0xW9mK2","model":"gpt-4o-mini-2024-07-18","object":"chat.completion",'
        b'"prompt_filter_results":[{"prompt_index":0,"content_filter_results":{%s}}],'
        b'"system_fingerprint":"fp_efad92c60b","usage":%s}'
    ) % (_SAFE, b"word " * tokens, _SAFE, _usage(tokens))
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: application/json\r\n%s\r\n%s" % (
        len(body),
        _HEADERS,
        body,
    )


@functools.cache
def stream_pieces(tokens: int, include_usage: bool) -> tuple[bytes, ...]:
    """What is sent at once, of a stream of *tokens* tokens: the head with the first, each other, the end."""
    null = b',"usage":null' if include_usage else b""
    events = [
        b'{"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,'
        b'"content_filter_results":{%s}}]}' % _SAFE,
        b'{"choices":[{"content_filter_results":{},"delta":{"content":"","refusal":null,"role":"assistant"},'
        b'"finish_reason":null,"index":0,"logprobs":null}],%s%s}' % (_COMMON, null),
    ]
    events += [
        b'{"choices":[{"content_filter_results":{%s},"delta":{"content":" tok%d"},"finish_reason":null,"index":0,'
        b'"logprobs":null}],%s%s}' % (_SAFE, number, _COMMON, null)
        for number in range(tokens)
    ]
    last = [
        b'{"choices":[{"content_filter_results":{},"delta":{},"finish_reason":"stop","index":0,"logprobs":null}],%s%s}'
        % (_COMMON, null)
    ]
    if include_usage:
        last.append(b'{"choices":[],%s,"usage":%s}' % (_COMMON, _usage(tokens)))
    last.append(b"[DONE]")
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n%s\r\n"
        % _HEADERS
    )
    first, *others = [b"".join(map(_chunk, events[:3])), *map(_chunk, events[3:])]
    return (head + first, *others, b"".join(map(_chunk, last)) + b"0\r\n\r\n")


def _usage(tokens: int) -> bytes:
    return (
        b'{"completion_tokens":%d,"completion_tokens_details":{"accepted_prediction_tokens":0,"audio_tokens":0,'
        b'"reasoning_tokens":0,"rejected_prediction_tokens":0},"prompt_tokens":60,"prompt_tokens_details":'
        b'{"audio_tokens":0,"cached_tokens":0},"total_tokens":%d}' % (tokens, tokens + 60)
    )


def _chunk(event: bytes) -> bytes:
    data = b"data: %s\n\n" % event
    return b"%x\r\n%s\r\n" % (len(data), data)


class _Connection:
    """One client, and what it has still to get."""

    __slots__ = ("due", "gap", "is_open", "next", "pieces", "received", "socket", "unsent", "waits")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.received = b""
        self.pieces: tuple[bytes, ...] = ()
        self.next = 0
        self.unsent = b""
        self.gap = 0.0
        self.due = 0.0
        self.is_open = True
        self.waits = False
        """For room in the socket's buffer."""

    def __lt__(self, other: _Connection) -> bool:
        return self.due < other.due


class Upstream:
    """Serves any number of clients with one thread."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._timed: list[_Connection] = []
        self._ready: deque[_Connection] = deque()

    def serve(self) -> NoReturn:
        while True:
            for descriptor, events in self._poll.poll(self._patience()):
                if descriptor == self._listener.fileno():
                    self._accept()
                elif connection := self._connections.get(descriptor):
                    self._attend(connection, events)
            now = time.monotonic()
            while self._timed and self._timed[0].due <= now:
                self._send(heapq.heappop(self._timed), 1)
            for _ in range(len(self._ready)):
                self._send(self._ready.popleft(), _BURST)

    def _patience(self) -> float | None:
        if self._ready:
            return 0.0
        if self._timed:
            return max(0.0, self._timed[0].due - time.monotonic())
        return None

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except BlockingIOError:
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[accepted.fileno()] = _Connection(accepted)
            self._poll.register(accepted, select.EPOLLIN)

    def _attend(self, connection: _Connection, events: int) -> None:
        if events & select.EPOLLOUT:
            self._poll.modify(connection.socket, select.EPOLLIN)
            connection.waits = False
            self._send(connection, _BURST)
        if events & ~select.EPOLLOUT:
            self._receive(connection)

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(1024 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.received += data
        head, blank_line, body = connection.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if blank_line and len(body) >= (int(length[1]) if length else 0):
            connection.received = b""
            self._answer(connection, body)

    def _answer(self, connection: _Connection, body: bytes) -> None:
        tokens = int(found[1]) if (found := _TOKENS.search(body)) else 16
        gap = int(found[1]) / 1e6 if (found := _SEED.search(body)) else 0.0
        if _STREAM.search(body):
            connection.pieces = stream_pieces(tokens, bool(_INCLUDE_USAGE.search(body)))
        else:
            connection.pieces = (plain_answer(tokens),)
        connection.next, connection.gap, connection.due = 0, gap, time.monotonic() + gap
        if gap:
            heapq.heappush(self._timed, connection)
        else:
            self._send(connection, _BURST)

    def _send(self, connection: _Connection, pieces: int) -> None:
        """Send that many pieces, each by itself as Azure does, and see to it that the next ones follow."""
        if not connection.is_open or connection.waits:
            return
        end = min(len(connection.pieces), connection.next + pieces)
        while connection.unsent or connection.next < end:
            data = connection.unsent or connection.pieces[connection.next]
            try:
                sent = connection.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(connection)
                return
            if not connection.unsent:
                connection.next += 1
            connection.unsent = data[sent:]
            if connection.unsent:
                connection.waits = True
                self._poll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)
                break
        if connection.next == len(connection.pieces):
            return
        if connection.gap:
            connection.due += connection.gap
            heapq.heappush(self._timed, connection)
        elif not connection.waits:
            self._ready.append(connection)

    def _close(self, connection: _Connection) -> None:
        connection.is_open = False
        del self._connections[connection.socket.fileno()]
        self._poll.unregister(connection.socket)
        connection.socket.close()


def main() -> None:
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=_BACKLOG) as listener:
        Upstream(listener).serve()


if __name__ == "__main__":
    main()
