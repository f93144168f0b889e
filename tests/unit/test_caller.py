"""Callers: what holds for a key out of what was set for it, its group and everybody."""

from __future__ import annotations

import pytest

from llmgateway.caller import Caller
from llmgateway.records import Group, KeyRecord, Organisation, Prompt
from tests.unit.parts import NEW_YEAR

EVERYBODYS, GROUPS, OWN = (Prompt(version=version, text=str(version)) for version in (1, 2, 3))
NONE = Prompt(version=4, text="")


def caller(*, key=None, group=None, member: bool = True, models=None, group_models=None) -> Caller:
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
    return Caller(record, Organisation(prompt=EVERYBODYS, groups=groups))


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
    """A key's prompt takes the place of its group's, and that of the organisation's; an empty one is one, too."""
    assert expected == caller(key=key, group=group, member=member).prompt


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
    """A model may be used if neither the key nor its group leaves it out."""
    assert expected == caller(models=own, group_models=groups).models


def test_a_group_that_nobody_made_limits_nothing():
    """Keys keep the name of their group, whether or not anything was set for it."""
    stray = Caller(caller().key, Organisation())

    assert stray.group is None
    assert stray.models is None
