"""The dashboard: pages for admins, made of the admin API, and for people who look after their own keys."""

from . import admins, keys, limits, overview, parts, provider_sign_in, sign_in  # noqa: F401
from .blueprint import blp, register

__all__ = ["blp", "register"]
