"""A person's data: all of it is exported, all of it is erased, and nobody else's."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from urllib.parse import quote

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.records import KeyQuery, RecordQuery
from llmgateway.web.context import EXTENSION
from tests.folders import contents_below
from tests.stores.contract import append, usage

NAME, EMAIL, NOTE, LAPTOP = "Zoë Quixote-Brandt", "zoe.quixote@example.org", "office 4711", "quixotes laptop"
HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
CANARIES = (NAME, "Quixote", EMAIL, NOTE, LAPTOP)


@pytest.fixture
def app(make_app):
    return make_app()


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def services(app):
    return app.extensions[EXTENSION]


@pytest.fixture
def zoe(call, new_key, clock):
    """A person with two keys, one of which is gone, a prompt, and some history; and somebody else."""
    made = new_key(user=NAME, name=LAPTOP, email=EMAIL, note=NOTE, group="course")
    clock.advance(1)
    old = new_key(user=NAME, name="old")
    call("PATCH", f"/keys/{made['id']}", json={"note": f"{NOTE}, moved", "name": f"new {LAPTOP}"})
    call("PUT", f"/prompt?key={made['id']}", json={"prompt": f"You talk to {NAME}."})
    call("DELETE", f"/keys/{old['id']}", status=204)
    clock.advance(1)
    other = new_key(user="bob", email="bob@example.org", group="course")
    return {"now": made, "old": old, "other": other}


def ask(client, made):
    return client.post("/v1/chat/completions", json=HELLO, headers={"Authorization": f"Bearer {made['key']}"})


def path(user, what):
    return f"/users/{quote(user, safe='')}/{what}"


def erase(call, user=NAME, **arguments):
    return call("POST", path(user, "erase"), json={}, **arguments)


def found_in(folder, words):
    """The canaries that any file contains, also in the spelling of JSON."""
    spellings = {word: {word.encode(), json.dumps(word)[1:-1].encode()} for word in words}
    return {
        (word, file.name)
        for file, content in contents_below(folder)
        for word, spelt in spellings.items()
        if any(one in content for one in spelt)
    }


def test_an_export_has_everything_and_opens_nothing(client, call, admin, services, zoe):
    """Keys, prompts, records, sums and audit; no digest, and nothing of anybody else."""
    assert [200, 200] == [ask(client, zoe["now"]).status_code, ask(client, zoe["other"]).status_code]

    answer = client.get(f"/admin{path(NAME, 'export')}", headers=admin)

    document = json.loads(answer.data)
    assert "application/json" == answer.mimetype
    assert NAME == document["user"]
    assert sorted(zoe[one]["id"] for one in ("now", "old")) == sorted(document["key_ids"])
    assert [(f"new {LAPTOP}", EMAIL, f"{NOTE}, moved")] == [
        (one["name"], one["email"], one["note"]) for one in document["keys"]
    ]
    assert [NAME] == [one["user"] for one in document["records"]] == [one["user"] for one in document["sums"]]
    assert [f"You talk to {NAME}."] == [one["text"] for one in document["prompts"]]
    actions = ["key.create", "key.create", "key.remove", "key.update", "prompt.set"]
    assert actions == sorted(one["action"] for one in document["audit"])
    assert "digest" not in answer.text
    assert "bob" not in answer.text
    record = services.keys.get(zoe["now"]["id"])
    assert record.digest not in answer.text


def test_nobody_can_be_exported_who_is_not_there(call, zoe):
    """Names are compared letter by letter."""
    for name in ("nobody", NAME.lower(), f"{NAME} ", "Zoë"):
        for method, what in (("GET", "export"), ("POST", "erase")):
            error = call(method, path(name, what), json={} if method == "POST" else None, status=404)["error"]
            assert "user" == error["param"]
            assert name not in error["message"]


def test_a_preview_counts_and_changes_nothing(client, call, services, zoe):
    assert 200 == ask(client, zoe["now"]).status_code

    shown = call("POST", path(NAME, "erase"), json={"dry_run": True})

    assert (None, True, False) == (shown["erased_as"], shown["dry_run"], shown["complete"])
    assert {"keys": 1, "records": 1, "prompts": 1, "stored_responses": 0} == {
        name: count
        for name, count in shown["counts"].items()
        if name in ("keys", "records", "prompts", "stored_responses")
    }
    assert 200 == ask(client, zoe["now"]).status_code
    assert not services.keys.list(KeyQuery(user="erased"))


def test_nothing_remains_of_an_erased_person(client, call, services, zoe, caplog):
    """Neither in the answers of the API, nor in any file of the instance; costs and groups stay, and so do others."""
    for who in ("now", "other", "now"):
        assert 200 == ask(client, zoe[who]).status_code
    services.journal.flush()
    by = "by=day,group,model,key"
    before = call("GET", f"/usage?{by}")
    folder = services.settings.instance
    assert {word for word, _ in found_in(folder, CANARIES)} == {*CANARIES}

    told = erase(call)

    assert (True, [], False) == (told["complete"], told["pending"], told["dry_run"])
    assert told["erased_as"].startswith("erased-")
    assert set() == found_in(folder, CANARIES)
    assert not [word for word in CANARIES if word in caplog.text]
    assert 401 == ask(client, zoe["now"]).status_code
    assert 200 == ask(client, zoe["other"]).status_code
    services.journal.flush()
    rows = [row for row in call("GET", f"/usage?{by}")["rows"] if row["key"] == zoe["now"]["id"]]
    assert [row for row in before["rows"] if row["key"] == zoe["now"]["id"]] == rows
    assert {told["erased_as"], "bob"} == {row["user"] for row in call("GET", "/usage?by=user")["rows"]}
    logs = {(one["user"], one["client_address"]) for one in call("GET", "/logs")["items"]}
    assert {(told["erased_as"], told["erased_as"]), ("bob", "127.0.0.1")} == logs
    audit = call("GET", "/audit")["items"]
    assert {"bob", told["erased_as"]} == {one["after"]["user"] for one in audit if one["action"] == "key.create"}
    [entry] = [one for one in audit if one["action"] == "user.erase"]
    assert told["erased_as"] == entry["target"]
    [prompt] = [one for one in audit if one["action"] == "prompt.set"]
    assert (zoe["now"]["id"], told["erased_as"]) == (prompt["target"], prompt["after"]["prompt"])
    assert "bob@example.org" in json.dumps(call("GET", "/keys"))
    erase(call, status=404)


def test_a_namesake_who_comes_later_is_somebody_else(client, call, new_key, services, clock, zoe):
    """Their key, their records and their audit keep the name; what the erased person's key still ships does not."""
    told = erase(call)
    clock.advance(1)
    namesake = new_key(user=NAME, email=EMAIL)
    assert 200 == ask(client, namesake).status_code
    services.journal.flush()

    append(services.usage_log, [usage(77, key_id=zoe["now"]["id"], user=NAME, client_address="192.0.2.1")])

    users = {one["key_id"]: one["user"] for one in call("GET", "/logs")["items"]}
    assert {namesake["id"]: NAME, zoe["now"]["id"]: told["erased_as"]} == users
    assert [namesake["id"]] == call("GET", path(NAME, "export"))["key_ids"]
    again = erase(call)
    assert again["erased_as"] != told["erased_as"]
    assert [namesake["id"]] == again["keys"]


