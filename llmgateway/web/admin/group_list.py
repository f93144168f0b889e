"""Pages of groups: searched, sorted, and with what their keys have used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ...ratelimit.scopes import Scope
from ...records import Group, GroupSize, moment
from ..context import services
from . import reach
from .allowances import remaining_of
from .lists import NOTHING, Order, by_spending, cut, spent_this_month, trends

_NEVER = datetime.max.replace(tzinfo=UTC)
_EMPTY = GroupSize(0, 0)


class GroupPage(NamedTuple):
    """A page of a list of groups."""

    groups: Sequence[Group]
    place: dict[str, Any]
    """The fields of the answer that say where the page is."""


def group_page(query: Mapping[str, Any]) -> GroupPage:
    """Return the page of groups that *query* asks for; without a limit, all of them.

    Raises:
        InvalidFields: the cursor is not one of such a list.
    """
    text = (query.get("q") or "").casefold()
    groups = [group for group in services().groups.list() if reach.reaches(group.name) and _has(group, text)]
    limit = query.get("limit") or max(len(groups), 1)
    return GroupPage(*cut(_sorted(groups, Order.of(query, "name")), {**query, "limit": limit}, limit=limit))


def _has(group: Group, text: str) -> bool:
    return any(text in (field or "").casefold() for field in (group.name, group.cost_centre, group.note))


def _sorted(groups: Sequence[Group], order: Order) -> Sequence[Group]:
    if order.name == "spent":
        by_name = {group.name: group for group in groups}
        return [by_name[name] for name in by_spending([*by_name], "group", descending=order.descending)]
    if order.name == "expires_at":
        return sorted(groups, key=lambda group: group.expires_at or _NEVER, reverse=order.descending)
    if order.name == "name":
        return groups[::-1] if order.descending else groups
    sizes, field = services().keys.group_sizes(), {"key_count": 0, "user_count": 1}[order.name]
    return sorted(groups, key=lambda group: sizes.get(group.name, _EMPTY)[field], reverse=order.descending)


def shown_groups(
    groups: Sequence[Group], include: Collection[str] = (), *, remaining: bool = True
) -> list[dict[str, Any]]:
    """Return the fields of *groups*, and those that *include* names; with few questions to the stores.

    Args:
        remaining: Whether what is used and left of their limits is one of them.
    """
    now, names = moment(services().clock()), [group.name for group in groups]
    # Not asdict(), which copies everything in depth: of a few hundred groups that takes longer than all the rest.
    shown = [_fields(group) for group in groups]
    if remaining:
        scopes = [Scope.of_group(group, now) for group in groups]
        for one, left in zip(shown, remaining_of(scopes), strict=True):
            one["remaining"] = left
    if "spent" in include:
        spent = spent_this_month("group", names)
        for one in shown:
            one["spent"] = spent.get(one["name"], NOTHING)
    if "trend" in include:
        trend = trends("group", names)
        for one in shown:
            one["trend"] = trend(one["name"])
    if "key_count" in include or "user_count" in include:
        sizes = services().keys.group_sizes()
        for one in shown:
            size = sizes.get(one["name"], _EMPTY)
            counts = {"key_count": size.keys, "user_count": size.users}
            one |= {name: count for name, count in counts.items() if name in include}
    return shown


def _fields(group: Group) -> dict[str, Any]:
    return {field.name: getattr(group, field.name) for field in fields(group)}
