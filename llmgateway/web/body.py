"""Reads and checks the bodies of requests: uncompressed JSON, CSV or forms."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast
from wsgiref.types import InputStream, WSGIEnvironment

import marshmallow as ma
import orjson
from flask import Request, request
from webargs.flaskparser import FlaskParser
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.formparser import FormDataParser
from werkzeug.wsgi import get_content_length

from ..errors import BodyTooLarge, GatewayError, InvalidRequest, Overloaded, UnsupportedMediaType
from ..proxy.forms import MOST_PARTS, Form, FormFormat, read_form
from ..proxy.json_errors import why_not_json

PARSED_FORM = "llmgateway.parsed_form"
"""Has the form of a request that a page of the dashboard makes within this process: its fields and its files."""

PIECE = 1024 * 1024
"""Bytes to read at once. A server may allocate as much memory before the bytes have arrived."""

FORM_BYTES_IN_MEMORY = 512 * 1024
"""A larger form goes into a temporary file."""

_TABLES = frozenset(
    {
        "",
        "text/csv",
        "application/csv",
        "text/plain",
        "text/tab-separated-values",
        "application/octet-stream",
        "application/vnd.ms-excel",  # what browsers on Windows say of a CSV file
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "application/vnd.oasis.opendocument.spreadsheet",  # refused with what to do
        "application/pdf",
    }
)
"""What programs say that a class list is. What it is is found out from its bytes."""

TOO_LARGE = "The body is larger than this gateway takes."
_TOO_SLOW = "The body arrived too slowly. Send a smaller one, or use a faster connection."
_CUT_SHORT = "The body ended before its end."


def check_media_type(kind: str | None, encoding: str | None) -> None:
    """Check that the body is uncompressed JSON. Without the headers, a body is treated as JSON.

    Args:
        kind: The header ``Content-Type``.
        encoding: The header ``Content-Encoding``.

    Raises:
        UnsupportedMediaType: the message names the header to send.
    """
    _check_encoding(encoding)
    kind = (kind or "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType("Send the body as JSON, with the header 'Content-Type: application/json'.")


def check_media_type_of_form(kind: str | None, encoding: str | None) -> None:
    """Check that the body is an uncompressed form with files, like :func:`check_media_type` for JSON."""
    _check_encoding(encoding)
    if (kind or "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMediaType(
            "Send the file in a form, with the header 'Content-Type: multipart/form-data; boundary=\u2026'. HTTP "
            "libraries do this, for example curl with -F."
        )


def check_media_type_of_table() -> None:
    """Check that the body of the current request is an uncompressed file, which may be a table."""
    _check_encoding(request.headers.get("Content-Encoding"))
    if request.mimetype not in _TABLES:
        raise UnsupportedMediaType(
            "Send the file itself as the body, with the header 'Content-Type: text/csv', also if it is a workbook."
        )


def _check_encoding(encoding: str | None) -> None:
    if encoding is not None and encoding.lower() != "identity":
        raise UnsupportedMediaType("Send the body uncompressed, without 'Content-Encoding'.")


def most_body_bytes(environ: WSGIEnvironment, *, largest: int) -> int:
    """Return how many bytes the body of a request can have: its declared length, or else *largest*."""
    declared = get_content_length(environ)
    if declared is None:
        return largest if environ.get("wsgi.input_terminated") else 0
    return min(declared, largest)


def read_body(environ: WSGIEnvironment, *, largest: int) -> bytes:
    """Read the body of a request, and nothing after it. Works with every WSGI server.

    Raises:
        BodyTooLarge: the body, or its declared length, is larger than *largest* bytes.
        InvalidRequest: the body ends before its declared length, or arrives too slowly for the server.
    """
    length = get_content_length(environ)
    if length is None and not environ.get("wsgi.input_terminated"):
        length = 0  # chunked, and the server may not end the stream, so that reading could block forever
    if length is not None and length > largest:
        raise BodyTooLarge(TOO_LARGE)
    try:
        body = _read(environ["wsgi.input"], largest + 1 if length is None else length)
    except TimeoutError:
        raise InvalidRequest(_TOO_SLOW) from None
    except (OSError, ValueError) as error:
        raise _why_not_read(error) from None
    if len(body) > largest:
        raise BodyTooLarge(TOO_LARGE)
    if length is not None and len(body) < length:
        raise InvalidRequest(_CUT_SHORT)
    return body


def read_upload(environ: WSGIEnvironment, form: FormFormat, *, largest: int, folder: Path, files: ExitStack) -> Form:
    """Read a form, and check it. Its files stay where the server has put them, or go into a temporary file.

    Args:
        folder: For the temporary file, which has no name there.
        files: Closes the temporary file. The form can be used until then.

    Raises:
        BodyTooLarge: the body, or its declared length, is larger than *largest* bytes.
        InvalidRequest: the body is no form, ends before its declared length, or arrives too slowly for the server.
        Overloaded: there is no room for the file.
    """
    length = get_content_length(environ)
    if length is None and not environ.get("wsgi.input_terminated"):
        length = 0
    if length is not None and length > largest:
        raise BodyTooLarge(TOO_LARGE)
    stream = cast(Any, environ["wsgi.input"])
    try:
        seekable = getattr(stream, "seekable", None)
        file, size = stream, -1
        if seekable is not None and seekable():
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
        if size < 0 or (length is not None and size > length):  # the next request may follow
            file = _spooled(stream, largest, length, folder, files)
            size = file.seek(0, os.SEEK_END)
    except TimeoutError:
        raise InvalidRequest(_TOO_SLOW) from None
    except (OSError, ValueError) as error:
        raise _why_not_read(error) from None
    if size > largest:
        raise BodyTooLarge(TOO_LARGE)
    if length is not None and size < length:
        raise InvalidRequest(_CUT_SHORT)
    return read_form(file, size, environ.get("CONTENT_TYPE"), form)


def read_files(folder: Path) -> tuple[MultiDict[str, str], MultiDict[str, FileStorage]]:
    """Read the form of the current request, and return its fields and its files, each in a file without a name.

    Args:
        folder: For these files.

    Raises:
        BodyTooLarge, InvalidRequest, UnsupportedMediaType, Overloaded: as for :func:`read_upload`.
    """
    if PARSED_FORM in request.environ:
        return cast(tuple[MultiDict[str, str], MultiDict[str, FileStorage]], request.environ[PARSED_FORM])
    check_media_type_of_form(request.headers.get("Content-Type"), request.headers.get("Content-Encoding"))

    def file(*_: object, **__: object) -> BinaryIO:
        return cast(BinaryIO, SpooledTemporaryFile(FORM_BYTES_IN_MEMORY, dir=str(folder)))

    parser = FormDataParser(
        stream_factory=file, max_form_memory_size=FORM_BYTES_IN_MEMORY, max_form_parts=MOST_PARTS, silent=False
    )
    try:
        _, fields, files = parser.parse(
            cast(BinaryIO, request.stream), request.mimetype, request.content_length, request.mimetype_params
        )
    except TimeoutError:
        raise InvalidRequest(_TOO_SLOW) from None
    except (OSError, ValueError) as error:
        raise _why_not_read(error) from None
    return fields, files


def _why_not_read(error: Exception) -> GatewayError:
    number = getattr(error, "errno", None)
    if number == errno.EFBIG:  # a body in chunks, larger than the server takes
        return BodyTooLarge(TOO_LARGE)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return Overloaded("The gateway has no room for your file now. Try again in a moment.", retry_after=5)
    return InvalidRequest(_CUT_SHORT)


def _spooled(stream: InputStream, largest: int, length: int | None, folder: Path, files: ExitStack) -> BinaryIO:
    """Return a file with the body, of a server whose own body cannot be read twice."""
    spooled = SpooledTemporaryFile(FORM_BYTES_IN_MEMORY, dir=str(folder))  # noqa: SIM115 - the next line closes it
    file = cast(BinaryIO, files.enter_context(spooled))
    most = largest + 1 if length is None else length
    while most and (piece := stream.read(min(most, PIECE))):
        file.write(piece)
        most -= len(piece)
    return file


def _read(stream: InputStream, most: int) -> bytes:
    pieces = []
    while most and (piece := stream.read(min(most, PIECE))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


class BodyParser(FlaskParser):
    """webargs with the gateway's errors. Unknown names in a query are errors, because a typo would change a report."""

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": ma.RAISE}

    def load_json(self, req: Request, _schema: ma.Schema) -> Any:
        check_media_type(req.headers.get("Content-Type"), req.headers.get("Content-Encoding"))
        body = req.get_data()
        if not body:
            raise InvalidRequest("The request has no body. Send a JSON object.")
        try:
            # orjson rejects lone surrogates, which no store accepts.
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            # Without quoting the body, which may contain a key.
            raise InvalidRequest(f"The body is not valid JSON{why_not_json(body)}.") from None
