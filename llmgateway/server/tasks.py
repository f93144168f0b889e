"""Subclasses of waitress' tasks: they write the answer of one request."""

from __future__ import annotations

from typing import Any, cast

import orjson
from waitress.task import ErrorTask, WSGITask

from ..errors import GatewayError
from .parser import OUR_REASONS, RequestParser


class RefusalTask(ErrorTask):
    """Answers a request that waitress cannot parse with an error object as OpenAI's."""

    channel: Any  # a Channel, whose module imports this one

    def execute(self) -> None:
        error = cast("Any", self.request).error
        # waitress' own details quote the request, which may contain a key.
        reason = error.body if error.body in OUR_REASONS else error.reason
        refusal = GatewayError(_unreadable(error.code, reason, self.channel.adj.max_request_body_size - 1))
        refusal.status = error.code
        refusal.type = "invalid_request_error" if error.code < 500 else "server_error"
        refusal.code = "body_too_large" if error.code == 413 else refusal.type
        request_id = self.channel.server.refused(refusal, self.channel.addr[0])
        body = orjson.dumps(refusal.as_json())
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", "application/json"), ("x-request-id", request_id)]
        self.response_headers += self._headers_for_pages()
        self.set_close_on_finish()
        self.channel.discards_rest = True
        self.content_length = len(body)
        self.write(body)

    def _headers_for_pages(self) -> list[tuple[str, str]]:
        """Return what lets a page read the refusal, if it may call the gateway at all."""
        origin = cast("Any", self.request).headers.get("ORIGIN")
        origins = self.channel.server.origins
        return origins.headers(origin) if origin and origins is not None else []


def _unreadable(code: int, reason: str, largest: int) -> str:
    if code == 413:
        return (
            f"The body is larger than this gateway takes: {largest} bytes. Send less of the conversation, or smaller "
            "images; the admin can raise the limit with LLMGATEWAY_MAX_BODY_BYTES."
        )
    return f"The request cannot be read: {reason}."


class RequestTask(WSGITask):
    """One request on its way through the application."""

    channel: Any  # a Channel, whose module imports this one
    request: RequestParser  # type: ignore[assignment] # the type stubs are wrong

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ["llmgateway.send_head"] = self.send_head
        return environ

    def send_head(self) -> None:
        """Send status and headers now, and not together with the beginning of the body."""
        if not self.wrote_header:
            super().write(b"")

    def build_response_header(self) -> bytes:
        if not self.request.completed or self.request.error:
            # The answer comes before the end of the body, which nobody reads any more.
            self.set_close_on_finish()
            self.channel.discards_rest = True
        # The client will retry. Over a new connection it can reach a worker that has free slots. In HTTP/1.0,
        # connections are closed by default.
        if self.status.startswith("503") and self.version == "1.1" and not self.channel.server.capacity.should_accept():
            self.set_close_on_finish()
        return super().build_response_header()

    def write(self, data: bytes) -> None:
        # Send the head together with the beginning of the body: one system call and one packet instead of two.
        if data and not self.wrote_header and self.has_body:
            self.channel.held = self.build_response_header()
            self.wrote_header = True
        super().write(data)
