"""System calls on sockets that keep the interpreter's lock (GIL).

Python releases the GIL around every system call, because the call might block. The calls here never block: with
``MSG_DONTWAIT`` a socket sends or receives at once what it can. To release the GIL for them is expensive. It wakes
another thread, but the call returns after a microsecond and takes the GIL back before that thread runs. With 16 clients
this was a third of the CPU time of a request (2026-11: 1.17 ms with it, 0.74 ms without). ``ctypes.PyDLL`` calls C
functions without releasing the GIL.

Do not add calls that can block, because they would stop all threads. These are calls on files, which wait for the disk,
and calls on sockets without ``MSG_DONTWAIT``.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import threading

READ_BYTES = 64 * 1024
"""The most bytes that one call receives."""

SENT_AT_ONCE = 256 * 1024
"""The most bytes that one call sends. Copying them stops all other threads. To copy more would take longer than to wake
a thread, which is the cost that this module avoids."""

_C = ctypes.PyDLL(None, use_errno=True)
_send, _recv = _C.send, _C.recv
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
for _function in (_send, _recv):
    _function.restype = ctypes.c_ssize_t

# MSG_NOSIGNAL: no SIGPIPE. Python ignores that signal, but not if it is embedded in another program.
_SEND_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)


class _ReceiveBuffer(threading.local):
    """The buffer into which a thread receives. The system allocates only the pages that are used."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, READ_BYTES, flags=mmap.MAP_PRIVATE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))


_buffer = _ReceiveBuffer()


def send(descriptor: int, data: bytes) -> int:
    """Send as much of *data* as the socket accepts now; return the number of bytes, 0 if its buffer is full.

    Raises:
        OSError: the connection is broken.
    """
    sent = _send(descriptor, data, min(len(data), SENT_AT_ONCE), _SEND_FLAGS)
    if sent < 0:
        _raise_unless(errno.EAGAIN)
        return 0
    return int(sent)


def receive(descriptor: int) -> bytes | None:
    """Return the data that has arrived, ``b""`` at the end of the connection, None if nothing has arrived.

    Raises:
        OSError: the connection is broken.
    """
    size = _recv(descriptor, _buffer.address, READ_BYTES, socket.MSG_DONTWAIT)
    if size < 0:
        _raise_unless(errno.EAGAIN)
        return None
    return _buffer.memory[:size]


def is_quiet(descriptor: int) -> bool:
    """Return whether the connection is open and no data waits to be received."""
    size = _recv(descriptor, _buffer.address, 1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    return bool(size < 0 and ctypes.get_errno() == errno.EAGAIN)


def _raise_unless(harmless: int) -> None:
    code = ctypes.get_errno()
    if code != harmless:
        raise OSError(code, os.strerror(code))
