"""Classes, groups, prompts and the trace of changes, on every combination of stores."""

from __future__ import annotations

import csv
import io
import secrets

import pytest

CSV = {"Content-Type": "text/csv"}


@pytest.fixture
def group(gateway):
    """A group of its own, with a limit for all its keys together."""
    name = f"group-{secrets.token_hex(4)}"
    assert 200 == gateway.admin("PUT", f"/admin/groups/{name}", json={"limits": {"requests_per_minute": 3}}).status
    return name


def rows(answer) -> list[dict[str, str]]:
    assert 201 == answer.status, answer.body
    return list(csv.DictReader(io.StringIO(answer.body.decode())))


def members(gateway, group: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = gateway.admin("GET", f"/admin/keys?group={group}&limit=1000").json()["items"]
    return found


def test_a_class_gets_its_keys(gateway, azure, group):
    """Each line a key that works, all of them within what their group may use together."""
    file = "user,group\n" + "".join(f"student-{number},{group}\n" for number in range(300))

    handed_out = rows(gateway.admin("POST", "/admin/keys/import", body=file.encode(), headers=CSV))

    assert {row["id"]: row["user"] for row in handed_out} == {key["id"]: key["user"] for key in members(gateway, group)}
    answers = [gateway.chat(row["key"]) for row in (handed_out[0], handed_out[150], handed_out[-1], handed_out[1])]
    assert [200, 200, 200, 429] == [answer.status for answer in answers]
    assert "group.requests_per_minute" == answers[-1].header("x-llmgateway-limit")


def test_a_class_with_one_key_that_exists_gets_none(gateway, group):
    """All lines or none; the line is named."""
    taken = gateway.key(key=f"taken-{secrets.token_hex(10)}")
    file = f"user,group,key\nada,{group},\nalan,{group},{taken}\neve,{group},\n"

    refused = gateway.admin("POST", "/admin/keys/import", body=file.encode(), headers=CSV)

    assert (422, ["line 3"]) == (refused.status, list(refused.error["errors"]))
    assert [] == members(gateway, group)
    assert 200 == gateway.chat(taken).status


def test_changes_survive_a_restart(start_gateway):
    """Groups, limits, prompts and their versions, rotated keys, and what says who changed them."""
    gateway = start_gateway()
    name = f"group-{secrets.token_hex(4)}"
    gateway.admin("PUT", f"/admin/groups/{name}", json={"note": "Tuesdays", "models": ["gpt-4o-mini"]})
    made = gateway.new_key(group=name, limits={"budget": {"amount": 2.5, "unit": "usd", "period": "month"}})
    rotated = gateway.admin("POST", f"/admin/keys/{made['id']}/rotate", json={"overlap_seconds": 3600}).json()
    for place in (f"group={name}", f"key={made['id']}"):
        assert 200 == gateway.admin("PUT", f"/admin/prompt?{place}", json={"prompt": f"for {place}"}).status
    paths = (
        f"groups/{name}",
        f"keys/{made['id']}",
        f"prompt?group={name}",
        f"prompt/versions?key={made['id']}",
        f"audit?target={made['id']}",
        f"audit?target={name}",
    )
    before = [gateway.admin("GET", f"/admin/{path}").json() for path in paths]

    gateway.restart()

    assert before == [gateway.admin("GET", f"/admin/{path}").json() for path in paths]
    actions = [[entry["action"] for entry in page["items"]] for page in before[-2:]]
    assert [["prompt.set", "key.rotate", "key.create"], ["prompt.set", "group.set"]] == actions
    assert [200, 200] == [gateway.chat(key).status for key in (made["key"], rotated["key"])]
    assert f"for key={made['id']}" == gateway.admin("GET", f"/admin/prompt?key={made['id']}").json()["prompt"]
