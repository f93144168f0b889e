"""Lists as CSV files, narrowed down as the page was. The export of keys is beside their list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Response, request

from ..tables import NEXT_CURSOR, csv_table
from .blueprint import api, blp
from .forms import Form
from .requests import query_of

MOST_REQUESTS = 10_000
"""The newest ones; a program asks the API for more, page by page."""

_AT_ONCE = 1000
_PEOPLE = ("user", "groups", "key_count", "requests", "total_tokens", "cost_usd")


@blp.get("/people/list.csv")
def people_list() -> Response:
    """Return people with what they have used this month."""
    return csv_table(_people(), _PEOPLE, name="people.csv")


@blp.get("/requests/list.csv")
def requests_list() -> Response:
    """Return requests, newest first."""
    query = query_of(Form({name: value.strip() for name, value in request.args.items()}))
    query |= {"format": "csv", "limit": _AT_ONCE, "cursor": None}
    parts: list[str] = []
    for _ in range(MOST_REQUESTS // _AT_ONCE):
        answer = api().ask("GET", "/admin/logs", query=query)
        # Each page has a head of its own.
        parts.append(answer.body if not parts else answer.body.partition("\n")[2])
        query["cursor"] = answer.headers.get(NEXT_CURSOR)
        if query["cursor"] is None:
            break
    headers = {"Content-Disposition": "attachment; filename=requests.csv"}
    return Response("".join(parts), mimetype="text/csv", headers=headers)


def _people() -> Iterator[dict[str, Any]]:
    query: dict[str, Any] = {"q": request.args.get("q"), "include": "spent,groups", "limit": _AT_ONCE}
    while True:
        found = api().get("/admin/users", **query)
        for person in found["items"]:
            yield {**person, **person["spent"], "groups": "; ".join(person["groups"])}
        if found["next"] is None:
            return
        query["cursor"] = found["next"]
