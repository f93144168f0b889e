"""A response class that is faster than Flask's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from wsgiref.types import WSGIEnvironment

from flask import Response
from werkzeug.datastructures import Headers

from ..proxy.passing import PassedAnswer
from ..proxy.stream import EventStream


class FinalResponse(Response):
    """A response whose headers are complete. Hooks may still add headers.

    It has no default content type, and skips werkzeug's final corrections, which copy all headers.

    Args:
        body: Bytes, or a stream. A stream is passed to the server unchanged, and the server closes it.
    """

    default_mimetype = None

    def __init__(self, body: bytes | EventStream | PassedAnswer, status: int, headers: list[tuple[str, str]]) -> None:
        # In a list, because werkzeug adds a Content-Length for plain bytes.
        chunks = [body] if isinstance(body, bytes) else body
        super().__init__(chunks, status, Headers(headers), direct_passthrough=chunks is body)

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:  # noqa: ARG002 - werkzeug's signature
        return self.headers

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        # werkzeug calls these functions when it closes the response, but it does not close one with direct_passthrough.
        self.direct_passthrough = False
        return super().call_on_close(func)
