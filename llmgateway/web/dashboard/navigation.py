"""The pages that there are, in the order in which they are listed, and who sees them."""

from __future__ import annotations

from dataclasses import dataclass

from ...accounts.admins import Admin
from ..admin.rights import may
from .sessions import Visitor


@dataclass(frozen=True, slots=True)
class Entry:
    """A page in the navigation."""

    endpoint: str
    label: str
    rule: str
    """The address of the admin API that the page is made of: those who may not read it do not see the page."""
    method: str = "GET"


MAIN = (
    Entry(".overview", "Overview", "/admin/usage"),
    Entry(".requests", "Requests", "/admin/logs"),
    Entry(".keys", "Keys", "/admin/keys"),
    Entry(".people", "People", "/admin/users"),
    Entry(".groups", "Groups", "/admin/groups"),
    Entry(".models", "Models", "/admin/models"),
    Entry(".prompts", "Prompts", "/admin/prompt"),
    Entry(".limits", "Limits", "/admin/limits"),
    Entry(".alerts", "Alerts", "/admin/alerts"),
    Entry(".audit", "Audit", "/admin/audit"),
)
MORE = (
    Entry(".statements", "Statements", "/admin/groups/<name>/statement"),
    Entry(".class_lists", "Class lists", "/admin/keys/import", "POST"),
    Entry(".reconcile", "Reconcile", "/admin/reconcile", "POST"),
    Entry(".admins", "Admins", "/admin/admins"),
    Entry(".sign_in_rules", "Sign-in", "/admin/sign-in"),
    Entry(".self_service", "Self-service", "/admin/self-service"),
    Entry(".settings", "Settings", "/admin/settings"),
)
"""Behind "More": what is needed less often."""


def entries(visitor: Visitor) -> tuple[list[Entry], list[Entry]]:
    """Return the entries of the navigation that this visitor sees, and those behind "More"."""
    main = [Entry(".me", "My keys", "")] if visitor.user is not None else []
    if visitor.admin is None:
        return main, []

    def seen(entry: Entry, admin: Admin = visitor.admin) -> bool:
        return may(admin, entry.method, entry.rule)

    return [*main, *filter(seen, MAIN)], list(filter(seen, MORE))
