"""Connections to one host, and a pool of idle ones. They use as few system calls as possible.

Python releases the interpreter's lock (GIL) around each system call of a socket, and that wakes another thread (see
:mod:`~llmgateway.syscalls`). A socket with a time-out makes two system calls for each read: one waits, one reads. The
sockets here are non-blocking: they read first, and wait only if nothing has arrived.
"""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import struct
import threading
import time
import weakref
from collections import deque
from typing import Any, cast

from urllib3.connection import HTTPConnection, ProxyConfig
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.util import parse_url
from urllib3.util.proxy import connection_requires_http_tunnel

from .. import syscalls
from ..clock import Timer

READ_BYTES = syscalls.READ_BYTES
"""The bytes after which a read stops. Over TLS it may return up to one TLS record more."""

IDLE_SECONDS = 60.0
"""A connection that was idle for longer is not used again. Servers close idle connections after a minute or more."""

AGE_SECONDS = 300.0
"""An older connection is not used again: DNS may name another address by now."""

SOCKET_OPTIONS: list[tuple[int, int, int]] = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),  # without it, small requests wait 40 ms
    # Load balancers and firewalls drop idle connections after four minutes or less without closing them (Microsoft,
    # "TCP reset and idle timeout in Azure Load Balancer", 2025). A request would then wait until it times out.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]
if hasattr(socket, "TCP_KEEPIDLE"):
    SOCKET_OPTIONS += [(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30), (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)]

_RECORD_BYTES = 16 * 1024
"""The largest TLS record (RFC 8446, section 5.1)."""

_BYTES_ACKNOWLEDGED = 120
"""The offset of ``tcpi_bytes_acked`` in ``struct tcp_info`` (Linux 4.1, include/uapi/linux/tcp.h)."""

decrypting = threading.Lock()
"""A thread holds this lock while it decrypts; it never waits for the network meanwhile.

Without this lock, threads wait for the interpreter's lock, and each TLS record that one of them decrypts wakes another
one for nothing. A thread that waits for this lock is woken once. With 600 streams, a chunk takes 47 us of CPU time
without this lock, and 26 us with it (2026-11).
"""
# If a process forks while one of its threads decrypts, the child would wait for this lock for ever.
os.register_at_fork(before=decrypting.acquire, after_in_parent=decrypting.release, after_in_child=decrypting.release)


