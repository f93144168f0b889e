"""Pages of people: searched, sorted, and with what their keys have used."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from ...ratelimit.scopes import Scope
from ...records import Person, moment
from ..context import services
from .allowances import remaining_of
from .lists import NOTHING, Order, by_spending, cut, offset_of, spent_this_month, trends

Listed = tuple[Person, int]
"""A person, and the number of keys of that person."""


class PersonPage(NamedTuple):
    """A page of a list of people."""

    people: Sequence[Listed]
    place: dict[str, Any]
    """The fields of the answer that say where the page is."""


def person_page(query: Mapping[str, Any]) -> PersonPage:
    """Return the page of people that *query* asks for.

    Raises:
        InvalidFields: the cursor belongs to a list in another order.
    """
    people = services().persons.list(query.get("q") or None)
    if not query.get("sort"):
        return _by_name(people, query)
    return PersonPage(*cut(_sorted(people, Order.of(query, "user")), query, limit=query["limit"]))


def _by_name(people: Sequence[Listed], query: Mapping[str, Any]) -> PersonPage:
    """Return a page whose cursor is the last name of the page before, so that nobody is missed or seen twice."""
    cursor, limit = query.get("cursor"), query["limit"]
    names = [person.user for person, _ in people]
    first = bisect_right(names, cursor) if cursor else offset_of(query)
    page = people[first : first + limit]
    more = first + limit < len(people)
    return PersonPage(page, {"total": len(people), "next": page[-1][0].user if more and page else None})


def _sorted(people: Sequence[Listed], order: Order) -> Sequence[Listed]:
    if order.name == "spent":
        by_name = {person.user: (person, keys) for person, keys in people}
        return [by_name[name] for name in by_spending([*by_name], "user", descending=order.descending)]
    if order.name == "key_count":
        return sorted(people, key=itemgetter(1), reverse=order.descending)
    return sorted(people, key=lambda each: each[0].user.casefold(), reverse=order.descending)


def shown_people(people: Sequence[Listed], include: Collection[str]) -> list[dict[str, Any]]:
    """Return the fields of *people*, and those that *include* names; with few questions to the stores."""
    names = [person.user for person, _ in people]
    items = [{"user": one.user, "limits": one.limits, "raised": one.raised, "key_count": keys} for one, keys in people]
    found: dict[str, Callable[[str], Any]] = {}
    if "spent" in include:
        spent = spent_this_month("user", names)
        found["spent"] = lambda name: spent.get(name, NOTHING)
    if "trend" in include:
        found["trend"] = trends("user", names)
    if "remaining" in include:
        now = moment(services().clock())
        remaining = remaining_of([Scope.of_person(person, now) for person, _ in people])
        found["remaining"] = dict(zip(names, remaining, strict=True)).__getitem__
    if "groups" in include:
        groups = _groups_of(names)
        found["groups"] = lambda name: sorted(groups[name])
    return [item | {field: of(names[place]) for field, of in found.items()} for place, item in enumerate(items)]


def _groups_of(names: Sequence[str]) -> Mapping[str, set[str]]:
    groups: defaultdict[str, set[str]] = defaultdict(set)
    for key in services().keys.of_users(names):
        if key.group is not None:
            groups[key.user].add(key.group)
    return groups
