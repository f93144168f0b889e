"""The page of named admins: letting in, changing, blocking, replacing keys, removing."""

from __future__ import annotations

import re

from llmgateway.web.dashboard.admins import MOST_BOXES
from tests.web.dashboard.reading import HOSTILE, etag_of, made_key


def admin_of(call, name: str):
    return next(each for each in call("GET", "/admins")["items"] if each["name"] == name)


def test_an_admin_is_let_in_and_the_key_shown_once(owner, call, client):
    """Sent twice, as by loading the page again, it makes nobody else."""
    call("PUT", "/groups/ml,2026", json={})
    fields = {"name": "Grace", "role": "group", "groups": "ml,2026", "expires_at": "2077-03-31", "once": "token"}

    key = made_key(owner.send("admins/new", status=200, **fields).text)
    owner.send("admins/new", **fields)

    assert 200 == client.get("/admin/keys", headers={"AdminKey": key}).status_code
    (grace,) = call("GET", "/admins")["items"]
    assert ("group", ["ml,2026"]) == (grace["role"], grace["groups"])
    for path in ("admins", f"admins/{grace['id']}"):
        assert key not in owner.open(path)


def test_what_is_wrong_is_said_at_its_field(owner, call):
    """What was typed stays, and nobody was made."""
    page = owner.send("admins/new", status=422, name="", role="viewer", expires_at="never").text

    assert 'id="name-wrong"' in page
    assert 'value="never"' in page
    assert [] == call("GET", "/admins")["items"]


def test_hostile_names_are_text(owner, call):
    """Nothing of them is markup."""
    call("POST", "/admins", status=201, json={"name": HOSTILE.replace("\u202e", ""), "role": "viewer", "note": HOSTILE})
    admin = call("GET", "/admins")["items"][0]

    for page in (owner.open("admins"), owner.open(f"admins/{admin['id']}")):
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


def test_an_admin_is_changed_blocked_and_removed(owner, call, client):
    """Each holds for the next request with the key."""
    made = call("POST", "/admins", status=201, json={"name": "Grace", "role": "viewer"})
    path, headers = f"admins/{made['id']}", {"AdminKey": made["key"]}
    page = owner.open(path)

    owner.send_and_follow(path, name="Grace H.", role="admin", note="new", etag=etag_of(page))
    assert ("admin", "new") == (admin_of(call, "Grace H.")["role"], admin_of(call, "Grace H.")["note"])
    assert "blocked" in owner.send_and_follow(f"{path}/active", active="no")
    assert 401 == client.get("/admin/keys", headers=headers).status_code
    owner.send_and_follow(f"{path}/active", active="yes")
    new = made_key(owner.send(f"{path}/rotate", status=200, overlap="3600", once="r").text)
    for key in (new, made["key"]):
        assert 200 == client.get("/admin/keys", headers={"AdminKey": key}).status_code
    owner.send_and_follow(f"{path}/remove", etag=etag_of(owner.open(path)))
    assert [] == call("GET", "/admins")["items"]
    owner.open(path, status=404)


def test_two_owners_on_one_form(owner, call):
    """The second one sees what the first one has made of it; nothing of the second is stored."""
    made = call("POST", "/admins", status=201, json={"name": "Grace", "role": "viewer"})
    path = f"admins/{made['id']}"
    tag = etag_of(owner.open(path))
    call("PATCH", f"/admins/{made['id']}", json={"note": "the first was faster"})

    for action, fields in (("", {"name": "Other", "role": "owner"}), ("/rotate", {"once": "x"}), ("/remove", {})):
        page = owner.send(f"{path}{action}", status=412, etag=tag, **fields).text
        assert "the first was faster" in page
    assert 'value="Other"' in owner.send(path, status=412, etag=tag, name="Other", role="owner").text
    assert "viewer" == call("GET", f"/admins/{made['id']}")["role"]


def test_of_very_many_groups_the_names_are_typed(owner, call):
    """One on each line: a box for each would make the page too heavy."""
    for number in range(MOST_BOXES + 1):
        call("PUT", f"/groups/{number}, {number}", json={})

    page = owner.open("admins/new")
    assert 'type="checkbox"' not in page
    owner.send("admins/new", status=200, name="Grace", role="group", groups="3, 3\r\n5, 5\r\n", once="a")
    grace = admin_of(call, "Grace")
    assert ["3, 3", "5, 5"] == grace["groups"]
    assert "3, 3\n5, 5</textarea>" in owner.open(f"admins/{grace['id']}")


def test_only_owners_see_the_page(named):
    for role in ("admin", "viewer"):
        person = named(role)
        assert "admins" not in re.findall(r'href="([^"]+)"', person.open("keys"))
        person.open("admins", status=403)
        person.send("admins/new", status=403, name="Mallory", role="owner")