def test_limits_of_a_person_go_and_a_namesake_begins_anew(client, call, new_key, services, zoe):
    """What is set for the person, what the audit says about it, and what is used of the budget."""
    limits = {"limits": {"budget": {"amount": 2, "unit": "requests", "period": "total"}}}
    call("PUT", f"/users/{quote(NAME)}", json=limits)
    assert [200, 200, 429] == [ask(client, zoe["now"]).status_code for _ in range(3)]
    services.journal.flush()
    assert [limits["limits"]["budget"]] == [
        one["limits"]["budget"] for one in call("GET", path(NAME, "export"))["person"]
    ]
    assert [429] == [one["status"] for one in call("GET", path(NAME, "export"))["refusals"]]

    told = erase(call)

    assert (1, 2, 1) == tuple(told["counts"][name] for name in ("person", "records", "refusals"))
    assert set() == found_in(services.settings.instance, CANARIES)
    assert told["erased_as"] in {one["target"] for one in call("GET", "/audit")["items"] if one["action"] == "user.set"}
    assert NAME not in services.policy.stored().persons
    namesake = new_key(user=NAME)
    call("PUT", f"/users/{quote(NAME)}", json=limits)
    assert [200, 200, 429] == [ask(client, namesake).status_code for _ in range(3)]


def test_a_key_that_was_handed_on_stays_with_its_new_owner(client, call, services, clock, zoe):
    """Only what belongs to the erased person goes: before in the audit, in records and later."""
    key_id = zoe["now"]["id"]
    assert 200 == ask(client, zoe["now"]).status_code
    clock.advance(1)
    call("PATCH", f"/keys/{key_id}", json={"user": "cleo", "email": "cleo@example.org", "note": None, "name": "cleos"})
    clock.advance(1)
    call("PATCH", f"/keys/{key_id}", json={"note": "cleos note"})
    assert 200 == ask(client, zoe["now"]).status_code
    services.journal.flush()

    told = erase(call)
    append(services.usage_log, [usage(1, key_id=key_id, user=NAME), usage(2, key_id=key_id, user="cleo")])

    assert "cleo" == call("GET", f"/keys/{key_id}")["user"]
    assert 200 == ask(client, zoe["now"]).status_code
    users = sorted(one.user for one in services.usage_log.records(RecordQuery(key_id=key_id, limit=9)))
    assert ["cleo", "cleo", told["erased_as"], told["erased_as"]] == users
    entries = {json.dumps(one) for one in call("GET", f"/audit?target={key_id}")["items"]}
    assert any("cleos note" in one and "cleos" in one for one in entries)
    assert not [one for one in entries if NOTE in one or EMAIL in one or LAPTOP in one]


