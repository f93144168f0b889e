"""The blueprint of the admin API, which checks the admin key."""

from __future__ import annotations

from flask import Response, current_app, request

from .. import examples
from ..blueprint import Blueprint
from ..context import is_preflight
from ..guard import AdminGuard

GUARD = "llmgateway.admin_guard"

blp = Blueprint(
    "admin",
    __name__,
    url_prefix="/admin",
    description=(
        "Keys, groups, limits, prompts, Azure's key and reports, for those who have the admin key. Changes hold at "
        "once, and each leaves an entry in `GET /admin/audit`."
    ),
    key="adminKey",
    refusals=("InvalidAdminKey", "AdminThrottled", "StoreUnavailable"),
)

KEY_ID_IN_PATH = {
    "in": "path",
    "name": "key_id",
    "description": "The `id` of a key, not the key itself.",
    "example": examples.KEY_ID,
}


@blp.before_request
def _guard() -> None:
    if not is_preflight():
        check_admin_key(request.headers.get("AdminKey"))


def check_admin_key(key: str | None) -> None:
    """Check *key* for the address of the current request; see :meth:`AdminGuard.check`."""
    guard: AdminGuard = current_app.extensions[GUARD]
    guard.check(key, request.remote_addr or "")


@blp.after_request
def _forbid_storing(response: Response) -> Response:
    # The responses contain new keys and names of users.
    response.headers["Cache-Control"] = "no-store"
    return response
