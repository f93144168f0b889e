"""Subclasses of waitress' server, connections ("channels") and tasks.

They differ from waitress 3.0 in four points. ``tests/server/test_waitress.py`` checks all names of waitress that are
used here.

* An answer is written to the socket at once, without waitress' buffer. Its head goes together with the beginning of
  its body.
* The connection of a client that sends its request or reads its answer too slowly is closed.
* If waitress refuses a request, the answer is an error object as OpenAI's.
* A worker without free slots leaves new connections to the others (:mod:`~llmgateway.server.capacity`).
"""

from __future__ import annotations

import errno
import resource
import socket
import threading
import time
import uuid
from typing import Any, cast

import orjson
from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, WSGITask

from .. import syscalls
from ..errors import GatewayError
from ..proxy.stream import LARGEST_PLAIN_ANSWER
from ..settings import Settings
from .capacity import WorkerCapacity
from .loop import Loop
from .threads import ThreadPool

IDLE_CONNECTIONS = 1000
"""The most open connections of a process besides one for each thread."""

SLOWEST_SENDER = 4096
"""Bytes per second. A client that sends its request at this rate or faster is not cut off by the client time-out."""

_serving = threading.local()
"""Its attribute ``channel`` is the connection whose request this thread runs."""


class RefusalTask(ErrorTask):
    """Answers a request that waitress cannot parse with an error object as OpenAI's."""

    def execute(self) -> None:
        error = cast(Any, self.request).error
        # error.body has more details, but it quotes the request, which may contain a key.
        refusal = GatewayError(_unreadable(error.code, error.reason, self.channel.adj.max_request_body_size - 1))
        refusal.type = "invalid_request_error" if error.code < 500 else "server_error"
        refusal.code = "body_too_large" if error.code == 413 else refusal.type
        body = orjson.dumps(refusal.as_json())
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", "application/json"), ("x-request-id", str(uuid.uuid4()))]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


def _unreadable(code: int, reason: str, largest: int) -> str:
    if code == 413:
        return (
            f"The body is larger than this gateway takes: {largest} bytes. Send less of the conversation, or smaller "
            "images; the admin can raise the limit with LLMGATEWAY_MAX_BODY_BYTES."
        )
    return f"The request cannot be read: {reason}."


class RequestParser(HTTPRequestParser):
    """waitress' parser of requests."""

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            # waitress 3.0.2 does not handle this error of urlsplit ("GET http://[x/"): it would log a
            # traceback and close the connection without an answer.
            raise ParsingError("Bad URI") from error


class RequestTask(WSGITask):
    """One request on its way through the application."""

    channel: Channel

    def build_response_header(self) -> bytes:
        # The client will retry. Over a new connection it can reach a worker that has free slots. In HTTP/1.0,
        # connections are closed by default.
        if self.status.startswith("503") and self.version == "1.1" and not self.channel.server.capacity.should_accept():
            self.set_close_on_finish()
        return super().build_response_header()

    def write(self, data: bytes) -> None:
        # Send the head together with the beginning of the body: one system call and one packet instead of two.
        if data and not self.wrote_header and self.has_body:
            self.channel.held = self.build_response_header()
            self.wrote_header = True
        super().write(data)


class Channel(HTTPChannel):
    """The connection to one client."""

    server: Server
    task_class = RequestTask
    error_task_class = RefusalTask
    parser_class = RequestParser
    held = b""
    """Bytes that are sent before the data of the next write."""

    _begun = 0.0
    _begun_bytes = 0
    _blocked: float | None = None

    def add_channel(self, map: Any = None) -> None:  # noqa: A002 - waitress' name
        super().add_channel(map)
        self.server.capacity.accepted(self)

    def del_channel(self, map: Any = None) -> None:  # noqa: A002 - waitress' name
        super().del_channel(map)
        self.server.capacity.no_longer_new(self)

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self._begun, self._begun_bytes = time.time(), 0
        self._begun_bytes += len(data)
        return super().received(data)

    def is_too_slow(self, now: float) -> bool:
        """Return whether the client is so slow that its connection must be closed.

        A request that is not complete holds memory and one of the connections, but no thread. An answer that the
        client does not read holds a thread as soon as the buffer is full.
        """
        timeout = self.server.client_timeout
        silent = self.last_activity < now - timeout
        if self.total_outbufs_len:
            # A client that reads a byte now and then is not silent, but it still holds the thread.
            return silent or (self._blocked is not None and self._blocked < now - timeout)
        if self.request is not None and not self.requests:
            return silent or self._begun + self._begun_bytes / SLOWEST_SENDER < now - timeout
        return False

    def _flush_outbufs_below_high_watermark(self) -> None:
        self._blocked = time.time()
        try:
            super()._flush_outbufs_below_high_watermark()  # type: ignore[misc]
        finally:
            self._blocked = None

    def service(self) -> None:
        _serving.channel = self
        try:
            super().service()
        finally:
            self.server.capacity.no_longer_new(self)

    def write_soon(self, data: bytes) -> int:
        if self.held:
            data, self.held = self.held + data, b""
        if not data or not isinstance(data, bytes):  # an application may also send a file
            return super().write_soon(data)
        sent = self._send_at_once(data)
        return sent if sent == len(data) else sent + super().write_soon(data[sent:])

    def send(self, data: bytes, do_close: bool = True) -> int:
        # The descriptor of a closed connection may already belong to another client. This thread holds outbuf_lock,
        # and no thread closes a connection without it. So "connected" stays true until send() returns.
        return super().send(data, do_close=do_close) if self.connected else 0

    def _send_at_once(self, data: bytes) -> int:
        """Send as much of *data* as possible without waitress' buffer, and return the number of bytes.

        Nearly always this is all of it. waitress would copy the data to its buffer and back.
        """
        with self.outbuf_lock:
            if self.total_outbufs_len or not self.connected:
                return 0
            try:
                sent: int = self.send(data, do_close=False)
            except OSError:
                return 0  # waitress meets the same error when it sends, and closes the connection
            if sent:
                self.last_activity = time.time()
            return sent


