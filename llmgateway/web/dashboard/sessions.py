"""Who is signed in: a signed cookie that names a credential, which is checked again for every page.

The cookie holds no key: it says who it was that signed in, and has a mark of the credential. A key that was blocked,
removed or replaced, and a right that was taken away, end what the session may do with the next page.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from flask import Flask, Request, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from itsdangerous import URLSafeTimedSerializer

from ...accounts.admins import Admin
from ..context import services

IDLE_SECONDS = 3600
"""How long a session lasts without a request."""
LONGEST_SECONDS = 12 * 3600
"""How long a session lasts at all."""
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


def begin(kind: Kind, **credential: Any) -> None:
    """Begin a session, in place of any other that the browser has.

    Args:
        credential: What :data:`Resume` needs to check it again, as JSON. No secret: the cookie is not encrypted.
    """
    now = int(services().clock())
    session.clear()
    session.update(credential | {"kind": kind, "id": secrets.token_urlsafe(12), "begun": now, "seen": now})


def end() -> None:
    """End the session of this browser."""
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
    if now - session["seen"] >= IDLE_SECONDS or now - session["begun"] >= LONGEST_SECONDS:
        end()
        return None
    found = resume(session)
    if found is None:
        end()
    elif now - session["seen"] >= _RENEW_SECONDS:
        session["seen"] = now
    return found


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
        return request.is_secure
