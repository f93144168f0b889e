"""Named admins on every combination of stores, in several processes, and from the terminal."""

from __future__ import annotations

import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from click.testing import CliRunner

from llmgateway.cli import main

ROUNDS = 10


@pytest.fixture
def group(pair):
    name = f"group-{secrets.token_hex(4)}"
    assert 200 == pair.admin("PUT", f"/admin/groups/{name}", json={"limits": {"requests_per_minute": 60}}).status
    return name


@pytest.fixture
def grace(pair, group):
    body = {"name": f"Grace {secrets.token_hex(4)}", "role": "group", "groups": [group]}
    made = pair.admin("POST", "/admin/admins", json=body)
    assert 201 == made.status, made.body
    return made.json()


def everywhere(gateway, method: str, path: str, key: str, **arguments) -> set[int]:
    """The statuses with which each process answers."""
    statuses = set()
    for worker in gateway.workers():
        with closing(gateway.connect_to(worker)) as connection:
            answer = gateway.request(method, path, headers={"AdminKey": key}, connection=connection, **arguments)
            statuses.add(answer.status)
    return statuses


def test_changes_hold_in_every_process_at_once(pair, grace):
    """Blocked, let in, rotated, another role, removed: the next request of each process knows it."""
    path, key = f"/admin/admins/{grace['id']}", grace["key"]
    assert {200} == everywhere(pair, "GET", "/admin/keys", key)

    pair.admin("PATCH", path, json={"active": False})
    assert {401} == everywhere(pair, "GET", "/admin/keys", key)
    pair.admin("PATCH", path, json={"active": True})
    assert {200} == everywhere(pair, "GET", "/admin/keys", key)
    new = pair.admin("POST", f"{path}/rotate", json={}).json()["key"]
    assert ({401}, {200}) == tuple(everywhere(pair, "GET", "/admin/keys", each) for each in (key, new))
    assert {403} == everywhere(pair, "GET", "/admin/status", new)
    pair.admin("PATCH", path, json={"role": "viewer"})
    assert {200} == everywhere(pair, "GET", "/admin/status", new)
    assert 204 == pair.admin("DELETE", path).status
    assert {401} == everywhere(pair, "GET", "/admin/status", new)


def test_of_two_admins_who_change_the_same_thing_one_wins(pair, group):
    """Over HTTP, in any process; the other gets the present state, with which the change can be made."""
    path = f"/admin/groups/{group}"

    def change(note: str, tag: str):
        return pair.admin("PATCH", path, json={"note": note}, headers={"If-Match": tag})

    with ThreadPoolExecutor(2) as threads:
        for number in range(ROUNDS):
            tag = pair.admin("GET", path).header("etag")
            notes = [f"a{number}", f"b{number}"]
            answers = [*threads.map(change, notes, [tag, tag])]
            assert [200, 412] == sorted(answer.status for answer in answers)
            won = next(note for note, answer in zip(notes, answers, strict=True) if answer.status == 200)
            lost = next(answer for answer in answers if answer.status == 412)
            assert (won, "precondition_failed") == (lost.error["present"]["note"], lost.error["code"])
            again = change("again", lost.header("etag"))
            assert (200, "again") == (again.status, again.json()["note"])


def test_the_admin_of_a_group_at_the_terminal(pair, grace, group):
    """What is hers works; what is not ends with the status for a missing right, or is not there."""

    def run(*arguments: str, status: int = 0, **environ: str):
        asked = {"ADMIN_KEY": grace["key"], "LLMGATEWAY_URL": pair.url} | environ
        result = CliRunner().invoke(main, [*arguments, "--json"], env=asked)
        assert status == result.exit_code, result.output
        return json.loads(result.stdout) if result.stdout else result.stderr

    other = pair.new_key()
    made = run("keys", "add", "ada", "--requests-per-minute", "30")

    assert group == made["group"]
    assert [made["id"]] == [key["id"] for key in run("keys", "list")]
    assert [group] == [each["name"] for each in run("groups", "list")]
    assert not run("keys", "block", made["id"])["active"]
    assert "There is no key with this id" in run("keys", "show", other["id"], status=1)
    assert "role" in run("status", status=4)
    assert "role" in run("admins", "list", status=4)
    assert {grace["id"]} == {entry["admin"]["id"] for entry in run("audit", "--admin", grace["name"])}
    owner = {"ADMIN_KEY": pair.admin_key}
    shown = run("admins", "show", grace["name"], **owner)
    assert {name: value for name, value in grace.items() if name != "key"} == shown
    assert not run("admins", "block", grace["name"], **owner)["active"]
    run("keys", "list", status=4)
    assert run("admins", "unblock", grace["id"], **owner)["active"]
    rotated = run("admins", "rotate", grace["name"], "--overlap", "60", **owner)
    assert rotated["key"] != grace["key"]
    assert "viewer" == run("admins", "set", grace["name"], "--role", "viewer", **owner)["role"]
    run("admins", "remove", grace["name"], status=2, **owner)
    assert run("admins", "remove", grace["name"], "--yes", **owner)["removed"]
    run("keys", "list", status=4)


def test_a_name_is_let_in_once(pair):
    """Also if two owners let somebody in at the same time."""
    name = f"Alan {secrets.token_hex(4)}"
    with ThreadPoolExecutor(4) as threads:
        answers = [
            *threads.map(
                lambda _: pair.admin("POST", "/admin/admins", json={"name": name, "role": "metrics"}).status, range(4)
            )
        ]

    assert [201, 409, 409, 409] == sorted(answers)
    found = [each for each in pair.admin("GET", "/admin/admins").json()["items"] if each["name"] == name]
    assert 1 == len(found)
