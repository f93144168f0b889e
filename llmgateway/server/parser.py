"""Parses requests more strictly than waitress 3.0 does (RFC 9112).

A request that two programs can understand differently lets a client hide a second request in it, if a proxy stands in
front ("request smuggling", RFC 9112, section 11.2). Such requests are refused with status 400, and their connection is
closed.
"""

from __future__ import annotations

import re
from tempfile import gettempdir
from typing import Any, cast

from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import FixedStreamReceiver
from waitress.utilities import BadRequest

from .body import AwaitedBody
from .upload import UploadBuffer, is_upload

LARGEST_HEAD = 64 * 1024
"""The most bytes of the head of a request."""

MOST_FIELDS = 200
"""The most lines of the head of a request."""

EARLY_BYTES = 64 * 1024
"""If a body is not complete when this many bytes of it have arrived, the request is answered or authenticated first."""

LONGEST_LINE = 1024
"""The most bytes of a line between two chunks, or of a trailer field."""

FREE_FRAMING = 16 * 1024
"""The most bytes of lines between chunks, besides one for each byte of the body."""

FRAMED_TWICE = "It has both Transfer-Encoding and Content-Length"
UNKNOWN_CODING = "Its Transfer-Encoding is not 'chunked'"
INVALID_HOST = "It needs one Host header with the name of a host"
FOLDED = "A header continues on the next line"
BARE_LINE_FEED = "A line does not end with CR LF"
INVALID_FIRST_LINE = "Its first line is not 'METHOD TARGET HTTP/1.1'"
TOO_MANY_FIELDS = f"It has more than {MOST_FIELDS} lines of headers"
INVALID_CHUNK = "A chunk of its body is malformed"
SMALL_CHUNKS = "The chunks of its body are too small"

OUR_REASONS = frozenset(
    {
        FRAMED_TWICE,
        UNKNOWN_CODING,
        INVALID_HOST,
        FOLDED,
        BARE_LINE_FEED,
        INVALID_FIRST_LINE,
        TOO_MANY_FIELDS,
        INVALID_CHUNK,
        SMALL_CHUNKS,
    }
)
"""Messages that quote nothing of the request, so the client can be told. Those of waitress quote it."""

# Characters of the first line that must not pass into PATH_INFO or a log. waitress refuses bytes from 0x80.
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")  # RFC 3986, section 3.2.2, without the check of IP addresses
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n")
_CODING_FIELD = b"\r\ntransfer-encoding:"
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n")


class RequestParser(HTTPRequestParser):
    """One request while it arrives."""

    adj: Adjustments
    body_rcv: Any
    expects_continue = False
    """Whether the client waits for "100 Continue" before it sends the body."""
    awaited: AwaitedBody | None = None
    """The body, if a thread already runs the request and the body was not complete before."""

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        if not self.completed and not self.headers_finished:
            head = self.header_plus
            # waitress waits for an empty line with CR LF, which a client that sends bare LFs never sends.
            if head.count(b"\n") != head.count(b"\r\n"):
                self.error = BadRequest(BARE_LINE_FEED)
                self.completed = True
        return consumed

    @property
    def can_begin(self) -> bool:
        """Whether a thread can run the request although the body is not complete."""
        return (
            self.headers_finished
            and not self.completed
            and (self.body_bytes_received >= EARLY_BYTES or (self.expects_continue and not self.body_bytes_received))
        )

    def parse_header(self, header_plus: bytes) -> None:
        _check_lines(header_plus)
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            # waitress 3.0.2 does not handle this error of urlsplit ("GET http://[x/"): it would log a
            # traceback and close the connection without an answer.
            raise ParsingError("Bad URI") from error
        if self.version not in ("1.1", "1.0"):
            raise ParsingError(INVALID_FIRST_LINE)
        self._check_host()
        self._check_framing(header_plus)
        if is_upload(self.headers.get("CONTENT_TYPE", "")):
            self._spool()
        # waitress would send "100 Continue" as soon as the head is complete, also if there is no body: then it parses
        # the next request into the headers of this one.
        self.expects_continue, self.expect_continue = self.expect_continue, False

    def _spool(self) -> None:
        """Receive the body into a file."""
        buffer = UploadBuffer(getattr(self.adj, "upload_folder", gettempdir()))
        if self.chunked:
            self.body_rcv = ChunkedBody(buffer)
        elif self.body_rcv is not None:
            self.body_rcv = FixedStreamReceiver(self.content_length, cast(OverflowableBuffer, buffer))

    def _check_host(self) -> None:
        # RFC 9112, section 3.2. waitress joins several fields with ", ", and a blank is not allowed.
        host = self.headers.get("HOST")
        if not _HOST.fullmatch(host) if host is not None else self.version == "1.1":
            raise ParsingError(INVALID_HOST)

    def _check_framing(self, header_plus: bytes) -> None:
        lower = header_plus.lower()
        if _CODING_FIELD not in lower:
            return
        if "CONTENT_LENGTH" in self.headers:
            raise ParsingError(FRAMED_TWICE)
        if not self.chunked or lower.count(_CODING_FIELD) > 1 or not _CHUNKED.search(lower):
            raise ParsingError(UNKNOWN_CODING)  # also for HTTP/1.0, which has no Transfer-Encoding
        self.body_rcv = ChunkedBody(OverflowableBuffer(self.adj.inbuf_overflow))

    def get_body_stream(self) -> Any:
        return self.awaited or super().get_body_stream()


