"""Decodes compressed answers (RFC 9110, section 8.4.1), as they arrive and with bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable

CODINGS = ("gzip", "x-gzip", "deflate")
"""The codings that can be decoded."""

MOST_AT_ONCE = 256 * 1024
"""The most bytes that one read returns. A few bytes can be the compressed form of millions."""

_GZIP_BEGINS = b"\x1f\x8b"
_GZIP, _ZLIB, _RAW_DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class CodingError(Exception):
    """The body cannot be decoded: its coding is unknown, or it is damaged or incomplete."""


class Decoder:
    """Decodes one body.

    A body that is not compressed, although its header says gzip, is returned as it is: some proxies decompress a body
    and forget the header.

    Args:
        coding: The value of ``Content-Encoding``, in lower case.
    """

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._inflater = zlib.decompressobj(_GZIP)
        self._waiting: bytes | None = None
        """Bytes to inflate before more are received; may be empty, if only the inflater has something left."""
        self._held = b""
        """Too few bytes to tell what they are."""
        self._begun = False
        self._is_plain = False
        self._is_complete = True
        """Whether nothing is missing: before the first byte, and after the last one."""

    def read(self, receive: Callable[[], bytes]) -> bytes:
        """Return the next decoded bytes; ``b""`` at the end.

        Args:
            receive: Returns the next bytes of the coded body; ``b""`` at its end.

        Raises:
            CodingError: the body cannot be decoded.
        """
        if self._coding not in CODINGS:
            raise CodingError(f"its Content-Encoding is {self._coding[:100]!r}, and the gateway had asked for none")
        while True:
            if self._waiting is not None:
                data, self._waiting = self._waiting, None
                decoded = self._inflate(data)
            elif data := receive():
                decoded = self._decode(data)
            elif self._is_complete:
                return b""
            else:
                raise CodingError("it is incomplete")
            if decoded:
                return decoded

    def _decode(self, data: bytes) -> bytes:
        if not self._begun and not self._begin(data):
            return b""
        data, self._held = self._held + data if self._held else data, b""
        return data if self._is_plain else self._inflate(data)

    def _begin(self, data: bytes) -> bool:
        """Find out the format by the first two bytes; return False if there are not so many yet."""
        beginning = self._held + data
        self._begun = len(beginning) >= 2
        self._is_complete = False
        if not self._begun:
            self._held = beginning
        elif self._coding == "deflate":
            self._inflater = zlib.decompressobj(_ZLIB if _is_zlib(beginning) else _RAW_DEFLATE)
        else:
            self._is_plain = self._is_complete = not beginning.startswith(_GZIP_BEGINS)
        return self._begun

    def _inflate(self, data: bytes) -> bytes:
        if self._has_ended():
            self._begin_next_member(data)
            return b""
        try:
            decoded = self._inflater.decompress(data, MOST_AT_ONCE)
        except zlib.error as error:
            raise CodingError(str(error)) from error
        if self._has_ended():
            self._is_complete = True
            self._begin_next_member(self._inflater.unused_data)
        elif len(decoded) == MOST_AT_ONCE:
            self._waiting = self._inflater.unconsumed_tail
        return decoded

    def _has_ended(self) -> bool:
        return self._inflater.eof

    def _begin_next_member(self, data: bytes) -> None:
        """Expect the next member of a gzip file (RFC 1952, section 2.2). Anything else behind the end is ignored."""
        if self._coding == "deflate":
            return
        if data.startswith(_GZIP_BEGINS):
            self._inflater = zlib.decompressobj(_GZIP)
            self._waiting, self._is_complete = data, False
        else:
            self._held = data[:1] if len(data) == 1 else b""


def _is_zlib(data: bytes) -> bool:
    """Return whether *data* begins with a header of zlib. Some servers send deflate without one (RFC 9110, 8.4.1.2)."""
    return data[0] & 15 == 8 and (data[0] * 256 + data[1]) % 31 == 0
