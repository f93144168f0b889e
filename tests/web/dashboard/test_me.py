"""The page of a person: what they see of themselves, the keys they make, and what others cannot do to them."""

from __future__ import annotations

import html
import re

import pytest

from llmgateway.records import Account
from llmgateway.web.context import EXTENSION
from llmgateway.web.dashboard.sessions import Kind
from tests.web.dashboard.conftest import Person, target_of

KEY = re.compile(r"llmgw-[\w-]{43}")
HOSTILE = "<script>alert(1)</script>'\"& \u05d0\u05d1 \U0001f600"


@pytest.fixture
def person(client, call):
    """Sign somebody in whose identity provider says who it is, and which groups they are in."""

    def sign_in(user, *groups):
        services = client.application.extensions[EXTENSION]
        rules = [{"claim": "groups", "value": name, "group": name} for name in groups]
        call("PUT", "/sign-in", json={"rules": rules, "admits": "everybody"})
        claims = {"preferred_username": user, "groups": list(groups)}
        identity = services.identities.sign_in(Account("https://id.example.org", f"subject of {user}", claims, None))
        now, browser = int(services.clock()), client.application.test_client()
        with browser.session_transaction(path="/dashboard/") as session:
            session.update({"kind": Kind.PERSON, "identity": identity.id, "of": identity.id, "begun": now, "seen": now})
            session.update({"id": f"session of {user}", "marks": services.sessions.mark(identity.id)})
        return Person(browser)

    return sign_in


@pytest.fixture
def ada(person, call):
    call("PUT", "/groups/ml", json={"self_service": {"keys": 2, "days": 180}})
    return person("ada", "ml")


def form_of(page):
    """The hidden fields of the first form with a token."""
    return {"once": re.search(r'name="once" value="([^"]+)"', page)[1]}


def make(person, status=201, **fields):
    token = form_of(person.open("me/new?group=ml"))
    return person.send("me/new", status=status, **{"group": "ml", "name": "laptop", **token, **fields})


def test_a_key_is_made_shown_once_and_works(ada, client, call):
    """It is in no other page, and in no log."""
    shown = make(ada)
    (key,) = KEY.findall(shown.text)

    assert "laptop" in ada.open("me")
    assert [] == KEY.findall(ada.open("me"))
    assert "ada" == client.get("/v1/me", headers={"Authorization": f"Bearer {key}"}).json["user"]
    (found,) = call("GET", "/keys")["items"]
    assert ("ada", "ml", True) == (found["user"], found["group"], found["self_made"])
    assert "no-store" == shown.headers["Cache-Control"]


def test_the_audit_names_the_person(ada, call, clock):
    make(ada)
    clock.advance(1)
    (found,) = call("GET", "/keys")["items"]
    ada.send(f"me/keys/{found['id']}/rename", name="thesis")
    clock.advance(1)
    ada.send(f"me/keys/{found['id']}/rotate", status=200, **form_of(ada.open(f"me/keys/{found['id']}")))
    clock.advance(1)
    ada.send(f"me/keys/{found['id']}/remove")

    entries = call("GET", f"/audit?target={found['id']}")["items"]
    assert ["key.remove", "key.rotate", "key.update", "key.create"] == [entry["action"] for entry in entries]
    assert {"self-service"} == {entry["admin"]["name"] for entry in entries}
    assert {"ada"} == {(entry["after"] or entry["before"])["user"] for entry in entries}
    assert ({"user": "ada", "name": "laptop"}, {"user": "ada", "name": "thesis"}) == (
        entries[2]["before"],
        entries[2]["after"],
    )
    assert 4 == len(call("GET", "/audit?admin=self-service")["items"])


def test_an_erased_person_is_not_named_by_what_they_did(ada, call):
    make(ada)
    (found,) = call("GET", "/keys")["items"]
    ada.send(f"me/keys/{found['id']}/rename", name="ada's laptop")
    call("POST", "/users/ada/erase", json={"dry_run": False})

    entries = [(entry["before"], entry["after"]) for entry in call("GET", f"/audit?target={found['id']}")["items"]]
    assert 2 == len(entries)
    assert not [word for word in ("'ada'", "laptop") if word in str(entries)]


def test_no_more_than_the_group_allows(ada):
    """Also if the form was open before."""
    make(ada)
    token = form_of(ada.open("me/new?group=ml"))
    make(ada)

    refused = ada.send("me/new", status=409, group="ml", name="third", **token)
    assert "have 2. Remove one first." in refused.text
    assert 'value="third"' in refused.text
    assert "New key" not in ada.open("me")


