"""Sends answers as a script wants them: framed, cut into pieces, delayed, broken off."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from email.utils import formatdate
from http import HTTPStatus
from itertools import count
from typing import Protocol

from .connections import Connection, Pause, PeerLeft
from .messages import Reply
from .scripts import Framing, Script
from .served import Served


class Cut(Exception):
    """The script breaks off the answer."""


Steps = Iterator[Pause]
"""Sends an answer while it is iterated; each step sends what comes before the next pause.

It raises PeerLeft and Cut.
"""


class Follower(Protocol):
    """Runs the steps of an answer in another thread (:class:`~llmgateway.simulator.pacer.Pacer`)."""

    def follow(self, connection: Connection, steps: Steps, pause: Pause) -> Pause | None: ...


def transmit(
    connection: Connection,
    reply: Reply,
    script: Script,
    served: Served,
    *,
    released: int | None,
    keep: bool,
    pacer: Follower,
) -> bool:
    """Send an answer as the script wants it, and note in *served* how far it came.

    Args:
        released: Becomes readable when a stalled answer shall go on (:meth:`Gate.wait`).
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
    steps = _steps(writer, reply, script, released=released)
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
        served.stop_production()
        connection.close(reset=script.reset)
        return False
    return keep


def _steps(writer: _Writer, reply: Reply, script: Script, *, released: int | None) -> Steps:
    production = writer.production
    due = time.monotonic()
    count = len(reply.parts)
    for rank, part in enumerate([*reply.parts, None]):
        if rank in (script.cut_after_events, script.stall_after_events):
            writer.flush()
        if rank == script.cut_after_events:
            raise Cut
        if rank == script.stall_after_events:
            yield Pause(None, released)
            due = time.monotonic()
        if part is None:
            break
        if rank and script.gap:
            writer.flush()
            due += script.gap
            yield Pause(due)
        if production is not None and reply.positions:
            produced = production.due(reply.positions[rank])
            if produced is not None and produced > time.monotonic():
                writer.flush()
                yield Pause(produced)
            production.reach(reply.positions[rank])
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
        self.production = served.production
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
