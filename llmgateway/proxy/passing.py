"""Passes an answer on as it comes that is no stream of events: speech, pictures, or a million numbers."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import ClientGone, GatewayError
from ..interfaces import Answer
from ..records import Outcome
from ..usage.answers import parse_object
from ..usage.seen import Seen
from .call import UpstreamCall

LARGEST_WHOLE = 1024 * 1024
"""The most bytes of a document that is parsed as a whole."""

_BEGINNING, _END = 4 * 1024, 64 * 1024
_FIELD = re.compile(rb'"(usage|model|error|duration)"\s*:\s*')
_LARGEST_VALUE = 16 * 1024


class AnswerReader(Protocol):
    """Reads an answer while it is passed on. One thread at a time may use it."""

    seen: Seen
    """What was read so far."""

    def feed(self, data: bytes) -> None:
        """Read the next part of the answer."""
        ...

    def end(self) -> None:
        """Complete :attr:`seen`, because nothing follows."""
        ...


class DocumentReader:
    """Reads a JSON document, or a text, that may be too large to be kept: then only its beginning and its end.

    Pictures and embeddings are long, and beside them stand the few fields that the gateway needs.

    Args:
        see: Makes what was seen of the document (None: it is none) and of the bytes (empty: they were too many).
        begun: What is known as soon as the answer begins, and counts if it breaks off.
    """

    def __init__(self, see: Callable[[dict[str, Any] | None, bytes], Seen], *, begun: Seen | None = None) -> None:
        self.seen = begun or Seen()
        self._see = see
        self._kept = b""
        self._beginning = b""
        self._is_large = False

    def feed(self, data: bytes) -> None:
        if len(self._beginning) < _BEGINNING:
            self._beginning += data[: _BEGINNING - len(self._beginning)]
        if not self._is_large and len(self._kept) + len(data) <= LARGEST_WHOLE:
            self._kept += data
        else:
            self._is_large = True
            self._kept = (self._kept + data)[-_END:]

    def end(self) -> None:
        if self._is_large:
            self.seen = self._see(_fields(self._beginning) | _fields(self._kept), b"")
        else:
            self.seen = self._see(parse_object(self._kept), self._kept)


def _fields(part: bytes) -> dict[str, Any]:
    """Return the fields that the gateway needs, as far as they are whole in a part of a document."""
    found: dict[str, Any] = {}
    for field in _FIELD.finditer(part):
        text = part[field.end() : field.end() + _LARGEST_VALUE].decode("utf-8", "replace")
        try:
            found[field[1].decode()], _ = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            continue
    return found


def read_up_to(answer: Answer, beginning: bytes, most: int) -> tuple[bytes, bool]:
    """Read *answer* until it ends, or until more than *most* bytes have arrived.

    Args:
        beginning: What was read of it before.

    Returns:
        What was read, and whether this is all. Then the answer is closed.

    Raises:
        GatewayError: as for :meth:`Answer.read`. The answer is closed then, too.
    """
    chunks, size = [beginning], len(beginning)
    try:
        while size <= most and most:
            chunk = answer.read()
            if not chunk:
                answer.close()
                return b"".join(chunks), True
            chunks.append(chunk)
            size += len(chunk)
    except BaseException:
        answer.close()
        raise
    return b"".join(chunks), False


class PassedAnswer:
    """An answer as WSGI expects it: an iterator with a ``close`` method (PEP 3333), as
    :class:`~llmgateway.proxy.stream.EventStream` is for events.

    If Azure breaks off, the iterator raises an OSError. So the server closes the connection without the end of the
    body, and the client notices that something is missing.

    Args:
        reader: Reads what passes.
        beginning: What was read of the answer before. The reader has not read it.
    """

    def __init__(self, answer: Answer, call: UpstreamCall, reader: AnswerReader, beginning: bytes) -> None:
        self._answer = answer
        self._call = call
        self._reader = reader
        self._beginning = beginning
        self._ended = False
        call.accounting.seen = reader.seen

    def __iter__(self) -> PassedAnswer:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        try:
            chunk = self._read()
        except ClientGone as error:
            self._fail(error)
            raise StopIteration from None
        except GatewayError as error:
            self._fail(error)
            raise ConnectionResetError(errno.ECONNRESET, "the answer has broken off") from error
        if not chunk:
            self._complete()
            raise StopIteration
        self._reader.feed(chunk)
        self._call.accounting.text_arrived()
        return chunk

    def close(self) -> None:
        """End the answer if it has not ended. The server also calls this when the client has disconnected."""
        if self._ended:
            return
        try:
            if self._call.goes_on_without_client():
                for _ in self:  # until its end, or until it is cut
                    pass
        except ConnectionResetError:
            pass  # the record says so
        finally:
            if not self._ended:
                self._fail(ClientGone("The client has gone."))

    def _read(self) -> bytes:
        beginning, self._beginning = self._beginning, b""
        return beginning or self._answer.read()

    def _complete(self) -> None:
        self._ended = True
        self._reader.end()
        try:
            self._answer.close()
        finally:
            self._call.finish(Outcome.OK, self._reader.seen, ended=True)

    def _fail(self, error: GatewayError) -> None:
        self._ended = True
        self._call.accounting.seen = self._reader.seen
        try:
            self._answer.close()
        finally:
            self._call.fail(error)
