"""Every page that there is, and an address at which it has something to show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

Ask = Callable[[str], Any]

NO_PAGES = {
    "dashboard.static_file",
    "dashboard.unknown",
    "dashboard.one_time",
    "dashboard.keys_export",
    "dashboard.people_export",
    "dashboard.provider_start",
    "dashboard.provider_callback",
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


def _key(path: str) -> Callable[[Ask], str]:
    return lambda ask: path.format(_busiest_key(ask)["id"])


def _person(path: str) -> Callable[[Ask], str]:
    return lambda ask: _query(path, user=_busiest_key(ask)["user"])


def _group(path: str) -> Callable[[Ask], str]:
    return lambda _: _query(path, name="law-lab")


PAGES: dict[str, Callable[[Ask], str]] = {
    "dashboard.overview": lambda _: "",
    "dashboard.parts": lambda _: "parts",
    "dashboard.sign_in": lambda _: "sign-in",
    "dashboard.account": lambda _: "account",
    "dashboard.first_run": lambda _: "first-run",
    "dashboard.keys": lambda _: "keys",
    "dashboard.keys_new": lambda _: "keys/new",
    "dashboard.keys_bulk": lambda _: "keys/bulk",
    "dashboard.keys_one": _key("keys/{}"),
    "dashboard.keys_raise": _key("keys/{}/raise"),
    "dashboard.class_lists": lambda _: "class-lists",
    "dashboard.people": lambda _: "people",
    "dashboard.people_one": _person("people/person"),
    "dashboard.people_raise": _person("people/person/raise"),
    "dashboard.people_erase": _person("people/person/erase"),
    "dashboard.groups": lambda _: "groups",
    "dashboard.groups_new": lambda _: "groups/new",
    "dashboard.groups_one": _group("groups/group"),
    "dashboard.groups_raise": _group("groups/group/raise"),
    "dashboard.groups_close": _group("groups/group/close"),
    "dashboard.statements": lambda _: "statements",
    "dashboard.statements_group": _group("statements/group"),
    "dashboard.statements_person": _person("statements/person"),
    "dashboard.reconcile": lambda _: "reconcile",
    "dashboard.requests": lambda _: "requests",
    "dashboard.requests_one": lambda ask: f"requests/{_record(ask)}",
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
    "dashboard.self_service": lambda _: "self-service",
    "dashboard.settings": lambda _: "settings",
    "dashboard.sign_in_rules": lambda _: "sign-in-rules",
    "dashboard.sign_in_rules_accounts": lambda _: "sign-in-rules/accounts",
    "dashboard.sign_in_rules_account": lambda ask: f"sign-in-rules/accounts/{ask('identities')['items'][0]['id']}",
    "dashboard.me": lambda _: "me",
    "dashboard.me_requests": lambda _: "me/requests",
    "dashboard.me_new": lambda _: "me/new",
    "dashboard.me_key": lambda ask: f"me/keys/{ask('keys?user=Grace%20Hopper')['items'][0]['id']}",
}
"""By endpoint: the address below ``/dashboard/``."""

PERSONAL = {"dashboard.account", "dashboard.me", "dashboard.me_requests", "dashboard.me_key"}
"""Pages of somebody who is no admin, and has signed in with a key of their own."""
OF_ACCOUNTS = {"dashboard.me_new"}
"""Pages of those who have signed in at the organisation's provider."""
NOBODYS = {"dashboard.sign_in"}
"""Pages of those who are not signed in."""
