"""Every change leaves one entry; no secret is in it."""

from __future__ import annotations

import hashlib

import pytest

from llmgateway.accounts.keys import digest
from llmgateway.records import Account
from llmgateway.web.context import EXTENSION

from .conftest import ADMIN_KEY

AZURE_KEY = "canary-azure-key"
OWN_KEY = "canary-own-key-of-ada"
CHANGES_NOTHING = {
    "POST /admin/reconcile",
    "POST /admin/prompt/preview",
    "POST /admin/doctor",
    "POST /admin/alerts/test",
}
ELSEWHERE = {
    "POST /admin/models/import",
    "POST /admin/keys/bulk",
    "POST /admin/groups/<name>/close",
    "POST /admin/users/<path:user>/erase",
}
"""In test_import_models.py, which has a resource to import from, test_bulk.py, test_closing.py and test_erasure.py."""
RAISE = {"limits": {"parallel_requests": 20}, "until": "2099-01-01"}
PRICES = {"prompt": 1, "cached": 0.5, "completion": 2}

STAFF = {"claim": "groups", "value": "staff", "role": "viewer"}
OF_THE_GROUP = {"query_string": {"group": "physics"}}

# Each call, with the action and the target of the entry that it leaves, in an order that works.
CALLS = [
    ("POST /admin/setllmkey", {"json": {"key": AZURE_KEY}}, "credential.set", ""),
    ("PUT /admin/groups/<name>", {"json": {"note": "Tuesdays"}}, "group.set", "physics"),
    ("PATCH /admin/groups/<name>", {"json": {"limits": {"parallel_requests": 9}}}, "group.set", "physics"),
    ("POST /admin/addapikey", {"json": {"user": "ada", "key": OWN_KEY}}, "key.create", "NEW"),
    ("POST /admin/keys", {"json": {"user": "ada", "group": "physics"}}, "key.create", "NEW"),
    ("POST /admin/keys/import", {"data": "user\ngrace\nalan\n", "content_type": "text/csv"}, "key.import", ""),
    ("PATCH /admin/keys/<key_id>", {"json": {"limits": {"parallel_requests": 2}}}, "key.update", "KEY"),
    ("POST /admin/keys/<key_id>/rotate", {"json": {"overlap_seconds": 60}}, "key.rotate", "KEY"),
    ("POST /admin/keys/<key_id>/raise", {"json": RAISE}, "key.raise", "KEY"),
    ("DELETE /admin/keys/<key_id>/raise", {}, "key.raise", "KEY"),
    ("POST /admin/groups/<name>/raise", {"json": RAISE}, "group.raise", "physics"),
    ("DELETE /admin/groups/<name>/raise", {}, "group.raise", "physics"),
    ("PUT /admin/users/<path:user>", {"json": {"limits": {"parallel_requests": 3}}}, "user.set", "physics"),
    ("PATCH /admin/users/<path:user>", {"json": {"limits": {"parallel_requests": 2}}}, "user.set", "physics"),
    ("POST /admin/users/<path:user>/raise", {"json": RAISE}, "user.raise", "physics"),
    ("DELETE /admin/users/<path:user>/raise", {}, "user.raise", "physics"),
    ("DELETE /admin/users/<path:user>", {}, "user.remove", "physics"),
    ("PUT /admin/settings", {"json": {"timezone": "Europe/Berlin"}}, "settings.set", ""),
    ("PUT /admin/self-service", {"json": {"without_group": {"keys": 1}}}, "self_service.set", ""),
    ("POST /admin/groups/<name>/revoke", {}, "group.revoke", "physics"),
    ("PUT /admin/limits", {"json": {"requests_per_minute": 5}}, "limits.set", ""),
    ("PATCH /admin/limits", {"json": {"parallel_requests": 5}}, "limits.set", ""),
    ("PUT /admin/currency", {"json": {"code": "EUR", "rates": {"2026-10": 0.92}}}, "currency.set", ""),
    ("PATCH /admin/currency", {"json": {"rates": {"2026-11": 0.93}}}, "currency.set", ""),
    ("PUT /admin/alerts", {"json": {"thresholds": [90]}}, "alerts.set", ""),
    ("POST /admin/setprompt", {"json": {"prompt": "Be brief."}}, "prompt.set", ""),
    ("PUT /admin/prompt", {"json": {"prompt": "Be kind."}, **OF_THE_GROUP}, "prompt.set", "physics"),
    ("DELETE /admin/prompt", OF_THE_GROUP, "prompt.clear", "physics"),
    ("PUT /admin/models/<path:name>", {"json": {"prices": PRICES}}, "prices.set", "physics"),
    ("DELETE /admin/models/<path:name>", {}, "prices.remove", "physics"),
    ("POST /admin/admins", {"json": {"name": "Grace", "role": "viewer"}}, "admin.create", "ADMIN"),
    ("PATCH /admin/admins/<admin_id>", {"json": {"role": "admin"}}, "admin.update", "ADMIN"),
    ("POST /admin/admins/<admin_id>/rotate", {"json": {}}, "admin.rotate", "ADMIN"),
    ("DELETE /admin/admins/<admin_id>", {}, "admin.remove", "ADMIN"),
    ("POST /admin/removeapikey", {"json": {"key": OWN_KEY}}, "key.remove", "NEW"),
    ("DELETE /admin/keys/<key_id>", {}, "key.remove", "KEY"),
    ("DELETE /admin/groups/<name>", {}, "group.remove", "physics"),
    ("PUT /admin/sign-in", {"json": {"rules": [STAFF]}}, "sign-in.set", ""),
    ("PATCH /admin/identities/<identity_id>", {"json": {"active": False}}, "user.identity", "zoe"),
    ("DELETE /admin/identities/<identity_id>", {}, "user.identity", "zoe"),
    ("POST /admin/sessions/end", {"json": {}}, "sessions.end", ""),
]


