"""Reads an HTTP answer from a connection, parses it with llhttp (httptools), and returns data as soon as it arrives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import cast

import requests
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from .cancellation import CancellationToken
from .pool import READ_BYTES, Connection, Pool

LARGEST_HEAD = 64 * 1024
"""The most bytes of a head, and of the chunk framing between two pieces of a body. It is checked after each read, so up
to one read more may be accepted."""

_CONTROLS = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])
"""All but the tab, which may stand in a value (RFC 9110, section 5.5)."""

_FRAMING = ("connection", "content-length", "transfer-encoding")
"""The fields that decide where the answer ends. llhttp and the gateway must read the same in them."""

MOST_FIELDS = 100
"""The most header fields of an answer, including trailer fields."""


class ReceivedResponse:
    """The ``raw`` attribute of a :class:`requests.Response`: an answer that is received over one connection.

    The gateway reads the body with :meth:`read1`; requests reads it with :meth:`stream`, for example in
    ``Response.content``. The methods ``on_…`` are callbacks of httptools. One thread at a time may use an instance.

    Args:
        timeout: The most seconds that a read of the body waits.
    """

    version = 11
    reason: str | None = None

    def __init__(self, connection: Connection, pool: Pool, cancellation: CancellationToken, timeout: float) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Names in lower case; several fields of one name are joined with commas (RFC 9110, section 5.3)."""
        self._connection: Connection | None = connection
        self._pool = pool
        self._cancellation = cancellation
        self._timeout = timeout
        self._fields = 0
        self._pieces: list[bytes] = []
        self._error: HttpParserError | None = None
        self._head_complete = False
        self._complete = False
        self._reusable = False
        self._ends_with_connection = False
        self.on_body = self._pieces.append
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        # llhttp would refuse the answer for a control character in any value. A line end still ends a value, and a
        # folded value becomes one line (RFC 9112, section 5.2).
        self._parser.set_dangerous_leniencies(lenient_headers=True)

    def receive_head(self, data: bytes, *, deadline: float) -> None:
        """Read until the head is complete. The part of the body that has arrived with it is kept for :meth:`read1`.

        Args:
            data: The first bytes of the answer.
            deadline: When the head has to be complete, by ``time.monotonic()``. Single bytes and statuses such as
                "100 Continue" do not postpone it.

        Raises:
            OSError: the connection broke, or the head was not complete in time.
            HttpParserError: the data is not a valid HTTP answer.
        """
        size = 0
        connection = cast(Connection, self._connection)
        while True:
            self._parse(data)
            if self._head_complete:
                return
            size += len(data)
            if size >= LARGEST_HEAD:
                raise HttpParserError("the head is too large")
            data = connection.receive(timeout=_left(deadline))
            if not data:
                raise HttpParserError("the connection closed in the middle of the head")

    def read1(self) -> bytes:
        """Wait for a part of the body and return all of it that has arrived; ``b""`` at the end.

        Raises:
            requests.ReadTimeout: nothing arrived within the time-out.
            requests.ConnectionError: the connection broke.
            requests.exceptions.ChunkedEncodingError: the body is incomplete, or not valid HTTP.
        """
        pieces = self._pieces
        try:
            if not pieces and not self._complete and self._connection is not None:
                self._receive(self._connection)
        except TimeoutError as error:
            raise requests.ReadTimeout(error) from error
        except OSError as error:
            raise requests.ConnectionError(error) from error
        except HttpParserError as error:
            raise requests.exceptions.ChunkedEncodingError(error) from error
        if len(pieces) == 1:
            return pieces.pop()
        data = b"".join(pieces)
        pieces.clear()
        if not data:
            self.close()
        return data

    def arrived(self) -> bytes:
        """Return what has arrived of the body and was not read yet. Does not wait, and takes nothing away."""
        return b"".join(self._pieces)

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        """Yield the body as it arrives. It is not decoded, because the gateway asks for no compression."""
        yield from iter(self.read1, b"")

    def close(self) -> None:
        """Return the connection to the pool if the body was read to its end; close it otherwise."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._parser = None  # breaks a reference cycle
        # Detach first. Otherwise another thread could cancel this request and shut the connection down when it
        # already belongs to another request.
        untouched = self._cancellation.detach()
        if untouched and self._complete and self._reusable and not self._pieces:
            self._pool.keep(connection)
        else:
            connection.close()

    def _receive(self, connection: Connection) -> None:
        between, timeout, deadline = 0, self._timeout, 0.0
        while not self._pieces and not self._complete:
            if self._error is not None:
                raise self._error  # only now, when the data before the error was returned
            if between:  # lines between chunks do not postpone the time-out
                deadline = deadline or time.monotonic() + timeout
                timeout = _left(deadline)
            data = connection.receive(timeout=timeout)
            if data:
                self._parse(data)
                between += len(data)
                if between > LARGEST_HEAD + READ_BYTES and not self._pieces:
                    raise HttpParserError("too much data between two pieces of the body")
            elif self._ends_with_connection:
                self._complete = True
            else:
                raise HttpParserError("the connection closed in the middle of the body")

    def _parse(self, data: bytes) -> None:
        try:
            cast(HttpResponseParser, self._parser).feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._reusable = False
            if self._complete:
                return  # data follows the end of the answer: the answer is complete, but the connection is unusable
            cause = error.__context__  # an exception from one of the callbacks below
            self._error = cause if isinstance(cause, HttpParserError) else HttpParserError(*error.args)
            if not self._head_complete:
                raise self._error from error

    def on_message_begin(self) -> None:
        if self._complete:
            raise HttpParserError("a second answer")
        self.headers = {}
        self._head_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._fields > MOST_FIELDS:
            raise HttpParserError("too many header fields")
        if self._head_complete:
            return  # a trailer
        headers, key, kept = self.headers, name.decode("ascii").lower(), value.translate(None, _CONTROLS)
        if key.endswith(" ") or (kept != value and key in _FRAMING):
            raise HttpParserError("Invalid header field char")
        text = kept.decode("latin-1").strip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        parser, headers = cast(HttpResponseParser, self._parser), self.headers
        self.status = parser.get_status_code()
        if not 100 <= self.status < 600 or self.status == 101 or parser.get_http_version() not in ("1.1", "1.0"):
            raise HttpParserError("invalid status or HTTP version")
        coding = headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise HttpParserError("unknown transfer coding")
        self._head_complete = self.status >= 200  # statuses below 200, such as "100 Continue", precede the answer
        self._reusable = parser.should_keep_alive()
        self._ends_with_connection = coding is None and "content-length" not in headers

    def on_message_complete(self) -> None:
        self._complete = self._head_complete


def _left(deadline: float) -> float:
    """Return the seconds until *deadline*; raise TimeoutError if it has passed."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the answer arrives too slowly")
    return left
