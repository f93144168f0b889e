"""Pages of lists: where a page begins, and what the sums of usage say about the things on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple, TypeVar

from ...ratelimit.periods import LocalDay
from ...records import Period, ReportQuery, UsageRow, moment
from ..context import services
from ..errors import invalid_fields
from ..schemas.lists import TREND_DAYS

_AMONG_AT_MOST = 1000
"""Of more names the sums of all are read, which takes less time than looking each one up."""

T = TypeVar("T")

NOTHING = UsageRow(by={})


class Order(NamedTuple):
    """What a list is sorted by."""

    name: str
    descending: bool

    @classmethod
    def of(cls, query: Mapping[str, Any], default: str) -> Order:
        sort = query.get("sort") or default
        return cls(sort.removeprefix("-"), sort.startswith("-"))


def offset_of(query: Mapping[str, Any]) -> int:
    """Return how many things come before the page that *query* asks for. Its cursor is a number.

    Raises:
        InvalidFields: the cursor is not one of such a list.
    """
    if "page" in query:
        return int((query["page"] - 1) * query["limit"])
    cursor = query.get("cursor") or "0"
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 10):
        raise invalid_fields({"cursor": ["Must be `next` of the page before, with the same `sort`."]})
    return int(cursor)


def cut(things: Sequence[T], query: Mapping[str, Any], *, limit: int) -> tuple[Sequence[T], dict[str, Any]]:
    """Return the things on the page that *query* asks for, and the fields of the answer that say where it is."""
    first = offset_of(query)
    return things[first : first + limit], place(first + limit, total=len(things))


def place(end: int, *, total: int) -> dict[str, Any]:
    """Return the fields of an answer that say where its page is.

    Args:
        end: How many things are on this page and those before it.
    """
    return {"total": total, "next": str(end) if end < total else None}


def spent_this_month(grouping: str, names: Sequence[str]) -> dict[str | None, UsageRow]:
    """Return what each of *names* has used since the beginning of the month; those that used nothing are missing."""
    services().journal.flush_soon()  # otherwise the last requests of this process would be missing
    among = {grouping: names} if len(names) <= _AMONG_AT_MOST else {}
    query = ReportQuery(by=(grouping,), among=among, first_day=_today().first_day(Period.MONTH))
    return {row.by[grouping]: row for row in services().usage_log.report(query)}


def trends(grouping: str, names: Sequence[str]) -> Callable[[str], dict[str, Any]]:
    """Return a function that returns what each of *names* has used on each of the last days."""
    first = _today().day - timedelta(days=TREND_DAYS - 1)
    query = ReportQuery(by=(grouping, "day"), among={grouping: names}, first_day=first)
    found = {(row.by[grouping], row.by["day"]): row for row in services().usage_log.report(query)} if names else {}
    days = [(first + timedelta(days=number)).isoformat() for number in range(TREND_DAYS)]

    def of(name: str) -> dict[str, Any]:
        rows = [found.get((name, day), NOTHING) for day in days]
        return _trend(first, rows)

    return of


def by_spending(names: Sequence[str], grouping: str, *, descending: bool) -> list[str]:
    """Return *names* by what they have spent this month, then by their requests, then in the order that they have."""
    spent = spent_this_month(grouping, names)

    def amount(name: str) -> tuple[float, int]:
        row = spent.get(name, NOTHING)
        return row.cost_usd, row.requests

    return sorted(names, key=amount, reverse=descending)


def _trend(first: date, rows: Sequence[UsageRow]) -> dict[str, Any]:
    return {
        "start": first,
        "requests": [row.requests for row in rows],
        "cost_usd": [row.cost_usd for row in rows],
    }


def _today() -> LocalDay:
    return LocalDay.at(moment(services().clock()), services().policy.time_zones())