def test_a_form_that_is_sent_again_makes_no_second_key(ada, call):
    """Nor does it show the key again."""
    token = form_of(ada.open("me/new?group=ml"))
    ada.send("me/new", status=201, group="ml", name="laptop", **token)
    again = ada.send_and_follow("me/new", group="ml", name="laptop", **token)

    assert "sent before" in again
    assert [] == KEY.findall(again)
    assert 1 == len(call("GET", "/keys")["items"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "Length must be between 1 and 200."),
        ({"name": "x" * 201}, "Length must be between 1 and 200"),
        ({"name": "abc\u202edef"}, "change the direction of text"),
        ({"expires_at": "2099-01-01"}, "Must not be after"),
        ({"expires_at": "2020-01-01"}, "Must be in the future"),
        ({"expires_at": "soon"}, "Must be a time like"),
    ],
)
def test_what_is_wrong_stands_at_the_field(ada, call, fields, message):
    """With what was typed, and nothing is stored."""
    refused = make(ada, status=422, **fields)

    assert message in html.unescape(refused.text)
    assert html.escape(str(next(iter(fields.values())))) in refused.text
    assert [] == call("GET", "/keys")["items"]


def test_the_latest_day_can_be_chosen(ada, call):
    page = ada.open("me/new?group=ml")
    make(ada, expires_at=re.search(r'max="(\d{4}-\d\d-\d\d)"', page)[1])

    assert call("GET", "/keys")["items"][0]["expires_at"] is not None


def test_forged_fields_change_nothing(ada, call):
    """Who it is for, limits and dates are not for the form to say."""
    make(ada, user="eve", limits="{}", self_made="false", active="true", key="llmgw-mine", models="gpt-4o", id="x")

    (found,) = call("GET", "/keys")["items"]
    assert ("ada", True, None) == (found["user"], found["self_made"], found["models"])
    assert found["id"].startswith("key_")


def test_models_are_chosen_from_those_of_the_group(ada, call, clock):
    call("PATCH", "/groups/ml", json={"self_service": {"keys": 9, "models": ["a", "b"]}})

    assert "Choose at least one" in make(ada, status=422).text
    assert "Choose among these: a, b" in make(ada, status=422, models=["b", "c"]).text
    make(ada, models=["b"])
    clock.advance(1)
    make(ada, models=["a", "b"])
    assert [["b"], ["a", "b"]] == [key["models"] for key in call("GET", "/keys")["items"]]


def test_other_groups_are_as_if_they_did_not_exist(ada, call):
    """The same answer for a group of others, one that does not exist, and keys outside of all groups."""
    call("PUT", "/groups/secret", json={"self_service": {"keys": 9}})
    texts = set()

    for group in ("secret", "nobody's", ""):
        token = form_of(ada.open("me/new?group=ml"))
        texts.add(re.sub("<code>.*", "", ada.send("me/new", status=404, group=group, name="x", **token).text))
        ada.open(f"me/new?group={group}", status=404)
    assert 1 == len({re.search("You may not make keys in this group", text)[0] for text in texts})
    assert "secret" not in ada.open("me")


def test_keys_of_others_do_not_exist(ada, call, new_key):
    """For every action, with the same answer as for a key that is nobody's."""
    other = new_key(user="eve")
    before = call("GET", f"/keys/{other['id']}")
    answers = {}

    for key_id in (other["id"], "key_nobodys"):
        ada.open(f"me/keys/{key_id}", status=404)
        for action, fields in (("rename", {"name": "mine"}), ("rotate", {}), ("remove", {})):
            answers.setdefault(action, set()).add(
                re.search(r"You have no key[^<]*", ada.send(f"me/keys/{key_id}/{action}", status=404, **fields).text)[0]
            )
    assert {"rename": 1, "rotate": 1, "remove": 1} == {action: len(texts) for action, texts in answers.items()}
    assert before == call("GET", f"/keys/{other['id']}")
    assert [] == [entry for entry in call("GET", "/audit")["items"] if entry["admin"]["name"] == "self-service"]


def test_a_key_is_replaced_and_the_former_one_ends(ada, client, call, new_key):
    """Also one that an admin has made."""
    made = new_key(user="ada")
    page = ada.open(f"me/keys/{made['id']}")
    assert "Remove" not in page

    shown = ada.send(f"me/keys/{made['id']}/rotate", status=200, overlap="3600", **form_of(page))
    (key,) = KEY.findall(shown.text)

    statuses = [client.get("/v1/me", headers={"api-key": each}).status_code for each in (made["key"], key)]
    assert [200, 200] == statuses
    ada.send(f"me/keys/{made['id']}/rotate", status=200)
    assert [401, 401] == [client.get("/v1/me", headers={"api-key": each}).status_code for each in (made["key"], key)]
    assert "An admin has made this key" in ada.send(f"me/keys/{made['id']}/remove", status=409).text


def test_requests_are_the_persons_own(ada, client, call, new_key):
    """Without those of others; refused ones say why."""
    keys = {user: new_key(user=user, limits={"requests_per_minute": 1})["key"] for user in ("ada", "eve")}
    chat = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a secret text"}]}
    for user, key in keys.items():
        for _ in range(2 if user == "ada" else 1):
            client.post("/v1/chat/completions", json=chat, headers={"api-key": key})
    client.application.extensions[EXTENSION].journal.flush_soon()
    client.application.extensions[EXTENSION].refusals.flush()

    for page in (ada.open("me"), ada.open("me/requests")):
        assert 1 == page.count(">refused<")
        assert 1 == page.count(">ok<")
        assert "requests per minute" in page
        assert "a secret text" not in page
    assert "Cost per day by model, 30 days" in ada.open("me")


