"""Relative links: only a proxy in front knows the whole path of a page."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from flask import current_app, redirect, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from ..context import services

STATIC = Path(__file__).parent / "static"

_LONGEST = 1000
"""Of a page that is led back to: longer headers are refused by proxies."""
_NEXT = re.compile(r"[A-Za-z0-9._~%@:+-]+(/[A-Za-z0-9._~%@:+-]+)*(\?[A-Za-z0-9._~%@:+&=,*$!'();/?-]*)?")
"""A path below ``/dashboard``, with a query: all that browsers and Werkzeug write there."""


def link(endpoint: str, **values: Any) -> str:
    """Return the address of a page relative to the current one. ``.keys`` is an endpoint of the dashboard.

    Values that are None or empty are left out of the query.
    """
    # Also what a template has not: Jinja's Undefined is empty as text.
    given = {name: value for name, value in values.items() if value is not None and str(value)}
    address = url_for(endpoint, **given)
    path = address.removeprefix(request.root_path).lstrip("/")
    return "../" * (request.path.count("/") - 1) + path


def here(**changes: Any) -> str:
    """Return the address of the current page with these values of its query changed; None removes one."""
    query = [(name, value) for name, value in request.args.items(multi=True) if name not in changes]
    query += [(name, str(value)) for name, value in changes.items() if value not in (None, "")]
    return f"?{urlencode(query)}"


def root() -> str:
    """Return the address of the gateway relative to the current page."""
    return "../" * (request.path.count("/") - 1) or "./"


def gateway() -> str:
    """Return the address of the gateway as the browser has reached it, as far as it can be known here.

    A path that a proxy in front has taken away is missing. The script puts the whole address into elements with
    ``data-root``, which have the address of :func:`root`.
    """
    return services().settings.public_url or f"{request.host_url.rstrip('/')}{request.root_path.rstrip('/')}"


def to(endpoint: str, **values: Any) -> Response:
    """Lead the browser to a page after a form was sent (303: with GET)."""
    return redirect(url_for(endpoint, **values), 303)


def asset(name: str) -> str:
    """Return the address of a file in ``static/``. It changes with the file, which browsers may keep for good."""
    return link(".static_file", name=name, v=_version(name))


@lru_cache
def _version(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def this_page() -> str:
    """Return the current page as :func:`wanted_page` takes it; empty if its address is too long."""
    if request.endpoint == "dashboard.provider_callback":
        return "sign-in"  # nothing of what the identity provider has sent
    path = request.full_path if request.query_string else request.path
    page = path.removeprefix("/dashboard").lstrip("/")
    return page if len(page) <= _LONGEST else ""


def page_before() -> str | None:
    """Return the page from which the form was sent that is answered now, as :func:`wanted_page` takes it.

    None if the browser does not say, or that page was itself the answer to a form and cannot be opened again.
    """
    try:
        sent = urlsplit(request.headers.get("Referer", ""))
        page = sent.path.partition("/dashboard/")[2]
        if sent.netloc != request.host or not page:
            return None
        endpoint, _ = current_app.url_map.bind("").match(f"/dashboard/{page}", method="GET")
    except (ValueError, HTTPException):  # no address, or one that Werkzeug would write in another way
        return None
    if endpoint == "dashboard.unknown":
        return None
    page = f"{page}?{sent.query}" if sent.query else page
    return page if len(page) <= _LONGEST else None


def wanted_page(text: str | None) -> str | None:
    """Return the address of the page *text*, which a link brought along; None if it is not one of ours.

    Only paths below ``/dashboard``: a link from elsewhere must not lead people who sign in to another site.
    """
    if (
        not text
        or len(text) > _LONGEST
        or not _NEXT.fullmatch(text)
        or {".", ".."} & set(text.partition("?")[0].split("/"))
    ):
        return None
    return f"{request.root_path}/dashboard/{text}"
