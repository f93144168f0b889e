"""Entity tags: whoever changes what somebody else has changed in the meantime learns of it."""

from __future__ import annotations

import re

import pytest

from llmgateway.records import Account
from llmgateway.web.context import EXTENSION

MODEL = {"prices": {"prompt": 1, "cached": 0.5, "completion": 2}}


@pytest.fixture
def everything(client, call, new_key):
    """The path of each resource."""
    account = Account("https://id.example.org", "1", {"preferred_username": "zoe"}, None)
    identity = client.application.extensions[EXTENSION].identities.sign_in(account)
    key = new_key(group="physics")
    admin = call("POST", "/admins", status=201, json={"name": "Grace", "role": "viewer"})
    call("PUT", "/models/gpt-9", json=MODEL)
    call("PUT", "/limits", json={"parallel_requests": 5})
    call("PUT", "/prompt", json={"prompt": "Be brief."})
    call("PUT", "/prompt", json={"prompt": "Be kind."}, query_string={"group": "physics"})
    # In an order in which each can be removed.
    return {
        "/users/<path:user>": "/users/ada",
        "/prompt": "/prompt",
        "/prompt?group": "/prompt?group=physics",
        "/prompt?key": f"/prompt?key={key['id']}",
        "/keys/<key_id>": f"/keys/{key['id']}",
        "/groups/<name>": "/groups/physics",
        "/admins/<admin_id>": f"/admins/{admin['id']}",
        "/models/<path:name>": "/models/gpt-9",
        "/limits": "/limits",
        "/settings": "/settings",
        "/self-service": "/self-service",
        "/alerts": "/alerts",
        "/currency": "/currency",
        "/sign-in": "/sign-in",
        "/identities/<identity_id>": f"/identities/{identity.id}",
    }


def body_of(rule: str, number: int) -> dict[str, object]:
    """A change of the resource, another one for each number."""
    if rule == "/settings":
        return {"timezone": f"Etc/GMT+{number % 12 + 1}"}
    if rule == "/self-service":
        return {"without_group": {"keys": number}}
    if rule == "/sign-in":
        return {"rules": [{"claim": "groups", "value": str(number), "role": "viewer"}]}
    if rule == "/identities/<identity_id>":
        return {"user": f"zoe {number}"}
    if rule == "/currency":
        return {"code": "EUR", "rates": {"2026-01": number / 100}}
    if rule == "/alerts":
        return {"thresholds": [number]}
    if rule == "/users/<path:user>":
        return {"limits": {"parallel_requests": number}}
    name = {"/limits": "parallel_requests", "/models/<path:name>": "max_output_tokens"}.get(rule)
    if name is not None:
        return {name: number}
    return {"prompt" if rule.startswith("/prompt") else "note": str(number)}


def writes(client, rule: str) -> set[str]:
    """The methods that change the resource of a rule."""
    path = f"/admin{rule.partition('?')[0]}"
    rules = client.application.url_map.iter_rules()
    return {method for each in rules if each.rule == path for method in each.methods} & {"PUT", "PATCH", "DELETE"}


def send(client, admin, method, path, body=None, **conditions):
    conditions = {name.replace("_", "-"): tags for name, tags in conditions.items()}
    body = None if method == "DELETE" else body
    return client.open(f"/admin{path}", method=method, json=body, headers=admin | conditions)


def test_every_resource_that_can_be_changed_is_tried(client, everything):
    """A new one has to be added above."""
    rules = {
        rule.rule.removeprefix("/admin")
        for rule in client.application.url_map.iter_rules()
        if rule.rule.startswith("/admin") and {"PUT", "PATCH", "DELETE"} & rule.methods
    }
    rules -= {f"/{place}/raise" for place in ("keys/<key_id>", "groups/<name>", "users/<path:user>")}  # see below

    assert rules == {name.partition("?")[0] for name in everything}


def test_every_resource_has_a_strong_tag(client, admin, everything):
    """It changes with the resource, and only then; the answer to a change has it, too."""
    for rule, path in everything.items():
        tags = [send(client, admin, "GET", path).headers["ETag"] for _ in range(2)]
        assert tags[0] == tags[1]
        assert re.fullmatch('"[0-9a-f]{32}"', tags[0])
        for number, method in enumerate(sorted(writes(client, rule) - {"DELETE"}), 6):
            changed = send(client, admin, method, path, body_of(rule, number))
            assert 200 == changed.status_code, changed.text
            assert changed.headers["ETag"] == send(client, admin, "GET", path).headers["ETag"], rule
            assert changed.headers["ETag"] not in tags
            tags.append(changed.headers["ETag"])


