"""Prompts of the organisation, of groups and of keys, and a look at what would be sent."""

from __future__ import annotations

import json

import pytest

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def sent(client, azure):
    """What went to Azure when somebody with this key has asked."""

    def ask(key: str):
        azure.reset()
        answer = client.post("/v1/chat/completions", json=CHAT, headers={"Authorization": f"Bearer {key}"})
        assert 200 == answer.status_code
        return json.loads(azure.served[0].body)["messages"][0]["content"]

    return ask


def test_the_nearest_one_is_in_force(call, sent, new_key):
    """A key's own, else its group's, else the organisation's; taken away, the one behind it is."""
    made = new_key(group="ml")
    places = ("", "?group=ml", f"?key={made['id']}")
    for place, text in zip(places, ("everybody", "group", "key"), strict=True):
        shown = call("PUT", f"/prompt{place}", json={"prompt": text})
        assert text == shown["prompt"] == sent(made["key"])
        assert shown == call("GET", f"/prompt?key={made['id']}")
    assert ["", "group:ml", f"key:{made['id']}"] == [call("GET", f"/prompt{place}")["scope"] for place in places]

    assert "group" == call("DELETE", f"/prompt?key={made['id']}")["prompt"] == sent(made["key"])
    assert "everybody" == call("DELETE", "/prompt?group=ml")["prompt"] == sent(made["key"])
    assert "" == call("DELETE", "/prompt")["prompt"]
    assert "Hello" == sent(made["key"])


def test_an_empty_one_keeps_others_out(call, sent, new_key):
    """None at all is a prompt of its own."""
    made = new_key(group="ml")
    call("POST", "/setprompt", json={"prompt": "everybody"})
    call("PUT", "/prompt?group=ml", json={"prompt": ""})

    assert "Hello" == sent(made["key"])


def test_versions_are_counted_together_and_listed_apart(call, new_key):
    """One number names one text, whoever it was for."""
    new_key(group="ml")
    for place in ("", "?group=ml", "", "?group=ml"):
        call("PUT", f"/prompt{place}", json={"prompt": f"for {place}"})

    def versions(place: str):
        return [(one["version"], one["scope"]) for one in call("GET", f"/prompt/versions{place}")["items"]]

    assert [(3, ""), (1, "")] == versions("")
    assert [(4, "group:ml"), (2, "group:ml")] == versions("?group=ml")
    assert [] == versions("?key=nobody")


def test_says_who_has_set_which(call, client, new_key):
    """Each version with its author, and all that are in force with whose they are; a group's admin sees hers."""
    made, other = new_key(group="ml", name="thesis"), new_key(group="chemistry")
    grace = call("POST", "/admins", status=201, json={"name": "Grace", "role": "group", "groups": ["ml"]})
    headers = {"AdminKey": grace["key"]}
    call("PUT", "/prompt", json={"prompt": "everybody"})
    call("PUT", "/prompt?group=ml", json={"prompt": "first"})
    assert 200 == client.put("/admin/prompt?group=ml", json={"prompt": "second"}, headers=headers).status_code
    for key in (made, other):
        call("PUT", f"/prompt?key={key['id']}", json={"prompt": "key"})
    call("DELETE", f"/prompt?key={other['id']}")

    versions = call("GET", "/prompt/versions?group=ml")["items"]
    assert [("second", "Grace"), ("first", "ADMIN_KEY")] == [(one["prompt"], one["set_by"]) for one in versions]
    shown = call("GET", "/prompts")["items"]
    assert [("everybody", None, None), ("second", "ml", None), ("key", "ml", "thesis")] == [
        (one["prompt"], one["group"], one["name"]) for one in shown
    ]
    hers = client.get("/admin/prompts", headers=headers).json["items"]
    assert shown[1:] == hers


def test_a_preview_is_what_would_be_sent(call, sent, new_key, azure):
    """The body as Azure would get it, with whose prompt it is; nothing is sent."""
    made = new_key(group="ml")
    call("POST", "/setprompt", json={"prompt": "everybody"})
    group = call("PUT", "/prompt?group=ml", json={"prompt": "group"})
    azure.reset()

    for whose in ({"key": made["id"]}, {"group": "ml"}):
        shown = call("POST", "/prompt/preview", json=CHAT | whose)
        assert (group["version"], "group:ml") == (shown["version"], shown["scope"])
        assert CHAT | {"messages": [{"role": "system", "content": "group"}, *CHAT["messages"]]} == shown["sent"]
    assert "everybody" == call("POST", "/prompt/preview", json=CHAT)["sent"]["messages"][0]["content"]
    assert [] == list(azure.served)


def test_a_preview_refuses_what_its_sender_would_be_refused(call, new_key):
    """A model that the key may not use."""
    made = new_key(models=["gpt-4o-mini"])

    refused = call("POST", "/prompt/preview", json=CHAT | {"model": "gpt-4o", "key": made["id"]}, status=403)

    assert "model_not_allowed" == refused["error"]["code"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_one_of_a_key_and_a_group_at_once_is_refused(call, new_key, method):
    """Nobody can say which was meant; what a form leaves empty is not meant at all."""
    made = new_key(group="ml")
    body = {"json": {"prompt": "x"}} if method == "PUT" else {}

    assert ["key"] == list(call(method, f"/prompt?group=ml&key={made['id']}", status=422, **body)["error"]["errors"])
    assert "" == call(method, "/prompt?group=&key=", **body)["scope"]
    call(method, "/prompt?group=nobody's", status=404, **body)
