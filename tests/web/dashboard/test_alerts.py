"""The pages of alerts: what was announced, where they go, the test."""

from __future__ import annotations

import pytest

from llmgateway.web.context import EXTENSION
from tests.alerts.sinks import webhook_sink
from tests.stores.contract import alert
from tests.web.dashboard.reading import HOSTILE, etag_of

SLACK = "https://hooks.slack.com/services/T0/B0/slack-token"
MAIL = {
    "smtp_url": "smtp://gateway@mail.example.org",
    "smtp_password": "mail pass/word",
    "from": "LLMGateway <llmgateway@example.org>",
    "emails": "ada@example.org\ngrace@example.org",
}
REST = {"events": ["budget", "store"], "thresholds": "50 %, 90"}
HOOKS = {
    "webhooks.0.url": "https://example.org/hook",
    "webhooks.0.format": "json",
    "webhooks.0.secret": "hook-secret",
    "webhooks.1.url": SLACK,
    "webhooks.1.format": "slack",
    "webhooks.2.url": "",
    "webhooks.2.format": "json",
}
SECRETS = ("mail pass/word", "mail%20pass", "hook-secret", "slack-token")


def stored(client):
    return client.application.extensions[EXTENSION].alerts.settings()


def shown_back(call) -> dict[str, object]:
    """What a browser sends of the form as it is shown."""
    settings = call("GET", "/alerts")
    fields = {
        f"webhooks.{at}.{name}": each[name]
        for at, each in enumerate(settings["webhooks"])
        for name in ("id", "url", "format")
    }
    mail = {name: settings[name] for name in ("smtp_url", "from")}
    return {**mail, "emails": "\n".join(settings["emails"]), **REST, **fields}


def test_targets_are_set_and_no_page_has_their_secrets(owner, call, client):
    """Sent back as it is shown, all of it stays; a webhook is removed by its box."""
    owner.send_and_follow("alerts/settings", **MAIL, **REST, **HOOKS)
    page = owner.open("alerts/settings") + owner.open("alerts")

    assert not [secret for secret in SECRETS if secret in page]
    before = stored(client)
    assert "smtp://gateway:mail%20pass%2Fword@mail.example.org" == before.smtp_url
    assert ["hook-secret", None] == [each.secret for each in before.webhooks]
    assert ((50, 90), 2) == (before.thresholds, len(before.emails))
    owner.send_and_follow("alerts/settings", etag=etag_of(page), **shown_back(call))
    assert before == stored(client)
    owner.send_and_follow("alerts/settings", **shown_back(call), **{"webhooks.0.remove": "yes"})
    assert [SLACK] == [each.url for each in stored(client).webhooks]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"webhooks.1.url": "ftp://example.org/hooked/slack-token"}, "webhooks.1.url"),
        ({"webhooks.0.url": "http://169.254.169.254/", "webhooks.1.remove": "yes"}, "webhooks.0.url"),
        ({"emails": "no address"}, "emails"),
        ({"thresholds": "50, many"}, "thresholds"),
        ({"smtp_url": "mail.example.org"}, "smtp_url"),
        ({"from": ""}, "from"),
    ],
)
def test_what_is_wrong_is_said_and_secrets_are_not_shown_again(owner, call, fields, wrong):
    """Nothing was stored; a URL that may be secret has to be typed again."""
    page = owner.send("alerts/settings", status=422, **MAIL | REST | HOOKS | fields).text

    assert f'id="{wrong}-wrong"' in page
    assert not [secret for secret in SECRETS if secret in page]
    assert "Type it again" in page
    assert [] == call("GET", "/alerts")["webhooks"]


def test_a_test_says_what_happened(owner, call):
    with webhook_sink() as good, webhook_sink() as bad:
        bad.answer = 500
        call("PUT", "/alerts", json={"webhooks": [{"url": good.url}, {"url": bad.url}]})
        page = owner.send("alerts/test", status=200).text

    assert "arrived" in page
    assert "The server answered 500" in page


def test_what_was_announced_is_listed_page_by_page(owner, client):
    store = client.application.extensions[EXTENSION].alerts.store
    for number in range(30):
        store.add(alert(number, text=f"alert {number} {HOSTILE}"))

    first = owner.open("alerts")
    assert "alert 29 " in first
    assert "alert 4 " not in first
    assert "<script>alert" not in first
    cursor = first.partition("?cursor=")[2].partition('"')[0]
    assert "alert 4 " in owner.open(f"alerts?cursor={cursor}")
    owner.open("alerts?cursor=made-up", status=422)


def test_two_admins_on_one_form(owner, call):
    tag = etag_of(owner.open("alerts/settings"))
    call("PUT", "/alerts", json={"thresholds": [11]})

    page = owner.send("alerts/settings", status=412, etag=tag, **REST).text

    assert "[11]" in page
    assert 'value="50 %, 90"' in page
    assert [11] == call("GET", "/alerts")["thresholds"]


def test_a_viewer_looks_and_a_groups_admin_does_not(named, call):
    call("PUT", "/alerts", json={"webhooks": [{"url": SLACK, "format": "slack", "secret": "hook-secret"}]})
    call("PUT", "/groups/ml", json={})
    viewer, grace = named("viewer"), named("group", "ml")

    page = viewer.open("alerts") + viewer.open("alerts/settings")
    assert "hooks.slack.com" in page
    assert "slack-token" not in page
    assert "Send a test" not in page
    viewer.send("alerts/settings", status=403, **REST)
    viewer.send("alerts/test", status=403)
    grace.open("alerts", status=403)
    grace.open("alerts/settings", status=403)
