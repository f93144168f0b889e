"""Open connections to one address, sent over and read from with as few system calls as possible.

Python lets go of its lock around each system call of a socket, and that wakes another thread (see
:mod:`~llmgateway.syscalls`). A socket with a time-out makes two calls for a read: one to wait, one to read. The
sockets here never block: what has arrived is read at once, and only if there is nothing a thread waits.
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
"""The most that one read returns, within one record of TLS."""

IDLE_SECONDS = 60.0
"""How long a connection may have been idle and still be used; servers close theirs after a minute or more."""

AGE_SECONDS = 300.0
"""How old a connection may be and still be used: an open one goes on to an address that DNS may no longer name."""

SOCKET_OPTIONS: list[tuple[int, int, int]] = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),  # or small requests wait 40 ms
    # What stands between here and Azure forgets silent connections after four minutes or less, and says nothing
    # (Microsoft, "TCP reset and idle timeout in Azure Load Balancer", 2025): a request would wait for its time-out.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]
if hasattr(socket, "TCP_KEEPIDLE"):
    SOCKET_OPTIONS += [(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30), (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)]

_RECORD_BYTES = 16 * 1024
"""The most that is in one record of TLS (RFC 8446, section 5.1)."""

_BYTES_ACKNOWLEDGED = 120
"""Where ``tcpi_bytes_acked`` begins in ``struct tcp_info`` (Linux 4.1, include/uapi/linux/tcp.h)."""

decrypting = threading.Lock()
"""Held while a thread decrypts. A thread that waits for the interpreter's lock is woken by every record that another
one decrypts, and in vain; one that waits for this lock is woken once. 600 streams: 47 us of CPU for each chunk without
it, 26 with it (2026-11). Nobody waits for the network while holding it."""
# A child of a process that is decrypting would wait for ever.
os.register_at_fork(before=decrypting.acquire, after_in_parent=decrypting.release, after_in_child=decrypting.release)


class Connection:
    """An open connection. One thread uses it at a time; any thread may call :meth:`shutdown`.

    This class takes whatever urllib3 has made, such as TLS within the TLS of a proxy, or SOCKS.
    """

    session: ssl.SSLSession | None = None
    """What can resume this TLS session on another connection; there once something has been received."""
    is_new = True
    """Whether no whole answer has come over it yet."""

    def __init__(self, connection: HTTPConnection, *, opened_at: float) -> None:
        self._connection = connection
        self.socket: socket.socket = connection.sock
        self.opened_at = opened_at
        self._descriptor = self.socket.fileno()
        self._arrivals = select.poll()
        self._arrivals.register(self._descriptor, select.POLLIN)

    @classmethod
    def over(cls, connection: HTTPConnection, *, opened_at: float) -> Connection:
        """Return a connection of the class that suits the socket of *connection*, which belongs to it from now on."""
        known = {socket.socket: _PlainConnection, ssl.SSLSocket: _TLSConnection}
        return known.get(type(connection.sock), cls)(connection, opened_at=opened_at)

    @property
    def is_closed(self) -> bool:
        return self._connection.is_closed

    def send(self, data: bytes, *, timeout: float) -> None:
        """Send all of *data*.

        Raises:
            TimeoutError: it took longer than so many seconds.
            OSError: the connection is broken.
        """
        self.socket.settimeout(timeout)
        self.socket.sendall(data)

    def receive(self, *, timeout: float) -> bytes:
        """Wait until something arrives and return all that has arrived; ``b""`` at the end of the connection.

        Raises:
            TimeoutError: nothing came within so many seconds.
            OSError: the connection is broken.
        """
        self.socket.settimeout(timeout)
        return self.socket.recv(READ_BYTES) or b""  # urllib3's TLS in TLS returns 0 at the end (2.6)

    def is_quiet(self) -> bool:
        """Whether it is open, as far as can be seen, and nothing has arrived that was not received."""
        return syscalls.is_quiet(self._descriptor)

    def acknowledged(self) -> int | None:
        """How many bytes the other side has acknowledged so far; None where the system does not say."""
        try:
            info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            (count,) = struct.unpack_from("=Q", info, _BYTES_ACKNOWLEDGED)
        except (AttributeError, OSError, struct.error):
            return None
        return int(count) or None

    def shutdown(self) -> None:
        """End it in both directions: a thread that waits for it is woken, which ``close`` would not do.

        Raises:
            OSError: it is closed already.
        """
        # Two layers of TLS cannot be shut down, but the socket below them can. And not SSLSocket's own method, which
        # would make the thread that reads take what is still encrypted.
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
        # OpenSSL takes all or nothing, and wants to be given the same bytes until it has taken them.
        while awaited := self._try_to_send(data):
            self._wait(awaited, deadline - time.monotonic())

    def receive(self, *, timeout: float) -> bytes:
        while (data := self._arrived()) is None:
            self._wait(select.POLLIN, timeout)
        return data

    def _try_to_send(self, data: bytes) -> int:
        """Return what has to be waited for before the next try; 0 if everything was sent."""
        try:
            taken = self._tls.send(data)
        except ssl.SSLWantWriteError:
            return select.POLLOUT
        except ssl.SSLWantReadError:
            return select.POLLIN
        return 0 if taken else select.POLLOUT  # gevent's socket returns 0 where Python's raises (26.9)

    def _arrived(self) -> bytes | None:
        """Return what has arrived, ``b""`` at the end of the connection, None while there is nothing.

        One read over TLS returns one record, which is one of Azure's chunks, however many have arrived; ``pending()``
        does not count those that are still encrypted. So records are read until there are none, which is asked of
        the socket below: OpenSSL would let go of the interpreter's lock to say so, and does not read ahead.
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
                        break  # the next read meets it again
                    raise
                if not record:
                    return b"".join(records)
                records.append(record)
                size += len(record)
        return b"".join(records) or None