class ClientSocket(socket.socket):
    """The socket of a client. It is non-blocking, so it can use the faster calls of :mod:`~llmgateway.syscalls`."""

    def send(self, data: bytes) -> int:  # type: ignore[override]
        sent = syscalls.send(self.fileno(), data)
        if not sent:
            raise BlockingIOError(errno.EAGAIN, "the client does not read")
        return sent

    def recv(self, _size: int) -> bytes:  # type: ignore[override]
        data = syscalls.receive(self.fileno())
        if data is None:
            raise BlockingIOError(errno.EAGAIN, "nothing has arrived")
        return data


class Server(TcpWSGIServer):
    """The listening socket, and the connections accepted from it.

    Args:
        loop: The event loop of the main thread.
        threads: The threads that run requests.
        capacity: Decides whether to accept connections.
    """

    channel_class = Channel
    _map: Loop
    _next_look = 0.0
    _paused = False

    def __init__(
        self,
        app: Flask,
        settings: Settings,
        listener: socket.socket,
        *,
        loop: Loop,
        threads: ThreadPool,
        capacity: WorkerCapacity,
    ) -> None:
        self.client_timeout = settings.client_timeout
        self.capacity = capacity
        capacity.on_free_slots = self.resume_accepting
        super().__init__(
            app,
            cast("Any", loop),  # the type stubs are wrong
            _sock=listener,
            dispatcher=cast("Any", threads),
            adj=_adjustments(settings, listener),
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )

    def connections(self) -> list[Channel]:
        return list(cast("dict[int, Channel]", self.active_channels).values())  # the type stubs are wrong

    def readable(self) -> bool:
        # Set it before asking. If a slot becomes free in between, resume_accepting() must not skip the wake-up.
        self._paused = True
        self._paused = not self.capacity.should_accept()
        return bool(super().readable()) and not self._paused

    def handle_accept(self) -> None:
        # A new connection wakes all workers. The loop calls readable() afterwards.
        if self.capacity.should_accept():
            super().handle_accept()

    def accept(self) -> tuple[socket.socket, Any] | None:
        accepted = super().accept()
        if accepted is None:
            return None
        connection, address = accepted
        return ClientSocket(fileno=connection.detach()), address

    def resume_accepting(self) -> None:
        """Make the main thread accept connections again if it has stopped. Any thread may call this."""
        if self._paused:
            # The main thread must do this, because readable() of waitress' server also closes idle connections.
            cast(Any, self.trigger).pull_trigger(lambda: self._map.update_interest(self))

    def stop_accepting(self) -> None:
        """Close the listening socket, but not the server: its trigger must still wake the main thread."""
        wasyncore.dispatcher.close(self)

    def slots_changed(self) -> None:
        """Tell :class:`WorkerCapacity` that a request has taken or freed a slot. Any thread may call this."""
        self.capacity.slots_changed(getattr(_serving, "channel", None))

    def close_idle_connections(self) -> None:
        """Close the connections that have neither a request nor an answer to send."""
        for channel in self.connections():
            if not channel.requests and not channel.total_outbufs_len:
                channel.will_close = True
                self._map.update_interest(channel)

    def close_slow_connections(self, now: float) -> None:
        """Close the connections of clients that are too slow. It checks at most once a second."""
        if now < self._next_look:
            return
        self._next_look = now + 1
        for channel in self.connections():
            if channel.is_too_slow(now):
                # "will_close" would wait until the socket is writable, which never happens for these clients.
                channel.handle_close()

    def pull_trigger(self) -> None:
        """Make the main thread notice a change. In the thread of a request this works without waking it."""
        channel = getattr(_serving, "channel", None)
        if channel is None:
            super().pull_trigger()
        else:
            self._map.update_interest(channel)


def _adjustments(settings: Settings, listener: socket.socket) -> Adjustments:
    connections = settings.threads + IDLE_CONNECTIONS
    _allow_descriptors(connections + settings.threads * 2 + 100)
    return Adjustments(
        sockets=[listener],
        ident="llmgateway",
        threads=settings.threads,
        connection_limit=connections,
        # waitress reads while a request runs, so it notices that the client has disconnected.
        channel_request_lookahead=1,
        # create_app() decides which proxy's X-Forwarded-* headers are trusted, for every WSGI server.
        clear_untrusted_proxy_headers=False,
        # waitress refuses bodies that are as large as its limit. The setting allows them.
        max_request_body_size=settings.max_body_bytes + 1,
        # Above these sizes waitress would write conversations to temporary files. Memory is limited
        # by the largest body and the largest plain answer.
        inbuf_overflow=settings.max_body_bytes + 1,
        outbuf_overflow=2 * LARGEST_PLAIN_ANSWER,
        # If the client reads more slowly than Azure sends, the stream waits, and memory is not filled.
        outbuf_high_watermark=1024 * 1024,
        # A client that disconnects is not an error.
        log_socket_errors=False,
    )


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
