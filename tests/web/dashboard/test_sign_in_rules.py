"""The pages about signing in: rules, people who wait, accounts, signing everybody out."""

from __future__ import annotations

import html
import re

import pytest

from llmgateway.records import Account
from llmgateway.web.context import EXTENSION
from tests.web.conftest import ADMIN_KEY
from tests.web.dashboard.conftest import Person

HOSTILE = "<script>alert(1)<\\script>'\"& \u05d0\u05d1"


@pytest.fixture
def account(client):
    def sign_in(subject="s-1", name="ada", **claims):
        said = {"preferred_username": name, **claims}
        identities = client.application.extensions[EXTENSION].identities
        return identities.sign_in(Account("https://id.example.org", subject, said, None))

    return sign_in


def fields_of(page, action):
    """What a browser would send with the form that leads to *action*, unless somebody types."""
    form = re.search(rf'<form[^>]*action="[^"]*{action}".*?</form>', page, re.DOTALL)[0]
    found = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form))
    for name, options in re.findall(r'<select[^>]*name="([^"]+)".*?>(.*?)</select>', form, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', options)
        found[name] = chosen[1] if chosen else re.search(r'value="([^"]*)"', options)[1]
    return {name: html.unescape(value) for name, value in found.items()}


def test_rules_are_stored_and_shown(owner, call):
    """Rows that are left empty, or set to be removed, are no rules."""
    call("PUT", "/groups/ml", json={})
    call("PUT", "/groups/db", json={})
    fields = fields_of(owner.open("sign-in-rules"), "sign-in-rules")
    typed = {
        "rules.0.claim": "groups",
        "rules.0.value": "staff",
        "rules.0.gives": "admin",
        "rules.1.claim": "groups",
        "rules.1.value": "students",
        "rules.1.gives": "member",
        "rules.1.groups": "ml, db",
        "admits": "matched",
    }
    assert "hold from now on" in owner.send_and_follow("sign-in-rules", **fields | typed)

    stored = call("GET", "/sign-in")
    assert "matched" == stored["admits"]
    assert [("staff", "admin", None), ("students", None, "ml"), ("students", None, "db")] == [
        (rule["value"], rule["role"], rule["group"]) for rule in stored["rules"]
    ]
    fields = fields_of(owner.open("sign-in-rules"), "sign-in-rules")
    assert ("admin", "member", "db") == tuple(
        fields[name] for name in ("rules.0.gives", "rules.1.gives", "rules.2.groups")
    )
    owner.send("sign-in-rules", **fields | {"rules.0.gives": "remove"})
    assert ["ml", "db"] == [rule["group"] for rule in call("GET", "/sign-in")["rules"]]


def test_wrong_rules_keep_what_was_typed(owner, call):
    """With the message at its field, in the row where it was typed."""
    fields = fields_of(owner.open("sign-in-rules"), "sign-in-rules")
    typed = {
        "rules.1.claim": "groups",
        "rules.1.value": HOSTILE,
        "rules.1.gives": "member",
        "rules.1.groups": "nowhere",
    }
    page = owner.send("sign-in-rules", status=422, **fields | typed).text

    assert "<script>alert" not in page
    assert typed["rules.1.value"] == fields_of(page, "sign-in-rules")["rules.1.value"]
    assert re.search(r'id="rules.1.groups-wrong">There is no such group', page)
    assert [] == call("GET", "/sign-in")["rules"]


def test_a_rule_that_gives_nothing_is_not_lost_unseen(owner, call):
    """Somebody has typed what people have, and has not chosen what that gives."""
    fields = fields_of(owner.open("sign-in-rules"), "sign-in-rules")
    typed = {"rules.0.claim": "groups", "rules.0.value": "staff"}
    page = owner.send("sign-in-rules", status=422, **fields | typed).text

    assert re.search(r'id="rules.0.gives-wrong">Choose what', page)
    assert "staff" == fields_of(page, "sign-in-rules")["rules.0.value"]
    assert [] == call("GET", "/sign-in")["rules"]


def test_two_owners_at_once_notice_each_other(owner, call):
    fields = fields_of(owner.open("sign-in-rules"), "sign-in-rules")
    call("PUT", "/sign-in", json={"rules": [{"claim": "a", "value": "b", "role": "viewer"}]})
    page = owner.send("sign-in-rules", status=412, **fields).text
    assert "Somebody else has changed this" in page
    assert 1 == len(call("GET", "/sign-in")["rules"])


def test_somebody_who_waits_gets_the_keys(owner, call, account):
    call("POST", "/keys", status=201, json={"user": "ada"})
    waiting = account(email="ada@example.org", email_verified=True)
    assert "People who wait" in (page := owner.open("sign-in-rules"))
    assert "ada@example.org" in page
    path = f"sign-in-rules/accounts/{waiting.id}"
    fields = fields_of(owner.open(path), "/user")
    assert "ada" == fields["user"]

    assert "belong to this account now" in owner.send_and_follow(f"{path}/user", **fields)
    assert "People who wait" not in owner.open("sign-in-rules")
    assert "ada" == call("GET", f"/identities/{waiting.id}")["user"]

    other = account("s-2")
    page = owner.send(f"sign-in-rules/accounts/{other.id}/user", status=409, user="ada").text
    assert "Another account" in page


def test_an_account_is_kept_out_signed_out_and_forgotten(owner, call, account):
    made = account(name="Zoë <b>")
    path = f"sign-in-rules/accounts/{made.id}"
    assert "Zoë &lt;b&gt;" in owner.open("sign-in-rules/accounts")
    owner.send(f"{path}/active", active="no")
    assert not call("GET", f"/identities/{made.id}")["active"]
    assert "blocked" in owner.open(path)
    owner.send(f"{path}/active", active="yes")
    assert "Signed out everywhere" in owner.send_and_follow("sign-in-rules/sign-out", who=made.id)
    owner.send(f"{path}/remove")
    owner.open(path, status=404)


def test_everybody_is_signed_out(owner, client, call, named):
    """Also the owner who does it; keys and admin keys go on working."""
    viewer = named("viewer")
    owner.send("sign-in-rules/sign-out")
    owner.open("sign-in-rules", status=303)
    viewer.open("keys", status=303)
    call("GET", "/keys")
    Person(client).send("sign-in", key=ADMIN_KEY)


def test_those_who_may_not_see_no_buttons_and_are_refused(named, account):
    """An admin links accounts, and does not write rules; a viewer looks."""
    made = account()
    admin, viewer = named("admin"), named("viewer")
    assert "Store the rules" not in admin.open("sign-in-rules")
    fields = {"rules.0.claim": "a", "rules.0.value": "b", "rules.0.gives": "owner", "admits": "everybody"}
    admin.send("sign-in-rules", status=403, **fields)
    admin.send("sign-in-rules/sign-out", status=403)
    path = f"sign-in-rules/accounts/{made.id}"
    assert "<button" not in re.search(r"<h2>Here</h2>.*?</section>", viewer.open(path), re.DOTALL)[0]
    for what in ("user", "active", "remove"):
        viewer.send(f"{path}/{what}", status=403, user="eve")
    admin.send(f"{path}/user", user="eve")
