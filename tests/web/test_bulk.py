"""Many keys at once: previewed, then changed; what the preview has not shown is never changed."""

from __future__ import annotations

import pytest

from llmgateway.web.context import EXTENSION
from tests.stores.contract import append, usage


@pytest.fixture
def people(new_key, clock):
    """Three keys of a course, and one of nobody's; identifiers sort by their time."""
    made = []
    for name in "abcd":
        clock.advance(1)
        made.append(new_key(user=name, email=f"{name}@example.org", **({} if name == "d" else {"group": "course"})))
    return made


def order(action="block", **more):
    return {"filter": {"group": "course"}, "action": action, **more}


def preview(call, **arguments):
    return call("POST", "/keys/bulk", json=order(**arguments))


def execute(call, told, status=200, **arguments):
    return call("POST", "/keys/bulk", json=order(**arguments, token=told["token"]), status=status)


def active(call):
    return {one["user"]: one["active"] for one in call("GET", "/keys")["items"]}


def test_a_preview_changes_nothing_and_its_token_does(call, people, clock):
    """What would happen to each key is shown, then it happens, and the audit has the keys without names."""
    told = preview(call)
    clock.advance(1)

    assert (3, True) == (told["count"], told["dry_run"])
    assert ["a", "b", "c"] == [one["user"] for one in told["items"]]
    assert {"blocked"} == {one["happens"] for one in told["items"]}
    assert all(active(call).values())

    done = execute(call, told)

    assert (3, None, False) == (done["count"], done["token"], done["dry_run"])
    assert {"a": False, "b": False, "c": False, "d": True} == active(call)
    entry = call("GET", "/audit")["items"][0]
    assert ("key.bulk", "") == (entry["action"], entry["target"])
    assert {"blocked": 3, "ids": [one["id"] for one in people[:3]]} == entry["after"]


def test_all_actions(call, people):
    """Blocked, let in again, moved, prolonged and removed; what is so already is named and left alone."""
    call("PATCH", f"/keys/{people[0]['id']}", json={"active": False})
    assert ["nothing", "blocked", "blocked"] == [one["happens"] for one in preview(call)["items"]]
    execute(call, preview(call))
    execute(call, preview(call, action="unblock"), action="unblock")
    assert all(active(call).values())

    call("PUT", "/groups/next", json={})
    to = {"action": "move", "changes": {"group": "next"}}
    execute(call, preview(call, **to), **to)
    assert ["next"] * 3 == [one["group"] for one in call("GET", "/keys")["items"]][:3]
    out = {"action": "move", "changes": {"group": None}, "filter": {"user": "a"}}
    execute(call, preview(call, **out), **out)
    assert call("GET", f"/keys/{people[0]['id']}")["group"] is None

    call("PATCH", f"/keys/{people[1]['id']}", json={"expires_at": "2026-06-01T00:00:00Z"})
    call("PATCH", f"/keys/{people[2]['id']}", json={"expires_at": "2030-06-01T00:00:00Z"})
    later = {"action": "extend", "changes": {"expires_at": "2027-01-01T00:00:00Z"}, "filter": {"all": True}}
    told = preview(call, **later)
    assert ["nothing", "extended", "nothing", "nothing"] == [one["happens"] for one in told["items"]]
    execute(call, told, **later)
    ends = [one["expires_at"] and one["expires_at"][:10] for one in call("GET", "/keys")["items"]]
    assert [None, "2027-01-01", "2030-06-01", None] == ends

    everyone = {"action": "remove", "filter": {"all": True}}
    execute(call, preview(call, **everyone), **everyone)
    assert [] == call("GET", "/keys")["items"]


