"""Converts every error to OpenAI's error object."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import marshmallow as ma
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from ..errors import GatewayError, InvalidFields
from .addresses import explain, explain_method
from .body import TOO_LARGE
from .context import is_preflight, request_id, services
from .refusals import keep_refusal
from .replies import FinalResponse

log = logging.getLogger(__name__)


class ErrorDetailSchema(ma.Schema):
    """The fields of an error. Errors from Azure may lack ``type`` and ``param``, and may have further fields."""

    class Meta:
        unknown = ma.EXCLUDE

    message = ma.fields.String(required=True, metadata={"description": "What is wrong, and what to do about it."})
    type = ma.fields.String(allow_none=True, metadata={"example": "invalid_request_error"})
    param = ma.fields.String(allow_none=True, metadata={"description": "The field at fault.", "example": "model"})
    code = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The same for the same kind of error.", "example": "invalid_api_key"},
    )
    present = ma.fields.Dict(
        allow_none=True, metadata={"description": "Of 412 only: the object as it is now, or null.", "example": None}
    )
    errors = ma.fields.Dict(
        metadata={
            "description": "Of 422 only: what is wrong, by field.",
            "example": {"user": ["Missing data for required field."]},
        }
    )


class ErrorSchema(ma.Schema):
    """OpenAI's error object."""

    class Meta:
        unknown = ma.EXCLUDE

    error = ma.fields.Nested(ErrorDetailSchema, required=True)


# Error codes for the exceptions of werkzeug and webargs. Other statuses below 500 are errors of the request; those from
# 500 on are errors of the gateway.
_CODES = {
    400: "invalid_request_error",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}
_MESSAGES = {413: TOO_LARGE}


def register_error_handlers(app: Flask) -> None:
    app.register_error_handler(GatewayError, _gateway_error)
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(Exception, _unexpected)
    app.after_request(_identify)


def _gateway_error(error: GatewayError) -> Response:
    services().metrics.refused(error.code)
    keep_refusal(error)
    # Not orjson, which rejects lone surrogates: messages may quote text from clients.
    body = json.dumps(error.as_json(), separators=(",", ":")).encode() + b"\n"
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *error.headers.items()]
    if error.retry_after is not None:
        headers.append(("Retry-After", str(error.retry_after)))
    return FinalResponse(body, error.status, headers)


def http_error(error: HTTPException) -> BaseResponse:
    """Convert an exception of the framework to a response."""
    response = error.get_response()
    status = response.status_code
    if status < 400:
        return response  # a redirect
    data: dict[str, Any] = getattr(error, "data", None) or {}
    if "messages" in data:
        return _gateway_error(invalid_fields(_by_field(data["messages"])))
    if status == 404 and is_preflight():  # otherwise the page cannot read the 404 that follows
        return Response(status=204)
    translated = GatewayError(_message(error, status, response.headers.get("Allow")))
    translated.status = status
    translated.type = "invalid_request_error" if status < 500 else "server_error"
    translated.code = _CODES.get(status, "invalid_request_error" if status < 500 else "internal_error")
    answer = _gateway_error(translated)
    if "Allow" in response.headers:
        answer.headers["Allow"] = response.headers["Allow"]
    return answer


def _message(error: HTTPException, status: int, allowed: str | None) -> str:
    base_url = f"{request.url_root.rstrip('/')}/v1"
    if status == 404:
        return explain(request.method, request.path, base_url=base_url, rules=current_app.url_map)
    if status == 405:
        return explain_method(request.method, request.path, base_url=base_url, allowed=allowed or "other methods")
    return _MESSAGES.get(status) or error.description or error.name


def invalid_fields(problems: dict[str, Any]) -> InvalidFields:
    """Return the error for a body or a query. The message names the fields, because some clients show nothing else."""
    names = ", ".join(f"'{name[:100]}'" for name in list(problems)[:10])
    return InvalidFields(
        f"These fields are not right: {names}. 'errors' says why.", param=next(iter(problems)), fields=problems
    )


def _by_field(messages: dict[str, Any]) -> dict[str, Any]:
    """Remove the outer layer of webargs' messages, which names the location (json, query)."""
    fields: dict[str, Any] = {}
    for problems in messages.values():
        fields.update(problems)
    if "_schema" in fields:  # marshmallow's name for errors of the whole body
        fields["body"] = fields.pop("_schema")
    return fields


def _unexpected(error: Exception) -> Response:
    log.error("Request %s failed: this is a bug of the gateway.", request_id(), exc_info=error)
    return _gateway_error(
        GatewayError(f"Something went wrong inside the gateway. The admin finds more in its log under {request_id()}.")
    )


def _identify(response: Response) -> Response:
    if "x-request-id" not in response.headers:
        response.headers["x-request-id"] = request_id()
    if 300 <= response.status_code < 400:
        _make_relative(response)
    return response


def _make_relative(response: Response) -> None:
    """Make a redirect to an address of ours relative: only the proxy in front knows our scheme, host and whole path."""
    location = urlsplit(response.headers.get("Location", ""))
    if (location.netloc or request.host) != request.host or not location.path.startswith("/"):
        return
    path = location.path.removeprefix(request.root_path).lstrip("/")
    up = "../" * (request.path.count("/") - 1)
    response.headers["Location"] = urlunsplit(("", "", f"{up}{path}" or ".", location.query, location.fragment))
