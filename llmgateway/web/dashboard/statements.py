"""Statements of a month, to print: of the organisation, of a group, of a person."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any
from urllib.parse import quote

from flask import Response, request

from ...records import moment
from ..context import services
from ..dates import shown
from .api import ApiError
from .blueprint import allowed, api, blp, page

_MONTHS = 24
"""How many months can be chosen."""


@blp.get("/statements")
def statements() -> Response:
    """Show the organisation's statement; to an admin of groups, the groups."""
    month, months = _month()
    if allowed("GET", "/admin/statements/<month>"):
        found = api().get(f"/admin/statements/{quote(month, safe='')}")
        return _page("statements.html", months, found=found, groups=[line["group"] for line in found["groups"]])
    groups = [group["name"] for group in api().get("/admin/groups")["items"]]
    return _page("statements.html", months, found={"month": month}, groups=groups)


# The name is in the query: in a path, a name with a slash would be two parts.
@blp.get("/statements/group")
def statements_group() -> Response:
    """Show what the persons of a group have used in a month."""
    month, months = _month()
    name = request.args.get("name", "")
    if not name:
        raise ApiError(404, "Name a group.")
    found = api().get(f"/admin/groups/{quote(name, safe='')}/statement", month=month)
    return _page("statements_group.html", months, found=found)


@blp.get("/statements/person")
def statements_person() -> Response:
    """Show what a person has used in a month, by group and by model."""
    month, months = _month()
    user = request.args.get("user", "")
    if not user:
        raise ApiError(404, "Name a person.")
    api().get(f"/admin/users/{quote(user, safe='')}")  # there must be such a person, whom this admin may see
    by_group, by_model = (_lines(by, user, month) for by in ("group", "model"))
    return _page(
        "statements_person.html",
        months,
        found={"month": month, "user": user, "total": by_group["total"]},
        lines={"Group": by_group["rows"], "Model": by_model["rows"]},
    )


def _lines(by: str, user: str, month: str) -> dict[str, Any]:
    first = date.fromisoformat(f"{month}-01")
    end = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    found = api().get("/admin/usage", by=by, user=user, start=first.isoformat(), end=end.isoformat())
    return {"total": _known(found["total"]), "rows": [{"name": row[by], **_known(row)} for row in found["rows"]]}


def _known(sums: dict[str, Any]) -> dict[str, Any]:
    """Return *sums* without a cost if no request has a known price: nothing is not the same as not known."""
    nothing_known = 0 < sums["requests"] == sums["unpriced_requests"]
    return sums | {"cost_usd": None} if nothing_known else sums


def _month() -> tuple[str, list[str]]:
    """Return the month that is asked for, by default the present one, and those that can be chosen."""
    first = shown(moment(services().clock())).date().replace(day=1)
    months = []
    for _ in range(_MONTHS):
        months.append(first.isoformat()[:7])
        first = (first - timedelta(days=1)).replace(day=1)
    wanted = request.args.get("month", "")
    return (wanted if wanted in months else months[0]), months


def _page(template: str, months: list[str], *, found: dict[str, Any], **context: Any) -> Response:
    printed = shown(moment(services().clock())).date()
    return page(template, found=found, months=months, printed=printed, **context)
