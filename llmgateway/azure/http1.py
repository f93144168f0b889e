"""HTTP/1.1 answers out of whatever bytes the connection gives (RFC 9112); knows no sockets.

``http.client`` and urllib3 take 0.1 ms for a head and hand a body on chunk by chunk. Here a head is split into
lines, and of a body everything that has arrived is unwrapped at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

LARGEST_HEAD = 64 * 1024
MOST_FIELDS = 100
_LARGEST_LINE = 4096
"""Bytes of a chunk's size with its extensions, and of a trailer."""

_HEAD_END = b"\r\n\r\n"


class Malformed(Exception):
    """What came is no HTTP/1.1 answer."""


class Body(Protocol):
    """What is between the bytes of the connection and those of the body."""

    complete: bool
    """Whether the end has come."""
    surplus: bool
    """Whether something came behind the end: whatever it is, the connection cannot be used again."""

    def feed(self, data: bytes) -> bytes:
        """Take what the connection gave and return the body's bytes in it.

        Raises:
            Malformed: it breaks the rules.
        """
        ...

    def end(self) -> None:
        """Take note that the connection has closed.

        Raises:
            Malformed: something is missing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields of an answer."""

    status: int
    fields: list[tuple[str, str]]
    """Names in lower case, in the order in which they came."""
    keeps_alive: bool
    """Whether the connection stays open behind the body, as far as the head says."""
    _values: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """Understand a head without its blank line.

        Raises:
            Malformed: it is none.
        """
        text = data.decode("latin-1")
        first, *lines = text.split("\r\n")
        if not text.count("\r") == text.count("\n") == len(lines):
            # RFC 9112, section 2.2. Passed on in a value, it would be the start of a field of somebody's choice.
            raise Malformed("half of a line's end")
        version, status = _status_line(first)
        if len(lines) > MOST_FIELDS:
            raise Malformed("too many header fields")
        fields = [_field(line) for line in lines]
        values: dict[str, str] = {}
        for name, value in fields:
            values[name] = f"{values[name]}, {value}" if name in values else value
        connection = values.get("connection", "").lower()
        keeps_alive = "close" not in connection if version == "HTTP/1.1" else "keep-alive" in connection
        return cls(status, fields, keeps_alive, values)

    def get(self, name: str, default: str = "") -> str:
        """Return the value of the field *name*; several are joined with commas (RFC 9110, section 5.3)."""
        return self._values.get(name, default)

    def body(self) -> Body:
        """Return what unwraps the body that comes behind this head (RFC 9112, section 6.3).

        Raises:
            Malformed: nobody could say where it ends.
        """
        if self.status in (204, 304):
            return Sized(0)
        coding = self.get("transfer-encoding")
        if coding:
            if coding.lower() != "chunked":
                raise Malformed("an unknown transfer coding")
            return Chunked()
        length = self.get("content-length")
        if not length:
            return UntilClosed()
        first, *others = {one.strip() for one in length.split(",")}
        if others or not (first.isascii() and first.isdigit() and len(first) < 19):
            raise Malformed("a length that is none")
        return Sized(int(first))


def split_head(data: bytes) -> tuple[bytes, bytes] | None:
    """Return the head in *data* and what is behind it; None if its end has not come.

    Raises:
        Malformed: it is larger than any head.
    """
    end = data.find(_HEAD_END, 0, LARGEST_HEAD)
    if end >= 0:
        return data[:end], data[end + len(_HEAD_END) :]
    if len(data) >= LARGEST_HEAD:
        raise Malformed("an endless head")
    return None


def _status_line(line: str) -> tuple[str, int]:
    version, _, rest = line.partition(" ")
    status = rest[:3]
    if (
        version not in ("HTTP/1.1", "HTTP/1.0")
        or not (status.isascii() and status.isdigit())
        or rest[3:4] not in ("", " ")
    ):
        raise Malformed("no status line")
    if not 100 <= int(status) <= 599:
        raise Malformed("no status")
    return version, int(status)


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    # A name with a blank in it is a line that goes on from the one before: out of use since 2014
    # (RFC 9112, section 5.2), and no server of Azure's sends it.
    if not colon or not name or " " in name or "\t" in name:
        raise Malformed("no header field")
    return name.lower(), value.strip(" \t")


class Sized:
    """A body of which the head says the length."""

    surplus = False

    def __init__(self, length: int) -> None:
        self._missing = length
        self.complete = length == 0

    def feed(self, data: bytes) -> bytes:
        if len(data) > self._missing:
            self.surplus = True
            data = data[: self._missing]
        self._missing -= len(data)
        self.complete = self._missing == 0
        return data

    def end(self) -> None:
        if not self.complete:
            raise Malformed(f"{self._missing} bytes are missing")


class UntilClosed:
    """A body that ends with its connection."""

    complete = False
    surplus = False

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> None:
        self.complete = True


class Chunked:
    """A body in chunks, each with its size in front; what is between them may be cut anywhere."""

    def __init__(self) -> None:
        self.complete = False
        self.surplus = False
        self._missing = 0
        """Bytes of the present chunk that have not come."""
        self._line = b""
        """The unfinished line: a chunk's end and the next one's size, or a trailer."""
        self._first = True
        self._in_trailer = False

    def feed(self, data: bytes) -> bytes:
        if len(data) < self._missing:
            self._missing -= len(data)
            return data
        pieces = [data[: self._missing]]
        place = self._missing
        self._missing = 0
        if self._line:
            data, place = self._line + data[place:], 0
        while place < len(data) and not self.complete:
            line_start = place if self._first or self._in_trailer else self._behind_chunk(data, place)
            line_end = data.find(b"\r\n", line_start)
            if line_end < 0:
                break
            place = line_end + 2
            line = data[line_start:line_end]
            if self._in_trailer:
                self.complete = not line
                continue
            self._first = False
            size = _chunk_size(line)
            if size == 0:
                self._in_trailer = True
                continue
            piece = data[place : place + size]
            pieces.append(piece)
            place += len(piece)
            if len(piece) < size:
                self._missing = size - len(piece)
                break
        self._line = data[place:]
        if self.complete:
            self.surplus = bool(self._line)
        elif len(self._line) > _LARGEST_LINE:
            raise Malformed("an endless line between chunks")
        return b"".join(pieces)

    def end(self) -> None:
        if not self.complete:
            raise Malformed("the last chunk is missing")

    @staticmethod
    def _behind_chunk(data: bytes, place: int) -> int:
        """Where the line with the next size begins: a chunk's bytes end with a line's end of their own."""
        ending = data[place : place + 2]
        if not b"\r\n".startswith(ending):
            raise Malformed("a chunk that is longer than its size")
        return place + 2


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].rstrip(b" \t")
    # int() alone would take signs, blanks and underscores.
    if not (digits.isalnum() and len(digits) <= 16):
        raise Malformed("a chunk without a size")
    try:
        return int(digits, 16)
    except ValueError:
        raise Malformed("a chunk without a size") from None
