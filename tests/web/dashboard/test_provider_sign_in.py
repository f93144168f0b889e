"""Signing in with an identity provider, and everything that an attacker would try there."""

from __future__ import annotations

import re
import subprocess
import sys
from urllib.parse import parse_qs, urlsplit

import pytest

from llmgateway.web.context import EXTENSION
from tests.oidc import liar as lies
from tests.oidc.liar import CLIENT_ID, CLIENT_SECRET, running
from tests.web.conftest import ADMIN_KEY
from tests.web.dashboard.conftest import SAME_SITE, Person, target_of

STAFF = {"preferred_username": "grace", "groups": ["staff"]}
RULES = {"rules": [{"claim": "groups", "value": "staff", "role": "admin"}]}


@pytest.fixture
def liar(clock):
    with running(clock) as liar:
        yield liar


@pytest.fixture
def settings(liar) -> dict[str, str]:
    return {"OIDC_ISSUER": liar.url, "OIDC_CLIENT_ID": CLIENT_ID, "OIDC_CLIENT_SECRET": CLIENT_SECRET}


@pytest.fixture
def app(make_app, settings):
    return make_app(**settings)


@pytest.fixture
def call(app, admin):
    def call(method, path, **arguments):
        answer = app.test_client().open(f"/admin{path}", method=method, headers=admin, **arguments)
        assert answer.status_code < 300, answer.text
        return answer.get_json(silent=True)

    return call


@pytest.fixture
def browser(app):
    """Makes browsers."""
    return lambda: app.test_client()


def start(client, path="/dashboard/sign-in/start", **arguments):
    """Follow the button; return the address at the provider."""
    answer = client.get(path, **arguments)
    assert 303 == answer.status_code, answer.text
    return answer.headers["Location"]


def sign_in(client, liar, claims=None, sub="subject-1", path="/dashboard/sign-in/start"):
    liar.sub, liar.claims = sub, claims or {"preferred_username": "ada"}
    return client.get(liar.callback(start(client, path)))


def cookies(client):
    return {each.key: each for each in client._cookies.values() if each.key.startswith("llmgateway-")}


def is_in(client):
    return 200 == client.get("/dashboard/account").status_code


def test_a_person_signs_in_and_comes_to_the_page_that_was_asked_for(browser, liar, call):
    """The button is on the page for signing in, and keeps the page that was asked for."""
    call("PUT", "/sign-in", json=RULES)
    client = browser()
    page = client.get(target_of(client.get("/dashboard/keys?user=ada"))).text
    (button,) = re.findall(r'href="([^"]*sign-in/start[^"]*)"', page)
    path = "/dashboard/" + button.replace("&amp;", "&").lstrip("./").removeprefix("dashboard/")

    answer = sign_in(client, liar, STAFF, path=path)

    assert (303, "/dashboard/keys?user=ada") == (answer.status_code, target_of(answer))
    assert "grace" in client.get("/dashboard/account").text
    assert "role" not in answer.text


def test_the_page_for_the_key_alone_without_a_provider(make_app):
    client = make_app().test_client()
    assert "sign-in/start" not in client.get("/dashboard/sign-in").text
    assert 404 == client.get("/dashboard/sign-in/start").status_code


