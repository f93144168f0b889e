"""Signing in with an admin's key, and signing out."""

from __future__ import annotations

from typing import Any

from flask import Response, current_app, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from ...accounts.admins import Admin
from ...errors import AdminThrottled, InvalidAdminKey
from ..admin import GUARD
from ..context import services
from ..guard import AdminGuard
from . import sessions
from .blueprint import PERSONAL, PUBLIC, blp, notice, page
from .forms import Form
from .links import to, wanted_page
from .sessions import Kind, Visitor

PUBLIC |= {"dashboard.sign_in", "dashboard.enter"}
PERSONAL |= {"dashboard.sign_out"}

_WRONG = "This key is not known here, or not valid any more. Ask an owner of this gateway for one."


@blp.get("/sign-in")
def sign_in() -> BaseResponse:
    """Show the form; lead on those who are signed in."""
    if sessions.visitor() is not None:
        return _onward(request.args.get("next"))
    return _form(Form())


@blp.post("/sign-in")
def enter() -> BaseResponse:
    """Check a key and begin a session."""
    form = Form.sent()
    # Never shown again: a key that was mistyped is nearly a key.
    key = form.values.pop("key", "")
    try:
        admin = _guard().check(key or None, request.remote_addr or "")
    except (InvalidAdminKey, AdminThrottled) as error:
        form.status = error.status
        form.errors = {"key": [_WRONG if error.status == 401 else f"{error} Wait {error.retry_after} s and try again."]}
        response = _form(form)
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        return response
    if admin.id is None:
        sessions.begin(Kind.OWNER, mark=admin.key_id)
    else:
        sessions.begin(Kind.ADMIN, admin=admin.id, mark=admin.key_id)
    return _onward(form.text("next"))


@blp.post("/sign-out")
def sign_out() -> BaseResponse:
    """End the session of this browser."""
    sessions.end()
    notice("You are signed out.")
    return to(".sign_in")


@sessions.resumes(Kind.OWNER)
def _owner(session: Any) -> Visitor | None:
    return _visitor(Kind.OWNER, _guard().owner(session["mark"]))


@sessions.resumes(Kind.ADMIN)
def _named(session: Any) -> Visitor | None:
    return _visitor(Kind.ADMIN, services().admins.resume(session["admin"], session["mark"]))


def _visitor(kind: Kind, admin: Admin | None) -> Visitor | None:
    return None if admin is None else Visitor(kind=kind, name=admin.name, admin=admin)


def _guard() -> AdminGuard:
    guard: AdminGuard = current_app.extensions[GUARD]
    return guard


def _form(form: Form) -> Response:
    return page("sign_in.html", status=form.status, form=form, next=form.text("next") or request.args.get("next"))


def _onward(wanted: str | None) -> BaseResponse:
    address = wanted_page(wanted)
    return to(".overview") if address is None else redirect(address, 303)
