"""waitress, as we need it: its server, connections ("channels") and tasks, subclassed.

Four things are different from waitress 3.0 (``tests/server/test_waitress.py`` names all of it that we touch):

* An answer goes to the socket at once, past waitress' buffer, and its head together with the beginning of its body.
* The connection of a client that is too slow in sending its request or in reading its answer is closed.
* What waitress itself refuses is OpenAI's error object.
* A worker without places leaves new connections to the others (:mod:`~llmgateway.server.capacity`).
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
"""Open connections without a request that a process bears beside those with one."""

SLOWEST_SENDER = 4096
"""Bytes of a request in a second, above which it may take longer than the time-out for clients."""

_serving = threading.local()
"""``channel`` is the connection whose request this thread runs."""


class RefusalTask(ErrorTask):
    """What waitress answers to a request that it cannot read, as OpenAI's error object."""

    def execute(self) -> None:
        error = cast(Any, self.request).error
        # error.body says more, and quotes the request, in which a key may stand anywhere.
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
            # waitress 3.0.2 does not expect it of urlsplit ("GET http://[x/"): it would log a
            # traceback and cut the connection without an answer.
            raise ParsingError("Bad URI") from error


class RequestTask(WSGITask):
    """One request on its way through the application."""

    channel: Channel

    def build_response_header(self) -> bytes:
        # The client tries again, and should come to a worker that has places. In HTTP/1.0 connections are closed
        # unless somebody asks for the contrary.
        if self.status.startswith("503") and self.version == "1.1" and not self.channel.server.capacity.should_accept():
            self.set_close_on_finish()
        return super().build_response_header()

    def write(self, data: bytes) -> None:
        # The head goes with the beginning of the body: one system call and one packet instead of two.
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
    """What goes out in front of the next write."""

    _begun = 0.0
    _begun_bytes = 0
    _blocked: float | None = None

    def add_channel(self, map: Any = None) -> None:  # noqa: A002 - waitress' name
        super().add_channel(map)
        self.server.capacity.accepted(self)

    def del_channel(self, map: Any = None) -> None:  # noqa: A002 - waitress' name
        super().del_channel(map)
        self.server.capacity.settled(self)

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self._begun, self._begun_bytes = time.time(), 0
        self._begun_bytes += len(data)
        return super().received(data)

    def is_too_slow(self, now: float) -> bool:
        """Whether the client takes so long that it harms the others.

        A request that has not come in full holds no thread, but memory and one of the connections. An answer
        that nobody takes holds its thread as soon as its buffer is full.
        """
        patience = self.server.client_timeout
        silent = self.last_activity < now - patience
        if self.total_outbufs_len:
            # A client that takes a byte now and then is not silent, but its thread gets no further.
            return silent or (self._blocked is not None and self._blocked < now - patience)
        if self.request is not None and not self.requests:
            return silent or self._begun + self._begun_bytes / SLOWEST_SENDER < now - patience
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
            self.server.capacity.settled(self)

    def write_soon(self, data: bytes) -> int:
        if self.held:
            data, self.held = self.held + data, b""
        if not data or not isinstance(data, bytes):  # a file that an application wants sent
            return super().write_soon(data)
        sent = self._send_at_once(data)
        return sent if sent == len(data) else sent + super().write_soon(data[sent:])

    def send(self, data: bytes, do_close: bool = True) -> int:
        # The descriptor of a closed connection may belong to another client by now. A request's thread holds the lock
        # of the buffers here, and nobody closes a connection without it: "connected" stays true until all is sent.
        return super().send(data, do_close=do_close) if self.connected else 0

    def _send_at_once(self, data: bytes) -> int:
        """Send what goes past the buffer, which nearly always is everything; waitress copies it there and back."""
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
    """A client's connection, which waitress lets never block, and so needs no turn of the interpreter's lock."""

    def send(self, data: bytes) -> int:  # type: ignore[override]
        sent = syscalls.send(self.fileno(), data)
        if not sent:
            raise BlockingIOError(errno.EAGAIN, "the client does not read")
        return sent

    def recv(self, _size: int) -> bytes:  # type: ignore[override]
        data = syscalls.receive(self.fileno())
        if data is None:
            raise BlockingIOError(errno.EAGAIN, "nothing has come")
        return data


class Server(TcpWSGIServer):
    """The listening socket, and the connections accepted from it.

    Args:
        capacity: Says whether to accept; is told of connections, and tells when there are places again.
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
        capacity.on_places = self.resume_accepting
        super().__init__(
            app,
            cast("Any", loop),  # the stubs are mistaken
            _sock=listener,
            dispatcher=cast("Any", threads),
            adj=_adjustments(settings, listener),
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )

    def connections(self) -> list[Channel]:
        return list(cast("dict[int, Channel]", self.active_channels).values())  # the stubs are mistaken

    def readable(self) -> bool:
        # Set first: a place that becomes free while this looks has to be told again.
        self._paused = True
        self._paused = not self.capacity.should_accept()
        return bool(super().readable()) and not self._paused

    def handle_accept(self) -> None:
        # All workers are woken by a connection. The loop asks afterwards whether this one still listens.
        if self.capacity.should_accept():
            super().handle_accept()

    def accept(self) -> tuple[socket.socket, Any] | None:
        accepted = super().accept()
        if accepted is None:
            return None
        connection, address = accepted
        return ClientSocket(fileno=connection.detach()), address

    def resume_accepting(self) -> None:
        """Have the main thread listen again if it has stopped; from any thread."""
        if self._paused:
            # Run by the main thread: to ask a server whether it listens also closes connections that are idle.
            cast(Any, self.trigger).pull_trigger(lambda: self._map.update_interest(self))

    def stop_accepting(self) -> None:
        """Close the listening socket. The server goes on: its trigger still has to wake the main thread."""
        wasyncore.dispatcher.close(self)

    def places_changed(self) -> None:
        """Take note that a request has taken a place or given it back, from its thread or any other."""
        self.capacity.places_changed(getattr(_serving, "channel", None))

    def close_idle_connections(self) -> None:
        """Close the connections without a request and an answer."""
        for channel in self.connections():
            if not channel.requests and not channel.total_outbufs_len:
                channel.will_close = True
                self._map.update_interest(channel)

    def close_slow_connections(self, now: float) -> None:
        """Close the connections of clients that are too slow; looks once a second, however often it is called."""
        if now < self._next_look:
            return
        self._next_look = now + 1
        for channel in self.connections():
            if channel.is_too_slow(now):
                # Not "will_close": that waits until something can be written, which for them is never.
                channel.handle_close()

    def pull_trigger(self) -> None:
        """Tell the main thread what has changed; a request's thread can do that without waking it."""
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
        # Keeps reading while a request runs, and so sees that the client has gone.
        channel_request_lookahead=1,
        # create_app() decides whose X-Forwarded-* headers are believed, on any host.
        clear_untrusted_proxy_headers=False,
        # waitress refuses what is as large as its limit, the settings what is larger.
        max_request_body_size=settings.max_body_bytes + 1,
        # Beyond these sizes waitress writes conversations to temporary files; memory is bounded by
        # the size of a body and of a plain answer.
        inbuf_overflow=settings.max_body_bytes + 1,
        outbuf_overflow=2 * LARGEST_PLAIN_ANSWER,
        # A reader that is slower than Azure makes its stream wait instead of filling our memory.
        outbuf_high_watermark=1024 * 1024,
        # A client that goes is no error of ours.
        log_socket_errors=False,
    )


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
