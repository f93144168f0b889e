"""Counts the wrong admin keys of each address, for all processes of a host together."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import struct
import threading
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from ..clock import Clock

log = logging.getLogger(__name__)

ATTEMPTS = 10
"""Number of wrong keys that an address may send within ``WINDOW_SECONDS``."""

WINDOW_SECONDS = 60.0

_SLOT = struct.Struct(f"<16s{ATTEMPTS}d")
"""A digest of the address, and the times of its last wrong keys, the oldest first; 0.0 for none."""

_ROW_SLOTS = 8
"""The digest of an address chooses a row. A new address takes the slot of the one in it that was quiet for longest."""

_ROW_BYTES = _ROW_SLOTS * _SLOT.size
_ROWS = 512
_FILE_BYTES = _ROWS * _ROW_BYTES


def source_of(address: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 network of an IPv6 address.

    A provider gives every customer a /64 network or more (RFC 6177), so one computer can use 2**64 addresses.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"


class WrongKeys:
    """The wrong keys of the last minute, by source. Thread-safe, and shared by all processes that use one file.

    The file has a fixed size (384 KiB). It depends on no store, so it works while one is away. While the file cannot be
    used, for example because the disk is full, each process counts in its own memory.

    Args:
        path: The file. It is created at the first wrong key.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._memory = bytearray(_FILE_BYTES)
        self._reported = False

    def add(self, address: str) -> tuple[int, int]:
        """Count a wrong key from *address*, unless it has to wait.

        Returns:
            The seconds to wait, 0 if the key was counted; and the number of wrong keys within the last minute.
        """
        return self._look(address, count=True)

    def wait(self, address: str) -> int:
        """Return the seconds that *address* has to wait, or 0."""
        return self._look(address, count=False)[0]

    def _look(self, address: str, *, count: bool) -> tuple[int, int]:
        digest = hashlib.blake2b(source_of(address).encode(), digest_size=16).digest()
        start = int.from_bytes(digest[:4], "little") % _ROWS * _ROW_BYTES
        with self._lock:
            try:
                return self._look_in_file(digest, start, count=count)
            except OSError as error:
                self._report(error)
                with memoryview(self._memory)[start : start + _ROW_BYTES] as row:
                    return _look_in_row(row, digest, self._clock(), count=count)

    def _look_in_file(self, digest: bytes, start: int, *, count: bool) -> tuple[int, int]:
        # It is opened each time, so that it may be removed, and that processes may be forked.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)  # until it is closed
            if os.fstat(descriptor).st_size != _FILE_BYTES:
                os.ftruncate(descriptor, 0)
                os.posix_fallocate(descriptor, 0, _FILE_BYTES)
            row = bytearray(os.pread(descriptor, _ROW_BYTES, start))
            found = _look_in_row(memoryview(row), digest, self._clock(), count=count)
            if count:
                os.pwrite(descriptor, row, start)
            return found
        finally:
            os.close(descriptor)

    def _report(self, error: OSError) -> None:
        if not self._reported:
            self._reported = True
            log.warning(
                "Wrong admin keys are counted by each process alone: %s: %s", self._path.absolute(), error.strerror
            )


def _look_in_row(row: memoryview, digest: bytes, now: float, *, count: bool) -> tuple[int, int]:
    """Do what :meth:`WrongKeys.add` says, in the slots of *row*."""
    slots = list(_SLOT.iter_unpack(row))
    place = next((place for place, slot in enumerate(slots) if slot[0] == digest), None)
    times: tuple[float, ...] = (0.0,) * ATTEMPTS if place is None else slots[place][1:]
    # Later times are from before the clock was set back.
    recent = [at for at in times if now - WINDOW_SECONDS < at <= now]
    if len(recent) == ATTEMPTS:
        return int(recent[0] + WINDOW_SECONDS - now) + 1, ATTEMPTS
    if count:
        if place is None:
            place = min(range(_ROW_SLOTS), key=lambda place: slots[place][-1])
        _SLOT.pack_into(row, place * _SLOT.size, digest, *times[1:], now)
    return 0, len(recent) + count
