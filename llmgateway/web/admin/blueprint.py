"""The blueprint of the admin API, which checks the admin key."""

from __future__ import annotations

from flask import Response, current_app, g, request

from ...accounts.admins import Admin
from ...current import current_request
from .. import examples
from ..blueprint import Blueprint
from ..context import is_preflight
from ..guard import AdminGuard
from .etags import add_tag, prepare
from .rights import check_right

GUARD = "llmgateway.admin_guard"

SIGNED_IN = "llmgateway.signed_in"
"""In the environ of a request that the dashboard has sent within this process: the :class:`Admin` who is signed in.

Nobody else can do that: what clients send is in the environ under names that begin with ``HTTP_`` (PEP 3333)."""

blp = Blueprint(
    "admin",
    __name__,
    url_prefix="/admin",
    description=(
        "Keys, groups, limits, prompts, Azure's key and reports, for those who have an admin key. Changes hold at "
        "once, and each leaves an entry in `GET /admin/audit`. What an admin may do depends on the role. Answers that "
        "show one object have an `ETag`; a change with `If-Match` is made only if the object still has this one."
    ),
    key="adminKey",
    refusals=("InvalidAdminKey", "Forbidden", "PreconditionFailed", "AdminThrottled", "StoreUnavailable"),
)

KEY_ID_IN_PATH = {
    "in": "path",
    "name": "key_id",
    "description": "The `id` of a key, not the key itself.",
    "example": examples.KEY_ID,
}


@blp.before_request
def _guard() -> None:
    if is_preflight():
        return
    admin: Admin | None = request.environ.get(SIGNED_IN)
    if admin is None:
        check_admin_key(request.headers.get("AdminKey"))
    else:
        _enter(admin)
    prepare()


def check_admin_key(key: str | None) -> None:
    """Check *key* for the address of the current request, and the right of its admin to make this request.

    Raises:
        Forbidden: the admin has not the right.
        GatewayError: see :meth:`AdminGuard.check`.
    """
    guard: AdminGuard = current_app.extensions[GUARD]
    _enter(guard.check(key, request.remote_addr or ""))


def _enter(admin: Admin) -> None:
    g.admin = admin
    if (current := current_request()) is not None:
        current.admin = str(admin)
    check_right(admin, request.method, request.url_rule.rule if request.url_rule else "")


@blp.after_request
def _forbid_storing(response: Response) -> Response:
    # The responses contain new keys and names of users.
    response.headers["Cache-Control"] = "no-store"
    return add_tag(response)
