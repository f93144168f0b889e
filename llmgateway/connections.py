"""Connections to one address: opened with what requests and urllib3 know of proxies and TLS, kept while idle."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.util.wait import wait_for_read

from .clock import Timer

KEPT_SECONDS = 60.0
"""How long a connection may have been idle and still be used; servers close theirs after a minute or more."""

READ_BYTES = 64 * 1024
"""The most that one read returns."""

_BYTES_ACKNOWLEDGED = 120
"""Where ``tcpi_bytes_acked`` begins in ``struct tcp_info`` (Linux 4.1, include/uapi/linux/tcp.h)."""


class Connections:
    """Those to the host of *url*. Thread-safe.

    urllib3's own pool takes 0.2 ms for a request; here it does nothing but open connections, and every one is
    a socket to send to and to read from.

    Args:
        most: How many are kept when they are idle.
    """

    def __init__(self, url: str, *, connect_timeout: float, most: int, timer: Timer = time.monotonic) -> None:
        with requests.Session() as session:
            environment = session.merge_environment_settings(url, {}, True, None, None)
        self._proxies = environment["proxies"]
        self._proxy = select_proxy(url, self._proxies)
        self._adapter = HTTPAdapter()
        self._tls = _trusting(environment["verify"])
        self._pool = _pool(self._adapter, url, self._proxy, self._tls)
        self._connect_timeout = connect_timeout
        self._most = most
        self._timer = timer
        self._idle: deque[tuple[HTTPConnection, float]] = deque()
        self._closed = False
        self._new: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        # For those who forget to close it, as urllib3's pools do.
        weakref.finalize(self, _close_all, self._idle)

    def target(self, url: str) -> str:
        """Return what a request's first line has to name: the path, or for a proxy all of *url*."""
        return self._adapter.request_url(requests.Request("POST", url).prepare(), self._proxies)

    def proxy_fields(self, url: str) -> Mapping[str, str]:
        """Return the header fields with which a request to *url* shows itself to the proxy; a tunnel needs none."""
        through = self._proxy is not None and urlsplit(url).scheme == "http"
        return self._adapter.proxy_headers(self._proxy) if through and self._proxy is not None else {}

    def take(self) -> HTTPConnection | None:
        """Return an idle one that looks usable, if there is one: the one used last, so that the others age."""
        while True:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                return None
            # What can be read there is the end, or something that nobody asked for.
            if self._timer() - since < KEPT_SECONDS and not wait_for_read(connection.sock, 0):
                return connection
            connection.close()

    def open(self) -> HTTPConnection:
        """Open one.

        Raises:
            urllib3.exceptions.HTTPError, http.client.HTTPException, OSError: it cannot be had.
        """
        connection = cast(HTTPConnection, self._pool._new_conn())
        connection.timeout = self._connect_timeout
        try:
            if self._proxy:
                self._pool._prepare_proxy(connection)  # the tunnel, where one is needed
            if connection.is_closed:
                connection.connect()
            _make_prompt_and_lasting(connection.sock)
            self._new.add(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def keep(self, connection: HTTPConnection) -> None:
        """Take back one that can be used again."""
        if connection in self._new:
            # Only now: what resumes a session comes with the first bytes of an answer (RFC 8446, section 4.6.1).
            self._new.discard(connection)
            if isinstance(connection.sock, ssl.SSLSocket):
                self._tls.session = connection.sock.session
        if self._closed or len(self._idle) >= self._most:
            connection.close()
        else:
            self._idle.append((connection, self._timer()))

    def close(self) -> None:
        """Close those that are idle, and keep no more."""
        self._closed = True
        _close_all(self._idle)


def _close_all(idle: deque[tuple[HTTPConnection, float]]) -> None:
    while idle:
        idle.pop()[0].close()


def _pool(adapter: HTTPAdapter, url: str, proxy: str | None, trusted: ssl.SSLContext) -> HTTPConnectionPool:
    if proxy:
        manager: urllib3.PoolManager = adapter.proxy_manager_for(proxy, ssl_context=trusted)
    else:
        manager = urllib3.PoolManager(ssl_context=trusted)
    return manager.connection_from_url(url)


class _TLS(ssl.SSLContext):
    """Offers the other side the session of an earlier connection, which spares both the certificates.

    urllib3's own context asks for no session that could be resumed.
    """

    session: ssl.SSLSession | None = None

    def wrap_socket(self, sock: socket.socket, **kwargs: Any) -> ssl.SSLSocket:  # type: ignore[override]
        return super().wrap_socket(sock, **{"session": self.session, **kwargs})


def _trusting(bundle: str | bool | None) -> _TLS:
    """Make the one context for all connections: to read the certificates takes longer than a hundred requests."""
    context = _TLS(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if bundle is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    path = DEFAULT_CA_BUNDLE_PATH if bundle is None or bundle is True else bundle
    folder = os.path.isdir(path)
    context.load_verify_locations(None if folder else path, path if folder else None)
    return context


def _make_prompt_and_lasting(wire: socket.socket) -> None:
    # urllib3 leaves it out behind a proxy; small requests would wait 40 ms.
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # What stands between here and Azure forgets silent connections after four minutes or less, and says
    # nothing (Microsoft, "TCP reset and idle timeout in Azure Load Balancer", 2025): a request would wait
    # for its time-out. A sign of life keeps them, or finds out.
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)


def receive(wire: socket.socket) -> bytes:
    """Wait for something and return all that has arrived; nothing at the end of the connection."""
    data = wire.recv(READ_BYTES)
    if data and isinstance(wire, ssl.SSLSocket):
        return _drained(wire, data)
    return data


def _drained(wire: ssl.SSLSocket, data: bytes) -> bytes:
    """Return *data* and what else has arrived.

    A read over TLS gives one record, which is one of Azure's chunks, however many wait; ``pending()`` does not
    know of those that are not decrypted yet. So it is read until it would have to wait.
    """
    pieces = [data]
    size = len(data)
    patience = wire.gettimeout()
    wire.settimeout(0)
    try:
        while size < READ_BYTES:
            data = wire.recv(READ_BYTES)
            if not data:
                break
            pieces.append(data)
            size += len(data)
    except OSError:  # it would have to wait, or it is broken: the next read will find out
        pass
    finally:
        wire.settimeout(patience)
    return b"".join(pieces)


def acknowledged(wire: socket.socket) -> int | None:
    """Return how many bytes the other side has acknowledged so far; None where the system does not say."""
    try:
        info = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (count,) = struct.unpack_from("=Q", info, _BYTES_ACKNOWLEDGED)
    except (AttributeError, OSError, struct.error):
        return None
    return int(count) or None
