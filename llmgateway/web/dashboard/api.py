"""The admin API as the pages use it: by requests within this process, in the name of the admin who is signed in.

So rights, the reach of ``group`` admins, validation, entity tags and the audit log are the same for pages and programs,
and a page can do nothing that the API cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson
from flask import Flask, Request, Response
from werkzeug.datastructures import FileStorage, Headers, MultiDict
from werkzeug.test import EnvironBuilder

from ...accounts.admins import Admin
from ..admin import SIGNED_IN
from ..body import PARSED_FORM

_CONNECTION = ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME")
"""What a request within the process takes over from the one that the browser has sent."""

_NO_SUCH_NAME = "There is nothing of this name."


class ApiError(Exception):
    """The admin API has refused a request.

    Attributes:
        status: As of the answer: 403, 404, 409, 412, 422, 503 …
        code: As of the error object, such as ``not_found``.
        message: For the reader of the page.
        fields: With 422: what is wrong, by field; parts of ``limits`` as ``limits.budget.amount``.
        present: With 412: the object as it is now; None if it is gone.
        retry_after: Seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        fields: Mapping[str, list[str]] | None = None,
        present: Any = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = dict(fields or {})
        self.present = present
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Answer:
    """What the admin API has answered, with a status below 400."""

    status: int
    body: Any
    """The JSON; text if it is not JSON; None if it is empty."""
    etag: str | None
    """Of the object that the answer shows; see :mod:`..admin.etags`. Goes into the form that changes it."""
    headers: Headers


class AdminApi:
    """Sends requests to the admin API as *admin*.

    Args:
        app: Dispatches them.
        request: That of the browser, whose address the audit log names.
    """

    def __init__(self, app: Flask, admin: Admin, request: Request) -> None:
        self._app = app
        self._admin = admin
        self._request = request

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON that the API answers, or the text. Values of *query* that are None or empty are left out."""
        return self.ask("GET", path, query=query).body

    def post(self, path: str, json: Any = None, *, etag: str | None = None) -> Answer:
        return self.ask("POST", path, json={} if json is None else json, etag=etag)

    def put(self, path: str, json: Any, *, etag: str | None = None) -> Answer:
        return self.ask("PUT", path, json=json, etag=etag)

    def patch(self, path: str, json: Any, *, etag: str | None = None) -> Answer:
        return self.ask("PATCH", path, json=json, etag=etag)

    def delete(self, path: str, *, etag: str | None = None) -> Answer:
        return self.ask("DELETE", path, etag=etag)

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json: Any = None,
        body: bytes | None = None,
        content_type: str | None = None,
        etag: str | None = None,
    ) -> Answer:
        """Send any request.

        Args:
            path: Below the root, such as ``/admin/keys``; names in it are quoted with :func:`urllib.parse.quote`.
            body: In place of *json*, with its *content_type*.
            etag: Makes a change only if the object still has it; None or empty for any.

        Raises:
            ApiError: the answer is an error.
        """
        return _read(
            self._dispatch(
                EnvironBuilder(
                    path=path,
                    method=method,
                    query_string={name: value for name, value in (query or {}).items() if value not in (None, "")},
                    headers=Headers([("If-Match", f'"{etag}"')] if etag else []),
                    data=body if json is None else orjson.dumps(json),
                    content_type=content_type if json is None else "application/json",
                )
            )
        )

    def post_form(self, path: str, fields: MultiDict[str, str], files: MultiDict[str, FileStorage]) -> Answer:
        """Send a form with files, as :func:`~..body.read_files` returns them. They are closed."""
        return _read(self._dispatch(EnvironBuilder(path=path, method="POST"), {PARSED_FORM: (fields, files)}))

    def _dispatch(self, builder: EnvironBuilder, extra: Mapping[str, Any] | None = None) -> Response:
        environ = builder.get_environ()
        environ.update((name, self._request.environ[name]) for name in _CONNECTION if name in self._request.environ)
        environ.update(extra or {})
        environ[SIGNED_IN] = self._admin
        # A context of its own for ``g``, which holds the admin, the tag and the time zones of one request.
        with self._app.app_context(), self._app.request_context(environ):
            return self._app.full_dispatch_request()


def _read(response: Response) -> Answer:
    """Return the answer, or raise its error."""
    if 300 <= response.status_code < 400:  # an empty name, or one with two slashes, made another address of the path
        response.close()
        raise ApiError(404, _NO_SUCH_NAME)
    with response:
        data = response.get_data()
        found: Any = orjson.loads(data) if response.is_json and data else response.get_data(as_text=True) or None
    if response.status_code >= 400:
        _refuse(response, found)
    tag, _ = response.get_etag()
    return Answer(response.status_code, found, tag, response.headers)


def _refuse(response: Response, body: Any) -> NoReturn:
    error = body.get("error", {}) if isinstance(body, dict) else {}
    raise ApiError(
        response.status_code,
        error.get("message") or "The gateway has refused this without saying why.",
        code=error.get("code"),
        fields=dict(_flat(error.get("errors") or {})),
        present=error.get("present"),
        retry_after=response.headers.get("Retry-After"),
    )


def _flat(problems: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Yield the messages by field, and those of fields in fields by names with dots."""
    for name, found in problems.items():
        if isinstance(found, dict):
            yield from _flat(found, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", [str(message) for message in (found if isinstance(found, list) else [found])]
