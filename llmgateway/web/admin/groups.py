"""Groups: courses and teams that share limits, models and dates."""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from ...errors import Forbidden
from ...records import Group, moment
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.fields import single_line
from ..schemas.groups import (
    GroupChangesSchema,
    GroupFieldsSchema,
    GroupIncludeSchema,
    GroupListSchema,
    GroupQuerySchema,
    GroupSchema,
    ListedGroupSchema,
    RevokedSchema,
)
from ..schemas.usage import names_of
from . import etags, reach
from .audit_helpers import Replaced, some_limits, write_down
from .blueprint import blp
from .group_list import group_page, shown_groups
from .names import check_name, check_names
from .self_service import check_offered
from .validity import check_validity

NAME_IN_PATH = {
    "in": "path",
    "name": "name",
    "description": "1 to 100 characters on one line, without `/`.",
    "example": examples.NO_GROUP,
}
_TO_END_NOW = "To refuse its keys from now on, call POST /admin/groups/{name}/revoke."

_schema = GroupSchema()


@blp.route("/groups", methods=["GET"])
@blp.operation("List the groups", description="`GET /admin/keys?group=NAME` lists the keys of a group.")
@blp.arguments(GroupQuerySchema, location="query")
@blp.response(200, GroupListSchema, description="By name, unless `sort` says otherwise.", example=examples.GROUP_PAGE)
def list_groups(query: dict[str, Any]) -> dict[str, Any]:
    page = group_page(query)
    return {"items": shown_groups(page.groups, names_of(query["include"]), remaining=query["remaining"])} | page.place


@blp.route("/groups/<name>", methods=["GET"], parameters=[NAME_IN_PATH])
@blp.operation("Look a group up", "UnknownGroup", description="With what is used and left of its limits.")
@blp.arguments(GroupIncludeSchema, location="query")
@blp.response(200, ListedGroupSchema, description="The group.", example=examples.GROUP_LEFT)
def get_group(query: dict[str, str], name: str) -> dict[str, Any]:
    reach.check_group(name)
    group = services().groups.get(name)
    etags.show(shown_group(group))
    (shown,) = shown_groups([group], names_of(query["include"]))
    return shown


@blp.route("/groups/<name>", methods=["PUT"], parameters=[NAME_IN_PATH])
@blp.operation(
    "Make a group, or replace what is set for it",
    description=(
        "All of it is replaced: what is not sent is nothing afterwards. Its keys and its prompt stay. Its limits hold "
        "for all its keys together, beside those of each; `member_limits` hold for each person, for the keys that this "
        "person has in it; `self_service` lets its members make keys themselves. The example is refused until you have "
        "put your own values in; `{}` makes a group that is only a name for reports."
    ),
)
@blp.arguments(GroupFieldsSchema, template=examples.GROUP_REQUEST)
@blp.response(200, GroupSchema, description="The group as it is now.", example=examples.GROUP)
def put_group(fields: dict[str, Any], name: str) -> Group:
    groups = services().groups
    before = groups.find(name)
    if before is None:
        _refuse_bad_name(name)
    check_names(fields, before=before)
    check_validity(fields, before=before, instead=_TO_END_NOW)
    check_offered(fields["self_service"], Group(name=name, created_at=moment(services().clock()), **fields))
    replaced = Replaced(check_group)
    after = groups.put(name, check=replaced, **fields)
    write_down("group.set", name, groups=(name,), before=shown_group(replaced.state), after=shown_group(after))
    etags.show(shown_group(after))
    return after


@blp.route("/groups/<name>", methods=["PATCH"], parameters=[NAME_IN_PATH])
@blp.operation(
    "Change a group",
    "UnknownGroup",
    description=(
        "Fields that are sent are set, `null` clears one, the others stay; the same holds for the parts of `limits` "
        "and of `member_limits`. The example changes nothing. In short:\n\n"
        '* `{"expires_at": "2027-10-01"}` prolongs it\n'
        '* `{"models": null}` lets its keys use every model\n'
        '* `{"limits": {"budget": {"amount": 150, "unit": "usd", "period": "total"}, "parallel_requests": null}}` sets '
        "its budget and lifts another limit\n"
    ),
)
@blp.arguments(GroupChangesSchema, example={})
@blp.response(200, GroupSchema, description="The group as it is now.", example=examples.GROUP)
def update_group(changes: dict[str, Any], name: str) -> Group:
    reach.check_group(name)
    if reach.reach() is not None and changes.keys() - {"note"}:
        raise Forbidden("You may change the note of your group, and nothing else of it: ask an owner or an admin.")
    groups = services().groups
    before = groups.get(name)
    check_group(before)
    check_names(changes, before=before)
    check_validity(changes, before=before, instead=_TO_END_NOW)
    limits, member_limits = some_limits(changes), some_limits(changes, "member_limits")
    check_offered(changes.get("self_service"), before.changed(changes, limits, member_limits))
    replaced = Replaced(check_group)
    after = groups.update(name, changes, limits=limits, member_limits=member_limits, check=replaced)
    write_down("group.set", name, groups=(name,), before=shown_group(replaced.state), after=shown_group(after))
    etags.show(shown_group(after))
    return after


@blp.route("/groups/<name>", methods=["DELETE"], parameters=[NAME_IN_PATH])
@blp.operation(
    "Remove a group",
    "UnknownGroup",
    "GroupInUse",
    description="The group must have no keys. Its usage stays in the reports.",
)
@blp.response(204, description="The group was removed.")
def delete_group(name: str) -> None:
    removed = services().groups.remove(name, check=check_group)
    write_down("group.remove", name, groups=(name,), before=shown_group(removed))


@blp.route("/groups/<name>/revoke", methods=["POST"], parameters=[NAME_IN_PATH])
@blp.operation(
    "Block every key of a group",
    "UnknownGroup",
    description="Their next requests are refused, on every host. `PATCH /admin/keys/{key_id}` activates a key again.",
)
@blp.response(200, RevokedSchema, description="All keys of the group are revoked.", example={"revoked": 28})
def revoke_group(name: str) -> dict[str, int]:
    reach.check_group(name)
    services().groups.get(name)
    revoked = services().keys.revoke_group(name)
    told = {"revoked": len(revoked)}
    write_down("group.revoke", name, groups=(name,), after={**told, "ids": revoked})
    return told


def _refuse_bad_name(name: str) -> None:
    try:
        for check in single_line(100):
            check(name)
    except ma.ValidationError as error:
        raise invalid_fields({"name": error.messages}) from None
    check_name(name)
    if name != name.strip():
        raise invalid_fields({"name": ["Must not begin or end with a space."]})


def check_group(before: Group | None) -> None:
    """Check that the group to change is as the client knows it."""
    etags.check(shown_group, before)


def shown_group(group: Group | None) -> dict[str, Any] | None:
    shown: dict[str, Any] | None = None if group is None else _schema.dump(group)
    return shown
