"""Who may do what: the rights of each role at each endpoint, in one table.

It says whether a role may call an endpoint at all. What an admin of the role ``group`` may name there, and what the
answer contains, is in ``reach.py``.
"""

from __future__ import annotations

from ...accounts.admins import Admin
from ...errors import Forbidden
from ...records import Role

Roles = frozenset[Role]

OWNERS = frozenset({Role.OWNER})
WRITERS = OWNERS | {Role.ADMIN}
READERS = WRITERS | {Role.VIEWER}
GROUP_WRITERS = WRITERS | {Role.GROUP}
GROUP_READERS = READERS | {Role.GROUP}
SCRAPERS = READERS | {Role.METRICS}

RIGHTS: dict[str, dict[str, Roles]] = {
    # The five of existing deployments.
    "/admin/setllmkey": {"POST": WRITERS},
    "/admin/addapikey": {"POST": GROUP_WRITERS},
    "/admin/setprompt": {"POST": WRITERS},
    "/admin/removeapikey": {"POST": GROUP_WRITERS},
    "/admin/listkeys": {"GET": GROUP_READERS},
    # Admins.
    "/admin/admins": {"GET": OWNERS, "POST": OWNERS},
    "/admin/admins/<admin_id>": {"GET": OWNERS, "PATCH": OWNERS, "DELETE": OWNERS},
    "/admin/admins/<admin_id>/rotate": {"POST": OWNERS},
    # Signing in. Rules can make somebody an owner.
    "/admin/sign-in": {"GET": READERS, "PUT": OWNERS},
    "/admin/identities": {"GET": READERS},
    "/admin/identities/<identity_id>": {"GET": READERS, "PATCH": WRITERS, "DELETE": WRITERS},
    "/admin/sessions/end": {"POST": OWNERS},
    # Keys.
    "/admin/keys": {"GET": GROUP_READERS, "POST": GROUP_WRITERS},
    "/admin/keys/<key_id>": {"GET": GROUP_READERS, "PATCH": GROUP_WRITERS, "DELETE": GROUP_WRITERS},
    "/admin/keys/<key_id>/rotate": {"POST": GROUP_WRITERS},
    "/admin/keys/import": {"POST": GROUP_WRITERS},
    "/admin/keys/bulk": {"POST": GROUP_WRITERS},
    # Groups. An admin of the role ``group`` may change the note alone.
    "/admin/groups": {"GET": GROUP_READERS},
    "/admin/groups/<name>": {"GET": GROUP_READERS, "PUT": WRITERS, "PATCH": GROUP_WRITERS, "DELETE": WRITERS},
    "/admin/groups/<name>/revoke": {"POST": GROUP_WRITERS},
    "/admin/groups/<name>/close": {"POST": GROUP_WRITERS},
    "/admin/groups/<name>/statement": {"GET": GROUP_READERS},
    "/admin/groups/<name>/raise": {"POST": WRITERS, "DELETE": WRITERS},
    "/admin/keys/<key_id>/raise": {"POST": GROUP_WRITERS, "DELETE": GROUP_WRITERS},
    # People, who may have keys in several groups.
    "/admin/users": {"GET": READERS},
    "/admin/users/<path:user>": {"GET": READERS, "PUT": WRITERS, "PATCH": WRITERS, "DELETE": WRITERS},
    "/admin/users/<path:user>/raise": {"POST": WRITERS, "DELETE": WRITERS},
    "/admin/users/<path:user>/export": {"GET": WRITERS},
    "/admin/users/<path:user>/erase": {"POST": WRITERS},
    # What holds for everybody.
    "/admin/settings": {"GET": READERS, "PUT": WRITERS},
    "/admin/self-service": {"GET": READERS, "PUT": WRITERS},
    "/admin/alerts": {"GET": READERS, "PUT": WRITERS},
    "/admin/alerts/fired": {"GET": READERS},
    "/admin/alerts/test": {"POST": WRITERS},
    "/admin/currency": {"GET": READERS, "PUT": WRITERS, "PATCH": WRITERS},
    "/admin/limits": {"GET": READERS, "PUT": WRITERS, "PATCH": WRITERS},
    # Prompts, also those of groups and keys.
    "/admin/prompt": {"GET": GROUP_READERS, "PUT": GROUP_WRITERS, "DELETE": GROUP_WRITERS},
    "/admin/prompts": {"GET": GROUP_READERS},
    "/admin/prompt/versions": {"GET": GROUP_READERS},
    "/admin/prompt/preview": {"POST": GROUP_READERS},  # changes nothing
    # Models and deployments.
    "/admin/models": {"GET": READERS},
    "/admin/models/<path:name>": {"GET": READERS, "PUT": WRITERS, "DELETE": WRITERS},
    "/admin/prices": {"GET": READERS},
    "/admin/models/import": {"POST": WRITERS},
    "/admin/doctor": {"POST": WRITERS},  # sends requests to Azure
    # Reports.
    "/admin/usage": {"GET": GROUP_READERS},
    "/admin/usage/filters": {"GET": GROUP_READERS},
    "/admin/usage/latency": {"GET": GROUP_READERS},
    "/admin/usage/hours": {"GET": GROUP_READERS},
    "/admin/usage/refusals": {"GET": GROUP_READERS},
    "/admin/reconcile": {"POST": READERS},  # changes nothing
    "/admin/statements/<month>": {"GET": READERS},
    "/admin/logs": {"GET": GROUP_READERS},
    "/admin/logs/<request_id>": {"GET": GROUP_READERS},
    "/admin/audit": {"GET": GROUP_READERS},
    "/admin/status": {"GET": READERS},
    "/metrics": {"GET": SCRAPERS},
}
"""The roles that may call each endpoint, by rule and method. ``HEAD`` needs the right of ``GET``."""


def may(admin: Admin, method: str, rule: str) -> bool:
    """Return whether *admin* may call the endpoint of this *rule*, as :func:`check_right` checks."""
    return admin.role in _allowed(method, rule)


def check_right(admin: Admin, method: str, rule: str) -> None:
    """Check that *admin* may call the endpoint of this *rule*; an owner may call also one that is not in the table.

    Raises:
        Forbidden: the message names the roles that may.
    """
    if method == "OPTIONS":  # says only which methods there are
        return
    allowed = _allowed(method, rule)
    if admin.role in allowed:
        return
    *others, last = (role.value for role in Role if role in allowed)
    roles = f"{', '.join(others)} or {last}" if others else last
    raise Forbidden(f"Your role is {admin.role.value!r}. For this it must be {roles}: ask an owner of this gateway.")


def _allowed(method: str, rule: str) -> Roles:
    return RIGHTS.get(rule, {}).get("GET" if method == "HEAD" else method, OWNERS)
