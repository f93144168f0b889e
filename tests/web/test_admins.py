"""Named admins: how they are made, changed, blocked, rotated and removed, and what the audit log says of them."""

from __future__ import annotations

import logging
import re

import pytest

from llmgateway.accounts.keys import digest
from llmgateway.logs import RedactingFormatter, RequestFilter
from llmgateway.web.error_docs import REFUSALS


@pytest.fixture
def grace(call):
    call("PUT", "/groups/physics", json={})
    return call("POST", "/admins", status=201, json={"name": "Grace", "role": "group", "groups": ["physics"]})


def status(client, key: str, path: str = "/admin/keys") -> int:
    return client.get(path, headers={"AdminKey": key}).status_code


def test_the_key_is_shown_once(call, client, grace):
    """Only its digest is stored."""
    assert re.fullmatch(r"llmgw-admin-[\w-]{43}", grace["key"])
    assert re.fullmatch("admin_[0-9a-f]{28}", grace["id"])
    assert 200 == status(client, grace["key"])

    shown = call("GET", f"/admins/{grace['id']}")
    assert shown == {name: value for name, value in grace.items() if name != "key"}
    assert {"items": [shown], "next": None} == call("GET", "/admins")
    for secret in (grace["key"], digest(grace["key"])):
        assert secret not in str(call("GET", "/admins")) + str(call("GET", "/audit"))


def test_a_blocked_admin_is_refused_at_once(call, client, grace):
    call("PATCH", f"/admins/{grace['id']}", json={"active": False})
    refused = client.get("/admin/keys", headers={"AdminKey": grace["key"]})
    assert (401, "invalid_admin_key") == (refused.status_code, refused.json["error"]["code"])
    assert "blocked" in refused.json["error"]["message"]

    call("PATCH", f"/admins/{grace['id']}", json={"active": True})
    assert 200 == status(client, grace["key"])


def test_an_admin_expires(call, client, grace, clock):
    call("PATCH", f"/admins/{grace['id']}", json={"expires_at": "2026-01-02"})
    clock.advance(2 * 86_400 - 1)
    assert 200 == status(client, grace["key"])

    clock.advance(1)
    assert 401 == status(client, grace["key"])


def test_a_rotation_may_overlap(call, client, grace, clock):
    rotated = call("POST", f"/admins/{grace['id']}/rotate", json={"overlap_seconds": 60})
    assert grace["id"] == rotated["id"]
    assert [200, 200] == [status(client, each["key"]) for each in (grace, rotated)]

    clock.advance(60)
    assert [401, 200] == [status(client, each["key"]) for each in (grace, rotated)]
    newest = call("POST", f"/admins/{grace['id']}/rotate", json={})
    assert [401, 200] == [status(client, each["key"]) for each in (rotated, newest)]


def test_a_removed_admin_is_gone(call, client, grace):
    call("DELETE", f"/admins/{grace['id']}", status=204)

    assert 401 == status(client, grace["key"])
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {}),
        ("PATCH", "", {"active": False}),
        ("DELETE", "", None),
        ("POST", "/rotate", {}),
    ):
        refused = call(method, f"/admins/{grace['id']}{path}", status=404, json=body)
        assert "GET /admin/admins" in refused["error"]["message"]


def test_a_change_of_the_role_holds_at_once(call, client, grace):
    """Another role than group has no groups."""
    assert 403 == status(client, grace["key"], "/admin/status")

    changed = call("PATCH", f"/admins/{grace['id']}", json={"role": "viewer"})

    assert ("viewer", []) == (changed["role"], changed["groups"])
    assert 200 == status(client, grace["key"], "/admin/status")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "viewer"}, "name"),
        ({"name": "Alan"}, "role"),
        ({"name": "Alan", "role": "king"}, "role"),
        ({"name": "Alan", "role": "group"}, "groups"),
        ({"name": "Alan", "role": "group", "groups": []}, "groups"),
        ({"name": "Alan", "role": "viewer", "groups": ["physics"]}, "groups"),
        ({"name": "Alan", "role": "group", "groups": ["nobody's"]}, "groups"),
        ({"name": "", "role": "viewer"}, "name"),
        ({"name": "A\u200blan", "role": "viewer"}, "name"),
        ({"name": "admin_key", "role": "viewer"}, "name"),
        ({"name": "Alan", "role": "viewer", "expires_at": "2020-01-01"}, "expires_at"),
        ({"name": "Alan", "role": "viewer", "key": "my-own-key-my-own-key"}, "key"),
        ({"name": "Alan", "role": "viewer", "active": "perhaps"}, "active"),
    ],
)
def test_bad_admins_are_refused(call, grace, body, field):
    """By field, and nothing is stored."""
    refused = call("POST", "/admins", status=422, json=body)

    assert [field] == [*refused["error"]["errors"]]
    assert [grace["id"]] == [each["id"] for each in call("GET", "/admins")["items"]]


