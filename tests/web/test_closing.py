"""The end of a group: its keys go, stay blocked or move, and the answer names everybody."""

from __future__ import annotations

import csv
import io

import pytest

HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def members(call, new_key, clock):
    made = []
    for name in ("ada", "bob", "eve"):  # identifiers sort by their time
        clock.advance(1)
        made.append(new_key(user=name, email=f"{name}@example.org", group="course", active=name != "eve"))
    new_key(user="zoe", group="next")
    return made


def users(call, group):
    return [one["user"] for one in call("GET", f"/keys?group={group}")["items"]]


def ask(client, made):
    return client.post("/v1/chat/completions", json=HELLO, headers={"Authorization": f"Bearer {made['key']}"})


@pytest.mark.parametrize(
    ("keys", "group", "happened"),
    [
        ("remove", "removed", ["removed"] * 3),
        ("block", "closed", ["blocked", "blocked", "was blocked already"]),
        ({"move_to": "next"}, "removed", ["moved"] * 3),
    ],
    ids=["remove", "block", "move"],
)
def test_a_dry_run_shows_what_then_happens(client, call, members, keys, group, happened):
    """The same members with the same words; but the dry run changes nothing, and usage stays after the real one."""
    assert 200 == ask(client, members[0]).status_code

    shown = call("POST", "/groups/course/close", json={"keys": keys, "dry_run": True})
    assert ["ada", "bob", "eve"] == users(call, "course")
    done = call("POST", "/groups/course/close", json={"keys": keys})

    assert shown | {"dry_run": False} == done
    assert (group, 3, happened) == (done["group"], done["count"], [one["happened"] for one in done["items"]])
    assert ["ada@example.org", "bob@example.org", "eve@example.org"] == [one["email"] for one in done["items"]]
    assert 1 == len([one for one in call("GET", "/audit")["items"] if one["action"] == "group.close"])


def test_removed_keys_are_refused_and_the_group_is_gone(client, call, members):
    """Its members are named once; a second call finds no group."""
    call("POST", "/groups/course/close", json={"keys": "remove"})

    assert 401 == ask(client, members[0]).status_code
    assert ["zoe"] == [one["user"] for one in call("GET", "/keys")["items"]]
    call("GET", "/groups/course", status=404)
    call("POST", "/groups/course/close", json={"keys": "remove"}, status=404)
    assert ["next"] == [one["name"] for one in call("GET", "/groups")["items"]]


def test_a_blocked_group_takes_no_requests(client, call, members, new_key, clock):
    """Also not of a key that joins it later. An admin can open it again; closing twice is harmless."""
    call("POST", "/groups/course/close", json={"keys": "block"})
    clock.advance(1)
    late = new_key(user="late", group="course")

    assert [401, 401] == [ask(client, one).status_code for one in (members[0], late)]
    ended = call("GET", "/groups/course")["expires_at"]
    assert "2026-01-01T00:00:03+00:00" == ended
    clock.advance(60)
    again = call("POST", "/groups/course/close", json={"keys": "block"})
    assert ["was blocked already"] * 3 + ["blocked"] == [one["happened"] for one in again["items"]]
    assert ended == call("GET", "/groups/course")["expires_at"]
    call("PATCH", "/groups/course", json={"expires_at": None})
    call("PATCH", f"/keys/{late['id']}", json={"active": True})
    assert 200 == ask(client, late).status_code


def test_moved_keys_go_on(client, call, members):
    """They keep their keys, and have the limits of the new group."""
    call("POST", "/groups/course/close", json={"keys": {"move_to": "next"}})

    assert 200 == ask(client, members[0]).status_code
    assert ["ada", "bob", "eve", "zoe"] == sorted(users(call, "next"))
    call("GET", "/groups/course", status=404)


def test_members_come_as_csv(client, admin, members):
    """By the query or by the header Accept, so that the admin can write to them; no cell is a formula."""
    for arguments in ({"query_string": {"format": "csv"}}, {"headers": admin | {"Accept": "text/csv"}}):
        answer = client.post(
            "/admin/groups/course/close", json={"keys": "remove", "dry_run": True}, **{"headers": admin} | arguments
        )
        assert "text/csv" == answer.mimetype
        rows = [*csv.DictReader(io.StringIO(answer.text))]
        assert ["id", "user", "name", "email", "happened"] == [*rows[0]]
        assert [
            ("ada", "ada@example.org", "removed"),
            ("bob", "bob@example.org", "removed"),
            ("eve", "eve@example.org", "removed"),
        ] == [(one["user"], one["email"], one["happened"]) for one in rows]
    everything = client.post(
        "/admin/groups/course/close", json={"keys": "block", "dry_run": True}, headers=admin | {"Accept": "*/*"}
    )
    assert everything.is_json


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "keys"),
        ({"keys": "burn"}, "keys"),
        ({"keys": None}, "keys"),
        ({"keys": {"move": "next"}}, "keys"),
        ({"keys": {"move_to": 7}}, "keys"),
        ({"keys": {"move_to": ""}}, "keys"),
        ({"keys": {"move_to": "course"}}, "keys.move_to"),
        ({"keys": {"move_to": "nobody's"}}, "keys.move_to"),
        ({"keys": "remove", "sure": True}, "sure"),
    ],
)
def test_a_wrong_end_is_refused(call, members, body, where):
    """By field, and nothing is changed."""
    assert where in call("POST", "/groups/course/close", json=body, status=422)["error"]["errors"]
    assert ["ada", "bob", "eve"] == users(call, "course")


def test_a_group_without_keys_ends_too(call):
    call("PUT", "/groups/empty", json={"starts_at": "2027-01-01", "expires_at": "2028-01-01"})

    assert 0 == call("POST", "/groups/empty/close", json={"keys": "block"})["count"]
    group = call("GET", "/groups/empty")
    assert (None, "2026-01-01T00:00:00+00:00") == (group["starts_at"], group["expires_at"])
    assert 0 == call("POST", "/groups/empty/close", json={"keys": "remove"})["count"]
