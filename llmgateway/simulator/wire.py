"""HTTP/1.1 on a socket, byte by byte: requests in, answers out as a script wants them."""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http import HTTPStatus
from itertools import count
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote

from .azure import Reply, Request
from .scripts import Framing, Script
from .served import Served

_HEAD_LIMIT = 65_536


class PeerLeft(Exception):
    """The client has closed the connection."""


class BadRequest(Exception):
    """The client sent something that is not HTTP."""


class Cut(Exception):
    """The script breaks off the answer."""


class Pause(NamedTuple):
    """Between two steps of an answer."""

    until: float | None
    """On the monotonic clock; ``None``: until the door opens."""
    door: int | None = None


Steps = Iterator[Pause]
"""Sends an answer while it is iterated; each step sends what comes before the next pause.

It raises PeerLeft and Cut.
"""


class Follower(Protocol):
    """Runs the steps of an answer in another thread (:class:`~llmgateway.simulator.pacer.Pacer`)."""

    def follow(self, connection: Connection, steps: Steps, pause: Pause) -> Pause | None: ...


class Gate:
    """Where stalled answers wait for :meth:`release`. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._doors: set[int] = set()

    @contextmanager
    def door(self) -> Iterator[int]:
        """A file descriptor that becomes readable when, from now on, somebody releases."""
        inner, outer = os.pipe()
        with self._lock:
            self._doors.add(outer)
        try:
            yield inner
        finally:
            with self._lock:
                self._doors.discard(outer)
                os.close(outer)
            os.close(inner)

    def release(self) -> None:
        with self._lock:
            for outer in self._doors:
                os.write(outer, b"!")


class Connection:
    """A client's connection; belongs to one thread but for :meth:`shut`."""

    def __init__(self, peer: socket.socket, number: int) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number = number
        self._socket = peer
        self._input = bytearray()

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
        """Wait for some time, or until the door is readable.

        Raises:
            PeerLeft: the client closed the connection. It is raised at once.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if pause.door is not None:
            poll.register(pause.door, select.POLLIN)
        while pause.until is None or pause.until > time.monotonic():
            patience = None if pause.until is None else max(0.0, pause.until - time.monotonic()) * 1000
            ready = dict(poll.poll(patience))
            if pause.door in ready:
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


def transmit(
    connection: Connection,
    reply: Reply,
    script: Script,
    served: Served,
    *,
    door: int | None,
    keep: bool,
    pacer: Follower,
) -> bool:
    """Send an answer as the script wants it, and note in *served* how far it came.

    Args:
        door: Opens when a stalled answer shall go on (:meth:`Gate.door`).
        keep: The client would use the connection again.
        pacer: Takes the steps of slow streams; blocks like the steps themselves.

    Returns:
        Whether the connection can be used again.

    Raises:
        PeerLeft: the client closed before the end.
    """
    served.status = reply.status
    framing = script.framing or ("chunked" if reply.stream else "length")
    keep = keep and framing != "close"
    head = _head(reply, framing, keep=keep, verbatim=script.raw is not None)
    if script.raw is not None and {"content-length", "transfer-encoding"} & {name.lower() for name in reply.headers}:
        framing = "length"  # whatever its headers promise, the body goes out as it is
    writer = _Writer(connection, head, framing, script, served)
    steps = _steps(writer, reply, script, door=door)
    try:
        pause = next(steps, None)
        while pause is not None:
            # Pieces of any size may block; the pacer takes only events.
            if script.split is None and script.oversized_line is None:
                pause = pacer.follow(connection, steps, pause)
            if pause is not None:
                connection.wait(pause)
                pause = next(steps, None)
    except Cut:
        connection.close(reset=script.reset)
        return False
    return keep


def _steps(writer: _Writer, reply: Reply, script: Script, *, door: int | None) -> Steps:
    due = time.monotonic()
    count = len(reply.parts)
    for rank, part in enumerate([*reply.parts, None]):
        if rank in (script.cut_after_events, script.stall_after_events):
            writer.flush()
        if rank == script.cut_after_events:
            raise Cut
        if rank == script.stall_after_events:
            yield Pause(None, door)
            due = time.monotonic()
        if part is None:
            break
        if rank and script.gap:
            writer.flush()
            due += script.gap
            yield Pause(due)
        halts = count in (script.cut_after_events, script.stall_after_events)
        writer.write(part, last=rank + 1 == count and not halts)
    writer.end()


def _head(reply: Reply, framing: Framing, *, keep: bool, verbatim: bool) -> bytes:
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {reply.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    given = {name.lower() for name in reply.headers}
    if not verbatim:
        lines.append(f"Date: {_date(int(time.time()))}")
    if not given & {"content-length", "transfer-encoding"}:
        if framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
        elif framing == "length":
            lines.append(f"Content-Length: {sum(map(len, reply.parts))}")
    if not keep:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


_dates: dict[int, str] = {}
"""The present second's date, which all answers of that second share."""


