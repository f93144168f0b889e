"""Limits that are raised for a while: of a key, of a group, of a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...records import (
    LIMIT_PARTS,
    Budget,
    Group,
    KeyQuery,
    KeyRecord,
    Limits,
    Person,
    Raise,
    is_higher,
    moment,
)
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.groups import GroupSchema
from ..schemas.keys import KeySchema
from ..schemas.persons import PersonSettingsSchema
from ..schemas.raises import NewRaiseSchema, RaiseSchema
from . import etags, reach
from .audit_helpers import Replaced, check_key, shown_key, write_down
from .blueprint import KEY_ID_IN_PATH, blp
from .groups import NAME_IN_PATH, check_group, shown_group
from .users import USER_IN_PATH, check_person, check_user, shown_person

_BACK = (
    "The limits that are named are raised until then, and the others stay; afterwards all are as before, without a "
    "call. Another raise takes the place of this one."
)
_schema = RaiseSchema()


@blp.route("/keys/<key_id>/raise", methods=["POST"], parameters=[KEY_ID_IN_PATH])
@blp.operation("Raise the limits of a key for a while", "UnknownKey", description=_BACK)
@blp.arguments(NewRaiseSchema, template=examples.RAISE_REQUEST)
@blp.response(200, KeySchema, description="The key as it is now.", example=examples.RAISED_KEY)
def raise_key(new: dict[str, Any], key_id: str) -> KeyRecord:
    keys = services().keys
    before = reach.key(key_id)
    raised = _checked(new, [before.limits], whose="the key")
    organisation = services().policy.stored()

    def check(present: KeyRecord) -> None:
        check_key(present)
        reach.check_raise(raised.limits, present, organisation)

    replaced = Replaced(check)
    after = keys.update(key_id, {"raised": raised}, check=replaced)
    _write_down("key.raise", key_id, replaced.state.raised, raised, group=after.group)
    etags.show(shown_key(after))
    return after


@blp.route("/keys/<key_id>/raise", methods=["DELETE"], parameters=[KEY_ID_IN_PATH])
@blp.operation("End the raise of a key", "UnknownKey", description="Before its time. Its limits are as they were.")
@blp.response(204, description="Nothing is raised.")
def end_raise_of_key(key_id: str) -> None:
    reach.key(key_id)
    replaced = Replaced(check_key)
    after = services().keys.update(key_id, {"raised": None}, check=replaced)
    _write_down("key.raise", key_id, replaced.state.raised, None, group=after.group)


@blp.route("/groups/<name>/raise", methods=["POST"], parameters=[NAME_IN_PATH])
@blp.operation(
    "Raise the limits of a group for a while",
    "UnknownGroup",
    description=f"{_BACK} It raises `limits`, not `member_limits`.",
)
@blp.arguments(NewRaiseSchema, template=examples.RAISE_REQUEST)
@blp.response(200, GroupSchema, description="The group as it is now.", example=examples.RAISED_GROUP)
def raise_group(new: dict[str, Any], name: str) -> Group:
    groups = services().groups
    before = groups.get(name)
    raised = _checked(new, [before.limits], whose="the group")
    replaced = Replaced[Group](check_group)
    after = groups.update(name, {"raised": raised}, check=replaced)
    _write_down("group.raise", name, replaced.state.raised, raised, group=name)
    etags.show(shown_group(after))
    return after


@blp.route("/groups/<name>/raise", methods=["DELETE"], parameters=[NAME_IN_PATH])
@blp.operation("End the raise of a group", "UnknownGroup", description="Before its time. Its limits are as they were.")
@blp.response(204, description="Nothing is raised.")
def end_raise_of_group(name: str) -> None:
    replaced = Replaced[Group](check_group)
    services().groups.update(name, {"raised": None}, check=replaced)
    _write_down("group.raise", name, replaced.state.raised, None, group=name)


@blp.route("/users/<path:user>/raise", methods=["POST"], parameters=[USER_IN_PATH])
@blp.operation(
    "Raise the limits of a person for a while",
    description=(
        f"{_BACK} It takes the place of the person's own limits, and of the `member_limits` of the person's groups, "
        "where these are lower."
    ),
)
@blp.arguments(NewRaiseSchema, template=examples.RAISE_REQUEST)
@blp.response(200, PersonSettingsSchema, description="The person as it is now.", example=examples.RAISED_PERSON)
def raise_user(new: dict[str, Any], user: str) -> Person:
    check_user(user)
    own = services().persons.get(user).limits
    raised = _checked(new, [own, *_limits_of_groups(user)], whose="the person")
    before, after = services().persons.set_raise(user, raised, check=check_person)
    _write_down("user.raise", user, before.raised, raised)
    etags.show(shown_person(after))
    return after


@blp.route("/users/<path:user>/raise", methods=["DELETE"], parameters=[USER_IN_PATH])
@blp.operation("End the raise of a person", description="Before its time. The person's limits are as they were.")
@blp.response(204, description="Nothing is raised.")
def end_raise_of_user(user: str) -> None:
    before, _ = services().persons.set_raise(user, None, check=check_person)
    _write_down("user.raise", user, before.raised, None)


def _limits_of_groups(user: str) -> list[Limits]:
    groups = services().policy.stored().groups
    names = dict.fromkeys(key.group for key in services().keys.list(KeyQuery(user=user)) if key.group in groups)
    return [groups[name].member_limits for name in names if name is not None]


def _checked(new: Mapping[str, Any], present: Sequence[Limits], *, whose: str) -> Raise:
    """Return the raise.

    Args:
        present: The limits that it raises. Those of a person come first, and then those of the person's groups.

    Raises:
        InvalidFields: it is over already, or a limit is not higher than the present one.
    """
    raised = Raise(limits=new["limits"], until=new["until"])
    problems: dict[str, Any] = {}
    parts = {part: value for part in LIMIT_PARTS if (value := getattr(raised.limits, part)) is not None}
    wrong = {
        part: [problem]
        for part, value in parts.items()
        if (problem := _problem(value, [getattr(limits, part) for limits in present], whose))
    }
    if wrong:
        problems["limits"] = wrong
    if raised.until <= moment(services().clock()):
        problems["until"] = ["Must be in the future."]
    if problems:
        raise invalid_fields(problems)
    return raised


def _problem(value: int | Budget, present: Sequence[int | Budget | None], whose: str) -> str | None:
    limited = [limit for limit in present if limit is not None]
    if not limited:
        return f"There is nothing to raise: {whose} has no such limit."
    # A person's own limit must be raised, if there is one.
    wanted = limited[:1] if present[0] is not None else limited
    if any(is_higher(value, than=limit) for limit in wanted):
        return None
    first = wanted[0]
    if isinstance(first, Budget):
        return (
            f"Must be more than the present budget of {first.amount:,.15g}, with the same unit ({first.unit}) and the "
            f"same period ({first.period})."
        )
    return f"Must be more than the present limit, which is {first}."


def _write_down(
    action: str, target: str, before: Raise | None, after: Raise | None, *, group: str | None = None
) -> None:
    if before != after:
        write_down(action, target, groups=(group,), before=_shown(before), after=_shown(after))


def _shown(raised: Raise | None) -> dict[str, Any] | None:
    shown: dict[str, Any] | None = None if raised is None else _schema.dump(raised)
    return shown
