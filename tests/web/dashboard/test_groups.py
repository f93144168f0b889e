"""The pages of groups: found, made, changed, and their end."""

from __future__ import annotations

import pytest

from tests.web.test_limits import ask

from .test_keys import HOSTILE, hidden, rows, shown_key


@pytest.fixture
def keys(new_key):
    """Keys by user, in the group ml."""
    return {user: new_key(user=user, group="ml")["key"] for user in ("ada", "bob")}


def test_are_found_and_sorted(owner, keys, call, client):
    call("PUT", "/groups/physics", json={"note": "Tuesdays", "cost_centre": "4711", "expires_at": "2030-01-01"})
    assert 200 == ask(client, keys["ada"]).status_code

    assert ["ml", "physics"] == rows(owner.open("groups"))
    assert ["physics"] == rows(owner.open("groups?q=TUES")) == rows(owner.open("groups?q=4711"))
    assert ["physics", "ml"] == rows(owner.open("groups?sort=expires_at"))
    assert ["ml", "physics"] == rows(owner.open("groups?sort=-key_count"))
    assert "No group matches" in owner.open("groups?q=nothing")


def test_one_is_made_with_everything(owner, call):
    fields = {
        "name": "new",
        "cost_centre": "4711",
        "expires_at": "2030-01-31",
        "models": "gpt-4o",
        "note": HOSTILE,
        "limits.tokens_per_minute": "5000",
        "member_limits.budget.amount": "20",
        "member_limits.budget.unit": "usd",
        "member_limits.budget.period": "month",
        "self_service.keys": "2",
        "self_service.days": "90",
        "self_service.limits.requests_per_minute": "9",
    }
    text = owner.send_and_follow("groups/new", **fields)
    assert "<script>alert" not in text
    made = call("GET", "/groups/new")
    assert ("4711", ["gpt-4o"], HOSTILE) == (made["cost_centre"], made["models"], made["note"])
    assert 5000 == made["limits"]["tokens_per_minute"]
    assert {"amount": 20, "unit": "usd", "period": "month"} == made["member_limits"]["budget"]
    assert (2, 90, 9) == (
        made["self_service"]["keys"],
        made["self_service"]["days"],
        made["self_service"]["limits"]["requests_per_minute"],
    )

    again = owner.send("groups/new", status=409, **(fields | {"cost_centre": "other"}))
    assert "There is a group of this name already" in again.text
    assert "4711" == call("GET", "/groups/new")["cost_centre"]


@pytest.mark.parametrize("name", ["", "a/b", "x" * 101, ".."])
def test_a_wrong_name_is_refused_at_the_field(owner, call, name):
    answer = owner.client.post("/dashboard/groups/new", data={"name": name}, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code in (400, 404, 422), answer.text
    assert 0 == call("GET", "/groups")["total"]


def test_one_is_changed_where_something_was_typed(owner, call):
    call("PUT", "/groups/ml", json={"note": "old", "limits": {"tokens_per_minute": 5}, "self_service": {"keys": 3}})
    tag = hidden(owner.open("groups/group?name=ml"), "etag")
    fields = {"note": "new", "limits.tokens_per_minute": "5", "self_service.keys": "3", "self_service.days": ""}
    assert "Changed" in owner.send_and_follow("groups/group?name=ml", etag=tag, **fields)
    after = call("GET", "/groups/ml")
    assert ("new", 5, 3) == (after["note"], after["limits"]["tokens_per_minute"], after["self_service"]["keys"])

    assert "Somebody else" in owner.send("groups/group?name=ml", status=412, etag=tag, note="late").text
    owner.send("groups/group?name=ml", **{"self_service.keys": ""})
    assert call("GET", "/groups/ml")["self_service"] is None
    wrong = owner.send("groups/group?name=ml", status=422, **{"self_service.keys": "lots"})
    assert 'id="self_service.keys-wrong"' in wrong.text


def test_its_keys_are_blocked_together(client, owner, keys):
    assert "2 keys are blocked" in owner.send_and_follow("groups/group/revoke?name=ml")
    assert 401 == ask(client, keys["ada"]).status_code


def test_one_is_closed_after_every_key_was_shown(client, owner, keys, call):
    path = "groups/group/close?name=ml"
    assert "What happens to its keys" in owner.open(path)
    preview = owner.send(path, status=200, keys="remove").text
    assert "2 keys are concerned" in preview
    assert "bob" in preview
    assert 200 == ask(client, keys["ada"]).status_code

    closed = owner.send(path, status=200, keys="remove", confirmed="yes").text
    assert "ml is removed" in closed
    assert "bob" in closed
    assert 401 == ask(client, keys["ada"]).status_code
    owner.open("groups/group?name=ml", status=404)


def test_its_keys_move_to_a_group_that_there_is(owner, keys, call):
    call("PUT", "/groups/next", json={})
    path = "groups/group/close?name=ml"
    for to in ("", "nowhere"):
        assert "wrong" in owner.send(path, status=422, keys="move", move_to=to).text
    owner.send(path, status=200, keys="move", move_to="next", confirmed="yes")
    assert 2 == call("GET", "/keys?group=next")["total"]


def test_an_empty_one_is_removed(owner, call, keys):
    assert "Remove…" not in owner.open("groups/group?name=ml")
    assert "There are keys in this group" in owner.send("groups/group/remove?name=ml", status=409).text
    call("PUT", "/groups/empty", json={})
    assert "Removed" in owner.send_and_follow("groups/group/remove?name=empty")


def test_limits_are_raised(owner, call):
    call("PUT", "/groups/ml", json={"limits": {"tokens_per_minute": 5}})
    owner.send("groups/group/raise?name=ml", until="2030-01-01", **{"limits.tokens_per_minute": "50"})
    assert "Raised until" in owner.open("groups/group?name=ml")
    owner.send("groups/group/raise/end?name=ml")
    assert call("GET", "/groups/ml")["raise"] is None


def test_an_admin_of_a_group_changes_its_note_and_its_keys(named, keys, call):
    """And sees neither fields nor buttons for more."""
    call("PUT", "/groups/physics", json={})
    admin = named("group", "ml")
    assert ["ml"] == rows(admin.open("groups"))
    text = admin.open("groups/group?name=ml")
    assert 'name="note"' in text
    for name in ("cost_centre", "limits.tokens_per_minute", "self_service.keys"):
        assert f'name="{name}"' not in text
    assert "Raise for a while" not in text

    admin.send("groups/group?name=ml", note="mine")
    assert "mine" == call("GET", "/groups/ml")["note"]
    admin.send("groups/group?name=ml", status=403, cost_centre="x")
    admin.send("groups/new", status=403, name="more")
    for path in ("", "/close", "/revoke"):
        admin.send(f"groups/group{path}?name=physics", status=404, note="x", keys="remove")
    assert shown_key(admin.send("keys/new", status=200, user="new").text)


def test_a_viewer_changes_nothing(named, keys, call):
    viewer = named("viewer")
    text = viewer.open("groups/group?name=ml")
    for word in ("Hand out", "Block all", "Close the group", "<h2>Change</h2>", "Raise"):
        assert word not in text
    for path in ("", "/close", "/revoke", "/remove", "/raise"):
        viewer.send(f"groups/group{path}?name=ml", status=403, note="x", keys="remove", until="2030-01-01")
    assert 2 == call("GET", "/keys?group=ml&active=true")["total"]