def _date(second: int) -> str:
    if second not in _dates:
        _dates.clear()
        _dates[second] = formatdate(second, usegmt=True)
    return _dates.get(second) or formatdate(second, usegmt=True)


class _Writer:
    """Cuts a body into the pieces that are sent, frames them, and counts."""

    def __init__(self, connection: Connection, head: bytes, framing: Framing, script: Script, served: Served) -> None:
        self._connection = connection
        self._chunked = framing == "chunked"
        self._served = served
        self._limit = script.cut_after_bytes
        self._splitting = script.split is not None
        self._cuts = iter(()) if script.split is None else _cuts(script.split)
        self._cut = next(self._cuts, None)
        self._pending = head
        self._held = b""
        self._taken = self._sent = self._completed = 0
        self._ends: deque[int] = deque()
        if self._splitting:
            self._send(b"", b"", b"")

    def write(self, part: bytes, *, last: bool = False) -> None:
        """Send one event, or what of it the split lets through; with the body's end if it is the *last*."""
        self._taken += len(part)
        self._ends.append(self._taken)
        if not self._splitting:
            self._put(part, last=last)
            return
        self._held += part
        while self._cut is not None and self._cut - self._sent < len(self._held):
            size = self._cut - self._sent
            self._cut = next(self._cuts, None)
            self._put(self._held_up_to(size), last=False)
        if last:
            self._put(self._held_up_to(len(self._held)), last=True)

    def flush(self) -> None:
        """Hand over everything that was held back."""
        if self._held:
            self._put(self._held_up_to(len(self._held)), last=False)
        if self._pending:
            self._send(b"", b"", b"")

    def end(self) -> None:
        """End the body properly, if its last event has not done so."""
        if not self._served.finished:
            self.flush()
            self._served.finished = True
            self._send(b"", b"", b"0\r\n\r\n" if self._chunked else b"")

    def _held_up_to(self, size: int) -> bytes:
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def _put(self, piece: bytes, *, last: bool) -> None:
        if self._limit is not None and self._sent + len(piece) >= self._limit:
            self._frame(piece[: self._limit - self._sent], last=False)
            raise Cut
        self._frame(piece, last=last)

    def _frame(self, piece: bytes, *, last: bool) -> None:
        self._sent += len(piece)
        self._completed = 0
        while self._ends and self._ends[0] <= self._sent:
            self._ends.popleft()
            self._completed += 1
        self._served.events_sent += self._completed
        self._served.finished = last
        if not self._chunked:
            self._send(b"", piece, b"")
        elif piece:
            self._send(b"%x\r\n" % len(piece), piece, b"\r\n0\r\n\r\n" if last else b"\r\n")
        else:
            self._send(b"", b"", b"0\r\n\r\n" if last else b"")

    def _send(self, before: bytes, piece: bytes, after: bytes) -> None:
        served = self._served
        if piece:
            served.sent.append(piece)
        output = b"".join((self._pending, before, piece, after))
        overhead = len(self._pending) + len(before)
        self._pending = b""
        if not output:
            return
        try:
            self._connection.send(output)
        except PeerLeft as left:
            self._take_back(piece, handed_over=left.args[0] - overhead)
            raise

    def _take_back(self, piece: bytes, *, handed_over: int) -> None:
        """Correct the record for a piece that was not sent."""
        served = self._served
        served.finished = False
        if piece:
            served.sent[-1] = piece[: max(0, handed_over)]
            if handed_over < len(piece):
                served.events_sent -= self._completed


def _cuts(split: int | tuple[int, ...]) -> Iterator[int]:
    """Offsets in the body at which a piece ends, ascending."""
    return count(split, split) if isinstance(split, int) else iter(sorted(set(split) - {0}))
