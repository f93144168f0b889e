"""Who is signed in: a signed cookie that names a credential, which is checked again for every page.

The cookie holds no key: it says who it was that signed in, and has a mark of the credential. A key that was blocked,
removed or replaced, and a right that was taken away, end what the session may do with the next page.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from flask import Flask, Request, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from itsdangerous import BadData, URLSafeSerializer, URLSafeTimedSerializer

from ...accounts.admins import Admin
from ..context import services

_RENEW_SECONDS = 60
"""How old the time of the last request in the cookie may be: it is not sent anew with each page."""

_SALT = b"llmgateway dashboard sessions v1"
_PATH = "/dashboard"


class Kind(StrEnum):
    """With what somebody has signed in."""

    OWNER = "owner"
    """The ``ADMIN_KEY`` of the settings."""
    ADMIN = "admin"
    """The key of a named admin."""
    PERSON = "person"
    """An account at the organisation's OpenID provider."""
    KEY = "key"
    """A key for models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who looks at the pages."""

    kind: Kind
    name: str
    """For the head of the page."""
    admin: Admin | None = None
    """In whose name the pages use the admin API; None for those who see their own page only."""
    user: str | None = None
    """Whose page "My keys" is; None for admins who are nobody else."""
    groups: tuple[str, ...] = ()
    """Of :attr:`Kind.PERSON`: groups that the person belongs to by the rules for signing in."""
    waiting: bool = False
    """Of :attr:`Kind.PERSON`: whether an admin has to say whose keys the account has."""
    key_id: str | None = None
    """Of :attr:`Kind.KEY`: the key, the only one that may be seen."""


Resume = Callable[[Any], Visitor | None]
"""Called with the session for each page: returns who it is now; None if the credential is not valid any more."""

_RESUME: dict[str, Resume] = {}


def resumes(kind: Kind) -> Callable[[Resume], Resume]:
    """Register what checks sessions of this *kind*."""

    def register(resume: Resume) -> Resume:
        _RESUME[kind] = resume
        return resume

    return register


def begin(kind: Kind, of: str, **credential: Any) -> None:
    """Begin a session, in place of any other that the browser has.

    Args:
        of: Whose sessions end when somebody is signed out everywhere: ``owner``, or the identifier of the admin, the
            account or the key.
        credential: What :data:`Resume` needs to check it again, as JSON. No secret: the cookie is not encrypted.
    """
    now, marks = int(services().clock()), services().sessions.mark(of)
    session.clear()
    # A new identifier: whatever another site or another person has put into this browser before is worth nothing.
    session.update(credential | {"kind": kind, "of": of, "marks": marks, "id": secrets.token_urlsafe(12)})
    session.update({"begun": now, "seen": now})


def end() -> None:
    """End the session of this browser, and every copy of it."""
    if "id" in session:
        services().sessions.end(session["id"])
    session.clear()


def end_everywhere() -> None:
    """End all sessions of whoever has this one."""
    services().sessions.end_all_of(session["of"])
    session.clear()


def visitor() -> Visitor | None:
    """Return who sends the current request; None if nobody is signed in, or not any more.

    Raises:
        StoreUnavailable: whether the credential is still valid cannot be said.
    """
    resume = _RESUME.get(session.get("kind", ""))
    if resume is None:
        return None
    now = int(services().clock())
    found = resume(session) if _is_valid(now) else None
    if found is None:
        session.clear()
    elif now - session["seen"] >= _RENEW_SECONDS:
        session["seen"] = now
    return found


def _is_valid(now: int) -> bool:
    settings = services().settings
    if now - session["seen"] >= settings.session_idle_minutes * 60:
        return False
    if now - session["begun"] >= settings.session_hours * 3600:
        return False
    return services().sessions.is_valid(session["id"], session.get("of", ""), session.get("marks", ""))


class DashboardSessions(SecureCookieSessionInterface):
    """Flask's signed cookie, for the pages only: requests of users and programs have no session.

    Args:
        secret: Whoever has a cookie can try secrets that a person has chosen, but with scrypt's cost.
    """

    digest_method = staticmethod(hashlib.sha256)

    def __init__(self, secret: str) -> None:
        self._secret = secret

    @cached_property
    def _key(self) -> bytes:
        return hashlib.scrypt(self._secret.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=32)

    @cached_property
    def _serializer(self) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(
            self._key,
            salt="session",
            serializer=self.serializer,
            signer_kwargs={"key_derivation": self.key_derivation, "digest_method": self.digest_method},
        )

    def seal(self, values: Mapping[str, str]) -> str:
        """Sign *values* for a cookie of their own, which is no session."""
        return self._sealing.dumps(dict(values))

    def unseal(self, text: str) -> Mapping[str, str] | None:
        """Return what was sealed; None if it was not sealed here."""
        try:
            found: Mapping[str, str] = self._sealing.loads(text)
        except BadData:
            return None
        return found

    @cached_property
    def _sealing(self) -> URLSafeSerializer:
        return URLSafeSerializer(
            self._key, salt="sign-in", signer_kwargs={"key_derivation": "hmac", "digest_method": self.digest_method}
        )

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if request.path != _PATH and not request.path.startswith(f"{_PATH}/"):
            return None
        return super().open_session(app, request)

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:  # noqa: ARG002 - Flask's
        return self._serializer

    def get_cookie_name(self, app: Flask) -> str:  # noqa: ARG002 - Flask's
        # Cookies know no ports, and gateways below other paths may share the host.
        return f"llmgateway-{hmac.new(self._key, b'name', 'sha256').hexdigest()[:8]}"

    def get_cookie_samesite(self, app: Flask) -> str:  # noqa: ARG002 - Flask's
        return "Lax"

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - Flask's
        return is_secure()


def is_secure() -> bool:
    """Whether the browser reaches this page by https, perhaps through a proxy that does not say so."""
    return request.is_secure or (services().settings.public_url or "").startswith("https://")
