"""The overview."""

from __future__ import annotations

from flask import Response

from .blueprint import api, blp, page


@blp.get("/", strict_slashes=False)
def overview() -> Response:
    """Show how the month goes."""
    return page("overview.html", total=api().get("/admin/usage")["total"])
