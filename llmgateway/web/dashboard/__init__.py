"""The dashboard: pages for admins, made of the admin API, and for people who look after their own keys."""

from . import (  # noqa: F401
    admins,
    alerts,
    audit,
    keys,
    limits,
    me,
    models,
    one_time,
    overview,
    parts,
    prompts,
    reconcile,
    requests,
    settings,
    sign_in,
)
from .blueprint import blp, register

__all__ = ["blp", "register"]