def test_nothing_is_loaded_without_a_provider(tmp_path):
    """Neither Authlib nor joserfc; with a provider they are loaded when the first one signs in."""
    program = f"""
import sys
from llmgateway.app import create_app
from llmgateway.settings import Settings
base = {{"ADMIN_KEY": "x" * 32, "LLM_BASE_URL": "none", "LLMGATEWAY_INSTANCE": {str(tmp_path / "i")!r}}}
oidc = {{"OIDC_ISSUER": "https://id.example.org", "OIDC_CLIENT_ID": "c", "OIDC_CLIENT_SECRET": "s"}}
for environ in (base, base | oidc):
    create_app(Settings.from_env(environ)).test_client().get("/dashboard/sign-in")
    print([name for name in sys.modules if name.startswith(("authlib", "joserfc"))])
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[]\n[]\n" == told.stdout


def test_a_person_without_a_role_sees_no_page_of_admins(browser, liar, call):
    call("PUT", "/sign-in", json=RULES)
    client = browser()
    sign_in(client, liar)
    assert 403 == client.get("/dashboard/keys").status_code
    assert is_in(client)


def test_a_demoted_admin_loses_the_pages_at_once(browser, liar, call):
    call("PUT", "/sign-in", json=RULES)
    client = browser()
    sign_in(client, liar, STAFF)
    assert 200 == client.get("/dashboard/keys").status_code

    call("PUT", "/sign-in", json={"rules": []})
    assert 403 == client.get("/dashboard/keys").status_code


@pytest.mark.parametrize("how", ["blocked", "forgotten", "signed out", "all signed out"])
def test_what_an_owner_ends_is_over_with_the_next_page(browser, liar, call, how):
    client = browser()
    sign_in(client, liar)
    (identity,) = call("GET", "/identities")["items"]
    path = f"/identities/{identity['id']}"
    if how == "blocked":
        call("PATCH", path, json={"active": False})
    elif how == "forgotten":
        call("DELETE", path)
    else:
        call("POST", "/sessions/end", json={"who": identity["id"]} if how == "signed out" else {})

    assert not is_in(client)
    if how == "blocked":
        answer = sign_in(client, liar)
        assert (403, True) == (answer.status_code, "blocked" in answer.text)


class TestAttacks:
    def test_a_code_of_somebody_else_signs_nobody_in(self, browser, liar):
        """Login forgery: the attacker's own callback, opened in the victim's browser."""
        attacker, victim = browser(), browser()
        callback = liar.callback(start(attacker))
        start(victim)

        answer = victim.get(callback)

        assert (403, False) == (answer.status_code, is_in(victim))
        assert "did not begin in this browser" in answer.text

    def test_a_callback_without_a_beginning_signs_nobody_in(self, browser, liar):
        other = browser()
        callback = liar.callback(start(other))
        for path in (callback, "/dashboard/sign-in/callback", "/dashboard/sign-in/callback?state=&code=x"):
            client = browser()
            assert 403 == client.get(path).status_code
            assert not is_in(client)

    def test_a_callback_works_once(self, browser, liar):
        """Also in the same browser, with the cookie from before put back."""
        client = browser()
        callback = liar.callback(start(client))
        (kept,) = [each for name, each in cookies(client).items() if name.endswith("-in")]
        assert 303 == client.get(callback).status_code
        assert [] == [name for name in cookies(client) if name.endswith("-in")]

        thief = browser()
        thief.set_cookie(kept.key, kept.value, path=kept.path)
        before = liar.asked.count("/token")
        answer = thief.get(callback)
        assert (403, False, before) == (answer.status_code, is_in(thief), liar.asked.count("/token"))
        assert "used already" in answer.text

    def test_a_sign_in_waits_ten_minutes(self, browser, liar, clock):
        client = browser()
        callback = liar.callback(start(client))
        clock.advance(600)
        assert 403 == client.get(callback).status_code

    def test_the_waiting_cookie_is_for_the_callback_only(self, browser, liar):
        """And has neither the client's secret nor anything that opens a page."""
        client = browser()
        start(client)
        (waiting,) = cookies(client).values()
        assert waiting.http_only
        assert ("Lax", "/dashboard/sign-in") == (waiting.same_site, waiting.path)
        assert CLIENT_SECRET not in waiting.value
        session = next(iter(cookies(client))).removesuffix("-in")
        client.set_cookie(session, waiting.value)
        assert not is_in(client)

    def test_a_cookie_that_was_changed_is_none(self, browser, liar):
        client = browser()
        callback = liar.callback(start(client))
        (waiting,) = cookies(client).values()
        client.set_cookie(waiting.key, "x" + waiting.value[1:], path=waiting.path)
        assert 403 == client.get(callback).status_code

    @pytest.mark.parametrize(
        "wanted", ["//evil.example", "https://evil.example/", "../admin", "/\\evil.example", "keys/../../x", "a%0d%0ab"]
    )
    def test_leads_nowhere_else(self, browser, liar, call, wanted):
        call("PUT", "/sign-in", json=RULES)
        answer = sign_in(browser(), liar, STAFF, path=f"/dashboard/sign-in/start?next={wanted}")
        assert "/dashboard/" == target_of(answer)

    def test_a_session_that_was_planted_is_not_taken_over(self, browser, liar, call):
        """Fixation: the session gets a new identifier, and nothing that was in it stays."""
        call("PUT", "/sign-in", json=RULES)
        attacker = Person(browser())
        attacker.send("sign-in", key=ADMIN_KEY)
        (planted,) = cookies(attacker.client).values()
        victim = browser()
        victim.set_cookie(planted.key, planted.value)
        sign_in(victim, liar, STAFF)

        assert planted.value != cookies(victim)[planted.key].value
        assert "grace" in victim.get("/dashboard/account").text
        assert "grace" not in attacker.open("account")

    def test_a_stolen_cookie_is_worth_nothing_after_signing_out(self, browser, liar):
        """Of one browser, or everywhere; the owner of the cookie can sign in again."""
        for end in ("sign-out", "sign-out-everywhere"):
            client, thief = browser(), browser()
            sign_in(client, liar)
            (session,) = cookies(client).values()
            thief.set_cookie(session.key, session.value)
            assert is_in(thief)
            client.post(f"/dashboard/{end}", headers=SAME_SITE)
            assert not is_in(thief)
            sign_in(client, liar)
            assert is_in(client)

    def test_signing_out_everywhere_leaves_others_alone(self, browser, liar):
        ada, phone, eve = browser(), browser(), browser()
        sign_in(ada, liar)
        sign_in(phone, liar)
        sign_in(eve, liar, {"preferred_username": "eve"}, sub="subject-2")
        ada.post("/dashboard/sign-out-everywhere", headers=SAME_SITE)
        assert [False, False, True] == [is_in(client) for client in (ada, phone, eve)]

    @pytest.mark.parametrize("lie", [lies.unsigned, lies.signed_by_another, lies.signed_with_the_public_key])
    def test_no_lie_of_a_provider_is_believed(self, browser, liar, lie):
        liar.sign = lie
        client = browser()
        answer = sign_in(client, liar)
        assert (403, False) == (answer.status_code, is_in(client))

    def test_the_answer_of_another_provider_is_not_taken(self, browser, liar):
        """Mix-up: some providers name themselves in the callback."""
        client = browser()
        callback = liar.callback(start(client))
        assert 403 == client.get(f"{callback}&iss=https://evil.example").status_code

    def test_what_the_provider_says_is_not_shown(self, browser, liar):
        """Anybody can write a link with a text that looks as if we said it."""
        client = browser()
        state = parse_qs(urlsplit(start(client)).query)["state"][0]
        answer = client.get(
            f"/dashboard/sign-in/callback?state={state}&error=access_denied&error_description=Call+0190-123456"
        )
        assert (403, False) == (answer.status_code, "0190" in answer.text)
        assert "You have not signed in" in answer.text

    def test_what_is_tried_in_vain_is_throttled(self, browser, liar):
        """As wrong keys are, and together with them; the provider is not asked any more."""
        statuses = [browser().get("/dashboard/sign-in/callback?state=x&code=y").status_code for _ in range(12)]
        assert (403, 429) == (statuses[0], statuses[-1])
        client = browser()
        answer = client.get(liar.callback(start(client)))
        assert 429 == answer.status_code
        assert int(answer.headers["Retry-After"]) > 0
        assert 0 == liar.asked.count("/token")

    def test_pages_cannot_be_framed_or_stored(self, browser, liar):
        client = browser()
        for path in ("/dashboard/sign-in", "/dashboard/sign-in/callback?state=x"):
            headers = client.get(path).headers
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert ("DENY", "no-store") == (headers["X-Frame-Options"], headers["Cache-Control"])

    def test_names_are_shown_as_text(self, browser, liar, call):
        client = browser()
        sign_in(client, liar, {"preferred_username": "<script>alert(1)<\\script>"})
        page = client.get("/dashboard/account").text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page

    def test_no_token_is_in_cookies_pages_or_logs(self, browser, liar, caplog):
        caplog.set_level(0)
        client = browser()
        sign_in(client, liar)
        (session,) = cookies(client).values()
        page = client.get("/dashboard/account").text
        tokens = [*liar.refresh_tokens, "the access token", CLIENT_SECRET]
        for text in (session.value, page, caplog.text):
            assert not [token for token in tokens if token in text]


