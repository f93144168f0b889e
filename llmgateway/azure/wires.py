"""Open connections to Azure, sent over and read from with as few turns of the interpreter's lock as can be.

Each turn wakes another thread (see :mod:`~llmgateway.syscalls`), and a socket with a time-out takes two for a read,
one to wait and one to read, and one more for every change of the time-out. The sockets here never block. What has
arrived is taken without a turn; only to wait takes one, and to encrypt and decrypt, which is OpenSSL's.
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
from typing import cast

from urllib3.connection import HTTPConnection

from .. import syscalls

READ_BYTES = syscalls.READ_BYTES
"""Of what has arrived, one read takes about so much at most."""

_RECORD_BYTES = 16 * 1024
"""The most that is in one record of TLS (RFC 8446, section 5.1)."""

_BYTES_ACKNOWLEDGED = 120
"""Where ``tcpi_bytes_acked`` begins in ``struct tcp_info`` (Linux 4.1, include/uapi/linux/tcp.h)."""


_decrypting = threading.Lock()
"""One at a time. A thread that waits for the interpreter's lock is woken by every record that another decrypts, and
in vain; one that waits for this lock is woken once. 600 streams: 47 us of CPU for each chunk without, 26 with
(2026-11). Whoever has it never waits for its connection."""
# Or a child of a process that is at it would wait for ever.
os.register_at_fork(before=_decrypting.acquire, after_in_parent=_decrypting.release, after_in_child=_decrypting.release)


class Wire:
    """An open connection. It is one thread's at a time, but for :meth:`shutdown`.

    This one takes whatever urllib3 makes, such as TLS within the TLS of a proxy.
    """

    is_new = True
    """Whether no whole answer has come over it yet."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        self.socket: socket.socket = connection.sock
        self._descriptor = self.socket.fileno()
        self._arrivals = select.poll()
        self._arrivals.register(self._descriptor, select.POLLIN)

    @classmethod
    def over(cls, connection: HTTPConnection) -> Wire:
        """Make the one that suits *connection*, whose socket is its own from now on."""
        known = {socket.socket: _PlainWire, ssl.SSLSocket: _TLSWire}
        return known.get(type(connection.sock), cls)(connection)

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
        """Wait for something and return all that has arrived; nothing at the end of the connection.

        Raises:
            TimeoutError: nothing came within so many seconds.
            OSError: the connection is broken.
        """
        self.socket.settimeout(timeout)
        return self.socket.recv(READ_BYTES) or b""  # urllib3's TLS in TLS says 0 at the end (2.6)

    @property
    def session(self) -> ssl.SSLSession | None:
        """What can resume its TLS session on another connection, once something has come over this one."""
        return None

    def is_quiet(self) -> bool:
        """Whether it is open, as far as can be seen, and nothing has come that nobody has read."""
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
        """End it in both directions: whoever waits for it is woken, which ``close`` would not do.

        Raises:
            OSError: it is closed already.
        """
        # Two layers of TLS cannot be shut down, but what is below them can. And not SSLSocket's own method, which
        # would have the one who reads take what is still encrypted.
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


class _PromptWire(Wire):
    """One whose socket never blocks: only a wait takes a turn."""

    def __init__(self, connection: HTTPConnection) -> None:
        super().__init__(connection)
        self.socket.setblocking(False)

    def receive(self, *, timeout: float) -> bytes:
        while (data := self._arrived()) is None:
            self._wait(select.POLLIN, timeout)
        return data

    def _arrived(self) -> bytes | None:
        """As :func:`~llmgateway.syscalls.receive`."""
        raise NotImplementedError


class _PlainWire(_PromptWire):
    """One without encryption."""

    def send(self, data: bytes, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        sent = 0
        while sent < len(data):
            taken = syscalls.send(self._descriptor, data[sent : sent + syscalls.SENT_AT_ONCE])
            if not taken:
                self._wait(select.POLLOUT, deadline - time.monotonic())
            sent += taken

    def _arrived(self) -> bytes | None:
        return syscalls.receive(self._descriptor)


class _TLSWire(_PromptWire):
    """One with TLS, the usual one: also to encrypt and to decrypt takes a turn for each record."""

    def __init__(self, connection: HTTPConnection) -> None:
        super().__init__(connection)
        self._tls = cast(ssl.SSLSocket, self.socket)

    def send(self, data: bytes, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        # OpenSSL takes all or nothing, and wants to be given the same until it has taken it.
        while awaited := self._try_to_send(data):
            self._wait(awaited, deadline - time.monotonic())

    @property
    def session(self) -> ssl.SSLSession | None:
        return self._tls.session

    def _try_to_send(self, data: bytes) -> int:
        """Return what has to be waited for before it can be tried again; 0 if it is done."""
        try:
            taken = self._tls.send(data)
        except ssl.SSLWantWriteError:
            return select.POLLOUT
        except ssl.SSLWantReadError:
            return select.POLLIN
        return 0 if taken else select.POLLOUT  # gevent's says 0 where Python's raises (26.9)

    def _arrived(self) -> bytes | None:
        """As for every wire that is prompt.

        A read over TLS gives one record, which is one of Azure's chunks, however many wait; ``pending()`` does not
        know of those that are not decrypted yet. So it is read until there is nothing more, which is asked of the
        socket: OpenSSL would take a turn to say so, and leaves nothing in between (it does not read ahead).
        """
        records: list[bytes] = []
        size = 0
        with _decrypting:
            while size < READ_BYTES and not syscalls.is_quiet(self._descriptor):
                try:
                    record = self._tls.recv(_RECORD_BYTES)
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    break
                except OSError:
                    if records:
                        break  # the next read will find out
                    raise
                if not record:
                    return b"".join(records)
                records.append(record)
                size += len(record)
        return b"".join(records) or None
