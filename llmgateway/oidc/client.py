"""Authlib's client, with bounds. Importing this module imports Authlib."""

from __future__ import annotations

import io
from typing import Any

import requests
from authlib.integrations.requests_client import OAuth2Session

from ..clock import Timer

TIMEOUT = (3.05, 5.0)
"""Seconds for connecting, and for each wait for data."""

DEADLINE_SECONDS = 10.0
"""For a whole answer."""

MOST_BYTES = 1_000_000
"""Of an answer: that of a large provider has some ten thousand."""

_CHUNK = 16 * 1024


class BoundedClient(OAuth2Session):  # type: ignore[misc]
    """A session that follows no redirect, and reads no more and no longer than :func:`bounded` allows."""

    def __init__(self, client_id: str, client_secret: str, *, timer: Timer) -> None:
        super().__init__(client_id, client_secret, code_challenge_method="S256")
        self._timer = timer

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        # A redirect could carry the client's secret, or a code, to another host.
        options = kwargs | {"timeout": TIMEOUT, "allow_redirects": False, "stream": True}
        response: requests.Response = super().send(request, **options)
        return bounded(response, self._timer)


def bounded(response: requests.Response, timer: Timer) -> requests.Response:
    """Read the body of a streamed *response* within the bounds.

    Raises:
        TimeoutError: it takes too long.
        ValueError: it is too large.
    """
    began, body = timer(), bytearray()
    with response:
        for chunk in response.iter_content(_CHUNK):
            body += chunk
            if len(body) > MOST_BYTES:
                raise ValueError("too large")
            if timer() - began > DEADLINE_SECONDS:
                raise TimeoutError
    read = requests.Response()
    read.status_code, read.reason, read.url = response.status_code, response.reason, response.url
    read.headers, read.encoding, read.request = response.headers, response.encoding, response.request
    read.raw = io.BytesIO(bytes(body))
    return read
