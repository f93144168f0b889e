"""Records the served requests, so that tests can compare the gateway's usage records with Azure's bill."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..records import Usage
from .meter import Account
from .production import Production

CREDENTIAL_HEADERS = ("api-key", "authorization", "ocp-apim-subscription-key", "secret", "x-identity-header")


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
    at: float = 0.0
    """When it came, in seconds since the epoch."""
    authenticated: bool = False
    """Whether the request had the right key, or a valid token."""
    status: int | None = None
    """``None`` if no answer was sent."""
    usage: Usage | None = None
    """What Azure bills for the whole answer, even if the client did not receive it; ``None`` for errors."""
    production: Production | None = field(default=None, repr=False)
    account: Account | None = field(default=None, repr=False)
    """Which deployment served it, in which tier, and what is billed beside tokens; ``None`` if no deployment did."""
    events_sent: int = 0
    finished: bool = False
    """Whether the answer was sent completely."""
    peer_left: bool = False
    """Whether the client closed the connection before the end of the answer."""
    sent: list[bytes] = field(default_factory=list, repr=False)
    """The pieces of the response body, without the framing."""

    @property
    def billed(self) -> Usage | None:
        """What Azure bills for what has been produced so far: what the model made before its client left, or the
        answer broke off; :attr:`usage` at the end of the answer; the prompt for errors that cost it; else ``None``."""
        return None if self.production is None else self.production.billed

    @property
    def tool_uses(self) -> dict[str, int]:
        """How often Azure's own tools were used that it bills by use, such as ``web_search``."""
        return {} if self.production is None else self.production.tool_uses

    def stop_production(self) -> None:
        if self.production is not None:
            self.production.stop()

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
            "usage": _usage(self.usage),
            "billed": _usage(self.billed),
            "tool_uses": self.tool_uses,
            "account": None if self.account is None else asdict(self.account),
            "events_sent": self.events_sent,
            "bytes_sent": sum(map(len, self.sent)),
            "body_sent": self.body_sent.decode(errors="replace"),
            "finished": self.finished,
            "peer_left": self.peer_left,
        }


def _usage(usage: Usage | None) -> dict[str, int] | None:
    return None if usage is None else {name: getattr(usage, name) for name in Usage.__slots__}


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
