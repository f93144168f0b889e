"""The clients: a process of its own that asks, and measures what comes.

:func:`run` starts it and returns its :class:`Result`. It also reads from ``/proc`` what the measured processes
have used, because it knows best when the time that counts begins and ends.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import re
import resource
import select
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests import ROOT

GRACE_SECONDS = 8
"""How long answers that are under way at the end may take."""
PATIENCE_SECONDS = 300
"""The same for those that count."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_TEXT = re.compile(rb'"content": ?"[^"]')
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Load:
    """Who is asked for what, by how many, for how long."""

    port: int
    path: str
    keys: tuple[str, ...]
    """Used in turn."""
    tokens: int = 16
    gap_us: int = 0
    """Microseconds that the upstream lets pass before the first token of a stream and between two."""
    stream: bool = False
    clients: int = 16
    rate: float | None = None
    """Requests per second that come at random whatever has become of those before (open loop; the same ones in
    each run); without it each client asks again when it has its answer (closed loop)."""
    ramp: float = 1.0
    """Seconds over which the clients begin, one after the other. They do not count."""
    seconds: float = 10.0
    to_the_end: bool = False
    """Let all that happens count, from the first request to the end of the last answer: for answers that may
    take as long as the whole load, of which a part is none of the costs."""
    pid: int | None = None
    """The process that is measured, together with its children."""


@dataclass(kw_only=True)
class Result:
    """What was seen in the seconds that count."""

    seconds: float
    answers: int = 0
    chunks: int = 0
    """Events of streams."""
    events_each: int = 0
    """Events of one stream. Not all of the upstream's events reach the client."""
    latency_ms: tuple[float, float] = (0.0, 0.0)
    """Median and 99th percentile, from when the request was due. Who waits in vain counts until the end."""
    ttft_ms: tuple[float, float] = (0.0, 0.0)
    """The same until the first text of a stream, of all streams that have begun."""
    cpu_seconds: float = 0.0
    memory_mb: float = 0.0
    """Proportional set size (PSS) at the end of the load."""
    own_cores: float = 0.0
    """What this process has used itself: near 1, it is the generator that was measured."""
    errors: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """Everything in a line."""
        return (
            f"{self.answers / self.seconds:.1f} answers/s, {self.chunks / self.seconds:.0f} chunks/s, latency "
            "{:.2f} / {:.2f} ms, first token {:.2f} / {:.2f} ms, ".format(*self.latency_ms, *self.ttft_ms)
            + f"{self.cpu_seconds:.2f} s of CPU in {self.seconds:.2f} s, {self.memory_mb:.0f} MB, "
            f"generator {self.own_cores:.2f} cores, errors {self.errors}"
        )

    @property
    def cpu_ms_per_answer(self) -> float:
        return self.cpu_seconds * 1e3 / max(1, self.answers)

    @property
    def cpu_us_per_chunk(self) -> float:
        return self.cpu_seconds * 1e6 / max(1, self.chunks)


def run(load: Load) -> Result:
    """Let a process of its own produce *load*."""
    done = subprocess.run(
        [sys.executable, "-m", __name__], input=json.dumps(asdict(load)), capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed:\n{done.stderr}")
    return Result(**json.loads(done.stdout))


class _Client:
    """One connection, and the answer that it waits for."""

    __slots__ = ("closes", "due", "early", "events", "had_text", "left", "number", "socket", "status", "tail")

    def __init__(self, number: int) -> None:
        self.number = number
        self.socket: socket.socket | None = None
        self.begin(0.0)

    def begin(self, due: float) -> None:
        self.due = due
        self.early = b""
        self.tail = b""
        self.status = 0
        self.left: int | None = None
        """Bytes of the body that are missing; None where it comes in chunks."""
        self.closes = False
        self.had_text = False
        self.events = 0


class _Generator:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._poll = select.epoll()
        self._by_descriptor: dict[int, _Client] = {}
        self._busy: set[_Client] = set()
        self._requests = [_request(load, key) for key in load.keys]
        self._asked = 0
        begin = time.monotonic() + 0.01
        self._from = begin + (0 if load.to_the_end else load.ramp)
        self._until = begin + load.ramp + load.seconds
        self._counts_until = float("inf") if load.to_the_end else self._until
        clients = [_Client(number) for number in range(load.clients)]
        self._idle = clients if load.rate else []
        self._first = [] if load.rate else [(begin + load.ramp * c.number / load.clients, c.number, c) for c in clients]
        self._arrivals = _arrivals(begin, load.rate) if load.rate else iter(())
        self._arrival = next(self._arrivals, float("inf"))
        self._queue: deque[float] = deque()
        self._latencies: list[float] = []
        self._ttfts: list[float] = []
        self._errors: Counter[str] = Counter()
        self._result = Result(seconds=load.seconds)

    def run(self) -> Result:
        result = self._result
        measured = family(self._load.pid) if self._load.pid else []
        self._go_on(self._from)
        result.cpu_seconds -= cpu_seconds(measured)
        result.own_cores -= _own_cpu_seconds()
        began = time.monotonic()
        self._go_on(self._until)
        if self._load.to_the_end:
            self._go_on(self._until + PATIENCE_SECONDS, only_while_busy=True)
        result.cpu_seconds += cpu_seconds(measured)
        result.seconds = time.monotonic() - began
        result.own_cores = (result.own_cores + _own_cpu_seconds()) / result.seconds
        result.memory_mb = _memory_mb(measured)
        self._go_on(self._until + GRACE_SECONDS, only_while_busy=True)
        self._count_the_unanswered()
        result.latency_ms = _median_and_p99(self._latencies)
        result.ttft_ms = _median_and_p99(self._ttfts)
        result.errors = dict(self._errors.most_common(5))
        return result

    def _go_on(self, end: float, *, only_while_busy: bool = False) -> None:
        while (now := time.monotonic()) < end and (self._busy or not only_while_busy):
            due = end
            if now < self._until:
                self._start_those_due(now)
                due = min(end, self._arrival, self._first[0][0] if self._first else end)
            for descriptor, _ in self._wait(due - time.monotonic()):
                if client := self._by_descriptor.get(descriptor):
                    self._receive(client)

    def _wait(self, seconds: float) -> list[tuple[int, int]]:
        # epoll alone sleeps for whole milliseconds, which would be most of the latency that is measured.
        if ready := self._poll.poll(0):
            return ready
        select.select([self._poll], [], [], max(0.0, seconds))
        return self._poll.poll(0)

    def _start_those_due(self, now: float) -> None:
        while self._first and self._first[0][0] <= now:
            self._ask(heapq.heappop(self._first)[2], now)
        while self._arrival <= now:
            self._queue.append(self._arrival)
            self._arrival = next(self._arrivals)
        while self._queue and self._idle:
            self._ask(self._idle.pop(), self._queue.popleft())

    def _ask(self, client: _Client, due: float) -> None:
        client.begin(due)
        self._busy.add(client)
        request = self._requests[self._asked % len(self._requests)]
        self._asked += 1
        try:
            self._connected(client).sendall(request)
        except OSError as error:
            self._fail(client, type(error).__name__)

    def _connected(self, client: _Client) -> socket.socket:
        if client.socket is None:
            client.socket = socket.create_connection(("127.0.0.1", self._load.port))
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._by_descriptor[client.socket.fileno()] = client
            self._poll.register(client.socket, select.EPOLLIN)
        return client.socket

    def _receive(self, client: _Client) -> None:
        assert client.socket is not None
        try:
            data = client.socket.recv(1024 * 1024)
        except OSError as error:
            self._fail(client, type(error).__name__)
            return
        if not data:
            self._fail(client, "closed")
            return
        now = time.monotonic()
        if not client.status:
            data = self._read_head(client, data)
            if not client.status:
                return
        if self._load.stream:
            self._count_events(client, data, now)
        if client.left is not None:
            client.left -= len(data)
        client.tail = (client.tail + data)[-64:]
        if client.tail.endswith(_LAST_CHUNK) if client.left is None else client.left <= 0:
            self._finish(client, now)

    def _read_head(self, client: _Client, data: bytes) -> bytes:
        client.early += data
        head, blank_line, body = client.early.partition(b"\r\n\r\n")
        if not blank_line:
            return b""
        client.early = b""
        client.status = int(head.split(b" ", 2)[1])
        client.closes = bool(_CLOSE.search(head))
        if not _CHUNKED.search(head):
            length = _LENGTH.search(head)
            assert length, f"an answer without a length: {head!r}"
            client.left = int(length[1])
        return body

    def _count_events(self, client: _Client, data: bytes, now: float) -> None:
        # Two line ends that came apart are in the last byte of before and the first of now.
        events = data.count(b"\n\n") + (client.tail.endswith(b"\n") and data.startswith(b"\n"))
        client.events += events
        if self._from <= now < self._counts_until:
            self._result.chunks += events
        if not client.had_text:
            client.early += data
            if _TEXT.search(client.early):
                client.had_text = True
                client.early = b""
                self._ttfts.append(now - client.due)

    def _finish(self, client: _Client, now: float) -> None:
        self._busy.discard(client)
        if client.status != 200:
            self._errors[f"status {client.status}"] += 1
        elif self._load.stream and (b"data: [DONE]" not in client.tail or client.events < self._load.tokens):
            self._errors["incomplete stream"] += 1
        else:
            if self._from <= now < self._counts_until:
                self._result.answers += 1
                self._result.events_each = client.events
            if client.due >= self._from:
                self._latencies.append(now - client.due)
        if client.closes:
            self._disconnect(client)
        self._release(client, now)

    def _fail(self, client: _Client, what: str) -> None:
        if client in self._busy:
            self._busy.discard(client)
            self._errors[what] += 1
            self._disconnect(client)
            self._release(client, time.monotonic())
        else:
            self._disconnect(client)

    def _release(self, client: _Client, now: float) -> None:
        if self._load.rate:
            self._idle.append(client)
        elif now < self._until:
            # In the loop and not at once: who only gets errors would never come back to it.
            heapq.heappush(self._first, (now, client.number, client))

    def _disconnect(self, client: _Client) -> None:
        if client.socket is not None:
            del self._by_descriptor[client.socket.fileno()]
            self._poll.unregister(client.socket)
            client.socket.close()
            client.socket = None

    def _count_the_unanswered(self) -> None:
        now = time.monotonic()
        for client in self._busy:
            self._latencies.append(now - client.due)
            if self._load.stream and not client.had_text:
                self._ttfts.append(now - client.due)
        self._latencies.extend(now - due for due in self._queue)


def _request(load: Load, key: str) -> bytes:
    body = json.dumps(
        {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "Explain to a child of ten why the sky is blue. " * 4}],
            "max_tokens": load.tokens,
            "seed": load.gap_us,
            "stream": load.stream,
        }
    ).encode()
    head = (
        f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _arrivals(begin: float, rate: float) -> Iterator[float]:
    # Clients do not agree on a rhythm: the time between two is exponentially distributed.
    chance = random.Random(1)
    while True:
        begin += chance.expovariate(rate)
        yield begin


def family(pid: int) -> list[int]:
    """The process and all that it has started, and they in turn."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    family = [pid]
    for member in family:  # which grows meanwhile
        family += [child for child, parent in parents.items() if parent == member]
    return family


def cpu_seconds(pids: list[int]) -> float:
    """What they have used so far; to a hundredth of a second."""
    return sum(int(fields[11]) + int(fields[12]) for pid in pids if (fields := _stat(pid))) / _TICKS


def _stat(pid: int) -> list[str]:
    """What stands behind the name in ``/proc/PID/stat``, from the state on; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _memory_mb(pids: list[int]) -> float:
    kilobytes = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes / 1024


def _own_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _median_and_p99(seconds: list[float]) -> tuple[float, float]:
    if not seconds:
        return (float("nan"), float("nan"))
    ordered = sorted(seconds)
    middle, high = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return (middle * 1000, high * 1000)


def main() -> None:
    load = Load(**json.load(sys.stdin))
    json.dump(asdict(_Generator(load).run()), sys.stdout)


if __name__ == "__main__":
    main()