@pytest.fixture
def entries(client, admin):
    """Read the audit log, newest first."""

    def read(query: str = ""):
        answer = client.get(f"/admin/audit?{query}", headers=admin)
        assert 200 == answer.status_code
        return answer.json["items"]

    return read


@pytest.fixture
def everything(client, admin, entries, clock):
    """Make every change once; returns what each of them left in the log."""
    left = {}
    key_id = admin_id = ""
    account = Account("https://id.example.org", "1", {"preferred_username": "zoe"}, None)
    identity_id = client.application.extensions[EXTENSION].identities.sign_in(account).id
    for name, request, _, _ in CALLS:
        before = len(entries())
        clock.advance(1)
        method, rule = name.split(" ")
        path = rule.replace("<key_id>", key_id).replace("<admin_id>", admin_id).replace("<identity_id>", identity_id)
        for place in ("<path:name>", "<path:user>", "<name>"):
            path = path.replace(place, "physics")
        answer = client.open(path, method=method, headers=admin, **request)
        assert answer.status_code < 300, (name, answer.text)
        key_id = answer.json["id"] if name == "POST /admin/keys" else key_id
        admin_id = answer.json["id"] if name == "POST /admin/admins" else admin_id
        left[name] = entries()[: len(entries()) - before]
    return left


def test_every_changing_call_is_tried(client):
    """A new one has to be added above, or to be named as one that changes nothing."""
    calls = {
        f"{method} {rule.rule}"
        for rule in client.application.url_map.iter_rules()
        for method in rule.methods - {"GET", "HEAD", "OPTIONS"}
        if rule.rule.startswith("/admin")
    }

    assert calls == {name for name, *_ in CALLS} | CHANGES_NOTHING | ELSEWHERE


def test_every_change_leaves_one_entry(everything):
    """With what was done, to what."""
    ids = {name: [(entry["action"], entry["target"]) for entry in left] for name, left in everything.items()}
    for name, _, action, target in CALLS:
        assert 1 == len(ids[name]), name
        assert action == ids[name][0][0], name
        if target.isupper():
            assert ids[name][0][1].startswith("admin_" if target == "ADMIN" else "key_"), name
        else:
            assert target == ids[name][0][1], name


def test_no_secret_is_in_it(everything, entries):
    """No key of a user, no digest of one, neither Azure's nor the admin's."""
    text = str(entries("limit=1000"))

    for secret in (AZURE_KEY, OWN_KEY, digest(OWN_KEY), ADMIN_KEY, hashlib.sha256(ADMIN_KEY.encode()).hexdigest()[:12]):
        assert secret not in text
    assert "llmgw-" not in text
    assert "digest" not in text


