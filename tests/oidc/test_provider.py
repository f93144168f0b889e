"""What is believed of an identity provider, and what becomes of one that lies, is slow or fails."""

from __future__ import annotations

import logging
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from llmgateway.errors import GrantEnded, IdentityProviderUnavailable, SignInRefused
from llmgateway.oidc import provider as module
from llmgateway.oidc.client import MOST_BYTES

from . import liar as lies
from .liar import CLIENT_SECRET, new_key

RETURN_TO = "https://gateway.example.org/dashboard/sign-in/callback"
NAME = ("preferred_username",)


def sign_in(provider, liar, *, wanted=NAME, begin=None, **changes):
    began = begin or provider.begin(RETURN_TO)
    brought = liar.consent(began.url)
    values = {"redirect_uri": RETURN_TO, "nonce": began.nonce, "verifier": began.verifier} | changes
    return provider.complete(brought["code"], wanted=wanted, **values)


def test_signs_in(provider, liar):
    """The account has the subject, the claims and a refresh token, which can be renewed."""
    account = sign_in(provider, liar)

    assert (liar.url, "subject-1", "ada") == (account.issuer, account.subject, account.claims["preferred_username"])
    again = provider.refresh(account.refresh_token, subject="subject-1", wanted=NAME)
    assert again.refresh_token not in (None, account.refresh_token)
    assert "ada" == again.claims["preferred_username"]


def test_asks_for_what_the_provider_has(provider, liar):
    """Each sign-in has values of its own, and asks for a refresh token only where there are some."""
    first, second = provider.begin(RETURN_TO), provider.begin(RETURN_TO)
    query = parse_qs(urlsplit(second.url).query)

    assert not {*first[1:]} & {*second[1:]}
    assert ["openid profile email offline_access"] == query["scope"]
    assert ([RETURN_TO], [second.state]) == (query["redirect_uri"], query["state"])
    assert second.verifier not in second.url


def test_asks_for_no_refresh_token_where_there_are_none(provider, liar):
    liar.metadata = {"scopes_supported": ["openid"]}
    assert ["openid profile email"] == parse_qs(urlsplit(provider.begin(RETURN_TO).url).query)["scope"]


def test_shows_its_secret_as_the_provider_wants(provider, liar):
    liar.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert "subject-1" == sign_in(provider, liar).subject


def test_ends_the_session_at_the_provider(provider, liar):
    """Without an ID token; and nothing where there is no such page."""
    provider.begin(RETURN_TO)
    url = provider.end_session_url("https://gateway.example.org/", hint="ada")
    assert f"{liar.url}/logout" == url.partition("?")[0]
    assert ["ada"] == parse_qs(urlsplit(url).query)["logout_hint"]


LIES = {
    "another audience": {"overrides": {"aud": "another client"}},
    "two audiences without a party": {"overrides": {"aud": ["gateway", "another"]}},
    "another party": {"overrides": {"aud": ["gateway", "another"], "azp": "another"}},
    "another issuer": {"overrides": {"iss": "https://evil.example.org"}},
    "expired": {"overrides": {"exp": 1_767_225_600 - 61}},
    "issued in the future": {"overrides": {"iat": 1_767_225_600 + 120}},
    "without an end": {"overrides": {"exp": None}},
    "another nonce": {"overrides": {"nonce": "another"}},
    "without a nonce": {"overrides": {"nonce": None}},
    "without a subject": {"overrides": {"sub": None}},
    "an empty subject": {"overrides": {"sub": ""}},
    "a number as subject": {"overrides": {"sub": 7}},
    "an endless subject": {"overrides": {"sub": "x" * 256}},
    "another access token": {"overrides": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}},
    "text as time": {"overrides": {"exp": "later"}},
    "unsigned": {"sign": lies.unsigned},
    "signed with the public key": {"sign": lies.signed_with_the_public_key},
    "signed by another": {"sign": lies.signed_by_another},
    "signed with an unknown key": {"sign": lies.signed_with_rsa},
    "no token": {"sign": lambda *_: "x"},
    "an empty token": {"sign": lambda *_: ""},
    "a huge token": {"sign": lambda *_: "x" * 300_000},
}


@pytest.mark.parametrize("lie", LIES)
def test_believes_no_lie(provider, liar, lie):
    """A token that is not from the provider, for us, in time, and for this sign-in signs nobody in."""
    for name, value in LIES[lie].items():
        setattr(liar, name, value)

    with pytest.raises(SignInRefused, match="not valid"):
        sign_in(provider, liar)


def test_clocks_may_differ_a_little(provider, liar):
    liar.overrides = {"iat": 1_767_225_600 + 50, "exp": 1_767_225_600 - 50}
    assert "subject-1" == sign_in(provider, liar).subject


def test_a_code_works_once_and_only_where_it_began(provider, liar):
    """Another browser has another verifier; a stolen code is worth nothing without it."""
    began = provider.begin(RETURN_TO)
    code = liar.consent(began.url)["code"]
    values = {"redirect_uri": RETURN_TO, "nonce": began.nonce, "wanted": NAME}
    provider.complete(code, verifier=began.verifier, **values)

    with pytest.raises(SignInRefused, match="used already"):
        provider.complete(code, verifier=began.verifier, **values)
    with pytest.raises(SignInRefused):
        sign_in(provider, liar, verifier="another")


def test_new_keys_of_the_provider_are_read(provider, liar, timer):
    """Also twice; but unknown keys do not make us read them again and again."""
    sign_in(provider, liar)
    for kid in ("second", "third"):
        timer.advance(11)
        liar.key = new_key(kid)
        assert "subject-1" == sign_in(provider, liar).subject

    before = liar.asked.count("/jwks")
    timer.advance(11)
    liar.sign = lies.signed_with_rsa
    for _ in range(3):
        with pytest.raises(SignInRefused):
            sign_in(provider, liar)
    assert before + 1 == liar.asked.count("/jwks")


