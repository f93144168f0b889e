"""The dashboard: pages for admins, made of the admin API, and for people who look after their own keys."""

from . import (  # noqa: F401
    admins,
    alerts,
    audit,
    class_lists,
    exports,
    first_run,
    groups,
    keys,
    keys_bulk,
    limits,
    me,
    models,
    one_time,
    overview,
    parts,
    people,
    prompts,
    provider_sign_in,
    reconcile,
    requests,
    self_service,
    settings,
    sign_in,
    sign_in_rules,
    statements,
)
from .blueprint import blp, register

__all__ = ["blp", "register"]
