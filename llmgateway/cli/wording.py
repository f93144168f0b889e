"""The gateway's words for the command line: commands and options in place of HTTP methods and fields."""

from __future__ import annotations

import re
from collections.abc import Mapping

COMMANDS: Mapping[str, str] = {
    "GET /admin/keys": "keys list",
    "POST /admin/keys": "keys add",
    "GET /admin/keys/{}": "keys show",
    "PATCH /admin/keys/{}": "keys set",
    "DELETE /admin/keys/{}": "keys remove",
    "POST /admin/keys/{}/rotate": "keys rotate",
    "POST /admin/keys/import": "keys import",
    "GET /admin/groups": "groups list",
    "GET /admin/groups/{}": "groups show",
    "PUT /admin/groups/{}": "groups set",
    "PATCH /admin/groups/{}": "groups set",
    "DELETE /admin/groups/{}": "groups remove",
    "POST /admin/groups/{}/revoke": "groups revoke",
    "POST /admin/keys/{}/raise": "keys raise",
    "DELETE /admin/keys/{}/raise": "keys raise",
    "POST /admin/groups/{}/raise": "groups raise",
    "DELETE /admin/groups/{}/raise": "groups raise",
    "GET /admin/users": "users list",
    "GET /admin/users/{}": "users show",
    "PUT /admin/users/{}": "users limits",
    "PATCH /admin/users/{}": "users limits",
    "DELETE /admin/users/{}": "users reset",
    "POST /admin/users/{}/raise": "users raise",
    "DELETE /admin/users/{}/raise": "users raise",
    "GET /admin/settings": "settings show",
    "PUT /admin/settings": "settings set",
    "GET /admin/self-service": "settings self-service",
    "PUT /admin/self-service": "settings self-service",
    "POST /admin/groups/{}/close": "groups close",
    "POST /admin/keys/bulk": "keys bulk",
    "GET /admin/users/{}/export": "users export",
    "POST /admin/users/{}/erase": "users erase",
    "GET /admin/models": "models list",
    "PUT /admin/models/{}": "models set",
    "DELETE /admin/models/{}": "models remove",
    "PUT /admin/limits": "limits set",
    "PATCH /admin/limits": "limits set",
    "GET /admin/limits": "limits show",
    "PUT /admin/prompt": "prompt set",
    "POST /admin/setprompt": "prompt set",
    "POST /admin/setllmkey": "llm-key set",
    "POST /admin/doctor": "doctor",
    "GET /admin/groups/{}/statement": "groups statement",
    "GET /admin/statements/{}": "statement",
    "GET /admin/currency": "currency show",
    "PUT /admin/currency": "currency set",
    "PATCH /admin/currency": "currency set",
    "GET /admin/usage": "usage",
    "GET /admin/usage/filters": "filters",
    "GET /admin/alerts": "alerts show",
    "PUT /admin/alerts": "alerts set",
    "POST /admin/alerts/test": "alerts test",
    "GET /admin/logs": "logs list",
    "GET /admin/logs/{}": "logs show",
    "GET /admin/audit": "audit",
    "GET /admin/admins": "admins list",
    "POST /admin/admins": "admins add",
    "GET /admin/admins/{}": "admins show",
    "PATCH /admin/admins/{}": "admins set",
    "DELETE /admin/admins/{}": "admins remove",
    "POST /admin/admins/{}/rotate": "admins rotate",
    "GET /admin/identities": "accounts list",
    "GET /admin/identities/{}": "accounts show",
    "PATCH /admin/identities/{}": "accounts set",
    "DELETE /admin/identities/{}": "accounts remove",
    "GET /admin/status": "status",
}
"""The command for each endpoint that an error of the gateway may name. ``{}`` is any one part of a path."""

_ENDPOINT = re.compile(r"`?(GET|POST|PUT|PATCH|DELETE) (/admin(?:/[\w{}-]+)*)(\?[\w=&]+)?`?")
_ALREADY = re.compile(r"(, or|\(or) '?llmgateway [a-z -]+'?\)?")
_FIELD = re.compile(r"(requests_per_minute|tokens_per_minute|parallel_requests|expires_at|starts_at)\b")
_PARAMETER = re.compile(r"\b(?:(map|existing|dates|decimal|sheet|group)=|(ignore_other_columns)=true)")
_PHRASES = (
    (r"These fields are not right: .*\. 'errors' says why\.", "This was refused, and nothing was changed."),
    (r"; 'errors' says why( \(of the first \d+\))?\. ", r"\1. "),
    (r"block the key \('active': false\)", "block the key"),
)
"""What only a reader of JSON understands, and what takes its place."""
_OPTIONS_ONLY = (
    (r"\bfor no limit, send null\b", "for no limit, say none"),
    (r"(, or a date like [\d-]+ \((?:from|until) [^)]*\))\.", r"\1, or like today, 3h, 2d."),
)
_COLUMNS_ONLY = ((r"\bfor no limit, send null\b", "for no limit, leave the cell empty"),)
_PARTS_OF_A_BUDGET = ("amount", "unit", "period")


def for_terminal(message: str, *, is_about_columns: bool = False) -> str:
    """Return *message* with the names that somebody in front of a terminal uses.

    Args:
        is_about_columns: Whether fields are columns of a file, whose names stay as they are.
    """
    message = _PARAMETER.sub(_parameter, message)
    for phrase, instead in (*_PHRASES, *(_COLUMNS_ONLY if is_about_columns else _OPTIONS_ONLY)):
        message = re.sub(phrase, instead, message)
    if _ENDPOINT.search(message):
        # The gateway names some commands itself, after the endpoint.
        message = _ENDPOINT.sub(_command, _ALREADY.sub("", message))
    return message if is_about_columns else _FIELD.sub(_option, message)


def option_for(where: str, options: Mapping[str, str]) -> str:
    """Return the option that sets the field *where* (``limits.budget.amount``); *where* itself if there is none.

    Args:
        options: The options of the command, by the names of their parameters.
    """
    parts = [part for part in where.split(".") if not part.isdecimal()]
    if len(parts) > 1 and parts[-1] in _PARTS_OF_A_BUDGET:
        parts.pop()
    if parts[0] == "changes" and "to" in options:
        return options["to"]
    if len(parts) > 1 and parts[0] in ("limits", "filter", "keys"):
        parts = parts[1:]
    name = f"member_{parts[-1]}" if len(parts) > 1 and parts[0] == "member_limits" else ".".join(parts)
    return options.get(name, where)


def command_for(method: str, path: str) -> str | None:
    """Return the command that calls an endpoint; None if there is none of its own."""
    parts = path.split("/")
    for endpoint, command in COMMANDS.items():
        known_method, _, known_path = endpoint.partition(" ")
        known = known_path.split("/")
        if method != known_method or len(known) != len(parts):
            continue
        if all(one in ("{}", other) for one, other in zip(known, parts, strict=True)):
            return command
    return None


def _command(found: re.Match[str]) -> str:
    command = command_for(found[1], found[2])
    return found[0] if command is None else f"'llmgateway {command}'"


def _option(found: re.Match[str]) -> str:
    return f"--{found[1].replace('_', '-')}"


def _parameter(found: re.Match[str]) -> str:
    return "--ignore-other-columns" if found[2] else f"--{found[1]} "
