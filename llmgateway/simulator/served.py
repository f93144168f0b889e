"""What was served, so that a test can compare the gateway's usage records with what Azure bills."""

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
    """One request and what became of it. Changes while it is served; one thread writes.

    What is noted about sending is noted just before it is done and taken back where it
    fails: a client that has read the last byte finds ``finished`` true.
    """

    connection: int
    """Number of the connection, from 1; equal numbers are a connection used again."""
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case."""
    body: bytes = field(repr=False)
    authenticated: bool = False
    """It carried the right key."""
    status: int | None = None
    """``None`` where no answer was sent."""
    usage: Usage | None = None
    """What Azure bills for the whole answer, told to the client or not; ``None`` for errors."""
    events_sent: int = 0
    finished: bool = False
    """The answer was sent to its proper end."""
    peer_left: bool = False
    """The client closed the connection before that."""
    sent: list[bytes] = field(default_factory=list, repr=False)
    """The pieces of the response body, without the framing."""

    @property
    def client_request_id(self) -> str | None:
        return self.headers.get("x-ms-client-request-id")

    @property
    def body_sent(self) -> bytes:
        """The response body as far as it was handed to the network."""
        return b"".join(self.sent)

    def as_json(self) -> dict[str, Any]:
        """The same for another process; of credentials only whether they were right."""
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
    """The last requests in the order of their arrival. Any thread may use it."""

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
