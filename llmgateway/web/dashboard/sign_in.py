"""Signing in with a key, and signing out. With the organisation's identity provider: ``provider_sign_in.py``."""

from __future__ import annotations

import re
from typing import Any

from flask import Response, current_app, redirect, request, session
from werkzeug.wrappers import Response as BaseResponse

from ...accounts import admins
from ...accounts.admins import Admin
from ...errors import AdminThrottled, InvalidAdminKey, InvalidKey, StoreUnavailable
from ..admin import GUARD
from ..context import services
from ..guard import AdminGuard
from . import sessions
from .blueprint import PERSONAL, PUBLIC, blp, notice, page, signed_in
from .forms import Form
from .links import gateway, to, wanted_page
from .sessions import Kind, Visitor

PUBLIC |= {"dashboard.sign_in", "dashboard.enter", "dashboard.sign_out"}
PERSONAL |= {"dashboard.account", "dashboard.sign_out_everywhere"}

_SIGNED_OUT_HERE = (
    "This browser is signed out. The store does not serve, so a copy of its cookie stays valid until the session would "
    "have ended. If there may be one, sign in later and sign out everywhere."
)
_WRONG = "This key is not known here, or not valid any more. Ask an admin of this gateway for one."

# Nobody can guess such a key, so whoever has one need not wait while others try keys from the same address.
_UNGUESSABLE = re.compile(r"llmgw-[A-Za-z0-9_-]{43}")


@blp.get("/sign-in")
def sign_in() -> BaseResponse:
    """Show the form; lead on those who are signed in."""
    if (visitor := sessions.visitor()) is not None:
        return onward(visitor.admin is not None, request.args.get("next"))
    return sign_in_form(Form())


@blp.post("/sign-in")
def enter() -> BaseResponse:
    """Check a key and begin a session."""
    form = Form.sent()
    # Never shown again: a key that was mistyped is nearly a key.
    typed = form.values.pop("key", "")
    key = typed if isinstance(typed, str) else ""
    try:
        is_admin = _begin(key, request.remote_addr or "")
    except (InvalidAdminKey, InvalidKey, AdminThrottled) as error:
        form.status = error.status
        form.errors = {"key": [f"{error} Wait {error.retry_after} s and try again." if error.retry_after else _WRONG]}
        response = sign_in_form(form)
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        return response
    return onward(is_admin, form.text("next"))


@blp.post("/sign-out")
def sign_out() -> BaseResponse:
    """End the session of this browser, and offer to end that at the identity provider, too."""
    try:
        visitor = sessions.visitor()
        sessions.end()
    except StoreUnavailable:
        # Whoever leaves a computer to others has to be out of it, also now.
        session.clear()
        notice(_SIGNED_OUT_HERE)
        return to(".sign_in")
    provider = services().provider
    url = None
    if visitor is not None and visitor.kind is Kind.PERSON and provider is not None:
        url = provider.end_session_url(f"{public_address()}/dashboard/sign-in", hint=visitor.name)
    if url is None:
        notice("You are signed out.")
        return to(".sign_in")
    return page("signed_out.html", provider_url=url)


@blp.post("/sign-out-everywhere")
def sign_out_everywhere() -> BaseResponse:
    """End all sessions of whoever has this one."""
    sessions.end_everywhere()
    notice("You are signed out everywhere.")
    return to(".sign_in")


@blp.get("/account")
def account() -> Response:
    """Show who is signed in, and let them sign out everywhere."""
    return page("account.html", kinds=_KINDS)


_KINDS = {
    Kind.OWNER: "with the ADMIN_KEY of this gateway",
    Kind.ADMIN: "with the key of an admin",
    Kind.PERSON: "with an account of your organisation",
    Kind.KEY: "with a key for models",
}


def sign_in_form(form: Form) -> Response:
    """Return the page for signing in, with what is wrong with *form*."""
    wanted = form.text("next") or request.args.get("next")
    # Only what can be opened later is shown again.
    return page(
        "sign_in.html",
        status=form.status,
        form=form,
        next=wanted if wanted_page(wanted) else None,
        has_provider=services().provider is not None,
    )


def onward(is_admin: bool, wanted: str | None) -> BaseResponse:
    """Lead somebody who has signed in to the page that was asked for, or to the first one."""
    address = wanted_page(wanted)
    if address is not None:
        return redirect(address, 303)
    return to(".overview" if is_admin else ".me")


def guard() -> AdminGuard:
    """Return what counts how often an address has tried something in vain."""
    found: AdminGuard = current_app.extensions[GUARD]
    return found


def public_address() -> str:
    """Return the address of the gateway as browsers reach it, without a slash at its end."""
    return gateway()


def keep_signed_in(key_id: str, key: str) -> None:
    """Let the session of a key's holder go on with the new *key*, which replaces the one it began with."""
    if signed_in().key_id == key_id:
        session["mark"] = services().keys.session_mark(key)


def _begin(key: str, address: str) -> bool:
    """Begin the session of whoever has *key*; return whether it is an admin.

    A user's key is not looked for among those of admins: that would count as an attempt, and a whole class signs in
    from one address.

    Raises:
        AdminThrottled, InvalidAdminKey, InvalidKey: not with this key, or not now.
    """
    if not key:
        raise InvalidKey("No key was sent.")
    if guard().is_owners(key) or key.startswith(admins.PREFIX):
        admin = guard().check(key, address)
        if admin.id is None:
            sessions.begin(Kind.OWNER, "owner", mark=admin.key_id)
        else:
            sessions.begin(Kind.ADMIN, admin.id, admin=admin.id, mark=admin.key_id)
        return True
    if not _UNGUESSABLE.fullmatch(key):
        guard().refuse_who_has_to_wait(address)
    try:
        record = services().keys.authenticate(key).key
    except InvalidKey:
        guard().count(address)
        raise
    sessions.begin(Kind.KEY, record.id, key=record.id, mark=services().keys.session_mark(key))
    return False


@sessions.resumes(Kind.OWNER)
def _owner(began: Any) -> Visitor | None:
    return _visitor(Kind.OWNER, guard().owner(began["mark"]))


@sessions.resumes(Kind.ADMIN)
def _named(began: Any) -> Visitor | None:
    return _visitor(Kind.ADMIN, services().admins.resume(began["admin"], began["mark"]))


@sessions.resumes(Kind.KEY)
def _holder(began: Any) -> Visitor | None:
    principal = services().keys.resume(began["key"], began["mark"])
    if principal is None:
        return None
    record = principal.key
    return Visitor(kind=Kind.KEY, name=record.user, user=record.user, key_id=record.id)


def _visitor(kind: Kind, admin: Admin | None) -> Visitor | None:
    return None if admin is None else Visitor(kind=kind, name=admin.name, admin=admin)
