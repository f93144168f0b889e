"""``/metrics``: metrics for Prometheus."""

from __future__ import annotations

from flask import Response, abort, request

from ..errors import MetricsIncomplete
from ..usage.metrics import adds_up
from .admin import check_admin_key
from .blueprint import Blueprint
from .context import services

blp = Blueprint("metrics", __name__, description="Numbers for Prometheus.", key="adminKey")


@blp.route("/metrics", methods=["GET"])
@blp.operation(
    "Read the numbers",
    "InvalidAdminKey",
    "Forbidden",
    "AdminThrottled",
    "MetricsIncomplete",
    description=(
        "Prometheus' text format, of all processes of this host. Needs an admin key, as `AdminKey` or as a "
        "Bearer; with `LLMGATEWAY_METRICS=open` none."
    ),
)
@blp.doc(
    responses={
        200: {
            "description": "The numbers.",
            "content": {
                "text/plain": {
                    "schema": {"type": "string"},
                    "example": 'llmgateway_requests_total{outcome="ok",stream="true"} 12.0\n',
                }
            },
        }
    }
)
def get_metrics() -> Response:
    access = services().settings.metrics
    if access == "off":
        abort(404)
    if access == "admin":
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        check_admin_key(request.headers.get("AdminKey") or bearer or None)
    # The server says in the environ whether there are several processes (PEP 3333, "wsgi.multiprocess").
    if request.is_multiprocess and not adds_up():
        raise MetricsIncomplete(
            "Several processes serve, and each knows only its own numbers. Set PROMETHEUS_MULTIPROC_DIR to an empty "
            "folder before the server starts, or use llmgateway serve."
        )
    text = services().metrics.exposition(
        services().stores,
        azure_key_ok=services().gateway.credentials.problem() is None,
        configured=services().gateway.credentials.address_problem() is None,
        budgets=services().budgets.latest(),
    )
    return Response(text, content_type="text/plain; version=0.0.4; charset=utf-8")
