"""Every address of the dashboard, tried by everybody: what they may read, send and change, and what they never see."""

from __future__ import annotations

import html
import json
import re

import pytest

from llmgateway.records import Role
from llmgateway.web.dashboard.blueprint import PERSONAL, PUBLIC
from tests.conftest import Clock
from tests.web.conftest import ADMIN_KEY, AZURE_KEY, making_apps
from tests.web.dashboard.conftest import SAME_SITE
from tests.web.dashboard.hostile import NAMES, OTHERS_GROUP, OTHERS_USER, Scene, fill

FORGED = (
    {},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": ""},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "http://evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"},
    {"Referer": "http://localhost/dashboard/keys"},
)
"""The headers of forms that no page of the gateway has sent."""

WRITERS = {"owner", "admin"}
READERS = WRITERS | {"viewer"}
OF_GROUPS = READERS | {"group"}
OWNERS_FORMS = {"admins_create", "admins_change", "admins_active", "admins_rotate", "admins_remove"} | {
    "sign_in_rules_change",
    "sign_in_rules_sign_out",
}
PEOPLES = {"person", "holder"}


@pytest.fixture(scope="module")
def scene(azure, tmp_path_factory):
    with making_apps(azure, Clock(), tmp_path_factory.mktemp("everybody")) as make:
        yield fill(make())


def stored(scene: Scene) -> str:
    """Return what is stored, as the admin API shows it."""
    paths = (
        "keys",
        "groups",
        "users",
        "admins",
        "settings",
        "alerts",
        "models",
        "prompts",
        "limits",
        "sign-in",
        "audit?limit=1",
    )
    return json.dumps([scene.call("GET", f"/{path}") for path in paths])


def about_others(path: str) -> str:
    """Return *path* with the query that says what a page is about: what only some may see."""
    return f"{path}?user={OTHERS_USER}&name={OTHERS_GROUP}&group={OTHERS_GROUP}"


def test_no_form_of_another_site_does_anything(scene):
    before = stored(scene)

    for _, path in scene.forms():
        for headers in FORGED:
            for who in ("owner", "person", "nobody"):
                answer = scene.browsers[who].post(about_others(path), data={"key": ADMIN_KEY}, headers=headers)
                assert (403, []) == (answer.status_code, answer.headers.getlist("Set-Cookie")), (path, headers)
    assert before == stored(scene)


def test_nobody_sees_and_does_nothing(scene):
    before = stored(scene)

    for endpoint, path in scene.pages():
        if endpoint == "dashboard.static_file":
            continue
        answer = scene.browsers["nobody"].get(about_others(path))
        if endpoint in PUBLIC - {"dashboard.unknown"}:
            continue
        assert 303 == answer.status_code, path
        assert "sign-in" in answer.headers["Location"]
    for endpoint, path in scene.forms():
        answer = scene.browsers["nobody"].post(about_others(path), headers=SAME_SITE)
        assert endpoint in PUBLIC or (303 == answer.status_code and "sign-in" in answer.headers["Location"]), path
    assert before == stored(scene)


@pytest.mark.parametrize("who", ["viewer", "group", "metrics", "person", "holder"])
def test_who_may_not_change_things_of_others_changes_nothing(scene, who):
    """With fields that are right for every form."""
    before = stored(scene)
    fields = {
        "user": OTHERS_USER, "name": "changed", "group": OTHERS_GROUP, "role": "owner", "active": "no", "overlap": "0",
        "note": "changed", "confirmed": OTHERS_USER, "keys": "block", "action": "block", "filter.all": "yes",
        "prompt": "changed", "timezone": "Asia/Tokyo", "code": "EUR", "limits.requests_per_minute": "1",
        "step": "import",
        "part": "others", "max_output_tokens": "7", "until": "2026-02-01", "model": "gpt-4o",
        "smtp_url": "smtp://a@b.example",
    }  # fmt: skip
    kept = {"dashboard.sign_out", "dashboard.sign_out_everywhere", "dashboard.me_make", "dashboard.enter"}
    kept |= {"dashboard.first_run_key"}  # an admin of one group makes keys in it, if no other is named

    for endpoint, path in scene.forms():
        if endpoint in kept:
            continue
        answer = scene.browsers[who].post(about_others(path), data=fields, headers=SAME_SITE)
        assert answer.status_code < 500, path
    assert before == stored(scene)


@pytest.mark.parametrize("who", [*Role, "person", "holder"])
def test_pages_show_what_the_role_may_see_and_no_secret(scene, who):
    browser = scene.browsers[who]
    sees_all = who in READERS

    for endpoint, path in scene.pages():
        if endpoint == "dashboard.static_file":
            continue
        for address in (path, about_others(path)):
            answer = browser.get(address)
            assert answer.status_code < 500, (address, answer.text)
            page = html.unescape(re.sub(r'<a [^>]*href="[^"]*"|value="[^"]*"', "", answer.text))
            found = [secret for secret in (ADMIN_KEY, AZURE_KEY, *scene.secrets) if secret in page]
            assert [] == found, address
            if not sees_all and address == path:
                assert OTHERS_GROUP not in page, (address, answer.status_code)
                assert OTHERS_USER not in page, address
            if who in PEOPLES and endpoint not in PERSONAL | PUBLIC | {"dashboard.overview", "dashboard.unknown"}:
                assert 403 == answer.status_code, address
            if answer.mimetype == "text/html":
                assert [] == [name for name in NAMES[:3] if name in answer.text], address
                assert "49{%" not in answer.text, address
            for header in ("Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options", "Referrer-Policy"):
                assert header in answer.headers, address
            assert "no-store" == answer.headers["Cache-Control"], address


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "BREW"])
def test_other_methods_are_answered_and_change_nothing(scene, method):
    before = stored(scene)

    for endpoint, path in scene.pages():
        if endpoint == "dashboard.static_file":
            continue
        answer = scene.browsers["owner"].open(about_others(path), method=method, headers=SAME_SITE)
        assert answer.status_code < 500, path
        assert method in ("HEAD", "OPTIONS") or answer.status_code == 405, path
    assert before == stored(scene)


@pytest.mark.parametrize("role", ["viewer", "person", "holder"])
def test_a_cookie_of_another_kind_makes_nobody_an_owner(scene, role):
    """The values of a session are signed: what is replaced in it ends it."""
    name, own = cookie_of(scene, role)
    _, owners = cookie_of(scene, "owner")
    (body, signature), (owners_body, owners_signature) = own.rsplit(".", 1), owners.rsplit(".", 1)
    browser = scene.app.test_client()
    for forged in (
        f"{owners_body}.{signature}",
        f"{body}.{owners_signature}",
        body,
        owners_body,
        "",
        f"{own}.x",
        "\u00e9",
    ):
        browser.set_cookie(name, forged)
        assert 303 == browser.get("/dashboard/keys").status_code


def cookie_of(scene: Scene, who: str) -> tuple[str, str]:
    """Return name and value of somebody's session."""
    return next((each.key, each.value) for each in scene.browsers[who]._cookies.values() if "-" in each.key)
