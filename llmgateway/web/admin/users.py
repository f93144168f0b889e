"""People: the limits of all keys of one person together."""

from __future__ import annotations

from typing import Any

from ...errors import NotFound
from ...ratelimit.periods import LocalDay
from ...ratelimit.scopes import Scope
from ...records import UNLIMITED, KeyQuery, Period, Person, ReportQuery, UsageRow, moment
from .. import examples
from ..context import services
from ..errors import invalid_fields
from ..schemas.names import problem_of_user
from ..schemas.persons import (
    PersonChangesSchema,
    PersonFieldsSchema,
    PersonPageSchema,
    PersonQuerySchema,
    PersonSchema,
    PersonSettingsSchema,
)
from ..schemas.usage import names_of
from . import etags
from .allowances import remaining_of
from .audit_helpers import some_limits, write_down
from .blueprint import blp
from .person_list import person_page, shown_people

USER_IN_PATH = {
    "in": "path",
    "name": "user",
    "description": "Exactly as the keys name the person: case, blanks and the form of letters make a difference.",
    "example": examples.NO_USER,
}

_schema = PersonSettingsSchema()


@blp.route("/users", methods=["GET"])
@blp.operation(
    "List people page by page",
    description="Those who have keys, and those for whom limits are set.",
)
@blp.arguments(PersonQuerySchema, location="query")
@blp.response(200, PersonPageSchema, description="By name, unless `sort` says otherwise.", example=examples.PERSON_PAGE)
def list_users(query: dict[str, Any]) -> dict[str, Any]:
    page = person_page(query)
    return {"items": shown_people(page.people, names_of(query["include"]))} | page.place


@blp.route("/users/<path:user>", methods=["GET"], parameters=[USER_IN_PATH])
@blp.operation("Look a person up", "UnknownUser", description="The keys, limits and usage of one person.")
@blp.response(200, PersonSchema, description="The person.", example=examples.PERSON)
def get_user(user: str) -> dict[str, Any]:
    person = services().persons.get(user)
    keys = services().keys.list(KeyQuery(user=user))
    usage = _usage_so_far(user)
    etags.show(shown_person(person))
    if not keys and person == Person(user=user) and not usage["total"].requests:
        raise NotFound("There is nobody with this name. GET /admin/users lists who there is.", param="user")
    now, groups = moment(services().clock()), services().policy.stored().groups
    members = [
        Scope.of_member(groups[name], user, person, now)
        for name in dict.fromkeys(key.group for key in keys if key.group)
        if name in groups and groups[name].member_limits != UNLIMITED
    ]
    own, *of_members = remaining_of([Scope.of_person(person, now), *members])
    return {
        "user": user,
        "keys": keys,
        "limits": person.limits,
        "raised": person.raised,
        "remaining": own,
        "member_of": [
            {"group": scope.group, "limits": scope.limits, "remaining": remaining}
            for scope, remaining in zip(members, of_members, strict=True)
        ],
        "usage": usage,
    }


@blp.route("/users/<path:user>", methods=["PUT"], parameters=[USER_IN_PATH])
@blp.operation(
    "Set the limits of a person",
    description=(
        "They hold for all keys of the person together, beside the limits of each key. All of them are replaced: `{}` "
        "lifts them. They may be set before there is a key. The example is refused until you have put your own values "
        "in."
    ),
)
@blp.arguments(PersonFieldsSchema, template=examples.PERSON_REQUEST)
@blp.response(200, PersonSettingsSchema, description="In force.", example=examples.PERSON_SETTINGS)
def put_user(sent: dict[str, Any], user: str) -> Person:
    check_user(user)
    return _written("user.set", *services().persons.set_limits(user, sent["limits"], check=check_person))


@blp.route("/users/<path:user>", methods=["PATCH"], parameters=[USER_IN_PATH])
@blp.operation(
    "Change some limits of a person",
    description=(
        "Parts that are sent are set, `null` lifts one, the others stay. The example changes nothing. In short:\n\n"
        '* `{"limits": {"budget": {"amount": 5, "unit": "usd", "period": "week"}}}` sets a budget for each week\n'
        '* `{"limits": {"parallel_requests": null}}` lifts one limit\n'
    ),
)
@blp.arguments(PersonChangesSchema, example={})
@blp.response(200, PersonSettingsSchema, description="In force.", example=examples.PERSON_SETTINGS)
def update_user(sent: dict[str, Any], user: str) -> Person:
    persons = services().persons
    check_user(user)
    parts = some_limits(sent)
    if "limits" in sent:
        return _written("user.set", *persons.set_limits(user, sent["limits"], check=check_person))
    if parts:
        return _written("user.set", *persons.update_limits(user, parts, check=check_person))
    person = persons.get(user)
    check_person(person)
    etags.show(shown_person(person))
    return person


@blp.route("/users/<path:user>", methods=["DELETE"], parameters=[USER_IN_PATH])
@blp.operation(
    "Lift the limits of a person",
    "UnknownUser",
    description="Nothing is set for the person afterwards, also no raise. The keys, and what they used, stay.",
)
@blp.response(204, description="No limits are set for the person.")
def delete_user(user: str) -> None:
    before = services().persons.remove(user, check=check_person)
    if before != Person(user=user):
        write_down("user.remove", user, before=shown_person(before))
    elif not is_known(user):
        raise NotFound("There is nobody with this name. GET /admin/users lists who there is.", param="user")


def check_user(user: str) -> None:
    """Check the name of a person for whom something is set. Names that are known already may stay.

    Raises:
        InvalidFields: it has a character that is not allowed.
    """
    if (problem := problem_of_user(user)) and not is_known(user):
        raise invalid_fields({"user": [problem]})


def check_person(before: Person) -> None:
    """Check that what is set for the person is as the client knows it."""
    etags.check(shown_person, before)


def shown_person(person: Person) -> dict[str, Any]:
    shown: dict[str, Any] = _schema.dump(person)
    return shown


def is_known(user: str) -> bool:
    """Whether *user* has a key, or limits."""
    has_key = bool(services().keys.list(KeyQuery(user=user, limit=1)))
    return has_key or services().persons.get(user) != Person(user=user)


def _written(action: str, before: Person, after: Person) -> Person:
    if before != after:
        write_down(action, after.user, before=shown_person(before), after=shown_person(after))
    etags.show(shown_person(after))
    return after


def _usage_so_far(user: str) -> dict[str, UsageRow]:
    services().journal.flush_soon()  # otherwise the last requests of this process would be missing
    today = LocalDay.at(moment(services().clock()), services().policy.time_zones())
    first_days = {
        "today": today.day,
        "month": today.first_day(Period.MONTH),
        "total": None,
    }
    return {
        name: next(iter(services().usage_log.report(ReportQuery(first_day=first_day, user=user))))
        for name, first_day in first_days.items()
    }
