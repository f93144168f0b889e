"""Clients of a gateway: one that can leave at any byte, and many that ask without a pause."""

from __future__ import annotations

import http.client
import random
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any

from tests.gateway_process import GatewayProcess, dump

DONE = b"data: [DONE]\n\n"
_RESET = struct.pack("ii", 1, 0)  # linger for no time: close() sends RST


@dataclass(frozen=True)
class Reading:
    """What a client that stayed got."""

    status: int | None
    """None where the connection ended before there was one."""
    body: bytes
    complete: bool
    """Whether HTTP says that the body came to its end."""
    began: float
    seconds: float

    @property
    def done(self) -> bool:
        """Whether it is a stream that says that it is complete."""
        return self.body.endswith(DONE)


class Call:
    """One chat completion over a connection of its own; sent when made."""

    def __init__(
        self, gateway: GatewayProcess, key: str, *, stream: bool = False, timeout: float = 30, **fields: Any
    ) -> None:
        document = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "one two three"}], **fields}
        body = dump(document | {"stream": stream})
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._began = time.monotonic()
        self._read = b""
        self._socket = socket.create_connection(("127.0.0.1", gateway.port), timeout)
        try:
            self._socket.sendall(head.encode() + body)
        except BaseException:
            self._socket.close()
            raise

    def reading(self) -> Reading:
        """Read the answer to its end, however it ends."""
        status, body, complete = None, b"", False
        with self._socket, http.client.HTTPResponse(self._socket, method="POST") as response:
            try:
                response.begin()
                status = response.status
                body = response.read()
                complete = True
            except http.client.IncompleteRead as cut:
                body = cut.partial
            except (OSError, http.client.HTTPException):
                pass
        return Reading(status, body, complete, self._began, time.monotonic() - self._began)

    def read_bytes(self, count: int) -> bytes:
        """Read so many bytes of the answer, head included, or all there are."""
        while len(self._read) < count and (piece := self._socket.recv(count - len(self._read))):
            self._read += piece
        return self._read

    def read_events(self, count: int) -> None:
        """Read a stream until it has brought so many of Azure's events.

        The gateway withholds the first one, but its head arrives then.
        """
        while count and (b"\r\n\r\n" not in self._read or self._read.count(b"data: ") < count - 1):
            piece = self._socket.recv(65536)
            assert piece, f"the answer ended before {count} events: {self._read[-500:]!r}"
            self._read += piece

    def wait(self, seconds: float) -> None:
        """Stay for so long, or until the answer has ended."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and select.select([self._socket], [], [], left)[0]:
            piece = self._socket.recv(65536)
            if not piece:
                return
            self._read += piece

    def leave(self, *, reset: bool = False) -> None:
        """Close the connection, whatever the gateway is doing."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()


class Load:
    """Clients that ask one question after another, each in a thread of its own; a context manager.

    Args:
        keys: Client number n uses ``keys[n % len(keys)]``.
        leaving: The share of streams that are left in the middle.
        seed: Decides what each client does.
    """

    def __init__(
        self, gateway: GatewayProcess, *keys: str, clients: int = 6, leaving: float = 0.0, seed: int = 0
    ) -> None:
        self.readings: list[Reading] = []
        """Of those who stayed; appended to by several threads."""
        self.left = 0
        self._gateway = gateway
        self._leaving = leaving
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(keys[number % len(keys)], random.Random(seed * 1000 + number)))
            for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def lasting(self, seconds: float) -> None:
        """Let it go on for so long."""
        self._stopping.wait(seconds)

    @property
    def statuses(self) -> set[int | None]:
        return {reading.status for reading in self.readings}

    @property
    def slowest(self) -> float:
        return max(reading.seconds for reading in self.readings)

    def _ask(self, key: str, chance: random.Random) -> None:
        while not self._stopping.wait(chance.uniform(0, 0.04)):
            stream = chance.random() < 0.5
            began = time.monotonic()
            try:
                call = Call(self._gateway, key, stream=stream)
            except OSError:  # nobody listens
                self.readings.append(Reading(None, b"", False, began, time.monotonic() - began))
                continue
            if chance.random() < self._leaving:
                self._leave(call, stream, chance)
            else:
                self.readings.append(call.reading())

    def _leave(self, call: Call, stream: bool, chance: random.Random) -> None:
        self.left += 1
        try:
            if stream:
                call.read_bytes(chance.randrange(4000))
            else:
                self._stopping.wait(chance.uniform(0, 0.03))
        except OSError:
            pass
        finally:
            call.leave(reset=chance.random() < 0.5)