class TestFailures:
    @pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks", "/token"])
    def test_a_provider_that_fails_is_a_clear_page(self, browser, liar, path):
        """With the form for a key on it, and the advice to come back."""
        liar.answers[path] = 500, {}
        client = browser()
        began = client.get("/dashboard/sign-in/start")
        answer = began if began.status_code != 303 else client.get(liar.callback(began.headers["Location"]))
        assert 503 == answer.status_code
        assert "identity provider does not answer" in answer.text
        assert 'name="key"' in answer.text

    @pytest.mark.parametrize(
        ("claims", "told"),
        [
            ({"preferred_username": None}, "does not tell your name"),
            ({"preferred_username": "a/b"}, "cannot be used here"),
            ({"preferred_username": ["ada"]}, "does not tell your name"),
        ],
    )
    def test_names_that_cannot_be_used_are_explained(self, browser, liar, claims, told):
        answer = sign_in(browser(), liar, claims)
        assert (403, True) == (answer.status_code, told in answer.text)

    @pytest.mark.parametrize(("verified", "status"), [(True, 303), (False, 403), (None, 403), ("true", 403)])
    def test_an_address_counts_if_it_is_verified(self, make_app, settings, liar, verified, status):
        client = make_app(**settings, OIDC_USER_CLAIM="email").test_client()
        claims = {"email": "ada@example.org", "email_verified": verified}
        assert status == sign_in(client, liar, claims).status_code


