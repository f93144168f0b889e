"""What goes back to a client, as Flask takes it."""

from __future__ import annotations

from flask import Response

from ..proxy.pipeline import Reply


def as_response(reply: Reply) -> Response:
    """Return *reply* as a view does. Its headers are all there are, until Flask's own functions add to them."""
    # Bytes and event streams alike are in their final form: nothing to encode, nothing to join.
    response = Response(reply.body, status=reply.status, direct_passthrough=not isinstance(reply.body, bytes))
    response.headers.clear()
    response.headers.extend(reply.headers)
    return response
