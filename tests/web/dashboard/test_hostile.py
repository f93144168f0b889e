"""What nobody sends by accident: absurd queries, fields and names. The answer is a page that says what is wrong."""

from __future__ import annotations

import pytest

from tests.conftest import Clock
from tests.web.conftest import making_apps
from tests.web.dashboard.conftest import SAME_SITE
from tests.web.dashboard.hostile import OTHERS_GROUP, OTHERS_USER, Scene, fill

PARAMETERS = (
    "page",
    "sort",
    "q",
    "user",
    "name",
    "group",
    "key",
    "since",
    "month",
    "days",
    "cursor",
    "status",
    "seconds",
)
VALUES = ("-1", "99999999999999999999", "1e308", "²", "%00", "%ff%ed%a0%80", "9999-12-31", "%0d%0aX:a", "x" * 3000)
FIELDS = (
    "page",
    "user",
    "name",
    "group",
    "key",
    "text",
    "version",
    "overlap",
    "prompt",
    "active",
    "until",
    "kept",
    "who",
)
ROWS = ("webhooks.{}.url", "deployments.{}.name", "deployments.{}.base_url", "rules.{}.claim")
NUMBERS = ("\N{SUPERSCRIPT TWO}", "9" * 5000, "9999", "-1", "")
TYPED = ("", "\x00", "1e308", "-1", "\N{SUPERSCRIPT TWO}", "[" * 5000, "9999-12-31", ["a", "b"])
ENDS_SESSIONS = ("sign_out", "sign_out_everywhere", "sign_in_rules_sign_out")


@pytest.fixture(scope="module")
def scene(azure, tmp_path_factory):
    with making_apps(azure, Clock(), tmp_path_factory.mktemp("hostile")) as make:
        yield fill(make())


@pytest.mark.parametrize("value", VALUES)
def test_no_query_breaks_a_page(scene: Scene, value):
    """All parameters at once, and each that a page may read before the others."""
    queries = ["&".join(f"{name}={value}" for name in PARAMETERS), f"page={value}", f"name={value}&user={value}"]

    for endpoint, path in scene.pages():
        for query in queries if endpoint != "dashboard.static_file" else ():
            for who in ("owner", "person"):
                answer = scene.browsers[who].get(f"{path}?{query}")
                assert answer.status_code < 500, f"{path}?{query[:80]}: {answer.text}"
                assert "X" not in answer.headers


@pytest.mark.parametrize("typed", TYPED, ids=lambda typed: repr(typed)[:12])
def test_no_field_breaks_a_form(scene: Scene, typed):
    """What is missing, too long, of another type, sent twice, or in a row that there is not."""
    rows = {row.format(number): typed for row in ROWS for number in NUMBERS}
    fields = dict.fromkeys((*FIELDS, "limits.requests_per_minute", "limits.budget.amount", "thresholds"), typed)

    for endpoint, path in scene.forms():
        if endpoint.partition(".")[2] in ENDS_SESSIONS:
            continue
        address = f"{path}?user={OTHERS_USER}&name={OTHERS_GROUP}&group={OTHERS_GROUP}"
        for part in ("deployments", "others", "prices") if endpoint == "dashboard.models_set" else ("",):
            data = fields | rows | {"part": part, "aliases": typed, "prices.prompt": typed, "prices.more": typed}
            answer = scene.browsers["owner"].post(address, data=data, headers=SAME_SITE)
            assert answer.status_code < 500, f"{path}: {answer.text}"


def test_a_long_address_is_not_led_back_to(client):
    """Proxies refuse answers with such headers."""
    answer = client.get(f"/dashboard/keys?q={'x' * 5000}")

    assert "sign-in" in answer.headers["Location"]
    assert len(answer.headers["Location"]) < 100


@pytest.mark.parametrize(
    "before", ["http://[", "http://localhost/dashboard/a//b", "http://evil.example/dashboard/keys"]
)
def test_an_absurd_page_before_is_not_led_back_to(client, before):
    answer = client.post("/dashboard/keys/new", headers=SAME_SITE | {"Referer": before})

    assert (303, "sign-in") == (answer.status_code, answer.headers["Location"].rpartition("/")[2])


@pytest.mark.parametrize("note", ["2026-99-99T00:00:00+00:00", "0001-01-01T00:00:00+14:00"])
def test_a_note_that_looks_like_a_time_is_no_time(owner, new_key, note):
    new_key(note=note)

    assert note in owner.open("audit")


def test_a_field_that_is_sent_twice_counts_once(owner, call, new_key):
    """``who`` without a value would mean everybody."""
    made = new_key(group="ml")

    owner.send(f"keys/{made['id']}", note=["first", "second"])
    owner.send("groups/new", name=["new", "other"])
    assert "first" == call("GET", f"/keys/{made['id']}")["note"]
    assert ["ml", "new"] == [group["name"] for group in call("GET", "/groups")["items"]]


@pytest.mark.parametrize("page", ["statements/group", "statements/person", "groups/group", "people/person"])
def test_a_page_about_nobody_says_so(owner, page):
    assert "Name a" in owner.open(page, status=404)
    owner.open(f"{page}?name=a//b&user=a//b", status=404)


@pytest.mark.parametrize(
    "header", ["X-Forwarded-Host", "X-Forwarded-Prefix", "X-Script-Name", "X-Original-URL", "Forwarded"]
)
def test_believes_no_header_about_its_address(owner, header):
    """Only a setting says what is in front."""
    headers = {header: "/evil.example" if header != "Forwarded" else "host=evil.example;proto=https"}

    for path in ("keys", "first-run", "me", "sign-in", "nowhere"):
        answer = owner.client.get(f"/dashboard/{path}", headers=headers)
        assert "evil" not in answer.text + answer.headers.get("Location", "")
    answer = owner.client.post("/dashboard/theme", data={"theme": "dark", "back": "//evil.example"}, headers=SAME_SITE)
    assert "evil" not in answer.headers["Location"]


def test_a_secret_that_was_typed_is_in_no_answer(scene, caplog):
    """Whatever else is wrong with the form, it is shown again without it, and no log, cookie or address has it."""
    secret = "typed-secret-4711 "
    names = ("key", "smtp_password", "webhooks.0.secret", "deployments.0.key", "azure_key", "password")
    wrong = {
        "base_url": f"https://user:{secret.strip()}@x.example/?api-key={secret}",
        "smtp_url": "x",
        "user": "",
        "model": "x",
    }
    wrong |= {"deployments.0.base_url": wrong["base_url"], "deployments.0.name": "a/b", "webhooks.0.url": "x"}

    for _, path in scene.forms():
        if path.endswith(("/sign-out", "/sign-out-everywhere", "/prompts/preview")):  # there, ``key`` is an identifier
            continue
        for part in ("deployments", "") if path.endswith("models/one") else ("",):
            data = dict.fromkeys(names, secret) | wrong | {"part": part, "priority": "x", "api_version": "\x00"}
            answer = scene.browsers["owner"].post(f"{path}?name=x", data=data, headers=SAME_SITE)
            assert secret.strip() not in answer.text, path
            assert secret.strip() not in str(answer.headers), path
    assert secret.strip() not in caplog.text
