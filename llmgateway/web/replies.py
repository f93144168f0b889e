"""What goes back to a client, as a WSGI server takes it and as Flask does."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse

from flask import Response
from werkzeug.http import HTTP_STATUS_CODES

from ..gateway import Reply

_STATUS_LINES = {status: f"{status} {phrase.upper()}" for status, phrase in HTTP_STATUS_CODES.items()}


def begin(reply: Reply, start_response: StartResponse) -> Iterable[bytes]:
    """Begin *reply* at a WSGI server, and return its body."""
    start_response(_STATUS_LINES.get(reply.status, f"{reply.status} UNKNOWN"), reply.headers)
    # A stream as it is: a server closes what it was given, and nothing inside it.
    return [reply.body] if isinstance(reply.body, bytes) else reply.body


def as_response(reply: Reply) -> Response:
    """Return *reply* as a view does. Its headers are all there are, until Flask's own functions add to them."""
    # Bytes and event streams alike are in their final form: nothing to encode, nothing to join.
    response = Response(reply.body, status=reply.status, direct_passthrough=not isinstance(reply.body, bytes))
    response.headers.clear()
    response.headers.extend(reply.headers)
    return response
