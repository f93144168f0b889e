"""Azure: one prepared way to it, its failures translated, its headers sorted."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from http.client import HTTPException
from urllib.parse import urlsplit

import urllib3

from ..errors import ClientGone, GatewayError, UpstreamBroken, UpstreamTimeout, UpstreamUnreachable
from .cancellation import CancellationToken
from .connections import Connections
from .endpoint import Endpoint
from .http1 import Head, Malformed, split_head
from .wires import READ_BYTES, Wire

log = logging.getLogger(__name__)

MOST_HEADS = 1000
"""Addresses for which the beginning of a request is remembered; where they name the model, clients choose it."""

# What the client may see of Azure's answer. Anything else describes the connection between Azure
# and us, or the organisation's affairs.
_PASSED_BACK = frozenset(
    (
        "apim-request-id",
        "azureml-model-session",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "retry-after",
        "retry-after-ms",
        "x-ms-region",
        "x-request-id",
    )
)


class AzureAnswer:
    """An :class:`~llmgateway.interfaces.Answer` that comes over a wire.

    Args:
        begun: What has come of the body together with the head.
        timeout: Seconds that a read waits.
        connections: Where the wire goes if it can be used again.
    """

    def __init__(
        self,
        wire: Wire,
        head: Head,
        begun: bytes,
        *,
        timeout: float,
        cancellation: CancellationToken,
        connections: Connections,
    ) -> None:
        self._wire: Wire | None = wire
        self._begun = begun
        self._keeps_alive = head.keeps_alive
        self._body = head.body()
        self._timeout = timeout
        self._cancellation = cancellation
        self._connections = connections
        self.status = head.status
        self.headers = [*_headers_for_client(head.fields)]
        self.region = head.get("x-ms-region") or None
        self.upstream_request_id = head.get("apim-request-id") or head.get("x-request-id") or None
        self.is_event_stream = head.get("content-type").lower().startswith("text/event-stream")

    def read(self) -> bytes:
        try:
            chunk = self._read()
        except (OSError, Malformed) as error:
            raise _translated(error, self._cancellation) from error
        if self._cancellation.was_cut:
            raise _client_gone()  # where the end of the connection is the end of the body, this looks complete
        return chunk

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        # Whoever cuts the transmission from now on hits nobody else: the wire is not its any more.
        untouched = self._cancellation.arrive()
        if untouched and self._keeps_alive and self._body.complete and not (self._begun or self._body.surplus):
            self._connections.keep(wire)
        else:
            wire.close()

    def _read(self) -> bytes:
        while self._wire is not None:
            if self._body.complete:
                self.close()
                break
            data, self._begun = self._begun or self._wire.receive(timeout=self._timeout), b""
            if not data:
                self._keeps_alive = False
                self._body.end()
            elif chunk := self._body.feed(data):
                return chunk
        return b""


class _NeverSeen(Exception):
    """The request went into a connection that Azure had closed before."""


class AzureUpstream:
    """The organisation's subscription, over one pool of connections. Thread-safe.

    Proxies and certificates are taken from the environment once, as requests would take them
    for every request (0.2 ms each time).

    Args:
        connections: How many may be kept open; as many as there are threads, or some are thrown
            away after each use and TLS begins anew.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        key_header: str,
        connect_timeout: float,
        first_byte_timeout: float,
        between_bytes_timeout: float,
        connections: int,
    ) -> None:
        self.endpoint = endpoint
        self._key_header = key_header
        self._key_prefix = "Bearer " if key_header == "Authorization" else ""
        self._first_byte_timeout = first_byte_timeout
        self._between_bytes_timeout = between_bytes_timeout
        self._connections = Connections(endpoint.url("model"), connect_timeout=connect_timeout, most=connections)
        self._heads: dict[str, str] = {}

    def send(
        self, body: bytes, *, deployment: str, credential: str, request_id: str, cancellation: CancellationToken
    ) -> AzureAnswer:
        head = self._head(deployment, credential, request_id, len(body))
        try:
            return self._call(head, body, cancellation)
        except (urllib3.exceptions.HTTPError, HTTPException, OSError, Malformed) as error:
            raise _translated(error, cancellation) from error

    def close(self) -> None:
        """Close the connections that are idle."""
        self._connections.close()

    def _head(self, deployment: str, credential: str, request_id: str, length: int) -> bytes:
        url = self.endpoint.url(deployment)
        same_for_all = self._heads.get(url)
        if same_for_all is None:
            if len(self._heads) >= MOST_HEADS:
                self._heads.clear()
            same_for_all = self._heads[url] = self._beginning(url)
        if not credential.isprintable():  # settings and the admin API take none that is not
            raise ValueError("Azure's key has characters that no header can carry")
        return (
            f"{same_for_all}{self._key_header}: {self._key_prefix}{credential}\r\n"
            f"x-ms-client-request-id: {request_id}\r\nContent-Length: {length}\r\n\r\n"
        ).encode("ascii")

    def _beginning(self, url: str) -> str:
        fields = {
            "Host": urlsplit(url).netloc,
            "Accept": "application/json, text/event-stream",
            # What passes through must be readable for the meter.
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "llmgateway",
            **self._connections.proxy_fields(url),
        }
        lines = [f"POST {self._connections.target(url)} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
        return "".join(f"{line}\r\n" for line in lines)

    def _call(self, head: bytes, body: bytes, cancellation: CancellationToken) -> AzureAnswer:
        wire = self._connections.take()
        if wire is not None:
            try:
                return self._over(wire, head, body, cancellation, kept=True)
            except _NeverSeen:
                # Once, with the same identifier: the next connection is new.
                cancellation.recall()
        return self._over(self._connections.open(), head, body, cancellation, kept=False)

    def _over(
        self, wire: Wire, head: bytes, body: bytes, cancellation: CancellationToken, *, kept: bool
    ) -> AzureAnswer:
        """Send the request over *wire* and read the head of its answer.

        Raises:
            _NeverSeen: Azure cannot have had the whole request.
        """
        try:
            cancellation.carry_over(wire, complete=False)
            before = wire.acknowledged() if kept else None
            cancellation.carry_over(wire)
            broken = self._send(wire, head, body)
            # Also if that broke: a server that refuses what is too large may answer and close in the middle of it.
            data = self._first_bytes(wire, broken)
            if data:
                return self._answer(wire, data, cancellation)
            if kept and not cancellation.was_cut and (broken or _is_lost(wire, before, len(head) + len(body))):
                raise _NeverSeen
            raise broken or Malformed("it closed without an answer")
        except BaseException:
            wire.close()
            raise

    def _send(self, wire: Wire, head: bytes, body: bytes) -> OSError | None:
        """Send all of it; return what went wrong where the other side has closed."""
        # Not the time-out for connecting: a picture on a slow line takes longer.
        timeout = self._first_byte_timeout
        try:
            if len(body) < READ_BYTES:
                wire.send(head + body, timeout=timeout)  # one packet
            else:
                wire.send(head, timeout=timeout)
                wire.send(body, timeout=timeout)
        except TimeoutError:
            raise
        except OSError as error:
            return error
        return None

    def _first_bytes(self, wire: Wire, broken: OSError | None) -> bytes:
        try:
            return wire.receive(timeout=self._first_byte_timeout)
        except TimeoutError:
            raise
        except OSError:
            if broken is None:
                raise
            return b""

    def _answer(self, wire: Wire, data: bytes, cancellation: CancellationToken) -> AzureAnswer:
        while True:
            parted = split_head(data)
            if parted is not None:
                head, data = Head.parse(parted[0]), parted[1]
                if head.status >= 200:
                    return self._answered(wire, head, data, cancellation)
                continue  # "100 Continue" and its like come before the answer
            more = wire.receive(timeout=self._first_byte_timeout)
            if not more:
                raise Malformed("it closed in the middle of a head")
            data += more

    def _answered(self, wire: Wire, head: Head, begun: bytes, cancellation: CancellationToken) -> AzureAnswer:
        return AzureAnswer(
            wire,
            head,
            begun,
            timeout=self._between_bytes_timeout,
            cancellation=cancellation,
            connections=self._connections,
        )


def _is_lost(wire: Wire, before: int | None, size: int) -> bool:
    """Whether Azure cannot have had a request of *size* bytes, though all of it was sent.

    A connection that was idle may be closed by the other side at the very moment in which it is used again.
    Its end looks like that of a server that took the request, maybe began to work on it, and died; sent again,
    that one would be paid for twice. What tells them apart is whether the other side's TCP has acknowledged the
    request: the end of a connection acknowledges everything that came before it was closed. A reset does not,
    so after one nobody can say, and nothing is sent again.
    """
    now = wire.acknowledged()
    return before is not None and now is not None and now - before < size


def _headers_for_client(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    passed = []
    for name, value in fields:
        if name in _PASSED_BACK:
            passed.append((name, value))
        elif name.startswith("x-ratelimit-"):
            # They describe the organisation's deployment, not the user's key.
            passed.append((f"x-upstream-ratelimit-{name.removeprefix('x-ratelimit-')}", value))
    return passed


def _client_gone() -> ClientGone:
    return ClientGone("The client has gone.")


def _translated(error: Exception, cancellation: CancellationToken) -> GatewayError:
    """Say what *error* means for the client; the operator finds its own words in the log."""
    if cancellation.was_cut:
        return _client_gone()
    if not cancellation.sent:
        log.warning("Azure cannot be reached: %s", error)
        return UpstreamUnreachable("The model's provider cannot be reached. Try again in a moment.", retry_after=5)
    if isinstance(error, TimeoutError):
        log.warning("Azure was silent for too long: %s", error)
        return UpstreamTimeout("The model's provider took the request and was silent for too long.")
    log.warning("The connection to Azure broke: %s", error)
    return UpstreamBroken("The connection to the model's provider broke. Try again.")
