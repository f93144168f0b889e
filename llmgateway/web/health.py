"""``/livez`` and ``/readyz``, for load balancers and operators."""

from __future__ import annotations

from flask import jsonify
from flask.typing import ResponseReturnValue

from ..stores.health import DegradationLevel
from . import examples
from .blueprint import Blueprint
from .context import services
from .schemas.health import LivenessSchema, ReadinessSchema

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
        "Names every store and Azure's key as `ok` or says what is wrong, and how many usage records of the process "
        "that answers wait. `degraded` still serves, so its status is 200: it must not be taken out of service."
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
    # 503 only if no store answers, because one store is enough to look up keys. A missing Azure key is not a reason for
    # 503, because an admin must be able to reach the gateway and set one.
    health = services().stores
    problems = health.problems()
    checks = {name: problem or OK for name, problem in problems.items()}
    checks["azure_key"] = services().gateway.credentials.problem() or OK
    if address := services().gateway.credentials.address_problem():
        checks["azure_address"] = address
    if deployments := services().gateway.credentials.deployments_problem():
        checks["deployments"] = deployments
    journal = services().journal.backlog()
    level = health.level(problems)
    if level is DegradationLevel.MEMORY_ONLY:
        status = "unavailable"
    else:
        is_healthy = journal.problem is None and all(check == OK for check in checks.values())
        status = OK if is_healthy else "degraded"
    return jsonify(status=status, rung=level, checks=checks, journal=journal), 503 if status == "unavailable" else 200
