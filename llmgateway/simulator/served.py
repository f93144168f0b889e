"""Records the served requests, so that tests can compare the gateway's usage records with Azure's bill."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..records import Usage

CREDENTIAL_HEADERS = ("api-key", "authorization", "ocp-apim-subscription-key")


@dataclass(slots=True, kw_only=True, eq=False)
class Served:
    """One request and what became of it. It changes while the request is served; only one thread writes to it.

    What is noted about sending is noted just before it is done and taken back where it
    fails: a client that has read the last byte finds ``finished`` true.
    """

    connection: int
    """Number of the connection, from 1. Requests with equal numbers used the same connection."""
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    body: bytes = field(repr=False)
    authenticated: bool = False
    """Whether the request had the right key."""
    status: int | None = None
    """``None`` if no answer was sent."""
    usage: Usage | None = None
    """What Azure bills for the whole answer, even if the client did not receive it; ``None`` for errors."""
    events_sent: int = 0
    finished: bool = False
    """Whether the answer was sent completely."""
    peer_left: bool = False
    """Whether the client closed the connection before the end of the answer."""
    sent: list[bytes] = field(default_factory=list, repr=False)
    """The pieces of the response body, without the framing."""

    @property
    def client_request_id(self) -> str | None:
        return self.headers.get("x-ms-client-request-id")

    @property
    def body_sent(self) -> bytes:
        """The sent part of the response body."""
        return b"".join(self.sent)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON. Instead of credentials it contains only whether they were right."""
        headers = dict(self.headers)
        for name in CREDENTIAL_HEADERS:
            if name in headers:
                headers[name] = "right" if self.authenticated else "wrong"
        usage = self.usage
        return {
            "connection": self.connection,
            "client_request_id": self.client_request_id,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": headers,
            "body": self.body.decode(errors="replace"),
            "authenticated": self.authenticated,
            "status": self.status,
            "usage": usage and {name: getattr(usage, name) for name in Usage.__slots__},
            "events_sent": self.events_sent,
            "bytes_sent": sum(map(len, self.sent)),
            "body_sent": self.body_sent.decode(errors="replace"),
            "finished": self.finished,
            "peer_left": self.peer_left,
        }


class History:
    """The latest requests, in the order of their arrival. Thread-safe."""

    def __init__(self, *, remember: int) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Served] = deque(maxlen=remember)

    def add(self, served: Served) -> None:
        with self._lock:
            self._entries.append(served)

    def entries(self) -> list[Served]:
        with self._lock:
            return list(self._entries)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    def wait_for(self, predicate: Callable[[list[Served]], object], timeout: float) -> list[Served]:
        """Return the entries as soon as *predicate* is true of them.

        It looks every few milliseconds: announcing every event through a lock would cost
        more than serving it.

        Raises:
            TimeoutError: it did not within *timeout* seconds; the text shows the last entries.
        """
        deadline = time.monotonic() + timeout
        while True:
            entries = self.entries()
            if predicate(entries):
                return entries
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout} s; {len(entries)} served, at last {entries[-3:]}")
            time.sleep(0.002)
