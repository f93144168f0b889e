"""Keys."""

from __future__ import annotations

from flask import Response, request

from .blueprint import api, blp, page


@blp.get("/keys")
def keys() -> Response:
    """List keys."""
    found = api().get(
        "/admin/keys",
        user=request.args.get("user"),
        group=request.args.get("group"),
        cursor=request.args.get("cursor"),
        include="spent,remaining,last_used",
        limit=25,
    )
    return page("keys.html", keys=found["items"], next=found["next"])