def test_says_what_was_before_and_after(client, admin, new_key, entries, clock):
    """The fields that were sent, as the API shows them; from which address, and when."""
    made = new_key(note="until June")
    clock.advance(60)
    client.patch(
        f"/admin/keys/{made['id']}",
        json={"note": None, "active": False},
        headers=admin,
        environ_base={"REMOTE_ADDR": "192.0.2.17"},
    )

    change, creation = entries(f"target={made['id']}")

    assert ("key.update", {"note": "until June", "active": True}) == (change["action"], change["before"])
    assert {"note": None, "active": False} == change["after"]
    assert ("192.0.2.17", "2026-01-01T00:01:00+00:00") == (change["address"], change["timestamp"])
    assert (None, made) == (creation["before"], {"key": made["key"]} | creation["after"])
    assert change["admin_key_id"] == creation["admin_key_id"]


def test_are_found_by_what_was_done(everything, entries):
    """By an action, or by the noun of several; other words that begin like it are others."""
    assert {"key.update"} == {entry["action"] for entry in entries("action=key.update")}
    found = {entry["action"] for entry in entries("action=key&limit=1000")}
    assert {"key.create", "key.import", "key.raise", "key.remove", "key.rotate", "key.update"} == found
    assert [] == entries("action=ke") == entries("action=key.") == entries("action=update")


def test_what_is_refused_leaves_none(client, admin, new_key, entries):
    """Nor does a change of nothing."""
    made = new_key()
    before = entries()
    for body in ({"limits": {"requests_per_minute": -1}}, {"expires_at": "2020-01-01"}, {"group": "nobody's"}, {}):
        client.patch(f"/admin/keys/{made['id']}", json=body, headers=admin)
    client.delete("/admin/keys/nobody", headers=admin)
    client.put("/admin/limits", json={"requests_per_hour": 1}, headers=admin)
    client.post("/admin/keys/import", data="usr\nada\n", headers=admin, content_type="text/csv")

    assert before == entries()


def test_pages(client, admin, new_key, entries):
    """Newest first, every entry once, the last page says so."""
    for _ in range(5):
        new_key()
    seen, cursor = [], ""
    while cursor is not None:
        page = client.get(f"/admin/audit?limit=2&cursor={cursor}", headers=admin).json
        seen += page["items"]
        cursor = page["next"]

    assert seen == entries()
    assert 5 == len(seen)


RACES = [
    ("PATCH", "/keys/{key}", {"note": "first"}, {"note": "second"}, "keys", "update"),
    ("POST", "/keys/{key}/rotate", {"overlap_seconds": 60}, {"overlap_seconds": 90}, "keys", "rotate"),
    ("POST", "/keys/{key}/raise", RAISE, RAISE | {"until": "2098-01-01"}, "keys", "update"),
    ("PATCH", "/groups/physics", {"note": "first"}, {"note": "second"}, "groups", "update"),
    ("PUT", "/groups/physics", {"note": "first"}, {"note": "second"}, "groups", "put"),
    ("POST", "/groups/physics/raise", RAISE, RAISE | {"until": "2098-01-01"}, "groups", "update"),
    ("PUT", "/limits", {"parallel_requests": 7}, {"parallel_requests": 8}, "policy", "set_limits"),
    ("PATCH", "/limits", {"parallel_requests": 7}, {"parallel_requests": 8}, "policy", "update_limits"),
    ("PUT", "/prompt", {"prompt": "first"}, {"prompt": "second"}, "prompts", "set"),
    ("PUT", "/prompt?group=physics", {"prompt": "first"}, {"prompt": "second"}, "prompts", "set"),
    ("PUT", "/models/my-course", {"max_output_tokens": 7}, {"max_output_tokens": 8}, "policy", "set_model"),
]


@pytest.mark.parametrize(
    ("method", "path", "first", "second", "service", "name"),
    [pytest.param(*case, id=" ".join(case[:2])) for case in RACES],
)
def test_of_two_changes_at_once_one_begins_where_the_other_ends(
    client, call, new_key, clock, monkeypatch, method, path, first, second, service, name
):
    """What was there before is what the change has replaced, not what was read a moment earlier."""
    limits = {"parallel_requests": 2}
    call("PUT", "/groups/physics", json={"limits": limits})
    path = path.format(key=new_key(group="physics", limits=limits)["id"])
    served = getattr(client.application.extensions[EXTENSION], service)
    change = getattr(served, name)

    def late(*arguments, **options):
        monkeypatch.undo()
        clock.advance(1)
        call(method, path, json=first)
        clock.advance(1)
        return change(*arguments, **options)

    monkeypatch.setattr(served, name, late)
    call(method, path, json=second)

    last, one_before = call("GET", "/audit?limit=2")["items"]
    assert last["target"] == one_before["target"]
    assert last["before"] == one_before["after"] != last["after"]
