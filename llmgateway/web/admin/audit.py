"""The audit log."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ...records import FIRST_OWNER, AuditEntry, AuditQuery
from .. import examples
from ..context import services
from ..schemas.audit import AuditPageSchema, AuditQuerySchema
from . import reach
from .blueprint import blp


@blp.route("/audit", methods=["GET"])
@blp.operation(
    "See who changed what",
    description=(
        "One entry for every change: who made it, when, from which address, and what it was before and after. Entries "
        "cannot be changed or removed. An admin of the role `group` sees the changes of its groups and their keys."
    ),
)
@blp.arguments(AuditQuerySchema, location="query")
@blp.response(
    200, AuditPageSchema, description="Newest first.", example={"items": [examples.AUDIT_ENTRY], "next": None}
)
def list_audit_entries(query: dict[str, Any]) -> dict[str, Any]:
    limit = query["limit"]
    entries = services().audit.entries.entries(
        AuditQuery(
            target=query.get("target") or None,
            action=query.get("action") or None,
            admin=query.get("admin") or None,
            since=query.get("since"),
            until=query.get("until"),
            groups=reach.reach(),
            after=query.get("cursor", ""),
            limit=limit + 1,
        )
    )
    page = entries[:limit]
    return {"items": [_named(entry) for entry in page], "next": page[-1].id if len(entries) > limit else None}


def _named(entry: AuditEntry) -> dict[str, Any]:
    admin = {"id": entry.admin_id, "name": entry.admin_name or FIRST_OWNER}
    return {field.name: getattr(entry, field.name) for field in fields(entry)} | {"admin": admin}
