"""Signing in with an admin's key, and what ends a session."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from llmgateway.errors import StoreUnavailable
from llmgateway.web.context import EXTENSION
from llmgateway.web.dashboard.links import link
from tests.web.conftest import ADMIN_KEY
from tests.web.dashboard.conftest import SAME_SITE, Person, target_of

IDLE_SECONDS, LONGEST_SECONDS = 3600, 12 * 3600


@pytest.fixture
def services(client):
    return client.application.extensions[EXTENSION]


def cookie(client):
    found = [value for value in client._cookies.values() if value.key.startswith("llmgateway-")]
    return found[0] if found else None


def test_leads_to_the_page_that_was_asked_for(client):
    asked = client.get("/dashboard/keys?user=ada")
    page = client.get(target_of(asked))
    answer = client.post("/dashboard/sign-in", data={"key": ADMIN_KEY, "next": "keys?user=ada"}, headers=SAME_SITE)

    assert 303 == asked.status_code
    assert "sign-in?next=keys?user%3Dada" in asked.headers["Location"]
    assert 'name="next" value="keys?user=ada"' in page.text
    assert "dashboard/keys?user=ada" in answer.headers["Location"]


def test_leads_to_the_page_of_a_name_with_marks(client, owner):
    """What the links of our own pages leave as it is does not keep the page from opening again."""
    with client.application.test_request_context("/dashboard/"):
        path = link(".people_one", user="O'Brien/guest (what?); $1!")
    owner.send("sign-out")
    asked = client.get(f"/dashboard/{path.removeprefix('../dashboard/')}")

    wanted = parse_qs(urlsplit(target_of(asked)).query)["next"][0]
    answer = owner.send("sign-in", key=ADMIN_KEY, next=wanted)

    assert parse_qs(urlsplit(target_of(answer)).query) == {"user": ["O'Brien/guest (what?); $1!"]}


@pytest.mark.parametrize(
    ("referer", "wanted"),
    [
        ("http://localhost/dashboard/keys/key_1", "keys/key_1"),
        ("http://localhost/llm/dashboard/groups/group?name=ml", "groups/group?name=ml"),
        ("http://localhost/dashboard/keys/key_1/active", None),
        ("http://evil.example/dashboard/keys", None),
        ("", None),
    ],
)
def test_a_form_without_a_session_leads_back_to_its_page(client, referer, wanted):
    """It says that nothing was changed; a page that cannot be opened again is none."""
    answer = client.post("/dashboard/keys/key_1", headers=SAME_SITE | {"Referer": referer})

    query = parse_qs(urlsplit(target_of(answer)).query)
    assert ({"next": [wanted]} if wanted else {}) == query
    assert "nothing was changed" in client.get(target_of(answer)).text


def test_a_list_without_a_session_has_its_page_loaded_again(client):
    """The form for signing in would be no list."""
    answer = client.get("/dashboard/requests?follow=on", headers={"HX-Request": "true"})

    assert "true" == answer.headers["HX-Refresh"]
    assert b"" == answer.data


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "../admin",
        "keys/../../admin",
        "a\r\nb",
        "javascript:x/",
    ],
)
def test_leads_nowhere_else(client, wanted):
    """A link from elsewhere that brings a page along must not lead to another site after the key was typed."""
    answer = client.post("/dashboard/sign-in", data={"key": ADMIN_KEY, "next": wanted}, headers=SAME_SITE)

    location = answer.headers["Location"]
    assert "evil" not in location
    assert location.strip("./") in ("dashboard", "dashboard/javascript:x")


def test_shows_a_wrong_key_never_again(client):
    answer = client.post("/dashboard/sign-in", data={"key": "llmgw-admin-mistyped"}, headers=SAME_SITE)

    assert 401 == answer.status_code
    assert "mistyped" not in answer.text
    assert "not known here" in answer.text
    assert cookie(client) is None


def test_throttles_wrong_keys(client):
    answers = [
        client.post("/dashboard/sign-in", data={"key": f"wrong {number}"}, headers=SAME_SITE) for number in range(30)
    ]

    assert 401 == answers[0].status_code
    assert 429 == answers[-1].status_code
    assert int(answers[-1].headers["Retry-After"]) > 0


def test_the_cookie_has_no_key(client, owner):
    sent = cookie(client)

    assert sent is not None
    assert sent.http_only
    assert "Lax" == sent.same_site
    assert ADMIN_KEY not in sent.value


def test_the_cookie_is_secure_on_https(make_app):
    client = make_app().test_client()
    client.post("/dashboard/sign-in", data={"key": ADMIN_KEY}, headers=SAME_SITE, base_url="https://gateway.example")

    assert cookie(client).secure


def test_ends_when_nobody_uses_it(owner, clock):
    owner.open("keys")
    clock.advance(IDLE_SECONDS - 1)
    owner.open("keys")
    clock.advance(IDLE_SECONDS)
    owner.open("keys", status=303)


def test_ends_after_a_day_of_work(owner, clock):
    for _ in range(LONGEST_SECONDS // (IDLE_SECONDS // 2) - 1):
        clock.advance(IDLE_SECONDS // 2)
        owner.open("keys")
    clock.advance(IDLE_SECONDS // 2)

    owner.open("keys", status=303)


def test_ends_by_signing_out(owner):
    assert "signed out" in owner.send_and_follow("sign-out")
    owner.open("keys", status=303)


def _away(*_: object, **__: object) -> None:
    raise StoreUnavailable("The store does not serve. Try again later.")


@pytest.mark.parametrize("question", ["is_valid", "end"])
def test_ends_in_this_browser_while_the_store_is_away(owner, services, monkeypatch, question):
    """Whoever leaves a computer to others is out of it, and hears what could not be done."""
    monkeypatch.setattr(services.sessions, question, _away)

    assert "a copy of its cookie" in owner.send_and_follow("sign-out")

    monkeypatch.undo()
    owner.open("keys", status=303)


def test_a_form_that_the_store_did_not_answer_may_have_changed_something(owner, services, monkeypatch):
    """A page that was only looked at has not."""
    for question in ("stored", "set_limits"):
        monkeypatch.setattr(services.policy, question, _away)

    assert "may have been done all the same" in owner.send("limits", status=503).text
    assert "Nothing was changed" in owner.open("limits", status=503)


def test_ends_with_the_key_of_a_named_admin(call, named):
    """Whoever is blocked, removed or has a new key is out with the next page."""
    person = named("admin")
    admin = call("GET", "/admins")["items"][0]
    person.open("keys")
    call("POST", f"/admins/{admin['id']}/rotate", json={})

    person.open("keys", status=303)


def test_a_right_that_was_taken_away_is_gone_at_once(call, named):
    person = named("viewer")
    admin = call("GET", "/admins")["items"][0]
    person.open("keys")
    call("PATCH", f"/admins/{admin['id']}", json={"role": "metrics"})

    assert "role" in person.open("keys", status=403)


def test_another_admin_key_ends_the_sessions_of_the_first_owner(make_app, owner):
    other = make_app(ADMIN_KEY="another-admin-key-of-tests", SECRET_KEY="the same")
    person = Person(other.test_client())
    person.send("sign-in", key="another-admin-key-of-tests")
    from llmgateway.web.admin import GUARD

    other.extensions[GUARD].replace_keys(["a-third-admin-key-of-tests"])

    person.open("keys", status=303)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_refuses_forms_of_other_sites(client, headers):
    answer = client.post("/dashboard/sign-in", data={"key": ADMIN_KEY}, headers=headers)

    assert 403 == answer.status_code
    assert cookie(client) is None


def test_takes_forms_from_browsers_without_fetch_metadata(client):
    answer = client.post("/dashboard/sign-in", data={"key": ADMIN_KEY}, headers={"Origin": "http://localhost"})

    assert 303 == answer.status_code


def test_a_cookie_that_was_changed_is_none(client, owner):
    sent = cookie(client)
    client.set_cookie(sent.key, sent.value[:-2] + "xx")

    owner.open("keys", status=303)


def test_forbids_frames_scripts_and_storing(owner):
    answer = owner.client.get("/dashboard/keys")

    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "no-store" == answer.headers["Cache-Control"]


def test_requests_of_programs_have_no_session(client, owner, admin):
    answer = client.get("/admin/keys")

    assert 401 == answer.status_code
    assert "Set-Cookie" not in client.get("/admin/keys", headers=admin).headers


def test_unknown_pages_are_404_for_those_who_are_signed_in(client, owner):
    assert "no such page" in owner.open("nowhere", status=404)
    assert "billing" in client.get("/dashboard/billing/usage").json["error"]["message"]
    assert 303 == client.application.test_client().get("/dashboard/nowhere").status_code


@pytest.mark.parametrize(
    "path",
    [
        "keys/new",
        "keys/bulk",
        "class-lists",
        "groups/new",
        "groups/group/close?name=ml",
        "people/person/erase?user=ada",
        "models/import",
        "admins/new",
    ],
)
def test_a_form_that_somebody_may_not_send_is_not_shown(named, call, new_key, path):
    """Also who knows its address is told at once, and by whom it can be sent."""
    call("PUT", "/groups/ml", json={})
    new_key(user="ada")

    assert "ask an owner of this gateway" in named("viewer").open(path, status=403)
