"""Principals: which settings of the key, its group and the organisation apply."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest

from llmgateway.accounts.principal import Principal, PrincipalCache
from llmgateway.records import Group, KeyRecord, Organisation, Prompt
from tests.parts import NEW_YEAR

EVERYBODYS, GROUPS, OWN = (Prompt(version=version, text=str(version)) for version in (1, 2, 3))
NONE = Prompt(version=4, text="")


def principal(*, key=None, group=None, member: bool = True, models=None, group_models=None) -> Principal:
    record = KeyRecord(
        id="key_1",
        digest="0",
        user="ada",
        name="x",
        created_at=NEW_YEAR,
        group="ml" if member else None,
        models=models,
        prompt=key,
    )
    groups = {"ml": Group(name="ml", created_at=NEW_YEAR, prompt=group, models=group_models)}
    return Principal(record, Organisation(prompt=EVERYBODYS, groups=groups))


@pytest.mark.parametrize(
    ("key", "group", "member", "expected"),
    [
        (None, None, True, EVERYBODYS),
        (None, GROUPS, True, GROUPS),
        (None, GROUPS, False, EVERYBODYS),
        (OWN, GROUPS, True, OWN),
        (NONE, GROUPS, True, NONE),
        (None, NONE, True, NONE),
    ],
)
def test_the_nearest_prompt_holds(key, group, member, expected):
    """A key's prompt replaces its group's, which replaces the organisation's; this also holds for an empty one."""
    assert expected == principal(key=key, group=group, member=member).prompt


@pytest.mark.parametrize(
    ("own", "groups", "expected"),
    [
        (None, None, None),
        (("a",), None, ("a",)),
        (None, ("a", "b"), ("a", "b")),
        (("b", "c"), ("a", "b"), ("b",)),
        (("c",), ("a",), ()),
    ],
)
def test_models_have_to_be_allowed_twice(own, groups, expected):
    """A model may be used if both the key and its group allow it."""
    assert expected == principal(models=own, group_models=groups).models


def test_a_group_that_nobody_made_limits_nothing():
    """A key keeps the name of its group even if the group has no settings."""
    stray = Principal(principal().key, Organisation())

    assert stray.group is None
    assert stray.models is None


class TestCallers:
    def test_give_the_same_principal_for_the_same_key_and_organisation(self):
        """The same key and organisation give the same object."""
        one, principals = principal(), PrincipalCache()

        assert principals.of(one.key, one.organisation) is principals.of(one.key, one.organisation)

    def test_go_by_what_they_are_given(self):
        """After a change of the key or the organisation there is a new principal."""
        one, principals = principal(), PrincipalCache()
        key, organisation = replace(one.key, models=("a",)), replace(one.organisation, prompt=OWN)

        assert (None, EVERYBODYS) == seen(principals.of(one.key, one.organisation))
        assert (("a",), EVERYBODYS) == seen(principals.of(key, one.organisation))
        assert (("a",), OWN) == seen(principals.of(key, organisation))
        assert (None, EVERYBODYS) == seen(principals.of(one.key, one.organisation))

    def test_keep_no_organisation_that_has_changed(self):
        """Only principals of the latest organisation are in memory."""
        one, principals = principal(), PrincipalCache()
        organisation = Organisation()
        principals.of(replace(one.key, id="key_2"), organisation)
        before = weakref.ref(principals.of(one.key, organisation))

        principals.of(one.key, one.organisation)
        gc.collect()

        assert before() is None

    def test_are_so_many_at_most(self):
        """The memory is bounded, however many keys are used."""
        one, principals = principal(), PrincipalCache(limit=10)
        made = [weakref.ref(principals.of(replace(one.key, id=f"key_{n}"), one.organisation)) for n in range(50)]

        assert 11 >= len([principal for principal in made if principal() is not None])


def seen(one: Principal) -> tuple[object, Prompt]:
    return one.models, one.prompt
