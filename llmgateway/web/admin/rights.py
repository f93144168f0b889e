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

RIGHTS: dict[str, Roles] = {
    # The five of existing deployments.
    "POST /admin/setllmkey": WRITERS,
    "POST /admin/addapikey": GROUP_WRITERS,
    "POST /admin/setprompt": WRITERS,
    "POST /admin/removeapikey": GROUP_WRITERS,
    "GET /admin/listkeys": GROUP_READERS,
    # Admins.
    "GET /admin/admins": OWNERS,
    "POST /admin/admins": OWNERS,
    "GET /admin/admins/<admin_id>": OWNERS,
    "PATCH /admin/admins/<admin_id>": OWNERS,
    "DELETE /admin/admins/<admin_id>": OWNERS,
    "POST /admin/admins/<admin_id>/rotate": OWNERS,
    # Keys.
    "GET /admin/keys": GROUP_READERS,
    "POST /admin/keys": GROUP_WRITERS,
    "GET /admin/keys/<key_id>": GROUP_READERS,
    "PATCH /admin/keys/<key_id>": GROUP_WRITERS,
    "DELETE /admin/keys/<key_id>": GROUP_WRITERS,
    "POST /admin/keys/<key_id>/rotate": GROUP_WRITERS,
    "POST /admin/keys/import": GROUP_WRITERS,
    # Groups. An admin of the role ``group`` may change the note alone.
    "GET /admin/groups": GROUP_READERS,
    "GET /admin/groups/<name>": GROUP_READERS,
    "PUT /admin/groups/<name>": WRITERS,
    "PATCH /admin/groups/<name>": GROUP_WRITERS,
    "DELETE /admin/groups/<name>": WRITERS,
    "POST /admin/groups/<name>/revoke": GROUP_WRITERS,
    # What holds for everybody.
    "GET /admin/limits": READERS,
    "PUT /admin/limits": WRITERS,
    "PATCH /admin/limits": WRITERS,
    # Prompts, also those of groups and keys.
    "GET /admin/prompt": GROUP_READERS,
    "PUT /admin/prompt": GROUP_WRITERS,
    "DELETE /admin/prompt": GROUP_WRITERS,
    "GET /admin/prompt/versions": GROUP_READERS,
    "POST /admin/prompt/preview": GROUP_READERS,  # changes nothing
    # Models and deployments.
    "GET /admin/models": READERS,
    "GET /admin/models/<path:name>": READERS,
    "PUT /admin/models/<path:name>": WRITERS,
    "DELETE /admin/models/<path:name>": WRITERS,
    "POST /admin/models/import": WRITERS,
    "POST /admin/doctor": WRITERS,  # sends requests to Azure
    # Reports.
    "GET /admin/usage": GROUP_READERS,
    "GET /admin/usage/filters": GROUP_READERS,
    "GET /admin/logs": GROUP_READERS,
    "GET /admin/audit": GROUP_READERS,
    "GET /admin/status": READERS,
    "GET /metrics": SCRAPERS,
}
"""The roles that may call each endpoint. ``HEAD`` needs the right of ``GET``."""


def check_right(admin: Admin, method: str, rule: str) -> None:
    """Check that *admin* may call the endpoint of this *rule*; an owner may call also one that is not in the table.

    Raises:
        Forbidden: the message names the roles that may.
    """
    if method == "OPTIONS":  # says only which methods there are
        return
    method = "GET" if method == "HEAD" else method
    allowed = RIGHTS.get(f"{method} {rule}", OWNERS)
    if admin.role in allowed:
        return
    roles = " or ".join(role.value for role in Role if role in allowed)
    raise Forbidden(f"Your role is {admin.role.value!r}. For this it must be {roles}: ask an owner of this gateway.")
