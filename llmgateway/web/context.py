"""What a view can ask for about the program and the request at hand."""

from __future__ import annotations

from typing import cast

from flask import current_app, g, request

from ..errors import InvalidKey
from ..records import new_request_id
from ..services import Services

EXTENSION = "llmgateway"


def services() -> Services:
    return cast(Services, current_app.extensions[EXTENSION])


def request_id() -> str:
    """The identifier of the request at hand; the same however often it is asked for."""
    known = g.get("request_id")
    if known is None:
        known = g.request_id = new_request_id(services().clock())
    return cast(str, known)


def bearer_key() -> str | None:
    """The user's key of the request at hand; raises as :func:`sent_key`."""
    return sent_key(request.headers.get("Authorization"), request.headers.get("api-key"))


def sent_key(authorization: str | None, api_key: str | None) -> str | None:
    """The user's key: from ``Authorization: Bearer``, or from ``api-key`` as AzureOpenAI clients send it.

    Raises:
        InvalidKey: the Authorization header is there and is no Bearer.
    """
    if authorization is None:
        return api_key
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidKey("The Authorization header must be 'Bearer KEY'.")
    return key.strip()
