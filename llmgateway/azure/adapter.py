"""A transport adapter for requests that returns data as soon as it arrives, and parses HTTP with llhttp (httptools).

The adapter that comes with requests takes 0.27 ms more for each call. It also takes 0.08 ms more for each chunk of a
stream, because urllib3 returns a body chunk by chunk (2026-11).
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from httptools import HttpParserError
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from urllib3.connectionpool import HTTPConnectionPool

from ..clock import Timer
from ..interfaces import Upload
from .cancellation import CancellationToken
from .pool import READ_BYTES, SOCKET_OPTIONS, Connection, Pool, ResumingContext
from .response import ReceivedResponse

MOST_ROUTES = 1000
"""The most URLs whose routes are cached. The limit is needed because clients choose the model, and some URLs contain
the model's name."""


class CancellableRequest(requests.PreparedRequest):
    """A prepared request that another thread can cancel while it is sent or answered."""

    cancellation: CancellationToken

    def carrying(
        self, body: bytes | Upload, headers: Mapping[str, str], cancellation: CancellationToken
    ) -> CancellableRequest:
        """Return a copy of the request with *body*, with *headers* added, and with *cancellation*."""
        copied = CancellableRequest()
        copied.method, copied.url, copied.hooks = self.method, self.url, self.hooks
        copied.headers = self.headers.copy()
        copied.headers.update(headers)
        copied.headers["Content-Length"] = str(len(body))
        copied.body = cast(Any, body)  # requests has no type for an upload
        copied.cancellation = cancellation
        return copied


class _NeverReceived(Exception):
    """The server did not receive the request, because it had already closed the connection."""


@dataclass(frozen=True, slots=True)
class _Route:
    """The part of a request that is the same for all requests to one URL."""

    pool: Pool
    beginning: str
    """The request line, and the header fields that depend on the URL or are for the proxy."""


