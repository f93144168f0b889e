"""A client's connection: reads HTTP/1.1 requests, sends bytes, and notices when the client disconnects."""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from .messages import Request

_HEAD_LIMIT = 65_536


class PeerLeft(Exception):
    """The client has closed the connection."""


class BadRequest(Exception):
    """The client sent something that is not HTTP."""


class Pause(NamedTuple):
    """Between two steps of an answer."""

    until: float | None
    """On the monotonic clock; ``None``: until the answer is released."""
    released: int | None = None
    """A file descriptor of :meth:`Gate.wait`, which becomes readable when the answer is released."""


class Gate:
    """Lets stalled answers wait until :meth:`release` is called. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[int] = set()

    @contextmanager
    def wait(self) -> Iterator[int]:
        """Return a file descriptor that becomes readable when :meth:`release` is called from now on."""
        inner, outer = os.pipe()
        with self._lock:
            self._waiting.add(outer)
        try:
            yield inner
        finally:
            with self._lock:
                self._waiting.discard(outer)
                os.close(outer)
            os.close(inner)

    def release(self) -> None:
        with self._lock:
            for outer in self._waiting:
                os.write(outer, b"!")


class Connection:
    """A client's connection; belongs to one thread but for :meth:`shut`."""

    def __init__(self, peer: socket.socket, number: int) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = number
        self._socket = peer
        self._input = bytearray()

    def secure(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on.

        Raises:
            PeerLeft: the client does not.
        """
        try:
            self._socket = context.wrap_socket(self._socket, server_side=True)
        except OSError as error:
            raise PeerLeft from error

    def read_request(self) -> tuple[Request, str] | None:
        """The next request and its HTTP version; ``None`` when the client has no more.

        Raises:
            BadRequest: what came is not HTTP.
            PeerLeft: the client closed within a request.
        """
        head = self._read_head()
        if head is None:
            return None
        line, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = _request_line(line)
        headers = dict(_header(line) for line in lines)
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        path, _, query = target.partition("?")
        request = Request(
            method=method,
            path=unquote(path),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers=headers,
            body=self._read_body(headers),
        )
        return request, version

    def _read_head(self) -> bytes | None:
        while (end := self._input.find(b"\r\n\r\n")) < 0:
            if len(self._input) > _HEAD_LIMIT:
                raise BadRequest("the head does not end")
            if not self.more():
                return None
        return self._take(end + 4)[:-4]

    def _read_body(self, headers: dict[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return b"".join(self._read_chunks())
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise BadRequest("Content-Length is no number")
        return self._read_exactly(int(length))

    def _read_chunks(self) -> Iterator[bytes]:
        while True:
            size, _, _ = self._read_line().partition(b";")
            try:
                length = int(size, 16)
            except ValueError as error:
                raise BadRequest("a chunk's size is no number") from error
            if not length:
                break
            yield self._read_exactly(length)
            self._read_line()
        while self._read_line():
            pass  # trailers say nothing to us

    def _read_line(self) -> bytes:
        while (end := self._input.find(b"\r\n")) < 0:
            if not self.more():
                raise PeerLeft
        return self._take(end + 2)[:-2]

    def _read_exactly(self, length: int) -> bytes:
        while len(self._input) < length:
            if not self.more():
                raise PeerLeft
        return self._take(length)

    def fileno(self) -> int:
        return self._socket.fileno()

    def more(self) -> bool:
        """Read whatever has come; False if the client has closed."""
        try:
            received = self._socket.recv(65_536)
        except OSError:
            return False
        self._input += received
        return bool(received)

    def _take(self, length: int) -> bytes:
        taken = bytes(self._input[:length])
        del self._input[:length]
        return taken

    def wait(self, pause: Pause) -> None:
        """Wait for some time, or until the answer is released.

        Raises:
            PeerLeft: the client closed the connection. It is raised at once.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if pause.released is not None:
            poll.register(pause.released, select.POLLIN)
        while pause.until is None or pause.until > time.monotonic():
            patience = None if pause.until is None else max(0.0, pause.until - time.monotonic()) * 1000
            ready = dict(poll.poll(patience))
            if pause.released in ready:
                return
            # What can be read is the end, or the next request, early.
            if ready and not self.more():
                raise PeerLeft

    def writable(self) -> bool:
        """Whether an event can be sent without waiting for the client to read."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(0))

    def send(self, output: bytes) -> None:
        """Hand bytes to the network.

        Raises:
            PeerLeft: the client has closed; ``args[0]`` is how many of the bytes were handed over before.
        """
        done = 0
        try:
            done = self._socket.send(output)
            while done < len(output):
                done += self._socket.send(memoryview(output)[done:])
        except OSError as error:
            raise PeerLeft(done) from error

    def close(self, *, reset: bool = False) -> None:
        if reset:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def shut(self) -> None:
        """End whatever the connection's thread is waiting for; for other threads."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest("no request line")
    return parts[0], parts[1], parts[2]


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise BadRequest("a header without a colon")
    return name.lower(), value.strip()