class ResumingContext(ssl.SSLContext):
    """Offers a server the session of an earlier connection, which spares both sides the work with certificates.

    urllib3's own context cannot resume sessions.
    """

    def __init__(self, *_: object) -> None:
        self._sessions: dict[str | None, ssl.SSLSession] = {}

    def remember(self, connection: Connection) -> None:
        """Offer the session of *connection* from now on; to be called when an answer has come over it.

        Not before: what resumes a session comes with the first bytes of an answer (RFC 8446, section 4.6.1).
        """
        if connection.session is not None:
            self._sessions[getattr(connection.socket, "server_hostname", None)] = connection.session

    def wrap_socket(self, sock: socket.socket, **kwargs: Any) -> ssl.SSLSocket:  # type: ignore[override]
        return super().wrap_socket(sock, **{"session": self._sessions.get(kwargs.get("server_hostname")), **kwargs})


class Pool:
    """The connections to one host, directly or through a proxy: opened, and kept while they are idle. Thread-safe.

    urllib3's own pool takes 0.2 ms for a request. Here it only says how to connect: host or proxy, TLS, login.

    Args:
        most: How many connections are kept while they are idle.
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
            # What vouches for Azure vouches for a proxy that is reached by TLS, too, as for requests.
            self._options["proxy_config"] = ProxyConfig(context, *pool.proxy_config[1:])
        self.proxy_headers = pool.proxy_headers if pool.proxy is not None and not tunnels else {}
        """What a request shows to the proxy that forwards it; a tunnel has been shown it already."""
        self._idle: deque[tuple[Connection, float]] = deque()
        self._closed = False
        # For owners that forget to close it, as in urllib3's pools.
        weakref.finalize(self, _close_all, self._idle)

    def take(self) -> Connection | None:
        """Return an idle connection that looks usable, if there is one: the one used last, so that the others age."""
        while True:
            try:
                connection, since = self._idle.pop()
            except IndexError:
                return None
            now = self._timer()
            # What has arrived there is the end, or something that was not asked for.
            if now - since < IDLE_SECONDS and now - connection.opened_at < AGE_SECONDS and connection.is_quiet():
                return connection
            connection.close()

    def open(self, *, timeout: float) -> Connection:
        """Open a connection.

        Args:
            timeout: Seconds for connecting.

        Raises:
            urllib3.exceptions.HTTPError, http.client.HTTPException, OSError: it cannot be opened.
        """
        pool = self._pool
        host, port = (pool.proxy.host, pool.proxy.port) if pool.proxy is not None else (pool.host, pool.port)
        made = pool.ConnectionCls(host=host or "", port=port, timeout=timeout, **self._options)
        connection = cast(HTTPConnection, made)
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
        """Take back a connection that can carry another request."""
        now = self._timer()
        if connection.is_new:
            connection.is_new = False
            self._context.remember(connection)
        if self._closed or len(self._idle) >= self._most or now - connection.opened_at >= AGE_SECONDS:
            connection.close()
        else:
            self._idle.append((connection, now))

    def close(self) -> None:
        """Close those that are idle, and keep no more."""
        self._closed = True
        _close_all(self._idle)


def _close_all(idle: deque[tuple[Connection, float]]) -> None:
    while idle:
        idle.pop()[0].close()