class StreamingAdapter(HTTPAdapter):
    """Sends :class:`CancellableRequest`; its responses have a :class:`ReceivedResponse` as ``raw``. Thread-safe.

    As in every adapter of requests, each call of :meth:`send` brings its proxies, its certificates, and the time-outs
    for the connection and for the first byte.

    Args:
        between_bytes_timeout: The most seconds between two parts of a body.
        connections: The most idle connections that are kept for each host. It should be the number of threads. With
            fewer, some connections are closed after use, and the next request needs a new TLS handshake.
        timer: Measures the age of connections.
    """

    def __init__(self, *, between_bytes_timeout: float, connections: int, timer: Timer = time.monotonic) -> None:
        self.between_bytes_timeout = between_bytes_timeout
        self._connections = connections
        self._timer = timer
        self._contexts: dict[bool | str, ResumingContext] = {}
        self._pools: dict[object, Pool] = {}
        self._routes: dict[object, _Route] = {}
        super().__init__()

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: ARG002 - requests passes it, as it passes cert
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,  # noqa: ARG002
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send *request* and wait for the head of the answer.

        Args:
            timeout: A pair: the seconds to connect, and the seconds until the first byte of the answer.

        Raises:
            requests.RequestException: there is no answer. The cancellation token says whether the request was sent.
        """
        if not isinstance(request, CancellableRequest):
            raise TypeError("this adapter sends requests that can be cancelled")
        connect_timeout, first_byte_timeout = timeout
        route = self._route(request, verify, proxies or {})
        head, body = _head(route.beginning, request.headers), cast("bytes | Upload", request.body)
        call = _Call(request.cancellation, head, body, first_byte_timeout, self.between_bytes_timeout)
        try:
            raw = call.send(route.pool, connect_timeout)
        except TimeoutError as error:
            raise requests.Timeout(error, request=request) from error
        except (urllib3.exceptions.HTTPError, HTTPException, OSError, HttpParserError) as error:
            raise requests.ConnectionError(error, request=request) from error
        return self.build_response(request, raw)

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Build the response without cookies, and without guessing the encoding.

        requests' own method guesses it, and raises for some values of ``Content-Type`` (2.32).
        """
        response = requests.Response()
        response.status_code = resp.status
        response.headers = CaseInsensitiveDict(resp.headers)
        response.raw, response.reason = resp, resp.reason
        response.request, response.url = req, cast(str, req.url)
        return response

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        """Make all connections share one TLS context: to load the certificates takes longer than 100 requests."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._context(verify), "socket_options": SOCKET_OPTIONS}

    def trust(self, verify: bool | str) -> None:
        """Load the certificates for calls with this *verify*.

        Raises:
            OSError: the certificates cannot be read.
        """
        if verify not in self._contexts:
            self._contexts[verify] = _tls_context(verify)

    def close(self) -> None:
        """Close all idle connections. From now on, connections are closed after use."""
        for pool in self._pools.values():
            pool.close()
        super().close()

    def _route(self, request: requests.PreparedRequest, verify: bool | str, proxies: Mapping[str, str]) -> _Route:
        url = cast(str, request.url)
        key = (request.method, url, verify, select_proxy(url, proxies))
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= MOST_ROUTES:
                self._routes.clear()
            route = self._routes[key] = self._new_route(request, verify, dict(proxies))
        return route

    def _new_route(self, request: requests.PreparedRequest, verify: bool | str, proxies: dict[str, str]) -> _Route:
        url = cast(str, request.url)
        urllib3_pool = cast(HTTPConnectionPool, self.get_connection_with_tls_context(request, verify, proxies))
        pool = self._pools.get(urllib3_pool)
        if pool is None:
            new = Pool(urllib3_pool, url, self._context(verify), most=self._connections, timer=self._timer)
            pool = self._pools.setdefault(urllib3_pool, new)
        fields = {"Host": urlsplit(url).netloc.rpartition("@")[2], **pool.proxy_headers}
        lines = [f"{request.method} {self.request_url(request, proxies)} HTTP/1.1"]
        return _Route(pool, "\r\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items()), ""]))

    def _context(self, verify: bool | str) -> ResumingContext:
        self.trust(verify)
        return self._contexts[verify]


@dataclass(frozen=True, slots=True)
class _Call:
    """One serialised request, and how to send it."""

    cancellation: CancellationToken
    head: bytes
    body: bytes | Upload
    first_byte_timeout: float
    between_bytes_timeout: float

    def send(self, pool: Pool, connect_timeout: float) -> ReceivedResponse:
        """Send the request over a connection of *pool*; return the answer when its head is complete."""
        connection = pool.take()
        if connection is not None:
            try:
                return self._send_over(connection, pool, was_idle=True)
            except _NeverReceived:
                # Send it again, only once, because the next connection is new. Its x-ms-client-request-id stays.
                self.cancellation.recall()
        return self._send_over(pool.open(timeout=connect_timeout), pool, was_idle=False)

    def _send_over(self, connection: Connection, pool: Pool, *, was_idle: bool) -> ReceivedResponse:
        """Send the request over *connection*; raise _NeverReceived if the server cannot have all of the request."""
        cancellation = self.cancellation
        try:
            cancellation.attach(connection)
            before = connection.acknowledged() if was_idle else None
            cancellation.mark_sent()
            broken = self._write(connection)
            deadline = time.monotonic() + self.first_byte_timeout
            # Read also after a failed write. A server that refuses a large request may answer and close the
            # connection before it has read all of it.
            data = self._first_bytes(connection, broken)
            if data:
                raw = ReceivedResponse(connection, pool, cancellation, self.between_bytes_timeout)
                raw.receive_head(data, deadline=deadline)
                return raw
            if was_idle and not cancellation.was_cut and (broken or self._is_lost(connection, before)):
                raise _NeverReceived
            if broken and cancellation.was_cut:
                cancellation.recall()  # the connection was shut down before it had taken all of the request
            raise broken or HttpParserError("the connection closed without an answer")
        except BaseException:
            # Detach before closing. Otherwise another thread could cancel the request and shut down a descriptor
            # that is closed, and that may already belong to another connection.
            cancellation.detach()
            connection.close()
            raise

    def _write(self, connection: Connection) -> OSError | None:
        """Write the whole request; return the error if the connection broke."""
        # The time-out for the connection would be too short for an image on a slow line.
        timeout = self.first_byte_timeout
        try:
            if not isinstance(self.body, bytes):
                self._write_upload(connection, self.body)
            elif len(self.body) < READ_BYTES:
                connection.send(self.head + self.body, timeout=timeout)  # one packet
            else:
                connection.send(self.head, timeout=timeout)
                connection.send(self.body, timeout=timeout)
        except TimeoutError:
            raise
        except OSError as error:
            return error
        return None

    def _write_upload(self, connection: Connection, upload: Upload) -> None:
        deadline = time.monotonic() + self.first_byte_timeout
        connection.send(self.head, timeout=self.first_byte_timeout)
        for piece in upload:
            connection.send(piece, timeout=deadline - time.monotonic())

    def _first_bytes(self, connection: Connection, broken: OSError | None) -> bytes:
        try:
            return connection.receive(timeout=self.first_byte_timeout)
        except TimeoutError:
            raise
        except OSError:
            if broken is None:
                raise
            return b""

    def _is_lost(self, connection: Connection, before: int | None) -> bool:
        """Return whether the server did not receive the whole request, although all of it was written.

        There are two cases that look the same. The server may close an idle connection just when the gateway uses it
        again. Or it received the request, maybe began to work on it, and crashed; then to send the request again
        could cost twice. The number of bytes that the other side's TCP has acknowledged tells the cases apart: a FIN
        acknowledges everything that was received before. A reset (RST) acknowledges nothing. After a reset the number
        is not known, and the request is not sent again.
        """
        now = connection.acknowledged()
        return before is not None and now is not None and now - before < len(self.head) + len(self.body)


def _head(beginning: str, headers: CaseInsensitiveDict[str]) -> bytes:
    """Serialise the head of a request. The header fields are read now because hooks and tracing may have added some."""
    lines = [f"{name}: {value}\r\n" for name, value in headers.lower_items()]
    fields = "".join(lines)
    if not fields.count("\r") == fields.count("\n") == len(lines):
        raise requests.exceptions.InvalidHeader("a header field contains a line break")
    return f"{beginning}{fields}\r\n".encode("ascii")


def _tls_context(verify: bool | str) -> ResumingContext:
    context = ResumingContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    path = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
    folder = os.path.isdir(path)
    context.load_verify_locations(None if folder else path, path if folder else None)
    return context
