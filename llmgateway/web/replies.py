"""What goes back to a client, as Flask takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIEnvironment

from flask import Response
from werkzeug.datastructures import Headers

from ..proxy.stream import EventStream


class FinalResponse(Response):
    """A response whose headers are all there are, until somebody's hook adds to them.

    werkzeug's default type and its last corrections of the headers (a copy of all of them) are left out.

    Args:
        body: Bytes, or a stream that the server gets as it is, and closes.
    """

    default_mimetype = None

    def __init__(self, body: bytes | EventStream, status: int, headers: list[tuple[str, str]]) -> None:
        # Bytes in a list: werkzeug would add a Content-Length of its own to bytes.
        chunks = [body] if isinstance(body, bytes) else body
        super().__init__(chunks, status, Headers(headers), direct_passthrough=chunks is body)

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:  # noqa: ARG002 - werkzeug's signature
        return self.headers

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        # werkzeug calls these functions when it closes the response, which with a body passed through is nobody's.
        self.direct_passthrough = False
        return super().call_on_close(func)