def _check_lines(head: bytes) -> None:
    if _CONTROL.search(head, 0, head.find(b"\r\n")):
        raise ParsingError(INVALID_FIRST_LINE)
    if b"\r\n " in head or b"\r\n\t" in head:
        raise ParsingError(FOLDED)  # obs-fold, RFC 9112, section 5.2
    if head.count(b"\n") > MOST_FIELDS:
        raise ParsingError(TOO_MANY_FIELDS)  # the time to join fields of one name grows with the square of their number


class ChunkedBody:
    """A body in chunks (RFC 9112, section 7.1). It replaces ``waitress.receiver.ChunkedReceiver`` (3.0.2).

    That one accepts empty lines between chunks, sets no bound to the length of a line, and copies what has arrived for
    every chunk. Its interface is kept.
    """

    def __init__(self, buffer: OverflowableBuffer | UploadBuffer) -> None:
        self.completed = False
        self.error: BadRequest | None = None
        self._buffer = buffer
        self._line = b""
        self._take_line = self._take_size
        self._missing = 0  # bytes of the present chunk
        self._framing = 0
        self._body_bytes = 0

    def __len__(self) -> int:
        return self._buffer.__len__()

    def getbuf(self) -> OverflowableBuffer | UploadBuffer:
        return self._buffer

    def getfile(self) -> object:
        return self._buffer.getfile()

    def received(self, data: bytes) -> int:
        """Take the part of *data* that belongs to the body, and return its length."""
        position, pieces = 0, []
        while position < len(data) and not self.completed and self.error is None:
            if self._missing:
                piece = data[position : position + self._missing]
                pieces.append(piece)
                position += len(piece)
                self._missing -= len(piece)
                self._body_bytes += len(piece)
            else:
                position = self._receive_line(data, position)
        if pieces:
            self._buffer.append(b"".join(pieces))
        return position

    def _receive_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position) + 1 or len(data)
        self._line += data[position : min(end, position + LONGEST_LINE + 1)]
        self._framing += end - position
        if len(self._line) > LONGEST_LINE:
            self.error = BadRequest(INVALID_CHUNK)
        elif self._framing > FREE_FRAMING + self._body_bytes:
            self.error = BadRequest(SMALL_CHUNKS)  # each line takes 1 us of the main thread's time
        elif self._line.endswith(b"\n"):
            line, self._line = self._line, b""
            if not self._take_line(line):
                self.error = BadRequest(INVALID_CHUNK)
        return end

    def _take_size(self, line: bytes) -> bool:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            return False
        self._missing = int(found[1], 16)
        self._take_line = self._take_end_of_chunk if self._missing else self._take_trailer
        return True

    def _take_end_of_chunk(self, line: bytes) -> bool:
        self._take_line = self._take_size
        return line == b"\r\n"

    def _take_trailer(self, line: bytes) -> bool:
        self.completed = line == b"\r\n"
        return self.completed or _TRAILER_LINE.fullmatch(line) is not None
