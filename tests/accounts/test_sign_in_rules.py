"""What people who sign in may do, from what the provider says of them."""

from __future__ import annotations

import pytest

from llmgateway.accounts.sign_in_rules import Rights, Rule, SignInSettings, claims_of
from llmgateway.records import Role

GROUPS = ("ml-2026", "db")
ADMINS = Rule(claim="groups", value="llm-admins", role=Role.ADMIN)
VIEWERS = Rule(claim="realm_access.roles", value="auditor", role=Role.VIEWER)
TEACHERS = Rule(claim="groups", value="teachers", role=Role.GROUP, groups=("ml-2026", "gone"))
OTHERS = Rule(claim="dept", value="*", role=Role.GROUP, groups=("db",))
STUDENTS = Rule(claim="groups", value="students", group="ml-2026")
SETTINGS = SignInSettings(rules=(VIEWERS, ADMINS, TEACHERS, OTHERS, STUDENTS))


def rights(said) -> Rights:
    return SETTINGS.rights(claims_of(said, SETTINGS.claims), GROUPS)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Rights()),
        ({"groups": "llm-admins"}, Rights(role=Role.ADMIN, matched=True)),
        ({"groups": ["x", "llm-admins", "students"]}, Rights(role=Role.ADMIN, member_of=("ml-2026",), matched=True)),
        ({"groups": "LLM-admins"}, Rights()),
        ({"groups": "llm-admins "}, Rights()),
        ({"groups": {"llm-admins": True}}, Rights()),
        ({"groups": [["llm-admins"], None, 1.5]}, Rights()),
        ({"realm_access": {"roles": ["auditor"]}, "groups": ["teachers"]}, Rights(role=Role.VIEWER, matched=True)),
        ({"realm_access": ["roles"]}, Rights()),
        ({"groups": ["teachers"]}, Rights(role=Role.GROUP, manages=("ml-2026",), matched=True)),
        ({"groups": ["teachers"], "dept": 7}, Rights(role=Role.GROUP, manages=("db", "ml-2026"), matched=True)),
        ({"dept": ""}, Rights()),
        ({"dept": True}, Rights(role=Role.GROUP, manages=("db",), matched=True)),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_the_highest_role_and_all_groups(said, expected):
    """Values are compared exactly; lists and nested claims are looked through; a removed group gives nothing."""
    assert expected == rights(said)


def test_a_claim_whose_name_has_dots():
    """Auth0 names claims like addresses; such a name is looked for before a path."""
    assert {"https://example.org/roles": ("a",)} == claims_of(
        {"https://example.org/roles": "a"}, ["https://example.org/roles"]
    )
    assert {"a.b.c": ("deep",)} == claims_of({"a.b": {"c": "deep"}}, ["a.b.c"])


@pytest.mark.parametrize("verified", [None, False, "true", 1])
def test_an_unverified_address_says_nothing(verified):
    """At some providers people choose their address themselves."""
    rule = SignInSettings(rules=(Rule(claim="email", value="boss@example.org", role=Role.OWNER),))
    said = {"email": "boss@example.org", "email_verified": verified}

    assert Rights() == rule.rights(claims_of(said, rule.claims), ())
    assert Role.OWNER == rule.rights(claims_of(said | {"email_verified": True}, rule.claims), ()).role


def test_come_back_as_they_were_stored():
    assert SETTINGS == SignInSettings.from_document(SETTINGS.as_document())
    assert {} == SignInSettings().as_document()
    assert SignInSettings() == SignInSettings.from_document({})