def test_all_that_is_wrong_is_said_at_once(call):
    body = {"name": "A\u200blan", "role": "group", "groups": ["nobody's"], "expires_at": "2020-01-01"}

    refused = call("POST", "/admins", status=422, json=body)

    assert {"name", "groups", "expires_at"} == {*refused["error"]["errors"]}


def test_changes_are_checked_like_new_admins(call, grace):
    path = f"/admins/{grace['id']}"
    for body in ({"groups": []}, {"groups": ["nobody's"]}, {"role": "viewer", "groups": ["physics"]}, {"name": ""}):
        call("PATCH", path, status=422, json=body)
    call("POST", "/admins", status=201, json={"name": "Alan", "role": "owner"})
    for body in ({"name": "Alan"},):
        assert REFUSALS["AdminNameTaken"].examples["name"].as_json() == call("PATCH", path, status=409, json=body)
    call("POST", "/admins", status=409, json={"name": "Grace", "role": "viewer"})
    assert {name: value for name, value in grace.items() if name != "key"} == call("GET", path)


def test_a_group_that_is_removed_is_taken_from_its_admins(call, client, grace, new_key):
    """A later group of the same name is another group."""
    call("DELETE", "/groups/physics", status=204)
    new_key(group="physics")

    assert [] == call("GET", f"/admins/{grace['id']}")["groups"]
    assert [] == client.get("/admin/keys", headers={"AdminKey": grace["key"]}).json["items"]
    call("PATCH", f"/admins/{grace['id']}", json={"note": "left without a group"})


def test_there_is_always_an_owner(call, client, admin):
    """The first owner is no record: nobody can remove, block or demote whoever has the ADMIN_KEY."""
    owner = call("POST", "/admins", status=201, json={"name": "Ada", "role": "owner"})
    header = {"AdminKey": owner["key"]}
    assert [owner["id"]] == [each["id"] for each in client.get("/admin/admins", headers=header).json["items"]]

    assert 204 == client.delete(f"/admin/admins/{owner['id']}", headers=header).status_code
    assert 200 == client.get("/admin/admins", headers=admin).status_code


def test_the_audit_names_who_made_a_change(call, client, grace, new_key, clock):
    """By the name at that time; the first owner by the name of the setting."""
    clock.advance(60)
    header = {"AdminKey": grace["key"]}
    made = client.post("/admin/keys", json={"user": "ada", "group": "physics"}, headers=header).json
    clock.advance(60)
    call("PATCH", f"/keys/{made['id']}", json={"note": "x"})
    call("PATCH", f"/admins/{grace['id']}", json={"name": "Grace Hopper"})

    changed, created = call("GET", "/audit", query_string={"target": made["id"]})["items"]
    assert {"id": None, "name": "ADMIN_KEY"} == changed["admin"]
    assert {"id": grace["id"], "name": "Grace"} == created["admin"]
    assert changed["admin_key_id"] != created["admin_key_id"]

    def found(**query: str) -> list[str]:
        return [entry["action"] for entry in call("GET", "/audit", query_string=query)["items"]]

    assert ["key.create"] == found(admin="Grace") == found(admin=grace["id"])
    assert [] == found(admin="Grace Hopper")
    assert {"key.update", "admin.update", "admin.create", "group.set"} == {*found(admin="ADMIN_KEY")}
    assert {"key.update", "admin.update"} == {*found(since="2026-01-01T00:02:00Z")}
    assert {"admin.create", "group.set"} == {*found(until="2026-01-01T00:01:00Z")}
    assert 3 == len(found(since="2026-01-01T00:01:00Z"))
    assert found(since="2026-01-01", until="2026-01-01") == found()


def test_lines_of_the_log_name_the_admin_by_the_id(call, client, grace, caplog):
    """As they name a user's key."""
    header = {"AdminKey": grace["key"]}
    lines = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(RedactingFormatter([]).format(record))

    handler = Lines()
    handler.addFilter(RequestFilter())
    logger = logging.getLogger("llmgateway.accounts.audit")
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, logger=logger.name):
            client.post("/admin/keys", json={"user": "ada"}, headers=header)
            call("PATCH", f"/admins/{grace['id']}", json={"note": "x"})
    finally:
        logger.removeHandler(handler)

    hers, owners = lines
    assert f" admin={grace['id']}]" in hers
    assert " admin=ADMIN_KEY]" in owners
    assert "Grace" not in hers + owners
    assert grace["key"] not in hers + owners