def test_names_are_shown_as_text(person, call, new_key):
    """Of keys, groups, models and people, whatever is in them."""
    call("PUT", "/groups/ml", json={"models": ["gpt-4o-mini", HOSTILE], "self_service": {"keys": 2}})
    who = person("<b>ada", "ml")
    new_key(user="<b>ada", name="<i>laptop")
    make(who, name=HOSTILE, models=HOSTILE)
    (key_id,) = {key["id"] for key in call("GET", "/keys")["items"] if key["self_made"]}

    for page in ("me", "me/new?group=ml", f"me/keys/{key_id}", "me/requests"):
        text = who.open(page)
        assert "<script>alert" not in text
        assert "<i>" not in text
        assert "<b>" not in text


def test_shared_budgets_are_shown_if_the_admin_says_so(ada, client, call):
    call("PATCH", "/groups/ml", json={"limits": {"budget": {"amount": 4321, "unit": "usd", "period": "month"}}})
    assert "4,321" not in ada.open("me")

    client.application.extensions[EXTENSION].limiter.shows_shared = True
    assert "4,321" in ada.open("me")


def test_the_lines_to_begin_with_have_the_address_as_the_browser_knows_it(ada):
    (cookie,) = ada.client._cookies.values()
    reached = {"base_url": "https://gateway.example:8443", "headers": {"Cookie": f"{cookie.key}={cookie.value}"}}
    page = ada.client.application.test_client(use_cookies=False).get("/dashboard/me", **reached).text

    assert '<span data-root="../">https://gateway.example:8443</span>/v1' in page


def test_people_whose_account_is_not_linked_wait(person, call, new_key):
    """There are keys under the name: an admin says whose they are."""
    new_key(user="grace", name="of another Grace")
    waiting = person("grace")

    assert "Almost there" in waiting.open("me")
    assert "/dashboard/me" == target_of(waiting.client.get("/dashboard/"))
    for path in ("me/new", "me/requests"):
        waiting.open(path, status=303)
    for path in ("me/new", "me/keys/key_x/rename", "me/keys/key_x/rotate", "me/keys/key_x/remove"):
        assert "link your account" in waiting.send(path, status=403, name="x").text
    (identity,) = call("GET", "/identities")["items"]
    call("PATCH", f"/identities/{identity['id']}", json={"user": "grace"})
    assert "of another Grace" in waiting.open("me")


def test_people_see_no_page_of_admins(ada, client):
    paths = [
        rule.rule.removeprefix("/dashboard/")
        for rule in client.application.url_map.iter_rules()
        if rule.rule.startswith("/dashboard/") and "GET" in rule.methods and "<" not in rule.rule
    ]
    for path in paths:
        answer = ada.client.get(f"/dashboard/{path}")
        own = path in ("me", "me/new", "me/requests", "parts", "", "sign-in", "account")
        assert (answer.status_code in (200, 303, 404)) if own else answer.status_code in (302, 303, 403, 404, 405), path


def test_an_admin_without_keys_hears_whose_page_it_is(owner):
    assert "signed in as an admin" in owner.open("me", status=404)


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}])
def test_forms_of_other_sites_change_nothing(ada, call, new_key, headers):
    made = new_key(user="ada")

    for path in ("me/new", f"me/keys/{made['id']}/rotate", f"me/keys/{made['id']}/rename"):
        answer = ada.client.post(f"/dashboard/{path}", data={"name": "x", "group": "ml"}, headers=headers)
        assert 403 == answer.status_code
    assert made["name"] == call("GET", f"/keys/{made['id']}")["name"]
    assert 1 == len(call("GET", "/keys")["items"])


def test_a_key_alone_shows_and_replaces_itself_only(call, client, new_key):
    """Whoever has found a key finds no others by it."""
    call("PUT", "/self-service", json={"without_group": {"keys": 5}})
    mine, other = new_key(user="ada", name="mine"), new_key(user="ada", name="the other one")
    holder = Person(client.application.test_client())
    holder.send("sign-in", key=mine["key"])

    page = holder.open("me")
    assert "mine" in page
    assert "the other one" not in page
    assert "New key" not in page
    holder.open(f"me/keys/{other['id']}", status=404)
    holder.send(f"me/keys/{other['id']}/rotate", status=404)
    holder.send("me/new", status=404, name="x")
    holder.send(f"me/keys/{mine['id']}/rename", status=409, name="x")
    holder.send(f"me/keys/{mine['id']}/remove", status=409)
    shown = holder.send(f"me/keys/{mine['id']}/rotate", status=200)
    (key,) = KEY.findall(shown.text)
    assert 200 == client.get("/v1/me", headers={"api-key": key}).status_code
    assert "mine" in holder.open("me")  # the session goes on with the new key


def test_nothing_of_keys_is_in_the_cookie(ada):
    make(ada)

    assert not any(KEY.search(cookie.value) for cookie in ada.client._cookies.values())