def test_ends_the_session_at_the_provider(browser, liar):
    """By a link: no form of ours leads to another site."""
    client = browser()
    sign_in(client, liar)
    page = client.post("/dashboard/sign-out", headers=SAME_SITE).text
    (url,) = re.findall(rf'href="({liar.url}/logout[^"]*)"', page)
    query = parse_qs(urlsplit(url.replace("&amp;", "&")).query)
    assert {"client_id", "logout_hint", "post_logout_redirect_uri"} == {*query}
    assert not is_in(client)


def test_the_public_address_is_used_behind_a_proxy(make_app, settings, liar):
    """Also for cookies that browsers send to https only."""
    client = make_app(**settings, LLMGATEWAY_PUBLIC_URL="https://gateway.example.org/llm/").test_client()
    query = parse_qs(urlsplit(start(client)).query)
    assert ["https://gateway.example.org/llm/dashboard/sign-in/callback"] == query["redirect_uri"]
    assert all(each.secure for each in cookies(client).values())


class TestKeyHolders:
    """Those who sign in with a key for models."""

    @pytest.fixture
    def made(self, call):
        return call("POST", "/keys", json={"user": "ada"})

    @pytest.fixture
    def holder(self, browser, made):
        person = Person(browser())
        person.send("sign-in", key=made["key"])
        return person

    def test_sees_no_page_of_admins(self, holder):
        assert "ada" in holder.open("account")
        for path in ("keys", "keys?user=ada"):
            holder.open(path, status=403)

    @pytest.mark.parametrize("change", ["blocked", "removed", "replaced", "expired"])
    def test_is_out_when_the_key_is(self, holder, made, call, change, clock):
        path = f"/keys/{made['id']}"
        if change == "blocked":
            call("PATCH", path, json={"active": False})
        elif change == "removed":
            call("DELETE", path)
        elif change == "replaced":
            call("POST", f"{path}/rotate", json={})
        else:
            call("PATCH", path, json={"expires_at": "2026-01-01T00:10:00Z"})
            clock.advance(601)
        holder.open("account", status=303)

    def test_stays_while_both_keys_are_valid(self, holder, made, call, clock):
        call("POST", f"/keys/{made['id']}/rotate", json={"overlap_seconds": 600})
        holder.open("account")
        clock.advance(601)
        holder.open("account", status=303)

    def test_a_whole_class_behind_one_address_signs_in(self, browser, call):
        """Right keys are not counted as attempts, and let in also while somebody else there tries wrong ones."""
        keys = [call("POST", "/keys", json={"user": f"u-{number}"})["key"] for number in range(15)]
        for key in keys[:12]:
            Person(browser()).send("sign-in", key=key)
        for number in range(12):
            status = browser().post("/dashboard/sign-in", data={"key": f"no-{number}"}, headers=SAME_SITE).status_code
        assert 429 == status
        Person(browser()).send("sign-in", key=keys[-1])
        Person(browser()).send("sign-in", key=ADMIN_KEY)

    def test_a_key_that_was_chosen_waits_like_a_guess(self, browser, call):
        call("POST", "/addapikey", json={"user": "ada", "key": "summer-in-the-city-2026"})
        for number in range(10):
            browser().post("/dashboard/sign-in", data={"key": f"summer{number}"}, headers=SAME_SITE)
        Person(browser()).send("sign-in", key="summer-in-the-city-2026", status=429)

    def test_the_key_is_not_in_the_cookie(self, holder, made):
        (session,) = cookies(holder.client).values()
        assert made["key"] not in session.value
        assert made["key"] not in holder.open("account")


def test_the_audit_names_the_person(browser, liar, call, app):
    """With the identifier of the account, as the API would for a named admin."""
    call("PUT", "/sign-in", json=RULES)
    client = browser()
    sign_in(client, liar, STAFF)
    identity = app.extensions[EXTENSION].identities.of_user("grace")
    identities = app.extensions[EXTENSION].identities
    admin = identities.admin(identity, identities.rights(identity))
    assert (identity.id, "grace", "admin") == (admin.id, admin.name, admin.role)
