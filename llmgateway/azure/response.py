"""The answer to a request as it arrives over a connection: parsed by llhttp (httptools), passed on at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import requests
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from .cancellation import CancellationToken
from .pool import READ_BYTES, Connection, Pool

LARGEST_HEAD = 64 * 1024
"""Bytes of a head, or of what is between two pieces of a body, that are read before the answer is given up."""

MOST_FIELDS = 100
"""Header fields of an answer, with those behind its body."""


class ReceivedResponse:
    """The ``raw`` of a :class:`requests.Response`: the answer that comes over one connection.

    :meth:`read1` is what it is for; :meth:`stream` serves the rest of requests, such as ``Response.content``. It is
    the protocol that httptools calls (``on_…``), too. Used by one thread at a time.

    Args:
        timeout: Seconds that a read waits, once the head is complete.
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

    def receive_head(self, data: bytes, *, timeout: float) -> None:
        """Read the head, which begins with *data*, and what has arrived of the body with it.

        Raises:
            OSError: the connection broke, or was silent for more than *timeout* seconds.
            HttpParserError: what comes is no answer.
        """
        size = 0
        connection = cast(Connection, self._connection)
        while True:
            self._parse(data)
            if self._head_complete:
                return
            size += len(data)
            if size >= LARGEST_HEAD:
                raise HttpParserError("the head has no end")
            data = connection.receive(timeout=timeout)
            if not data:
                raise HttpParserError("the connection closed in the middle of the head")

    def read1(self) -> bytes:
        """Wait for a part of the body and return all of it that has arrived; ``b""`` at the end.

        Raises:
            requests.ReadTimeout: nothing came for too long.
            requests.ConnectionError, requests.exceptions.ChunkedEncodingError: it broke off, or is no HTTP.
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

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        """Yield the body as it arrives, undecoded: we ask for no compression."""
        yield from iter(self.read1, b"")

    def close(self) -> None:
        """Let the connection go: back into the pool after the end of the body, closed before."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._parser = None  # which refers to this object
        # First: who cancels from now on must not meet the connection, which may be another request's by then.
        untouched = self._cancellation.detach()
        if untouched and self._complete and self._reusable and not self._pieces:
            self._pool.keep(connection)
        else:
            connection.close()

    def _receive(self, connection: Connection) -> None:
        between = 0
        while not self._pieces and not self._complete:
            if self._error is not None:
                raise self._error  # not before what came in front of it has been passed on
            data = connection.receive(timeout=self._timeout)
            if data:
                self._parse(data)
                between += len(data)
                if between > LARGEST_HEAD + READ_BYTES and not self._pieces:
                    raise HttpParserError("there is no end to what is between two pieces of the body")
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
                return  # something came behind the end: the answer is whole, but its connection is of no use
            cause = error.__context__  # what a callback of ours has raised
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
        headers, key, text = self.headers, name.decode("ascii").lower(), value.decode("latin-1").rstrip(" \t")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        parser, headers = cast(HttpResponseParser, self._parser), self.headers
        self.status = parser.get_status_code()
        if not 100 <= self.status < 600 or self.status == 101 or parser.get_http_version() not in ("1.1", "1.0"):
            raise HttpParserError("no status of HTTP/1.1")
        coding = headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            raise HttpParserError("an unknown transfer coding")
        self._head_complete = self.status >= 200  # "100 Continue" and its like come before the answer
        self._reusable = parser.should_keep_alive()
        self._ends_with_connection = coding is None and "content-length" not in headers

    def on_message_complete(self) -> None:
        self._complete = self._head_complete
