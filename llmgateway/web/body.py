"""Reads and checks the bodies of requests: uncompressed JSON or CSV."""

from __future__ import annotations

from typing import Any
from wsgiref.types import InputStream, WSGIEnvironment

import marshmallow as ma
import orjson
from flask import Request, request
from webargs.flaskparser import FlaskParser
from werkzeug.wsgi import get_content_length

from ..errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType

PIECE = 1024 * 1024
"""Bytes to read at once. A server may allocate as much memory before the bytes have arrived."""

TOO_LARGE = "The body is larger than this gateway takes."
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


def check_media_type_of_table() -> None:
    """Check that the body of the current request is uncompressed CSV, like :func:`check_media_type` for JSON."""
    _check_encoding(request.headers.get("Content-Encoding"))
    if request.mimetype not in ("", "text/csv", "application/csv"):
        raise UnsupportedMediaType("Send the file as CSV, with the header 'Content-Type: text/csv'.")


def _check_encoding(encoding: str | None) -> None:
    if encoding is not None and encoding.lower() != "identity":
        raise UnsupportedMediaType("Send the body uncompressed, without 'Content-Encoding'.")


def read_body(environ: WSGIEnvironment, *, largest: int) -> bytes:
    """Read the body of a request, and nothing after it. Works with every WSGI server.

    Raises:
        BodyTooLarge: the body, or its declared length, is larger than *largest* bytes.
        InvalidRequest: the body ends before its declared length.
    """
    length = get_content_length(environ)
    if length is None and not environ.get("wsgi.input_terminated"):
        length = 0  # chunked, and the server may not end the stream, so that reading could block forever
    if length is not None and length > largest:
        raise BodyTooLarge(TOO_LARGE)
    try:
        body = _read(environ["wsgi.input"], largest + 1 if length is None else length)
    except (OSError, ValueError):
        raise InvalidRequest(_CUT_SHORT) from None
    if len(body) > largest:
        raise BodyTooLarge(TOO_LARGE)
    if length is not None and len(body) < length:
        raise InvalidRequest(_CUT_SHORT)
    return body


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
        except orjson.JSONDecodeError as error:
            # Without the message of orjson, which may quote the body, and the body may contain a key.
            raise InvalidRequest(f"The body is not valid JSON at byte {error.pos}.") from None
