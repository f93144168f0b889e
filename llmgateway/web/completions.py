"""``POST /v1/chat/completions``, from what a WSGI server hands over to what it gets back."""

from __future__ import annotations

from wsgiref.types import WSGIEnvironment

from ..errors import GatewayError
from ..proxy.pipeline import CompletionRequest, Reply
from ..records import new_request_id
from ..services import Services
from .body import check_media_type, read_body
from .context import sent_key
from .errors import refuse, unforeseen

PATH = "/v1/chat/completions"

_NO_STORE = ("Cache-Control", "no-store")
# nginx and others like it buffer what they are not told to pass on at once.
_NOT_HELD_BACK = (("X-Accel-Buffering", "no"), ("Cache-Control", "no-cache"))
_WITHOUT_LENGTH = (204, 304)
"""Answers that never have a body (RFC 9110, section 8.6)."""


def answer(environ: WSGIEnvironment, services: Services) -> Reply:
    """Answer one chat completion, whatever becomes of it, with all the headers that the client gets."""
    request_id = new_request_id(services.clock())
    try:
        request = _request(environ, request_id, largest=services.settings.max_body_bytes)
        return _passed_on(services.gateway.complete(request), request_id)
    except GatewayError as error:
        refused = refuse(error, services.metrics)
    except Exception as error:  # noqa: BLE001 - as Flask's handlers, which are not around it
        refused = refuse(unforeseen(error, request_id), services.metrics)
    refused.headers.extend((_NO_STORE, ("x-request-id", request_id)))
    return refused


def _request(environ: WSGIEnvironment, request_id: str, *, largest: int) -> CompletionRequest:
    check_media_type(environ.get("CONTENT_TYPE"), environ.get("HTTP_CONTENT_ENCODING"))
    return CompletionRequest(
        id=request_id,
        key=sent_key(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_API_KEY")),
        body=read_body(environ, largest=largest),
        endpoint=PATH,
        client_address=environ.get("REMOTE_ADDR"),
        client_gone=environ.get("waitress.client_disconnected"),
    )


def _passed_on(reply: Reply, request_id: str) -> Reply:
    headers = [*reply.headers, ("x-llmgateway-request-id", request_id)]
    if not isinstance(reply.body, bytes):
        headers += _NOT_HELD_BACK
    else:
        headers.append(_NO_STORE)
        if reply.status not in _WITHOUT_LENGTH:
            headers.append(("Content-Length", str(len(reply.body))))
    if "x-request-id" not in dict(reply.headers):  # Azure's names are in lower case
        headers.append(("x-request-id", request_id))
    return Reply(status=reply.status, headers=headers, body=reply.body)
