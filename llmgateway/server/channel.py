"""The connection to one client: a subclass of waitress' channel.

It differs from waitress 3.0 in these points. ``tests/server/test_waitress.py`` checks all names of waitress that are
used here.

* An answer is written to the socket at once, without waitress' buffer. Its head goes together with the beginning of
  its body.
* A large body is received only after the view has begun to read it (:mod:`~llmgateway.server.body`). If the view
  answers without reading it, what still arrives is discarded for a moment, and the connection is closed.
* The connection of a client that sends its request or reads its answer too slowly is closed.
* If waitress refuses a request, the answer is an error object as OpenAI's (:mod:`~llmgateway.server.tasks`).
* A worker without free slots leaves new connections to the others (:mod:`~llmgateway.server.capacity`).
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from typing import Any, Protocol

from waitress.channel import ClientDisconnected, HTTPChannel

from .. import syscalls
from .body import AwaitedBody
from .capacity import WorkerCapacity
from .parser import RequestParser
from .tasks import RefusalTask, RequestTask

SLOWEST_SENDER = 4096
"""Bytes per second. A client that sends its head and the beginning of its body at this rate or faster is not cut off
by the client time-out."""

IDLE_SECONDS = 120.0
"""How long a connection may wait for its next request. Empty lines are no request."""

DISCARD_SECONDS = 2.0
DISCARD_BYTES = 1024 * 1024
"""How long, and how much, is discarded of a body that was not read. A client that is still sending can read the answer
in this time. If the connection were closed at once, TCP would discard the answer (RFC 9112, section 9.6)."""

STOP_SECONDS = 0.5
"""How long the connection then stays open without being read. A proxy that sends as fast as it can looks for an answer
only when it can send no more: nginx answers with an error of its own if the connection is closed before."""

_TLS_HANDSHAKE = 0x16  # RFC 8446, section 5.1: the first byte of a record

# A flag of Linux. Elsewhere, a client that closes its connection is noticed when something is written to it.
_HANGUP = getattr(select, "POLLRDHUP", 0)

_discarded = bytearray(256 * 1024)  # nobody reads it

_serving = threading.local()
"""Its attribute ``channel`` is the connection whose request this thread runs."""


def serving_channel() -> Channel | None:
    """Return the connection whose request the calling thread runs."""
    return getattr(_serving, "channel", None)


class Owner(Protocol):
    """What a connection needs of its server."""

    capacity: WorkerCapacity
    client_timeout: float

    def add_task(self, task: Channel) -> None: ...

    def update_interest(self, channel: Channel) -> None:
        """Ask *channel* again for which events it waits. Any thread may call this."""


class Channel(HTTPChannel):
    """The connection to one client."""

    server: Owner  # type: ignore[assignment] # it inherits from the class that the type stubs name
    request: RequestParser | None
    requests: list[RequestParser]
    requests_lock: threading.Lock
    socket: socket.socket
    task_class = RequestTask
    error_task_class = RefusalTask
    parser_class = RequestParser
    held = b""
    """Bytes that are sent before the data of the next write."""
    discards_rest = False
    """Whether the client may still be sending a request that has its answer, and that nobody reads."""

    _begun = 0.0
    _begun_bytes = 0
    _idle_since = 0.0
    _unparsed = b""
    _blocked: float | None = None
    _discards_until: float | None = None
    _discarded = 0

    def add_channel(self, map: Any = None) -> None:  # noqa: A002 - waitress' name
        super().add_channel(map)
        self._idle_since = time.time()
        self.server.capacity.accepted(self)

    def del_channel(self, map: Any = None) -> None:  # noqa: A002 - waitress' name
        super().del_channel(map)
        self.server.capacity.no_longer_new(self)

    def readable(self) -> bool:
        if self._discards_until is not None:
            return not self.will_close and self._discarded < DISCARD_BYTES
        request = self.request
        if request is not None and request.awaited is not None and request.awaited.wanted_since is None:
            return False
        if self._unparsed:
            return False
        return bool(super().readable())

    def writable(self) -> bool:
        if self._discards_until is not None:
            return self.will_close
        return bool(super().writable())

    def handle_read(self) -> None:
        if self._discards_until is None:
            super().handle_read()
            return
        try:
            most = min(len(_discarded), DISCARD_BYTES - self._discarded)
            received = socket.socket.recv_into(self.socket, _discarded, most)
        except BlockingIOError:
            return
        except OSError:
            received = 0
        self._discarded += received
        if not received:
            self.handle_close()
        elif self._discarded >= DISCARD_BYTES:
            self._discards_until = min(self._discards_until, time.time() + STOP_SECONDS)

    def received(self, data: bytes) -> bool:
        """Parse *data*, and give a request to a thread as soon as it can begin."""
        with self.requests_lock:
            if self.will_close or self.close_when_flushed:
                self._unparsed = b""
                return False  # a thread has decided to close the connection, see waitress
            self._unparsed = self._parse(self._unparsed + data)
        return True

    def _parse(self, data: bytes) -> bytes:
        """Return what must wait until the client has the answer to its present request.

        Otherwise a client could send thousands of small requests at once. They would be parsed before anything of
        another client is read, and their answers would block a thread if the client does not read them.
        """
        while data and (self.request is not None or self.is_idle):
            if self.request is None:
                data = data.lstrip(b"\r\n")  # RFC 9112, section 2.2
                if not data:
                    break
                if data[0] == _TLS_HANDSHAKE:
                    self.will_close = True  # otherwise the client would wait for a TLS answer until its time-out
                    return b""
                self.request = self.parser_class(self.adj)
                self._begun, self._begun_bytes = time.time(), 0
            taken = self.request.received(data)
            self._begun_bytes += taken
            data = data[taken:]
            if self.request.completed:
                self._complete(self.request)
        if self.request is not None and self.request.can_begin and self.request.awaited is None:
            self.request.awaited = AwaitedBody(self._want_body)
            self._queue(self.request)
        return data

    def _parse_rest(self) -> None:
        """Go on with what waited for an answer. Both a thread whose request ends and the main thread call this."""
        if self._unparsed and self.is_idle and self.connected:
            self.received(b"")
            self.server.update_interest(self)

    def _complete(self, request: RequestParser) -> None:
        self.request = None
        awaited = request.awaited
        if awaited is None:
            if not request.empty:
                self._queue(request)
        elif request.error is None:
            try:
                awaited.finish(request.body_rcv.getfile())
            except OSError as error:  # an upload could not be written
                awaited.fail(error)
        else:
            code = errno.EFBIG if request.error.code == 413 else errno.EBADMSG
            awaited.fail(OSError(code, request.error.reason))

    def _queue(self, request: RequestParser) -> None:
        self.requests.append(request)
        self.server.add_task(self)

    def _want_body(self) -> None:
        """Receive the body, because the view has begun to read it. This runs in the thread of the request."""
        request = self.request
        if request is None or request.awaited is None:
            return  # the connection is closed
        request.awaited.wanted_since = time.time()
        try:
            if request.expects_continue and not request.body_bytes_received:
                self.write_soon(b"HTTP/1.1 100 Continue\r\n\r\n")
        except ClientDisconnected:
            request.awaited.fail(ConnectionAbortedError("the client has gone"))
        self.server.update_interest(self)

    def handle_close(self) -> None:
        super().handle_close()
        request = self.request
        if request is not None and request.awaited is not None:
            request.awaited.fail(ConnectionAbortedError("the client has gone"))
            request.close()

    def handle_write(self) -> None:
        if not (self.discards_rest and self.close_when_flushed):
            super().handle_write()
            self._parse_rest()
            return
        if self.total_outbufs_len:
            self._flush_exception(self._flush_some)  # type: ignore[attr-defined] # the type stubs lack it
        if self.will_close:
            self.handle_close()
        elif self.connected and not self.total_outbufs_len:
            self._begin_to_discard()

    def _begin_to_discard(self) -> None:
        """Close the connection in our direction, and receive for a moment what the client still sends."""
        self._discards_until = time.time() + DISCARD_SECONDS
        with contextlib.suppress(OSError):  # the client has closed it
            self.socket.shutdown(socket.SHUT_WR)

    def check_client_disconnected(self) -> bool:  # type: ignore[override] # the type stubs are wrong
        if not self.connected or self.readable():
            return not self.connected  # the main thread notices it
        # The client has already sent another request, so nobody reads that it has closed the connection.
        # No thread closes the descriptor without this lock, see send().
        with self.outbuf_lock:
            return not self.connected or _has_hung_up(self.socket)

    @property
    def is_idle(self) -> bool:
        """Whether no request runs and no answer is being sent. A part of a request may have arrived."""
        return not self.requests and not self.total_outbufs_len

    @property
    def runs(self) -> bool:
        """Whether a thread runs a request. If none does, an answer may still be on its way to the client."""
        return bool(self.requests)

    @property
    def waits_since(self) -> float:
        """When the last answer was complete, or the present request began, whichever came later.

        The client may not have read the answer. When it last did does not count: it could read a byte now and then.
        """
        return max(self._idle_since, self._begun) if self.request is not None else self._idle_since

    def enforce_pace(self, now: float) -> None:
        """End what takes the client too long: the connection, or the wait for a body."""
        request = self.request
        awaited = None if request is None else request.awaited
        if request is not None and awaited is not None and awaited.is_too_slow(now, request.body_bytes_received):
            awaited.fail(TimeoutError("the body arrives too slowly"))
        if self.is_too_slow(now):
            # "will_close" would wait until the socket is writable, which never happens for these clients.
            self.handle_close()

    def is_too_slow(self, now: float) -> bool:
        """Return whether the client is so slow that its connection must be closed.

        A request that is not complete holds memory and one of the connections, but no thread. An answer that the
        client does not read holds a thread as soon as the buffer is full.
        """
        if self._discards_until is not None:
            return now > self._discards_until
        timeout = self.server.client_timeout
        silent = self.last_activity < now - timeout
        if self.total_outbufs_len:
            # A client that reads a byte now and then is not silent, but it still holds the thread.
            return silent or (self._blocked is not None and self._blocked < now - timeout)
        if self.requests:
            return False
        if self.request is not None:
            return silent or self.waits_since + self._begun_bytes / SLOWEST_SENDER < now - timeout
        return self._idle_since < now - IDLE_SECONDS

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
            self._idle_since = self.last_activity
            self.server.capacity.no_longer_new(self)
            self._parse_rest()

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


def _has_hung_up(connection: socket.socket) -> bool:
    """Return whether the other side has closed the connection, even if data that came before is not read yet."""
    poll = select.poll()
    poll.register(connection, _HANGUP)
    return bool(poll.poll(0))


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
