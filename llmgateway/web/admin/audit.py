"""The audit log."""

from __future__ import annotations

from typing import Any

from .. import examples
from ..context import services
from ..schemas.audit import AuditPageSchema, AuditQuerySchema
from .blueprint import blp


@blp.route("/audit", methods=["GET"])
@blp.operation(
    "See who changed what",
    description=(
        "One entry for every change: when, from which address, with which admin key, and what it was before and "
        "after. Entries cannot be changed or removed."
    ),
)
@blp.arguments(AuditQuerySchema, location="query")
@blp.response(
    200, AuditPageSchema, description="Newest first.", example={"items": [examples.AUDIT_ENTRY], "next": None}
)
def list_audit_entries(query: dict[str, Any]) -> dict[str, Any]:
    limit = query["limit"]
    entries = services().audit.entries.entries(
        target=query.get("target") or None, after=query.get("cursor", ""), limit=limit + 1
    )
    page = entries[:limit]
    return {"items": page, "next": page[-1].id if len(entries) > limit else None}
