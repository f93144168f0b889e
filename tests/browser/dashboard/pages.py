"""Every page that there is, and an address at which it has something to show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

Ask = Callable[[str], Any]

NO_PAGES = {
    "dashboard.static_file",
    "dashboard.unknown",
    "dashboard.one_time",
    "dashboard.people_list",
    "dashboard.requests_list",
}
"""What is answered with a file or a redirect, or is nobody's."""


def _busiest_key(ask: Ask) -> dict[str, Any]:
    (row,) = ask("usage?by=key&group=law-lab&start=2020-01-01")["rows"][:1]
    key: dict[str, Any] = ask(f"keys/{row['key']}")
    return key


def _record(ask: Ask) -> str:
    record: str = next(each["id"] for each in ask("logs?model=gpt-4o&limit=200")["items"] if len(each["attempts"]) > 1)
    return record


def _query(path: str, **values: str) -> str:
    return f"{path}?{urlencode(values)}"


PAGES: dict[str, Callable[[Ask], str]] = {
    "dashboard.overview": lambda _: "",
    "dashboard.parts": lambda _: "parts",
    "dashboard.sign_in": lambda _: "sign-in",
    "dashboard.first_run": lambda _: "first-run",
    "dashboard.keys": lambda _: "keys",
    "dashboard.key": lambda ask: f"keys/{_busiest_key(ask)['id']}",
    "dashboard.people": lambda _: "people",
    "dashboard.person": lambda ask: f"people/{quote(_busiest_key(ask)['user'])}",
    "dashboard.groups": lambda _: "groups",
    "dashboard.group": lambda _: "groups/ml-2026",
    "dashboard.requests": lambda _: "requests",
    "dashboard.request": lambda ask: f"requests/{_record(ask)}",
    "dashboard.audit": lambda _: "audit",
    "dashboard.admins": lambda _: "admins",
    "dashboard.admins_new": lambda _: "admins/new",
    "dashboard.admins_one": lambda ask: f"admins/{ask('admins')['items'][0]['id']}",
    "dashboard.alerts": lambda _: "alerts",
    "dashboard.alerts_settings": lambda _: "alerts/settings",
    "dashboard.limits": lambda _: "limits",
    "dashboard.models": lambda _: "models",
    "dashboard.models_one": lambda _: _query("models/one", name="gpt-4o"),
    "dashboard.models_import": lambda _: "models/import",
    "dashboard.prompts": lambda _: "prompts",
    "dashboard.prompts_one": lambda _: _query("prompts/one", group="law-lab"),
    "dashboard.prompts_preview": lambda _: "prompts/preview",
    "dashboard.class_lists": lambda _: "class-lists",
    "dashboard.self_service": lambda _: "self-service",
    "dashboard.settings": lambda _: "settings",
    "dashboard.statements": lambda _: "statements",
    "dashboard.statements_group": lambda _: _query("statements/group", name="ml-2026"),
    "dashboard.statements_person": lambda ask: _query("statements/person", user=_busiest_key(ask)["user"]),
    "dashboard.me": lambda _: "me",
    "dashboard.me_requests": lambda _: "me/requests",
    "dashboard.me_new": lambda _: "me/new",
    "dashboard.me_key": lambda ask: f"me/keys/{_busiest_key(ask)['id']}",
}
"""By endpoint: the address below ``/dashboard/``."""

PERSONAL = {"dashboard.me", "dashboard.me_requests", "dashboard.me_new", "dashboard.me_key"}
"""Pages of somebody who is no admin, and has signed in with a key of their own."""
NOBODYS = {"dashboard.sign_in"}
"""Pages of those who are not signed in."""
