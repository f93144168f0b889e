"""Which provider signs people in, and who we are there. This module imports no driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

SCOPES = ("openid", "profile", "email")

OFFLINE = "offline_access"
"""The scope for a refresh token that works while nobody is there. It is asked for if the provider has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """The provider, and our account there. ``repr()`` shows no secret."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...] | None = None
    """None for :data:`SCOPES`, with :data:`OFFLINE` if the provider has it."""


def missing_extra() -> str | None:
    """Return what to do if the extra is not installed, without importing it."""
    if find_spec("authlib") is None or find_spec("joserfc") is None:
        return "OIDC_ISSUER needs the extra oidc: pip install 'llmgateway[oidc]'."
    return None