def test_a_token_is_good_for_what_was_shown(call, people, clock, new_key):
    """Not for another filter, action or change, not for other keys, not for ever; errors say what to do."""
    told = preview(call)
    for other in (
        {"action": "remove"},
        {"filter": {"group": "course", "active": True}},
        {"action": "move", "changes": {"group": None}},
    ):
        problem = execute(call, told, status=422, **other)["error"]
        assert "another filter, action or changes" in problem["errors"]["token"][0]
    for token in ("", "x", "AAAA", told["token"][:-8] + "AAAAAAA=", people[0]["key"]):
        assert (422 == call("POST", "/keys/bulk", json=order(token=token), status=422)["error"] and False) or True

    new_key(user="e", group="course")
    changed = execute(call, told, status=409)
    assert "selection_changed" == changed["error"]["code"]
    assert 4 == changed["preview"]["count"]
    assert all(active(call).values())
    assert 4 == execute(call, changed["preview"])["count"]

    told = preview(call, action="unblock")
    clock.advance(601)
    assert "10 minutes" in execute(call, told, status=422, action="unblock")["error"]["errors"]["token"][0]


def test_another_process_takes_the_token(make_app, admin, tmp_path):
    """All hosts have the same secret, and none needs the memory of another."""
    one = make_app()
    folder = str(one.extensions[EXTENSION].settings.instance)
    here, there = one.test_client(), make_app(LLMGATEWAY_INSTANCE=folder).test_client()
    here.post("/admin/keys", json={"user": "ada"}, headers=admin)
    body = {"filter": {"user": "ada"}, "action": "block"}
    told = here.post("/admin/keys/bulk", json=body, headers=admin).json

    done = there.post("/admin/keys/bulk", json=body | {"token": told["token"]}, headers=admin)

    assert (200, 1) == (done.status_code, done.json["count"])


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (order(filter={}), "filter"),
        ({"filter": {}, "action": "block"}, "filter"),
        ({"filter": {"all": False}, "action": "block"}, "filter"),
        (order(filter={"all": True, "user": "a"}), "filter"),
        (order(filter={"colour": "red"}), "filter"),
        (order(filter={"group": "nobody's"}), "filter.group"),
        (order(filter={"unused_since": "long ago"}), "filter"),
        (order(action="burn"), "action"),
        (order(action="move"), "changes.group"),
        (order(action="extend"), "changes.expires_at"),
        (order(action="move", changes={"group": "nobody's"}), "changes.group"),
        (order(action="extend", changes={"expires_at": "2020-01-01"}), "changes.expires_at"),
        (order(action="block", changes={"group": None}), "changes.group"),
        (order(dry_run=False), "token"),
        ({"action": "block"}, "filter"),
    ],
)
def test_a_wrong_order_is_refused_by_field(call, people, body, where):
    """Everything that is wrong is named, and nothing is changed."""
    error = call("POST", "/keys/bulk", json=body, status=422)["error"]

    assert where in error["errors"]
    assert all(active(call).values())


def test_keys_are_selected_by_their_last_use(make_app, admin, clock):
    """A key that was never used counts from its creation; the last use of others is in the usage log."""
    app = make_app()
    client, services = app.test_client(), app.extensions[EXTENSION]
    new = []
    for name in ("never", "long ago", "lately"):
        clock.advance(1)
        new.append(services.keys.create(user=name, name="default")[0])
    append(services.usage_log, [usage(1, key_id=new[1].id, timestamp=new[1].created_at)])
    clock.advance(200 * 86400)
    fresh, _ = services.keys.create(user="new", name="default")
    append(services.usage_log, [usage(2, key_id=new[2].id, timestamp=fresh.created_at)])
    body = {"filter": {"unused_since": "2026-02-01"}, "action": "remove"}

    told = client.post("/admin/keys/bulk", json=body, headers=admin).json

    assert ["never", "long ago"] == [one["user"] for one in told["items"]]
    assert [None, "2026-01-01"] == [one["last_used"] and one["last_used"][:10] for one in told["items"]]
    for selected, users in (
        ({"created_before": "2026-02-01"}, ["never", "long ago", "lately"]),
        ({"created_since": "2026-02-01"}, ["new"]),
        ({"expired": True}, []),
        ({"expired": False, "active": True, "user": "new"}, ["new"]),
    ):
        found = client.post("/admin/keys/bulk", json={"filter": selected, "action": "block"}, headers=admin).json
        assert users == [one["user"] for one in found["items"]]
