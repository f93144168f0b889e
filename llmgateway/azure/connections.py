"""Connections to one address: opened with what requests and urllib3 know of proxies and TLS, kept while idle."""

from __future__ import annotations

import os
import socket
import ssl
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

from ..clock import Timer
from .wires import Wire

KEPT_SECONDS = 60.0
"""How long a connection may have been idle and still be used; servers close theirs after a minute or more."""


class Connections:
    """Those to the host of *url*. Thread-safe.

    urllib3's own pool takes 0.2 ms for a request; here it does nothing but open connections.

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
        self._idle: deque[tuple[Wire, float]] = deque()
        self._closed = False
        # For those who forget to close it, as urllib3's pools do.
        weakref.finalize(self, _close_all, self._idle)

    def target(self, url: str) -> str:
        """Return what a request's first line has to name: the path, or for a proxy all of *url*."""
        return self._adapter.request_url(requests.Request("POST", url).prepare(), self._proxies)

    def proxy_fields(self, url: str) -> Mapping[str, str]:
        """Return the header fields with which a request to *url* shows itself to the proxy; a tunnel needs none."""
        through = self._proxy is not None and urlsplit(url).scheme == "http"
        return self._adapter.proxy_headers(self._proxy) if through and self._proxy is not None else {}

    def take(self) -> Wire | None:
        """Return an idle one that looks usable, if there is one: the one used last, so that the others age."""
        while True:
            try:
                wire, since = self._idle.pop()
            except IndexError:
                return None
            # What has come there is the end, or something that nobody asked for.
            if self._timer() - since < KEPT_SECONDS and wire.is_quiet():
                return wire
            wire.close()

    def open(self) -> Wire:
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
            return Wire.over(connection)
        except BaseException:
            connection.close()
            raise

    def keep(self, wire: Wire) -> None:
        """Take back one that can be used again."""
        if wire.is_new:
            # Only now: what resumes a session comes with the first bytes of an answer (RFC 8446, section 4.6.1).
            wire.is_new = False
            self._tls.session = wire.session or self._tls.session
        if self._closed or len(self._idle) >= self._most:
            wire.close()
        else:
            self._idle.append((wire, self._timer()))

    def close(self) -> None:
        """Close those that are idle, and keep no more."""
        self._closed = True
        _close_all(self._idle)


def _close_all(idle: deque[tuple[Wire, float]]) -> None:
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
