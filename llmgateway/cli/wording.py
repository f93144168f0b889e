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
    "GET /admin/status": "status",
}
"""The command for each endpoint that an error of the gateway may name. ``{}`` is any one part of a path."""

_ENDPOINT = re.compile(r"`?(GET|POST|PUT|PATCH|DELETE) (/admin(?:/[\w{}-]+)*)(\?[\w=&]+)?`?")
_ALREADY = re.compile(r"(, or|\(or) '?llmgateway [a-z -]+'?\)?")
_FIELD = re.compile(r"(requests_per_minute|tokens_per_minute|parallel_requests|expires_at|starts_at)\b")
_PARAMETER = re.compile(r"\b(?:(map|existing|dates|decimal|sheet|group)=|(ignore_other_columns)=true)")


def for_terminal(message: str) -> str:
    """Return *message* with the names that somebody in front of a terminal uses."""
    message = _PARAMETER.sub(_parameter, message)
    if not _ENDPOINT.search(message):
        return _FIELD.sub(_option, message)
    # The gateway names some commands itself, after the endpoint.
    return _FIELD.sub(_option, _ENDPOINT.sub(_command, _ALREADY.sub("", message)))


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