class Connection:
    """An open connection. One thread at a time may use it; any thread may call :meth:`shutdown`.

    This base class works with every socket of urllib3, for example TLS within a proxy's TLS, or SOCKS. Two subclasses
    are faster: one for plain sockets and one for TLS.
    """

    session: ssl.SSLSession | None = None
    """With this, another connection can resume the TLS session. It is None until something was received."""
    is_new = True
    """Whether no complete answer was received over it yet."""

    def __init__(self, connection: HTTPConnection, *, opened_at: float) -> None:
        self._connection = connection
        self.socket: socket.socket = connection.sock
        self.opened_at = opened_at
        self._descriptor = self.socket.fileno()
        self._arrivals = select.poll()
        self._arrivals.register(self._descriptor, select.POLLIN)

    @classmethod
    def over(cls, connection: HTTPConnection, *, opened_at: float) -> Connection:
        """Return an instance of the class for the type of *connection*'s socket. It takes *connection* over."""
        classes = {socket.socket: _PlainConnection, ssl.SSLSocket: _TLSConnection}
        return classes.get(type(connection.sock), cls)(connection, opened_at=opened_at)

    @property
    def is_closed(self) -> bool:
        return self._connection.is_closed

    def send(self, data: bytes, *, timeout: float) -> None:
        """Send all of *data*.

        Raises:
            TimeoutError: it took longer than *timeout* seconds.
            OSError: the connection is broken.
        """
        self.socket.settimeout(timeout)
        self.socket.sendall(data)

    def receive(self, *, timeout: float) -> bytes:
        """Wait for data and return everything that has arrived; ``b""`` at the end of the connection.

        Raises:
            TimeoutError: nothing arrived within *timeout* seconds.
            OSError: the connection is broken.
        """
        self.socket.settimeout(timeout)
        return self.socket.recv(READ_BYTES) or b""  # urllib3's TLS in TLS returns 0 at the end (2.6)

    def is_quiet(self) -> bool:
        """Return whether the connection is open, as far as the system knows, and no data waits to be received."""
        return syscalls.is_quiet(self._descriptor)

    def acknowledged(self) -> int | None:
        """Return how many bytes the other side has acknowledged; None if the system cannot tell."""
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            (count,) = struct.unpack_from("=Q", info, _BYTES_ACKNOWLEDGED)
        except (AttributeError, OSError, struct.error):
            return None
        return int(count) or None

    def shutdown(self) -> None:
        """End the connection in both directions. Unlike ``close``, this wakes a thread that waits for data.

        Raises:
            OSError: the connection is already closed.
        """
        # urllib3's TLS in TLS has no shutdown(), but the socket below it has. SSLSocket.shutdown() is not used: it
        # drops the TLS layer, and the reading thread would then receive encrypted bytes.
        socket.socket.shutdown(getattr(self.socket, "socket", self.socket), socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()

    def _wait(self, events: int, seconds: float) -> None:
        poll = self._arrivals
        if events != select.POLLIN:
            poll = select.poll()
            poll.register(self._descriptor, events)
        if seconds <= 0 or not poll.poll(math.ceil(seconds * 1000)):
            raise TimeoutError("timed out")


class _PlainConnection(Connection):
    """A connection without encryption; its socket never blocks."""

    def __init__(self, connection: HTTPConnection, *, opened_at: float) -> None:
        super().__init__(connection, opened_at=opened_at)
        self.socket.setblocking(False)

    def send(self, data: bytes, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        sent = 0
        while sent < len(data):
            taken = syscalls.send(self._descriptor, data[sent : sent + syscalls.SENT_AT_ONCE])
            if not taken:
                self._wait(select.POLLOUT, deadline - time.monotonic())
            sent += taken

    def receive(self, *, timeout: float) -> bytes:
        while (data := syscalls.receive(self._descriptor)) is None:
            self._wait(select.POLLIN, timeout)
        return data


class _TLSConnection(Connection):
    """A connection with TLS; its socket never blocks."""

    def __init__(self, connection: HTTPConnection, *, opened_at: float) -> None:
        super().__init__(connection, opened_at=opened_at)
        self._tls = cast(ssl.SSLSocket, self.socket)
        self._tls.setblocking(False)

    @property
    def session(self) -> ssl.SSLSession | None:  # type: ignore[override]
        return self._tls.session

    def send(self, data: bytes, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        # OpenSSL takes all bytes or none. After a failed attempt it must get the same bytes again.
        while awaited := self._try_to_send(data):
            self._wait(awaited, deadline - time.monotonic())

    def receive(self, *, timeout: float) -> bytes:
        deadline = None
        while (data := self._receive_arrived()) is None:
            # A part of a TLS record is no data, and does not begin the time-out anew.
            deadline = deadline or time.monotonic() + timeout
            self._wait(select.POLLIN, deadline - time.monotonic())
        return data

    def _try_to_send(self, data: bytes) -> int:
        """Return the poll event to wait for before the next attempt; 0 if everything was sent."""
        try:
            taken = self._tls.send(data)
        except ssl.SSLWantWriteError:
            return select.POLLOUT
        except ssl.SSLWantReadError:
            return select.POLLIN
        return 0 if taken else select.POLLOUT  # gevent's socket returns 0 where Python's raises (26.9)

    def _receive_arrived(self) -> bytes | None:
        """Return all data that has arrived, ``b""`` at the end of the connection, None if nothing has arrived.

        One read over TLS returns one TLS record, which is one chunk of Azure's, even if more have arrived.
        ``pending()`` does not count records that are still encrypted. So this reads until no record is left. It asks
        the socket whether there is another one: OpenSSL does not read ahead, and to ask it would release the
        interpreter's lock.
        """
        records: list[bytes] = []
        size = 0
        with decrypting:
            while size < READ_BYTES and not syscalls.is_quiet(self._descriptor):
                try:
                    record = self._tls.recv(_RECORD_BYTES)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    break
                except OSError:
                    if records:
                        break  # the next read raises it again
                    raise
                if not record:
                    return b"".join(records)
                records.append(record)
                size += len(record)
        return b"".join(records) or None


class ResumingContext(ssl.SSLContext):
    """A TLS context that resumes the session of an earlier connection, so that certificates are not checked again.

    The context of urllib3 cannot resume sessions.
    """

    def __init__(self, *_: object) -> None:
        self._sessions: dict[str | None, ssl.SSLSession] = {}

    def remember(self, connection: Connection) -> None:
        """Resume the session of *connection* from now on.

        Call this when an answer was received: the server sends the session ticket after the handshake, with the first
        bytes of the answer (RFC 8446, section 4.6.1).
        """
        if connection.session is not None:
            self._sessions[getattr(connection.socket, "server_hostname", None)] = connection.session

    def wrap_socket(self, sock: socket.socket, **kwargs: Any) -> ssl.SSLSocket:  # type: ignore[override]
        return super().wrap_socket(sock, **{"session": self._sessions.get(kwargs.get("server_hostname")), **kwargs})


class Pool:
    """Opens connections to one host, directly or through a proxy, and keeps idle ones. Thread-safe.

    urllib3's pool takes 0.2 ms for each request. Here it is used only for its configuration: the host, the proxy, TLS
    and the proxy's login.

    Args:
        pool: The pool of urllib3 with this configuration.
        url: A URL on the host.
        context: The TLS context of all connections.
        most: The most idle connections that are kept.
    """

    def __init__(
        self, pool: HTTPConnectionPool, url: str, context: ResumingContext, *, most: int, timer: Timer
    ) -> None:
        self._pool = pool
        self._context = context
        self._most = most
        self._timer = timer
        target = parse_url(url)
        tunnels = connection_requires_http_tunnel(pool.proxy, pool.proxy_config, target.scheme)
        self._tunnel_to = (target.host, target.port or 443) if tunnels else None
        self._options = dict(pool.conn_kw)
        if pool.proxy_config is not None:
            # A proxy with TLS is verified with the same certificates as Azure, as in requests.
            self._options["proxy_config"] = ProxyConfig(context, *pool.proxy_config[1:])
        self.proxy_headers = pool.proxy_headers if pool.proxy is not None and not tunnels else {}
        """The headers that each request needs for a forwarding proxy; empty for a tunnel, which gets them once."""
        self._idle: deque[tuple[Connection, float]] = deque()  # with the time since when they are idle
        self._closed = False
        # Closes the connections if the owner forgets to close the pool, as in urllib3.
        weakref.finalize(self, _close_all, self._idle)

    def take(self) -> Connection | None:
        """Return an idle connection that seems usable, or None.

        It is the one that was used last. So the connections that are not needed become too old, and are closed.
        """
        while True:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                return None
            now = self._timer()
            # Data on an idle connection is its end, or something that no request has asked for.
            if now - since < IDLE_SECONDS and now - connection.opened_at < AGE_SECONDS and connection.is_quiet():
                return connection
            connection.close()

    def open(self, *, timeout: float) -> Connection:
        """Open a connection.

        Args:
            timeout: The most seconds to connect.

        Raises:
            urllib3.exceptions.HTTPError, http.client.HTTPException, OSError: the connection cannot be opened.
        """
        pool = self._pool
        host, port = (pool.proxy.host, pool.proxy.port) if pool.proxy is not None else (pool.host, pool.port)
        unopened = pool.ConnectionCls(host=host or "", port=port, timeout=timeout, **self._options)
        connection = cast(HTTPConnection, unopened)
        try:
            if self._tunnel_to is not None:
                scheme = "https" if pool.proxy is not None and pool.proxy.scheme == "https" else "http"
                tunnel_host, tunnel_port = self._tunnel_to
                connection.set_tunnel(tunnel_host or "", tunnel_port, headers=pool.proxy_headers, scheme=scheme)
            connection.connect()
            return Connection.over(connection, opened_at=self._timer())
        except BaseException:
            connection.close()
            raise

    def keep(self, connection: Connection) -> None:
        """Keep *connection* for another request, or close it if it is too old or enough are idle."""
        now = self._timer()
        if connection.is_new:
            connection.is_new = False
            self._context.remember(connection)
        if self._closed or len(self._idle) >= self._most or now - connection.opened_at >= AGE_SECONDS:
            connection.close()
        else:
            self._idle.append((connection, now))

    def close(self) -> None:
        """Close all idle connections. From now on, :meth:`keep` closes connections."""
        self._closed = True
        _close_all(self._idle)


def _close_all(idle: deque[tuple[Connection, float]]) -> None:
    while idle:
        idle.pop()[0].close()
