"""The blueprint of the dashboard: who may see a page, forged forms, headers of protection, and pages for errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    flash,
    g,
    redirect,
    render_template,
    request,
    send_from_directory,
)
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.wrappers import Response as BaseResponse

from ... import __version__
from ...errors import Forbidden, GatewayError
from ..admin.rights import check_right, may
from ..context import request_id
from ..errors import http_error
from . import charts, formats
from .api import AdminApi, ApiError
from .forms import once
from .links import STATIC, asset, gateway, here, link, page_before, root, this_page, to, wanted_page
from .navigation import entries
from .sessions import DashboardSessions, Visitor, visitor

blp = Blueprint("dashboard", __name__, url_prefix="/dashboard", template_folder="templates")

PUBLIC: set[str] = {"dashboard.static_file", "dashboard.theme", "dashboard.unknown"}
"""Endpoints for everybody."""
PERSONAL: set[str] = set()
"""Endpoints for everybody who is signed in. All others are for admins."""

_YEAR = 365 * 86_400
_SAFE = ("GET", "HEAD", "OPTIONS")
THEMES = ("auto", "light", "dark")
_THEME_COOKIE = "llmgateway-theme"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_FORGED = (
    "This form was not sent from a page of this gateway, so nothing was changed. Open the page again and send it from "
    "there. If you did: a proxy in front has to pass on the headers Host and Origin."
)
_FOR_ADMINS = "This page is for admins. Your own page is under My keys."
_NO_SUCH_PAGE = "There is no such page."


class Forged(Exception):
    """A form came from another site."""


def signed_in() -> Visitor:
    """Return who sees the current page."""
    return cast(Visitor, g.visitor)


def api() -> AdminApi:
    """Return the admin API in the name of the admin who sees the current page."""
    admin = signed_in().admin
    if admin is None:
        raise ApiError(403, _FOR_ADMINS)
    return AdminApi(current_app, admin, request)


def allowed(method: str, rule: str) -> bool:
    """Return whether the admin who sees the page may call an endpoint of the API. Pages show no button for others."""
    visitor: Visitor | None = g.get("visitor")
    return visitor is not None and visitor.admin is not None and may(visitor.admin, method, rule)


def need(method: str, rule: str) -> None:
    """Refuse the page to an admin who may not call the endpoint of the API that its form is for."""
    admin = signed_in().admin
    try:
        if admin is not None:
            check_right(admin, method, rule)
    except Forbidden as error:
        raise ApiError(error.status, str(error)) from None


def page(name: str, *, status: int = 200, **context: Any) -> Response:
    """Render the template ``dashboard/{name}``."""
    return Response(render_template(f"dashboard/{name}", **context), status)


def notice(text: str) -> None:
    """Show *text* on the next page. It travels in the session's cookie: no key, no secret."""
    flash(text)


@blp.before_request
def _let_in() -> BaseResponse | None:
    if request.method not in _SAFE:
        _check_origin()
    if request.endpoint in PUBLIC:
        return None
    found = visitor()
    if found is None:
        return _to_sign_in()
    g.visitor = found
    if found.admin is None and request.endpoint == "dashboard.overview":
        return to(".me")
    if found.admin is None and request.endpoint not in PERSONAL:
        raise ApiError(403, _FOR_ADMINS)
    return None


def _to_sign_in() -> BaseResponse:
    """Lead to the form for signing in, and from there to the page that was asked for, or from which a form was sent."""
    if "HX-Request" in request.headers:
        return Response(headers={"HX-Refresh": "true"})  # a form in place of a list would be no help
    if request.method in _SAFE:
        return to(".sign_in", next=this_page())
    notice("Your session had ended, so nothing was changed. Sign in and send it again.")
    return to(".sign_in", next=page_before())


def _check_origin() -> None:
    """Refuse a form that another site has sent (Fetch Metadata, section 2.3; RFC 6454 section 7.3).

    Browsers send the first header to https and this machine only, the second one with every form. What sends neither is
    no browser, and has no session that another site could use: it is refused, too.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        if site not in ("same-origin", "none"):
            raise Forged
        return
    origin = urlsplit(request.headers.get("Origin", ""))
    if not origin.netloc or origin.netloc != request.host:
        raise Forged


@blp.after_request
def _protect(response: Response) -> Response:
    if request.endpoint != "dashboard.static_file":
        response.headers["Cache-Control"] = "no-store"
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response


@blp.context_processor
def _common() -> dict[str, Any]:
    found: Visitor | None = g.get("visitor")
    main, more = entries(found) if found is not None else ([], [])
    return {
        "visitor": found,
        "main_entries": main,
        "more_entries": more,
        "link": link,
        "here": here,
        "root": root,
        "gateway": gateway,
        "asset": asset,
        "allowed": allowed,
        "once": once,
        "page_before": page_before,
        "charts": charts,
        "theme": _theme(),
        "themes": THEMES,
        "version": __version__,
        "this_page": this_page,
    }


def _theme() -> str:
    theme = request.cookies.get(_THEME_COOKIE, "")
    return theme if theme in THEMES else "auto"


@blp.get("/static/<path:name>")
def static_file(name: str) -> Response:
    """Serve style and script. Their address changes with them."""
    return send_from_directory(STATIC, name, max_age=_YEAR if "v" in request.args else 60)


@blp.post("/theme")
def theme() -> BaseResponse:
    """Choose light or dark; a cookie remembers it."""
    chosen = request.form.get("theme", "")
    back = request.form.get("back", "")
    address = wanted_page(back)
    response = to(".overview") if address is None else redirect(address, 303)
    if chosen in THEMES:
        response.set_cookie(_THEME_COOKIE, chosen, max_age=_YEAR, samesite="Lax", httponly=True)
    return response


@blp.route("/<path:rest>", methods=["GET", "POST"])
def unknown(rest: str) -> BaseResponse:
    """Say that there is no such page. Clients of OpenAI ask for ``/dashboard/billing/…``, and hear what there is."""
    if rest.startswith("billing/"):
        return http_error(NotFound())
    found = visitor()
    if found is None:
        return to(".sign_in", next=this_page())
    g.visitor = found
    raise ApiError(404, _NO_SUCH_PAGE)


def _error_page(status: int, message: str, fields: Mapping[str, list[str]]) -> Response:
    # A store that does not answer may have done all the same what it was asked for.
    unsure = status >= 500 and request.method not in _SAFE
    return page("error.html", status=status, message=message, fields=fields, id=request_id(), unsure=unsure)


@blp.errorhandler(ApiError)
def _api_error(error: ApiError) -> Response:
    response = _error_page(error.status, error.message, error.fields)
    if error.retry_after:
        response.headers["Retry-After"] = error.retry_after
    return response


@blp.errorhandler(Forged)
def _forged(_error: Forged) -> Response:
    return _error_page(403, _FORGED, {})


@blp.errorhandler(GatewayError)
def _gateway_error(error: GatewayError) -> Response:
    after = None if error.retry_after is None else str(error.retry_after)
    return _api_error(ApiError(error.status, str(error), retry_after=after))


@blp.errorhandler(HTTPException)
def _http_error(error: HTTPException) -> BaseResponse:
    response = error.get_response()
    if response.status_code < 400:
        return response
    return _api_error(ApiError(response.status_code, error.description or error.name))


def register(app: Flask, *, secret: str) -> None:
    """Serve the dashboard.

    Args:
        secret: Signs the sessions; equal on all hosts.
    """
    app.session_interface = DashboardSessions(secret)
    formats.register(app)
    app.register_blueprint(blp)
