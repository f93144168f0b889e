"""Bodies on their way in: JSON, uncompressed, and checked against a schema."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
import orjson
from flask import Request, request
from webargs.flaskparser import FlaskParser

from ..errors import InvalidRequest, UnsupportedMediaType


def check_media_type() -> None:
    """Refuse a body that says it is compressed or not JSON; one that says nothing is taken as JSON.

    Raises:
        UnsupportedMediaType: with the header to send instead.
    """
    _check_encoding()
    kind = request.mimetype
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType("Send the body as JSON, with the header 'Content-Type: application/json'.")


def check_media_type_of_table() -> None:
    """As :func:`check_media_type`, for CSV."""
    _check_encoding()
    if request.mimetype not in ("", "text/csv", "application/csv"):
        raise UnsupportedMediaType("Send the file as CSV, with the header 'Content-Type: text/csv'.")


def _check_encoding() -> None:
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType("Send the body uncompressed, without 'Content-Encoding'.")


class BodyParser(FlaskParser):
    """webargs with our errors. A query with a misspelt name is an error: its answer would be a wrong report."""

    DEFAULT_UNKNOWN_BY_LOCATION = {**FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION, "query": ma.RAISE}

    def load_json(self, req: Request, _schema: ma.Schema) -> Any:
        check_media_type()
        body = req.get_data()
        if not body:
            raise InvalidRequest("The request has no body. Send a JSON object.")
        try:
            # orjson refuses halves of surrogate pairs, which no store takes.
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            # The error's own text may quote the body, which may hold a key.
            raise InvalidRequest(f"The body is not valid JSON at byte {error.pos}.") from None