def test_a_change_of_what_somebody_else_has_changed_is_refused(client, admin, everything):
    """With every method. The answer has the present state and its tag, with which the change can be made."""
    number = 6
    for rule, path in everything.items():
        for method in sorted(writes(client, rule), key="DELETE".__eq__):
            known = send(client, admin, "GET", path).headers["ETag"]
            number += 1
            whole = "PATCH" not in writes(client, rule) or rule == "/limits"
            changed = send(client, admin, "PUT" if whole else "PATCH", path, body_of(rule, number))

            refused = send(client, admin, method, path, body_of(rule, 1), If_Match=known)

            assert (412, "precondition_failed") == (refused.status_code, refused.json["error"]["code"]), (rule, method)
            present = send(client, admin, "GET", path)
            assert present.headers["ETag"] == refused.headers["ETag"] == changed.headers["ETag"]
            shown = refused.json["error"]["present"]
            assert shown == {name: value for name, value in present.json.items() if name in shown}
            done = send(client, admin, method, path, body_of(rule, 1), If_Match=refused.headers["ETag"])
            assert done.status_code in (200, 204), done.text


@pytest.mark.parametrize(
    ("tags", "status"),
    [
        ("{}", 200),
        ('"other", {}', 200),
        ("*", 200),
        ("W/{}", 412),
        ('"other"', 412),
        ("", 412),
        ('"other", W/{}', 412),
    ],
)
def test_which_tags_match(client, admin, new_key, tags, status):
    """One of several is enough; a weak one is never compared as equal (RFC 9110, section 13.1.1)."""
    path = f"/keys/{new_key()['id']}"
    known = send(client, admin, "GET", path).headers["ETag"]

    assert status == send(client, admin, "PATCH", path, {"note": "x"}, If_Match=tags.format(known)).status_code


def test_a_resource_that_is_not_there_matches_nothing(client, admin):
    """So that a group that somebody removed is not made again."""
    refused = send(client, admin, "PUT", "/groups/physics", {}, If_Match="*")

    assert (412, None) == (refused.status_code, refused.json["error"]["present"])
    assert "ETag" not in refused.headers
    assert 412 == send(client, admin, "PUT", "/models/gpt-9", MODEL, If_Match="*").status_code
    assert 404 == send(client, admin, "PATCH", "/groups/physics", {}, If_Match="*").status_code
    assert 404 == send(client, admin, "GET", "/groups/physics").status_code


def test_a_rotation_compares_tags(client, admin, everything):
    for rule in ("/keys/<key_id>", "/admins/<admin_id>"):
        path = everything[rule]
        known = send(client, admin, "GET", path).headers["ETag"]
        send(client, admin, "PATCH", path, {"note": "changed"})

        assert 412 == send(client, admin, "POST", f"{path}/rotate", {}, If_Match=known).status_code


def test_a_raise_compares_tags(client, admin, call, everything):
    """Those of the key, of the group, of the person; its end does, too."""
    limits = {"limits": {"requests_per_minute": 10}}
    for rule in ("/keys/<key_id>", "/groups/<name>", "/users/<path:user>"):
        path = everything[rule]
        send(client, admin, "PATCH", path, limits)
        known = send(client, admin, "GET", path).headers["ETag"]
        raised = {"limits": {"requests_per_minute": 20}, "until": "2026-02-01"}

        done = send(client, admin, "POST", f"{path}/raise", raised, If_Match=known)

        assert 200 == done.status_code, done.text
        assert known != done.headers["ETag"] == send(client, admin, "GET", path).headers["ETag"]
        for method in ("POST", "DELETE"):
            assert 412 == send(client, admin, method, f"{path}/raise", raised, If_Match=known).status_code
        assert 204 == send(client, admin, "DELETE", f"{path}/raise", If_Match=done.headers["ETag"]).status_code
        assert known == send(client, admin, "GET", path).headers["ETag"]


def test_a_tag_is_never_ignored(client, admin):
    """Where nothing is compared, the change is refused: whoever sends a tag relies on it."""
    calls = {
        f"{method} {rule.rule}"
        for rule in client.application.url_map.iter_rules()
        for method in rule.methods & {"POST"}
        if rule.rule.startswith("/admin") and not rule.rule.endswith(("/rotate", "/raise"))
    }
    for call in calls:
        method, rule = call.split(" ")
        path = re.sub(r"<[^>]*>", "nobody", rule).removeprefix("/admin")
        assert 412 == send(client, admin, method, path, {}, If_Match="*").status_code, call


def test_without_a_tag_changes_are_merged(client, admin, new_key):
    """PATCH changes the fields that are sent, whoever was first."""
    path = f"/keys/{new_key()['id']}"
    send(client, admin, "PATCH", path, {"note": "one"})
    send(client, admin, "PATCH", path, {"email": "ada@example.org"})

    shown = send(client, admin, "GET", path).json
    assert ("one", "ada@example.org") == (shown["note"], shown["email"])


def test_an_answer_always_has_a_body(client, admin, new_key):
    """It also says what is used and left, which the tag does not cover."""
    path = f"/keys/{new_key()['id']}"
    known = send(client, admin, "GET", path)

    again = send(client, admin, "GET", path, If_None_Match=known.headers["ETag"])
    assert (200, known.json) == (again.status_code, again.json)


def test_a_missing_right_comes_first(client, admin, call, new_key):
    """Nobody learns a state by a tag that does not match."""
    path = f"/keys/{new_key()['id']}"
    key = call("POST", "/admins", status=201, json={"name": "Alan", "role": "viewer"})["key"]

    assert 403 == send(client, {"AdminKey": key}, "PATCH", path, {}, If_Match='"other"').status_code
