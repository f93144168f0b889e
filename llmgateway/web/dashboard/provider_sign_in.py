"""Signing in with the organisation's identity provider: there and back.

What the browser has to bring back (``state``), what the provider has to sign (``nonce``) and the verifier of PKCE wait
in a signed cookie of their own, for ten minutes and one use. So the answer of the provider counts only in the browser
that has asked, and another site can make nobody sign in as somebody else (RFC 9700, sections 4.5 and 4.7).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, cast

from flask import current_app, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from ...errors import GatewayError, NotFound, SignInRefused
from ...oidc.provider import OpenIDProvider
from ...records import Account
from ..context import services
from . import sessions
from .blueprint import PUBLIC, blp
from .forms import Form
from .links import wanted_page
from .sessions import DashboardSessions, Kind, Visitor
from .sign_in import guard, onward, public_address, sign_in_form

PUBLIC |= {"dashboard.provider_start", "dashboard.provider_callback"}

SECONDS = 600
"""How long somebody may take at the provider."""

_COOKIE_PATH = "/dashboard/sign-in"
_NO_PROVIDER = "This gateway has no identity provider. Sign in with a key."
_NOT_OURS = "This sign-in did not begin in this browser, or more than ten minutes ago. Sign in again."
_USED = "This sign-in was used already. Sign in again."
_LONGEST = 4096

_SAID = {
    "access_denied": "You have not signed in at the identity provider, or you may not use this gateway.",
    "login_required": "You have not signed in at the identity provider.",
    "temporarily_unavailable": "The identity provider is not available at the moment. Try again later.",
}
"""What the errors of RFC 6749 section 4.1.2.1 and OpenID Connect Core section 3.1.2.6 mean for people."""
_SAID_OTHERWISE = "The identity provider refuses this sign-in. Tell the admin of this gateway."


@blp.get("/sign-in/start")
def provider_start() -> BaseResponse:
    """Lead the browser to the provider."""
    try:
        began = _provider().begin(_redirect_uri())
    except GatewayError as error:
        return _problem(error)
    wanted = request.args.get("next", "")
    values = {
        "state": began.state,
        "nonce": began.nonce,
        "verifier": began.verifier,
        "at": str(int(services().clock())),
    }
    response = redirect(began.url, 303)
    response.set_cookie(
        _cookie_name(),
        _sealed().seal(values | {"next": wanted if wanted_page(wanted) else ""}),
        max_age=SECONDS,
        path=request.root_path + _COOKIE_PATH,
        secure=sessions.is_secure(),
        httponly=True,
        samesite="Lax",
    )
    return response


@blp.get("/sign-in/callback")
def provider_callback() -> BaseResponse:
    """Take what the browser brings back from the provider, and begin the session."""
    try:
        guard().refuse_who_has_to_wait(request.remote_addr or "")
        waiting, account = _account()
        identities = services().identities
        identity = identities.sign_in(account)
    except GatewayError as error:
        response = _problem(error)
    else:
        sessions.begin(Kind.PERSON, identity.id, identity=identity.id)
        response = onward(identities.rights(identity).role is not None, waiting["next"])
    response.delete_cookie(_cookie_name(), path=request.root_path + _COOKIE_PATH)
    return response


def _account() -> tuple[Mapping[str, str], Account]:
    """Return what waited for the browser, and the account that comes back with it.

    Raises:
        SignInRefused: what the browser has brought is not valid.
        AdminThrottled: that came too often from this address. What the provider itself refuses is not counted.
        IdentityProviderUnavailable: the provider does not say who it is.
    """
    provider, brought = _provider(), request.args
    waiting = _waiting()
    if waiting is None or not hmac.compare_digest(waiting["state"].encode(), brought.get("state", "").encode()):
        raise _counted(SignInRefused(_NOT_OURS))
    if brought.get("iss", provider.issuer) != provider.issuer:  # RFC 9207
        raise _counted(SignInRefused(_NOT_OURS))
    if "error" in brought:
        # Neither the code nor the text are shown: anybody can write what they like into a link.
        raise SignInRefused(_SAID.get(brought["error"], _SAID_OTHERWISE))
    if not services().sessions.use_once(waiting["state"], seconds=SECONDS):
        raise _counted(SignInRefused(_USED))
    try:
        account = provider.complete(
            brought.get("code", "")[:_LONGEST],
            redirect_uri=_redirect_uri(),
            nonce=waiting["nonce"],
            verifier=waiting["verifier"],
            wanted=services().identities.wanted_claims,
        )
    except SignInRefused as error:
        raise _counted(error) from error
    return waiting, account


def _waiting() -> Mapping[str, str] | None:
    """Return what this browser has begun; None if it has begun nothing, or too long ago."""
    found = _sealed().unseal(request.cookies.get(_cookie_name(), "")[:_LONGEST])
    if found is None or int(services().clock()) - int(found["at"]) >= SECONDS:
        return None
    return found


def _counted(error: SignInRefused) -> SignInRefused:
    """Count what was tried in vain, and return *error*; raise AdminThrottled if it was too much."""
    guard().count(request.remote_addr or "")
    return error


def _problem(error: GatewayError) -> BaseResponse:
    form = Form()
    form.status, form.problem = error.status, str(error)
    if error.retry_after is not None:
        form.problem += f" Try again in {error.retry_after} s."
    response = sign_in_form(form)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _provider() -> OpenIDProvider:
    provider = services().provider
    if provider is None:
        raise NotFound(_NO_PROVIDER)
    return provider


def _redirect_uri() -> str:
    return f"{public_address()}/dashboard/sign-in/callback"


def _sealed() -> DashboardSessions:
    return cast(DashboardSessions, current_app.session_interface)


def _cookie_name() -> str:
    return f"{_sealed().get_cookie_name(current_app)}-in"


@sessions.resumes(Kind.PERSON)
def _person(session: Any) -> Visitor | None:
    identities = services().identities
    identity = identities.find(session["identity"])
    if identity is None or not identities.may_enter(identity):
        return None
    rights = identities.rights(identity)
    return Visitor(
        kind=Kind.PERSON,
        name=identity.user or identity.claimed,
        admin=identities.admin(identity, rights),
        user=identity.user,
        groups=rights.member_of,
        waiting=identity.user is None,
    )
