"""Plain HTTP to the simulator, down to the bytes."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from llmgateway.simulator import DEFAULT_KEY, Simulator

V1 = "/openai/v1/chat/completions"
CLASSIC = "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21"
HELLO = [{"role": "user", "content": "hello there"}]
CHAT = {"model": "gpt-4o-mini", "messages": HELLO}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """Without the framing."""
    complete: bool = True
    """The body came to its proper end."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The events of a stream as objects, without ``[DONE]``."""
        lines = [line for line in self.body.decode().split("\n\n") if line]
        return [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]


def message(body: Any, *, path: str = V1, method: str = "POST", headers: dict[str, str] | None = None) -> bytes:
    """A request as it goes over the wire, with the simulator's key unless *headers* are given."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"api-key": DEFAULT_KEY} if headers is None else headers
    lines = [f"{method} {path} HTTP/1.1", "Host: azure", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + content


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=10)


def refuses(url: str) -> bool:
    """Nobody listens there."""
    try:
        connect(url).close()
    except ConnectionError:
        return True  # refused, or reset where the listener closed meanwhile
    return False


def receive_all(peer: socket.socket) -> bytes:
    """Everything until the connection is closed."""
    received = b""
    while more := peer.recv(65_536):
        received += more
    return received


def receive_until(peer: socket.socket, ending: bytes) -> bytes:
    received = b""
    while not received.endswith(ending):
        more = peer.recv(65_536)
        assert more, f"closed after {received!r}"
        received += more
    return received


def receive_until_reset(peer: socket.socket) -> bytes:
    """Everything until the connection is broken; an orderly end fails."""
    received = b""
    while True:
        try:
            more = peer.recv(65_536)
        except ConnectionResetError:
            return received
        assert more, "closed, not reset"
        received += more


def call(azure: Simulator, body: Any = CHAT, **how: Any) -> Answer:
    """One request on a connection of its own, read until it is closed."""
    headers = how.pop("headers", {"api-key": DEFAULT_KEY})
    with connect(azure.url) as peer:
        peer.sendall(message(body, headers={**headers, "Connection": "close"}, **how))
        return parse(receive_all(peer))


def parse(received: bytes) -> Answer:
    head, _, rest = received.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert len(headers) == len(lines), "a header came twice"
    if headers.get("transfer-encoding") == "chunked":
        chunks, complete = chunks_of(rest)
        body = b"".join(chunks)
    else:
        body, complete = rest, len(rest) == int(headers.get("content-length", len(rest)))
    return Answer(int(line.split()[1]), headers, body, complete)


def chunks_of(rest: bytes) -> tuple[list[bytes], bool]:
    """The chunks of a chunked body, and whether the last one came."""
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return chunks, True
        chunks.append(rest[:length])
        rest = rest[length + 2 :]
    return chunks, False


def data_of(body: bytes, *, ended: bool) -> list[str]:
    """The data of a stream's events, read as the HTML standard says ("Server-sent events", 2024).

    Args:
        ended: Leave away an event that has no empty line behind it, as the standard does.
    """
    text = body.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    *lines, rest = text.split("\n")
    events: list[str] = []
    data: list[str] = []
    for line in [*lines, *([] if ended else [rest, ""])]:
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            events.append("\n".join(data))
            data = []
    return events
