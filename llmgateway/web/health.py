"""What load balancers and operators ask: is it alive, can it serve."""

from __future__ import annotations

from typing import Any

from flask import jsonify
from flask.typing import ResponseReturnValue
from flask_smorest import Blueprint

from ..errors import StoreUnavailable
from ..interfaces import Pingable
from .context import services
from .schemas import HealthSchema

blp = Blueprint("health", __name__, description="For load balancers: no key needed.")

OK = "ok"
_HEALTH: dict[str, Any] = {"content": {"application/json": {"schema": HealthSchema}}}


@blp.route("/livez", methods=["GET"])
@blp.doc(summary="Does the process run?", security=[])
@blp.response(200, HealthSchema)
def live() -> dict[str, str]:
    """Asks no store."""
    return {"status": OK}


@blp.route("/readyz", methods=["GET"])
@blp.doc(summary="Can it serve?", security=[], responses={"503": {"description": "No store answers.", **_HEALTH}})
@blp.response(200, HealthSchema)
def ready() -> ResponseReturnValue:
    """Names every store and Azure's key as `ok` or says what is wrong.

    The status is 503 only if no store answers: with one of them keys can be looked up, and a
    gateway that still serves must not be taken out of service. Without a key for Azure, an admin
    must be able to get in and set one.
    """
    stores = {backend.name: _ping(backend) for backend in services().backends}
    checks = stores | {"azure_key": _azure_key()}
    if all(check == OK for check in checks.values()):
        status = OK
    else:
        status = "degraded" if OK in stores.values() else "unavailable"
    return jsonify(status=status, checks=checks), 503 if status == "unavailable" else 200


def _ping(backend: Pingable) -> str:
    try:
        backend.ping()
    except StoreUnavailable as error:
        return str(error)
    return OK


def _azure_key() -> str:
    try:
        usable = services().policy.has_credential()
    except StoreUnavailable:
        return "unknown: the store does not answer"
    if not usable:
        return "missing or unreadable: set it with POST /admin/setllmkey"
    if services().gateway.credential_refused:
        return "refused by Azure: set a valid one with POST /admin/setllmkey"
    return OK