def away(*_, **__):
    raise StoreUnavailable("away")


def state(services):
    """The erasures as another program sees them: pseudonym, digest of the name, finished."""
    with closing(sqlite3.connect(services.settings.instance / "gateway.sqlite")) as database:
        return database.execute("SELECT pseudonym, digest, finished FROM erasures").fetchall()


def test_a_record_in_the_journal_loses_the_name_when_it_is_shipped(client, call, services, clock, zoe, monkeypatch):
    """What waited in the journal during the erasure comes later, under the pseudonym; that it waits is said."""
    with monkeypatch.context() as patch:
        patch.setattr(services.usage_log, "append", away)
        patch.setattr("llmgateway.accounts.erasure.WAIT_SECONDS", 0.3)
        assert 200 == ask(client, zoe["now"]).status_code
        told = erase(call)

    assert not told["complete"]
    assert "journals" in told["pending"][0]
    assert 0 == state(services)[0][2]
    services.journal.flush()
    assert [told["erased_as"]] == [one["user"] for one in call("GET", "/logs")["items"]]
    clock.advance(61)
    services.personal_data.look_after()
    assert [(told["erased_as"], None, 1)] == state(services)
    assert set() == found_in(services.settings.instance, CANARIES)


def test_a_reader_of_the_file_is_waited_for_later(call, services, clock, zoe):
    """Another program reads an old snapshot: the answer says so, and the rest is done when it has gone."""
    folder = services.settings.instance
    with closing(sqlite3.connect(folder / "gateway.sqlite", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM keys").fetchall()
        told = erase(call)
        assert ("write-ahead log" in told["pending"][0], False) == (True, told["complete"])
        clock.advance(61)
        services.personal_data.look_after()
        assert 0 == state(services)[0][2]
        reader.execute("ROLLBACK")

    services.personal_data.look_after()

    assert [(told["erased_as"], None, 1)] == state(services)
    assert set() == found_in(folder, CANARIES)


def test_another_process_finishes_what_one_has_begun(client, call, services, clock, zoe, monkeypatch):
    """Where the first one stopped half-way, and without the name; a young erasure is left to the one that does it."""
    assert 200 == ask(client, zoe["now"]).status_code
    services.journal.flush()
    with monkeypatch.context() as patch:
        patch.setattr(services.usage_log, "erase", away)
        erase(call, status=503)
    folder = services.settings.instance
    assert not services.keys.list(KeyQuery(user=NAME))
    assert NAME in {word for word, _ in found_in(folder, CANARIES)}

    services.personal_data.look_after()
    assert NAME in {word for word, _ in found_in(folder, CANARIES)}
    clock.advance(61)
    services.personal_data.look_after()

    assert set() == found_in(folder, CANARIES)
    [(pseudonym, digest, finished)] = state(services)
    assert (None, 1) == (digest, finished)
    assert [pseudonym] == [one["user"] for one in call("GET", "/logs")["items"]]


def test_a_repetition_goes_on_with_the_same_pseudonym(client, call, services, zoe, monkeypatch):
    """After an error of a store the admin calls again; then it is done, and one more call finds nobody."""
    assert 200 == ask(client, zoe["now"]).status_code
    for broken in ("erase", "kept_of"):
        with monkeypatch.context() as patch:
            patch.setattr(services.usage_log, broken, away)
            erase(call, status=503)
    [(pseudonym, digest, _)] = state(services)
    assert digest

    told = erase(call)

    assert (pseudonym, True) == (told["erased_as"], told["complete"])
    assert sorted(zoe[one]["id"] for one in ("now", "old")) == sorted(told["keys"])
    assert [(pseudonym, None, 1)] == state(services)
    assert set() == found_in(services.settings.instance, CANARIES)
    erase(call, status=404)


def test_a_name_with_a_slash_is_found(call, new_key, services):
    """Older versions took such names."""
    services.keys.create(user="a/b", name="default")

    assert ["a/b"] == [one["user"] for one in call("GET", "/users/a/b/export")["keys"]]
    assert 1 == call("POST", "/users/a/b/erase", json={})["counts"]["keys"]


@pytest.mark.parametrize(("body", "where"), [({"dry": True}, "dry"), ({"dry_run": "maybe"}, "dry_run")])
def test_a_wrong_body_erases_nothing(call, services, zoe, body, where):
    assert where in call("POST", path(NAME, "erase"), json=body, status=422)["error"]["errors"]
    assert services.keys.list(KeyQuery(user=NAME))
