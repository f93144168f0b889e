"""What exists for an admin of the role ``group``: the groups of this admin, with their keys.

Everything else is answered as if it did not exist, by the same error as for a name that nobody has. To all other roles
everything exists.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ...accounts.prompts import Scope
from ...errors import Forbidden, NotFound
from ...records import Budget, Group, KeyRecord, Limits, Organisation, Period, Raise, in_force, moment
from ..context import current_admin, services
from ..errors import invalid_fields

_UNKNOWN_KEY = "There is no key with this id. GET /admin/keys lists those there are."
_UNKNOWN_GROUP = "There is no such group. GET /admin/groups lists those there are."
_ORGANISATION = "This is about the whole organisation. You manage groups: name one of yours, or a key."
_LEAVING = "You manage groups: a key must stay in one of yours. Block it or remove it instead."
_RAISED = "A limit of the key is raised above what this group has. Wait for its end, or end the raise first."
_ABOVE = "Has lower limits than these keys have: lower or lift those of the keys, and end their raises first:"
_MOST_NAMED = 5

_DAYS = {"day": 1, "week": 7, "month": 31, "total": math.inf}
"""The most days of each period."""

_RATES = ("requests_per_minute", "tokens_per_minute", "parallel_requests")


def reach() -> tuple[str, ...] | None:
    """Return the groups that exist for the admin of the current request; None for all, and for keys without one.

    Queries of stores take it as ``groups``.
    """
    return current_admin().reach


def reaches(group: str | None) -> bool:
    """Return whether this group, and what belongs to it, exists for the admin of the current request."""
    within = reach()
    return within is None or group in within


def check_group(name: str) -> None:
    """Raise the NotFound of an unknown group if it does not exist for this admin."""
    if not reaches(name):
        raise NotFound(_UNKNOWN_GROUP, param="name")


def check_key(record: KeyRecord) -> None:
    """Raise the NotFound of an unknown key if it does not exist for this admin."""
    if not reaches(record.group):
        raise NotFound(_UNKNOWN_KEY, param="id")


def key(key_id: str) -> KeyRecord:
    """Return a key; raise NotFound if it does not exist for this admin."""
    record = services().keys.get(key_id)
    check_key(record)
    return record


def check_filter(group: str | None) -> str | None:
    """Return the group that a query names; None for an empty one. Raises NotFound."""
    if group:
        check_group(group)
    return group or None


def check_scope(scope: Scope) -> None:
    """Check that this admin may read and set the prompt of *scope*.

    Raises:
        NotFound: there is no such key or group for this admin.
        Forbidden: it is the organisation's.
    """
    if reach() is None:  # also for what was removed, whose former prompts are still there
        return
    if scope.key_id is not None:
        key(scope.key_id)
    elif scope.group is not None:
        check_group(scope.group)
    else:
        raise Forbidden(_ORGANISATION)


def choose_group(fields: dict[str, Any]) -> None:
    """Put a new key into the only group of this admin if *fields* name none.

    Raises:
        InvalidFields: this admin has several groups.
    """
    within = reach()
    if within is None or fields.get("group") is not None:
        return
    if len(within) != 1:
        raise invalid_fields({"group": ["Name one of your groups: " + (", ".join(within) or "you have none") + "."]})
    fields["group"] = within[0]


def group_problems(fields: Mapping[str, Any], organisation: Organisation) -> dict[str, Any]:
    """Return the problems of a new key: its group does not exist for this admin, or has lower limits than the key."""
    within, name = reach(), fields.get("group")
    if within is None:
        return {}
    group = organisation.groups.get(name or "")
    if group is None or name not in within:
        return {"group": [f"Must be one of your groups: {', '.join(within) or 'you have none'}."]}
    return limit_problems(fields.get("limits") or Limits(), group)


def check_changes(
    changes: Mapping[str, Any], limits: Mapping[str, Any] | None, before: KeyRecord, organisation: Organisation
) -> None:
    """Check the changes of a key that exists for this admin.

    Raises:
        Forbidden: the key would leave the groups of this admin.
        InvalidFields: there is no such group for this admin, or it has lower limits than the key would have.
    """
    within = reach()
    if within is None:
        return
    name = changes.get("group", before.group)
    if name is None:
        raise Forbidden(_LEAVING)
    group = organisation.groups.get(name)
    if group is None or name not in within:
        raise invalid_fields({"group": [f"Must be one of your groups: {', '.join(within)}."]})
    present = before.limits if name == before.group else Limits()
    wanted = changes.get("limits", before.limits)
    after = {part: getattr(wanted, part) for part in (*_RATES, "budget")} | dict(limits or {})
    if problems := limit_problems(Limits(**after), group, before=present):
        raise invalid_fields(problems)
    if name != before.group and limit_problems(_with_raise(Limits(**after), before.raised), group):
        raise invalid_fields({"group": [_RAISED]})


def check_moved(keys: Iterable[KeyRecord], to: str, *, field: str) -> None:
    """Check that none of *keys* brings limits into another group that are above those of it. Raises InvalidFields."""
    group = services().policy.stored().groups.get(to)
    if reach() is None or group is None:
        return
    above = [key.id for key in keys if key.group != to and limit_problems(_with_raise(key.limits, key.raised), group)]
    if above:
        more = ", …" if len(above) > _MOST_NAMED else ""
        raise invalid_fields({field: [f"{_ABOVE} {', '.join(above[:_MOST_NAMED])}{more}."]})


def refuse_leaving() -> None:
    """Refuse to take keys out of all groups. Raises Forbidden."""
    if reach() is not None:
        raise Forbidden(_LEAVING)


def check_raise(limits: Limits, before: KeyRecord, organisation: Organisation) -> None:
    """Check that limits of a key are not raised above those of its group. Raises InvalidFields."""
    group = organisation.groups.get(before.group or "")
    if reach() is not None and group is not None and (problems := limit_problems(limits, group)):
        raise invalid_fields(problems)


def limit_problems(limits: Limits, group: Group, *, before: Limits | None = None) -> dict[str, Any]:
    """Return the limits that are above those of the group, by field.

    A limit that the group does not have is not compared, nor one that stays as it was *before*. No limit at all is not
    above: the group's holds for the key in any case.
    """
    found: dict[str, list[str]] = {}
    before = before or Limits()
    for name in (*_RATES, "budget"):
        wanted, most = getattr(limits, name), getattr(group.limits, name)
        if wanted is None or most is None or wanted == getattr(before, name):
            continue
        if name == "budget" and _is_above(wanted, most):
            period = "in total" if most.period is Period.TOTAL else f"per {most.period}"
            shown = f"{most.amount:,.15g} {most.unit} {period}"
            found[name] = [f"Must not be more than the group has: {shown}."]
        elif name != "budget" and wanted > most:
            found[name] = [f"Must not be more than the group has: {most}."]
    return {"limits": found} if found else {}


def _with_raise(limits: Limits, raised: Raise | None) -> Limits:
    return in_force(limits, raised, moment(services().clock()))


def _is_above(budget: Budget, most: Budget) -> bool:
    """Whether *budget* allows more than the group can use within its period. Other units cannot be compared."""
    if budget.unit != most.unit:
        return False
    days, group_days = _DAYS[budget.period.value], _DAYS[most.period.value]
    periods = 1 if days <= group_days else math.ceil(days / group_days) if math.isfinite(days) else math.inf
    return budget.amount > most.amount * periods
