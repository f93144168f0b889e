"""What load balancers and operators ask: is it alive, can it serve."""

from __future__ import annotations

from flask import jsonify
from flask.typing import ResponseReturnValue

from ..errors import StoreUnavailable
from ..interfaces import Pingable
from . import examples
from .blueprint import Blueprint
from .context import services
from .schemas import LivenessSchema, ReadinessSchema

blp = Blueprint("health", __name__, description="What load balancers and operators ask. Needs no key.")

OK = "ok"


@blp.route("/livez", methods=["GET"])
@blp.operation("Does the process run?", description="Asks no store. A process that does not answer wants a restart.")
@blp.response(200, LivenessSchema, description="It runs.", example=examples.ALIVE)
def get_liveness() -> dict[str, str]:
    return {"status": OK}


@blp.route("/readyz", methods=["GET"])
@blp.operation(
    "Can it serve?",
    description=(
        "Names every store and Azure's key as `ok` or says what is wrong. `degraded` still serves, so its status is "
        "200: it must not be taken out of service."
    ),
)
@blp.response(
    200,
    ReadinessSchema,
    description="It serves.",
    examples={"ok": {"value": examples.READY}, "degraded": {"value": examples.DEGRADED}},
)
@blp.alt_response(503, schema=ReadinessSchema, description="No store answers.", example=examples.UNAVAILABLE)
def get_readiness() -> ResponseReturnValue:
    # 503 only if no store answers: with one of them keys can be looked up. Without a key for Azure,
    # an admin must be able to get in and set one.
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
