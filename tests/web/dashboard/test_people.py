"""The pages of people: found, limited, raised, exported and erased."""

from __future__ import annotations

import json

import pytest

from tests.web.test_limits import ask

from .test_keys import hidden, rows


@pytest.fixture
def ada(new_key):
    """A person with two keys in two groups; the keys themselves."""
    return [new_key(user="ada", group=group, email="lovelace@example.org")["key"] for group in ("ml", "physics")]


def test_are_found_and_sorted(owner, ada, new_key, client):
    new_key(user="bob")
    assert 200 == ask(client, ada[0]).status_code

    assert ["ada", "bob"] == rows(owner.open("people"))
    assert ["ada"] == rows(owner.open("people?q=LOVELACE"))
    assert ["bob", "ada"] == rows(owner.open("people?sort=-user"))
    assert ["ada", "bob"] == rows(owner.open("people?sort=-spent"))
    assert "Nobody matches" in owner.open("people?q=nobody")


def test_one_is_shown_with_keys_groups_and_usage(owner, ada, client, call):
    call("PUT", "/groups/ml", json={"member_limits": {"requests_per_minute": 7}})
    assert 200 == ask(client, ada[0]).status_code
    text = owner.open("people/person?user=ada")

    assert "As a member of" in text
    assert "1 request," in text
    assert 2 == text.count("dashboard/keys/key_")
    assert "There is nobody with this name" in owner.open("people/person?user=eve", status=404)
    owner.open("people/person", status=404)


def test_limits_are_set_and_wrong_ones_are_not(owner, ada, call):
    tag = hidden(owner.open("people/person?user=ada"), "etag")
    fields = {"limits.requests_per_minute": "5", "limits.budget.amount": "3", "limits.budget.unit": "usd"}
    text = owner.send_and_follow("people/person?user=ada", etag=tag, **fields, **{"limits.budget.period": "week"})
    assert "for all keys of this person together" in text
    limits = call("GET", "/users/ada")["limits"]
    assert (5, {"amount": 3, "unit": "usd", "period": "week"}) == (limits["requests_per_minute"], limits["budget"])

    assert "Somebody else" in owner.send("people/person?user=ada", status=412, etag=tag, **fields).text
    wrong = owner.send("people/person?user=ada", status=422, **{"limits.requests_per_minute": "-1"})
    assert 'id="limits.requests_per_minute-wrong"' in wrong.text
    assert limits == call("GET", "/users/ada")["limits"]


def test_limits_are_raised(owner, ada, call):
    call("PUT", "/users/ada", json={"limits": {"requests_per_minute": 5}})
    path = "people/person/raise?user=ada"
    assert "requests per minute 5" in owner.open(path)
    text = owner.send_and_follow(path, until="2030-01-01", **{"limits.requests_per_minute": "50"})
    assert "Raised until" in text
    assert "Raise again" in owner.open(path)
    owner.send("people/person/raise/end?user=ada")
    assert call("GET", "/users/ada")["raise"] is None


def test_everything_is_exported(owner, ada):
    exported = json.loads(owner.open("people/person/export?user=ada"))
    assert 2 == len(exported["keys"])


def test_one_is_erased_after_the_name_was_typed_once_more(owner, ada, client, call):
    path = "people/person/erase?user=ada"
    assert "cannot be undone" in owner.open(path)
    for typed in ("", "Ada", "ada2"):
        assert "Type the name exactly" in owner.send(path, status=422, confirmed=typed).text
    assert 200 == ask(client, ada[0]).status_code

    erased = owner.send(path, status=200, confirmed="ada").text
    assert "stands for the person everywhere" in erased
    assert 401 == ask(client, ada[0]).status_code
    assert 0 == call("GET", "/users?q=ada")["total"]


@pytest.mark.parametrize("name", ["ada lovelace", "a&b=c", "ä#?%41", "<i>x", "..a"])
def test_odd_names_have_pages(owner, new_key, name):
    new_key(user=name)
    found = owner.open("people")
    address = found.partition('<th scope="row"><a href="')[2]
    link = address[address.index("people/person") : address.index('"')]
    assert link
    assert "Hand out a key" in owner.open(link)


def test_a_viewer_looks_and_an_admin_of_a_group_does_not(named, ada, call):
    viewer, other = named("viewer"), named("group", "ml")
    assert "Erase" not in viewer.open("people/person?user=ada")
    assert "<h2>Limits of the person</h2>" not in viewer.open("people/person?user=ada")
    for path in ("people", "people/person?user=ada"):
        other.open(path, status=403)
    assert "People" not in other.open("keys").partition("<main")[0]
    for path in ("", "/raise", "/erase"):
        for person in (viewer, other):
            fields = {"confirmed": "ada", "until": "2030-01-01", "limits.requests_per_minute": "1"}
            person.send(f"people/person{path}?user=ada", status=403, **fields)
    for path in ("/export", "/erase"):
        viewer.open(f"people/person{path}?user=ada", status=403)
    assert call("GET", "/users/ada")["limits"]["requests_per_minute"] is None
