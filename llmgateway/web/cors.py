"""Cross-origin requests: which origins' pages may call the gateway from a browser."""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import Flask, Response
from flask_cors import CORS

ORIGINS = "llmgateway.origins"


class AllowedOrigins:
    """Adds the headers of CORS to the responses of *app*, in whose extensions it is under :data:`ORIGINS`.

    Args:
        origins: Whole origins, or ``*`` for all; see :func:`allow`.
    """

    def __init__(self, app: Flask, origins: tuple[str, ...]) -> None:
        self._app = app
        self._add_headers: Callable[[Response], Response] | None
        self.allow(origins)

        def add_headers(response: Response) -> Response:
            add = self._add_headers
            return response if add is None else add(response)

        app.after_request(add_headers)
        app.extensions[ORIGINS] = self

    def allow(self, origins: tuple[str, ...]) -> None:
        """Allow these origins from now on, and no others."""
        self._add_headers = _hook(origins) if origins else None

    def headers(self, origin: str) -> list[tuple[str, str]]:
        """Return the headers of an answer to a page of *origin* that the application has not made."""
        if self._add_headers is None:
            return []
        with self._app.test_request_context(headers={"Origin": origin}):
            answer = self._add_headers(Response())
        return [
            (name, value) for name, value in answer.headers if name.lower() not in ("content-type", "content-length")
        ]


def _hook(origins: tuple[str, ...]) -> Callable[[Response], Response]:
    # flask-cors reads its options once, and registers a hook. An application of its own keeps the hook replaceable.
    holder = Flask("cors", static_folder=None)
    CORS(holder, origins=[_pattern(origin) for origin in origins], expose_headers="*", max_age=600, always_send=False)
    hook: Callable[[Response], Response] = holder.after_request_funcs[None][-1]  # type: ignore[assignment]
    return hook


def _pattern(origin: str) -> str | re.Pattern[str]:
    # flask-cors would take an IPv6 address as a regular expression.
    return re.compile(rf"{re.escape(origin)}\Z") if "[" in origin else origin
