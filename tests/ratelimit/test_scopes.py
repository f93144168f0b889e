"""The scopes of a request, and limits that are raised for a while."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from llmgateway.accounts.principal import Principal
from llmgateway.local_time import TimeZones
from llmgateway.ratelimit.rules import Estimate, has_budget_in_dollars, limits_of, totals_of
from llmgateway.ratelimit.scopes import Scope, scopes_of
from llmgateway.records import (
    UNLIMITED,
    Budget,
    Group,
    KeyRecord,
    Limits,
    Organisation,
    Period,
    Person,
    Raise,
    Unit,
    in_force,
)
from tests.parts import NEW_YEAR, draft

HOUR = timedelta(hours=1)
SMALL = Estimate.bounded(40, 0.0000015)


def budget(amount: float = 5, unit: Unit = Unit.USD, period: Period = Period.MONTH) -> Limits:
    return Limits(budget=Budget(amount=amount, unit=unit, period=period))


def raised(limits: Limits, *, hours: float = 1) -> Raise:
    return Raise(limits=limits, until=NEW_YEAR + hours * HOUR)


def principal(
    *,
    key: Limits = UNLIMITED,
    member: Limits = UNLIMITED,
    person: Limits = UNLIMITED,
    group: Limits = UNLIMITED,
    everybody: Limits = UNLIMITED,
    user: str = "ada",
    **raises: Raise,
) -> Principal:
    record = KeyRecord(id="key_1", digest="0", user=user, name="x", created_at=NEW_YEAR, group="ml", limits=key)
    ml = Group(name="ml", created_at=NEW_YEAR, limits=group, member_limits=member, raised=raises.get("group_raise"))
    ada = Person(user="ada", limits=person, raised=raises.get("person_raise"))
    return Principal(
        replace(record, raised=raises.get("key_raise")),
        Organisation(limits=everybody, groups={"ml": ml}, persons={"ada": ada}),
    )


def limits_at(who: Principal, now=NEW_YEAR) -> dict[str, int | None]:
    found = limits_of(who, SMALL, now, lambda _: TimeZones())
    return {limit.name: limit.counter_request.limit for limit in found}


def test_five_scopes_are_reserved_together():
    one = Limits(requests_per_minute=10)
    who = principal(key=one, member=one, person=one, group=one, everybody=one)

    assert [f"{kind}.requests_per_minute" for kind in ("key", "member", "person", "group", "organisation")] == [
        *limits_at(who)
    ]
    found = limits_of(who, SMALL, NEW_YEAR, lambda _: TimeZones())
    assert 5 == len({limit.counter_request.counter for limit in found})


def test_a_namesake_is_not_the_same_person():
    """Case, Unicode form and blanks make a difference."""
    limits = Limits(requests_per_minute=10)

    for name in ("Ada", "ada ", " ada", "a\u0308da"):
        assert {} == limits_at(principal(person=limits, user=name))


def test_no_counter_has_a_name_of_a_person():
    """Persons and members have digests, and no two of them share one."""
    names = ["ada", "Ada", "ml", "11:mlada", "\ud800"]
    scopes = [Scope("person", name, UNLIMITED, is_shared=False) for name in names]
    scopes += [Scope("member", name, UNLIMITED, is_shared=False, group=group) for name in names for group in names]
    scopes += [Scope("member", "c", UNLIMITED, is_shared=False, group="ab")]
    scopes += [Scope("member", "bc", UNLIMITED, is_shared=False, group="a")]

    assert len(scopes) == len({scope.counters for scope in scopes})
    assert not any("ada" in scope.counters.lower() for scope in scopes)


@pytest.mark.parametrize("part", ["key", "member", "person", "group", "everybody"])
def test_the_price_matters_to_every_scope(part):
    assert has_budget_in_dollars(principal(**{part: budget()}))
    assert not has_budget_in_dollars(principal(**{part: budget(5, Unit.TOKENS)}))


@pytest.mark.parametrize("period", Period)
def test_a_dead_process_leaves_the_totals_of_every_scope(period):
    """A record counts for its key, member, person, group and the organisation."""
    record = draft(timestamp=NEW_YEAR, group="ml", user="ada", key_id="key_1", total_tokens=40)
    parts = dict.fromkeys(("key", "member", "person", "group", "everybody"), budget(100, Unit.TOKENS, period))

    named = {each.counter: each.until for each in totals_of(record, TimeZones())}
    for limit in limits_of(principal(**parts), SMALL, NEW_YEAR, lambda _: TimeZones()):
        assert limit.counter_request.until == named[limit.counter_request.counter]


def test_a_raise_ends_by_itself():
    """The same principal has the raised limit until the last moment, and then its own again."""
    low, high = Limits(requests_per_minute=10, parallel_requests=2), Limits(requests_per_minute=50)
    who = principal(key=low, key_raise=raised(high))
    last = NEW_YEAR + HOUR - timedelta(milliseconds=1)

    before = [limits_at(who, now)["key.requests_per_minute"] for now in (NEW_YEAR, last, NEW_YEAR + HOUR, NEW_YEAR)]

    assert [50, 50, 10, 50] == before
    assert 2 == limits_at(who)["key.parallel_requests"]


def test_a_raise_never_lowers():
    """If the limit itself was raised meanwhile, or was lifted, the raise does nothing."""
    higher, none = Limits(requests_per_minute=90), UNLIMITED
    raise_ = raised(Limits(requests_per_minute=50, tokens_per_minute=5))

    assert {"key.requests_per_minute": 90} == limits_at(principal(key=higher, key_raise=raise_))
    assert {} == limits_at(principal(key=none, key_raise=raise_))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (budget(10), 10),
        (budget(5), 5),
        (budget(4), 5),
        (budget(10, Unit.TOKENS), 5),
        (budget(10, period=Period.DAY), 5),
    ],
)
def test_a_budget_is_raised_by_one_that_counts_the_same(limits, expected):
    assert expected == in_force(budget(5), raised(limits), NEW_YEAR).budget.amount


def test_a_persons_raise_raises_own_limits_and_those_of_members():
    ten, five, fifty = (Limits(requests_per_minute=number) for number in (10, 5, 50))

    assert {"member.requests_per_minute": 50, "person.requests_per_minute": 50} == limits_at(
        principal(member=five, person=ten, person_raise=raised(fifty))
    )
    assert {"member.requests_per_minute": 50} == limits_at(principal(member=five, person_raise=raised(fifty)))


def test_a_groups_raise_leaves_its_members_alone():
    five, fifty = Limits(requests_per_minute=5), Limits(requests_per_minute=50)

    assert {"member.requests_per_minute": 5, "group.requests_per_minute": 50} == limits_at(
        principal(member=five, group=five, group_raise=raised(fifty))
    )


def test_several_raises_end_one_after_the_other():
    """Also if the clock is set back between them."""
    low, high = Limits(requests_per_minute=1), Limits(requests_per_minute=9)
    raises = {f"{kind}_raise": raised(high, hours=hours) for hours, kind in enumerate(("person", "group", "key"), 1)}
    who = principal(key=low, member=low, person=low, group=low, **raises)

    still = [[*limits_at(who, NEW_YEAR + hour * HOUR).values()] for hour in (0, 1, 2, 3, 1, 0)]

    assert [[9, 9, 9, 9], [9, 1, 1, 9], [9, 1, 1, 1], [1, 1, 1, 1], [9, 1, 1, 9], [9, 9, 9, 9]] == still


def test_a_key_without_limits_has_no_scopes():
    assert [] == [*scopes_of(principal(), NEW_YEAR)]
