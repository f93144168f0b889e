"""Signing in with the link that ``llmgateway try`` prints."""

from __future__ import annotations

from flask import Flask, current_app, request
from werkzeug.wrappers import Response as BaseResponse

from ...accounts.admins import first_owner
from ...accounts.one_time import OneTimeLink
from ...clock import Clock
from . import sessions
from .blueprint import PUBLIC, blp, notice
from .links import to
from .sessions import Kind

PUBLIC |= {"dashboard.one_time"}

_LINK = "llmgateway-one-time-link"
_USED = "This link was used already, or its ten minutes are over. Sign in with the admin key that came with it."


def offer(app: Flask, admin_key: str, *, clock: Clock) -> str:
    """Return the path of a link that lets the owner with this key in. Without this call, no address does."""
    app.extensions[_LINK] = link = OneTimeLink(first_owner(admin_key).key_id, clock=clock)
    return f"{blp.url_prefix}/one-time/{link.issue()}"


@blp.get("/one-time/<token>")
def one_time(token: str) -> BaseResponse:
    """Begin the session of the owner. Pages have the address at which they are, so none is shown here."""
    link: OneTimeLink | None = current_app.extensions.get(_LINK)
    # HEAD is what programs ask that look at links; it must not use them up.
    key_id = link.redeem(token, request.remote_addr or "") if link is not None and request.method == "GET" else None
    if key_id is None:
        notice(_USED)
        return to(".sign_in")
    sessions.begin(Kind.OWNER, "owner", mark=key_id)
    return to(".overview")
