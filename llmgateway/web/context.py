"""Access to the services and the current request, for views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import current_app, g, request

from ..accounts.admins import Admin
from ..clock import Clock
from ..current import begin_request, current_request
from ..errors import InvalidKey
from ..records import new_request_id
from ..services import Services

EXTENSION = "llmgateway"


class IdentifiedRequests:
    """WSGI middleware that gives each request its identifier, before anything can be logged about it."""

    def __init__(self, app: WSGIApplication, *, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begin_request(new_request_id(self._clock()))
        return self._app(environ, start_response)


def services() -> Services:
    return cast(Services, current_app.extensions[EXTENSION])


def request_id() -> str:
    """Return the identifier of the current request. Every call in a request returns the same one."""
    current = current_request()
    return (current or begin_request(new_request_id(services().clock()))).id


def current_admin() -> Admin:
    """Return who sends the current request to the admin API, whose key was checked."""
    return cast(Admin, g.admin)


def is_preflight() -> bool:
    """Return whether a browser asks if a page may send the request (Fetch standard, section 4.8).

    It sends no key, and the page cannot read an error: it has to hear yes, whatever the address.
    """
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def bearer_key() -> str | None:
    """Return the user's key of the current request; see :func:`sent_key`."""
    return sent_key(request.headers.get("Authorization"), request.headers.get("api-key"))


def sent_key(authorization: str | None, api_key: str | None) -> str | None:
    """Return the user's key from ``Authorization: Bearer``, or from ``api-key``, which AzureOpenAI clients send.

    Programs that send the second one may send an empty first one, too.

    Raises:
        InvalidKey: there is only an Authorization header, and not with the scheme Bearer.
    """
    if authorization is None:
        return api_key
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer":
        if api_key:  # the other one is for a proxy in front
            return api_key
        raise InvalidKey("The Authorization header must be 'Bearer KEY'.")
    return key.strip() or api_key or ""
