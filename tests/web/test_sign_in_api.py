"""The admin API for people who sign in: rules, accounts, signing out everywhere."""

from __future__ import annotations

import pytest

from llmgateway.records import Account
from llmgateway.web.context import EXTENSION

RULES = [
    {"claim": "groups", "value": "staff", "role": "admin", "groups": [], "group": None},
    {"claim": "groups", "value": "teachers", "role": "group", "groups": ["ml"], "group": None},
    {"claim": "groups", "value": "students", "role": None, "groups": [], "group": "ml"},
]


@pytest.fixture
def sign_in(client):
    def sign_in(subject="s-1", name="ada", **claims):
        said = {"preferred_username": name, **claims}
        return client.application.extensions[EXTENSION].identities.sign_in(
            Account("https://id.example.org", subject, said, "refresh")
        )

    return sign_in


@pytest.fixture
def as_role(call):
    """The header of an admin of a role."""
    return lambda role: {"AdminKey": call("POST", "/admins", status=201, json={"name": role, "role": role})["key"]}


def test_rules_are_replaced(call):
    """And the audit shows both states."""
    call("PUT", "/groups/ml", json={})
    assert {"rules": [], "admits": "everybody", "issuer": None, "user_claim": "preferred_username"} == call(
        "GET", "/sign-in"
    )

    call("PUT", "/sign-in", json={"rules": RULES, "admits": "matched"})

    assert (RULES, "matched") == ((shown := call("GET", "/sign-in"))["rules"], shown["admits"])
    (entry,) = [each for each in call("GET", "/audit")["items"] if each["action"] == "sign-in.set"]
    assert ([], RULES) == (entry["before"]["rules"], entry["after"]["rules"])


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"claim": "groups", "value": "x"}, "role"),
        ({"claim": "groups", "value": "x", "role": "admin", "group": "ml"}, "role"),
        ({"claim": "groups", "value": "x", "role": "emperor"}, "role"),
        ({"claim": "groups", "value": "x", "role": "group"}, "groups"),
        ({"claim": "groups", "value": "x", "role": "admin", "groups": ["ml"]}, "groups"),
        ({"claim": "groups", "value": "x", "group": "unknown"}, "group"),
        ({"claim": "groups", "value": "x", "role": "group", "groups": ["unknown"]}, "groups"),
        ({"claim": "", "value": "x", "role": "admin"}, "claim"),
        ({"claim": "groups", "value": 7, "role": "admin"}, "value"),
        ({"claim": "groups", "value": "x", "role": "admin", "more": 1}, "more"),
    ],
)
def test_wrong_rules_are_refused(call, rule, field):
    call("PUT", "/groups/ml", json={})
    errors = call("PUT", "/sign-in", status=422, json={"rules": [rule]})["error"]["errors"]
    assert [field] == [*errors["rules"]["0"]]
    assert [] == call("GET", "/sign-in")["rules"]


def test_two_owners_at_once_notice_each_other(client, admin, call):
    tag = client.get("/admin/sign-in", headers=admin).headers["ETag"]
    call("PUT", "/groups/ml", json={})
    call("PUT", "/sign-in", json={"rules": RULES})
    answer = client.put("/admin/sign-in", json={"rules": []}, headers=admin | {"If-Match": tag})
    assert (412, RULES) == (answer.status_code, answer.json["error"]["present"]["rules"])


def test_an_admin_says_whose_the_keys_are(call, sign_in):
    """Somebody whose name has keys waits; then the keys are theirs, and may be taken again."""
    call("POST", "/keys", status=201, json={"user": "ada"})
    identity = sign_in(email="ada@example.org", email_verified=True)
    waiting = call("GET", "/identities?waiting=true")["items"]
    assert [(identity.id, None, "ada", "ada@example.org")] == [
        (each["id"], each["user"], each["claimed"], each["email"]) for each in waiting
    ]
    assert "refresh_token" not in waiting[0]

    path = f"/identities/{identity.id}"
    assert "ada" == call("PATCH", path, json={"user": "ada"})["user"]
    assert [] == call("GET", "/identities?waiting=true")["items"]
    assert identity.id == call("GET", "/identities?user=ada")["items"][0]["id"]
    entry = call("GET", "/audit?target=ada")["items"][0]
    assert ("user.identity", None, "ada") == (entry["action"], entry["before"]["user"], entry["after"]["user"])

    other = sign_in("s-2")
    call("PATCH", f"/identities/{other.id}", status=409, json={"user": "ada"})
    call("PATCH", path, status=422, json={"user": "no/body"})
    assert call("PATCH", path, json={"user": None})["user"] is None
    call("DELETE", path, status=204)
    call("GET", path, status=404)
    call("PATCH", path, status=404, json={"user": "ada"})


def test_pages_of_accounts(call, sign_in):
    made = sorted(sign_in(f"s-{number}", f"u-{number}").id for number in range(5))
    page = call("GET", "/identities?limit=3")
    rest = call("GET", f"/identities?limit=3&cursor={page['next']}")
    assert made == [each["id"] for each in page["items"] + rest["items"]]
    assert rest["next"] is None


def test_only_owners_change_accounts_of_admins(client, call, sign_in, as_role):
    """An admin could otherwise keep an owner out. Roles and groups are shown as the rules give them."""
    call("PUT", "/groups/ml", json={})
    call("PUT", "/sign-in", json={"rules": RULES})
    boss, student = sign_in(groups=["staff"]), sign_in("s-2", "eve", groups=["students"])
    assert "admin" == call("GET", f"/identities/{boss.id}")["role"]
    assert ["ml"] == call("GET", f"/identities/{student.id}")["groups"]

    header = as_role("admin")
    for identity, status in ((boss, 403), (student, 200)):
        answer = client.patch(f"/admin/identities/{identity.id}", json={"active": False}, headers=header)
        assert status == answer.status_code
    assert call("GET", f"/identities/{boss.id}")["active"]
    call("PATCH", f"/identities/{boss.id}", json={"active": False})


def test_sessions_end(client, call):
    """Those of one, or of everybody; the audit tells who did it."""
    sessions = client.application.extensions[EXTENSION].sessions
    marks = {who: sessions.mark(who) for who in ("owner", "person_1")}

    call("POST", "/sessions/end", status=204, json={"who": "person_1"})
    assert [True, False] == [sessions.is_valid("s", who, mark) for who, mark in marks.items()]
    call("POST", "/sessions/end", status=204, json={})
    assert not sessions.is_valid("s", "owner", marks["owner"])
    assert ["", "person_1"] == sorted(each["target"] for each in call("GET", "/audit")["items"])