def test_claims_that_are_only_at_userinfo(provider, liar):
    """They are asked for if they are needed, and never replace what is signed."""
    liar.claims, liar.userinfo = {"email": "signed"}, {"sub": "subject-1", "preferred_username": "ada", "email": "no"}
    account = sign_in(provider, liar)
    assert ("ada", "signed") == (account.claims["preferred_username"], account.claims["email"])

    liar.userinfo = {"sub": "another", "preferred_username": "ada"}
    assert "preferred_username" not in sign_in(provider, liar).claims


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example.org"},
        {"issuer": None},
        {"token_endpoint": None},
        {"jwks_uri": 7},
        {"authorization_endpoint": "javascript:alert(1)"},
    ],
    ids=str,
)
def test_addresses_that_cannot_be_right(provider, liar, metadata, caplog):
    """The log tells the operator what is wrong, such as another issuer than the one that is set."""
    liar.metadata = metadata
    with pytest.raises(IdentityProviderUnavailable):
        provider.begin(RETURN_TO)
    assert liar.url in caplog.text
    assert str(metadata.get("issuer", next(iter(metadata)))) in caplog.text


@pytest.mark.parametrize(
    "answer",
    [(200, b"<html>"), (200, b"[]"), (200, b"x" * (MOST_BYTES + 1)), (404, {}), (500, {}), (302, {}), (200, b"")],
    ids=lambda answer: f"{answer[0]} {answer[1][:9]!r}" if isinstance(answer[1], bytes) else str(answer[0]),
)
@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/jwks", "/token"])
def test_answers_that_are_none(provider, liar, path, answer):
    """The person hears that the provider is the problem. No redirect is followed."""
    liar.answers[path] = answer
    with pytest.raises(IdentityProviderUnavailable):
        sign_in(provider, liar)
    assert "/elsewhere" not in liar.asked


def test_nobody_waits_for_one_that_is_down(provider, liar, timer):
    """After a failed connection the next calls fail at once, for some seconds."""
    liar.answers["/.well-known/openid-configuration"] = 500, {}
    for _ in range(3):
        with pytest.raises(IdentityProviderUnavailable):
            provider.begin(RETURN_TO)
    assert 1 == len(liar.asked)

    liar.answers.clear()
    timer.advance(5.1)
    assert provider.begin(RETURN_TO).url


def test_an_error_in_answer_to_a_code_keeps_nobody_else_out(provider, liar):
    """Anybody can send a code that a provider stumbles over."""
    liar.answers["/token"] = 500, {}
    with pytest.raises(IdentityProviderUnavailable):
        sign_in(provider, liar)
    liar.answers.clear()
    assert "subject-1" == sign_in(provider, liar).subject


def test_what_is_known_is_used_while_it_is_down(provider, liar, timer):
    """Keys and addresses stay in use when they cannot be read again."""
    provider.begin(RETURN_TO)
    timer.advance(3601)
    liar.answers["/.well-known/openid-configuration"] = 500, {}
    assert "subject-1" == sign_in(provider, liar).subject


def test_a_slow_one_takes_few_threads(provider, liar, monkeypatch):
    """Of many people at once, all but some hear at once that they should come back."""
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.0)
    provider.begin(RETURN_TO)
    began = [provider.begin(RETURN_TO) for _ in range(8)]
    liar.gates["/token"] = threading.Event()
    outcomes = []

    def run(each):
        try:
            outcomes.append(sign_in(provider, liar, begin=each).subject)
        except IdentityProviderUnavailable as error:
            outcomes.append(error.retry_after)

    threads = [threading.Thread(target=run, args=(each,)) for each in began]
    for thread in threads[:6]:
        thread.start()
    while liar.asked.count("/token") < 6:
        pass
    for thread in threads[6:]:
        thread.start()
        thread.join()
    assert [5, 5] == outcomes
    liar.gates["/token"].set()
    for thread in threads[:6]:
        thread.join()
    assert ["subject-1"] * 6 == outcomes[2:]


def test_only_an_ended_grant_ends_it(provider, liar):
    """Any other error of the provider says nothing about the account."""
    account = sign_in(provider, liar)
    liar.refused.add(account.refresh_token)
    with pytest.raises(GrantEnded):
        provider.refresh(account.refresh_token, subject="subject-1", wanted=NAME)

    for code in ("invalid_client", "temporarily_unavailable", "interaction_required", "a\nb"):
        liar.answers["/token"] = 400, {"error": code}
        with pytest.raises(IdentityProviderUnavailable):
            provider.refresh(account.refresh_token, subject="subject-1", wanted=NAME)


def test_a_refreshed_token_is_of_the_same_account(provider, liar):
    account = sign_in(provider, liar)
    liar.overrides = {"sub": "another"}
    with pytest.raises(IdentityProviderUnavailable):
        provider.refresh(account.refresh_token, subject="subject-1", wanted=NAME)


def test_no_secret_is_logged_or_shown(provider, liar, timer, caplog):
    """Neither ours nor the provider's, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    errors = []
    for path in ("/token", "/jwks"):
        for answer in ((500, {}), (400, {"error": "invalid_client", "error_description": CLIENT_SECRET}), (200, b"!")):
            liar.answers = {path: answer}
            timer.advance(4000)
            try:
                sign_in(provider, liar)
            except (IdentityProviderUnavailable, SignInRefused) as error:
                errors.append(f"{error!r} {error.__cause__!r}")

    assert errors
    for text in (caplog.text, repr(provider), " ".join(errors)):
        assert CLIENT_SECRET not in text
        assert not [code for code in liar.codes if code in text]
