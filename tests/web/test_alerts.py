"""``/admin/alerts``: what is taken, what is kept, what is never shown."""

from __future__ import annotations

import json

import pytest

from llmgateway.web.context import EXTENSION
from tests.alerts.sinks import mail_sink, webhook_sink
from tests.servers import free_port
from tests.stores.contract import alert, append, usage

EVENTS = ["budget", "credential", "store", "quota", "backlog", "price", "leaver"]
NOTHING = {
    "smtp_url": None,
    "has_smtp_password": False,
    "from": None,
    "webhooks": [],
    "emails": [],
    "thresholds": [50, 80, 100],
    "events": EVENTS,
    "problems": [],
    "alerts": [],
}
SLACK = "https://hooks.slack.com/services/T0/B0/slack-token"
WHOLE = {
    "smtp_url": "smtp://gateway:mail-password@mail.example.org",
    "from": "LLMGateway <llmgateway@example.org>",
    "emails": ["ada@example.org"],
    "webhooks": [
        {"url": "https://example.org/hook", "secret": "hook-secret"},
        {"url": SLACK, "format": "slack"},
    ],
    "thresholds": [90, 20],
    "events": ["store", "budget"],
}


def words_of(*documents: object) -> str:
    return json.dumps(documents)


def sendable(answer):
    """What is sent back, as a page would."""
    body = {name: value for name, value in answer.items() if name not in ("has_smtp_password", "problems", "alerts")}
    body["webhooks"] = [{name: each[name] for name in ("id", "url", "format")} for each in answer["webhooks"]]
    return body


def stored(client):
    return client.application.extensions[EXTENSION].alerts.settings()


def test_begins_with_nothing(call):
    """Everything that would be told, and nobody to tell it to."""
    assert NOTHING == call("GET", "/alerts")


def test_shows_what_was_set_without_secrets(client, call, caplog):
    """Neither in the answer, nor in the audit, nor in the log."""
    put = call("PUT", "/alerts", json=WHOLE)
    got = call("GET", "/alerts")

    assert put == got
    first, second = got["webhooks"]
    fields = ("url", "has_secret", "format")
    assert ("https://example.org/hook", True, "json") == tuple(first[name] for name in fields)
    assert ("https://hooks.slack.com/services/***", False, "slack") == tuple(second[name] for name in fields)
    assert ("smtp://gateway@mail.example.org", True) == (got["smtp_url"], got["has_smtp_password"])
    assert ([20, 90], ["budget", "store"]) == (got["thresholds"], got["events"])
    shown = words_of(got, call("GET", "/audit")) + caplog.text
    assert not any(word in shown for word in ("mail-password", "hook-secret", "slack-token"))
    assert "alerts.set" == call("GET", "/audit")["items"][0]["action"]


def test_what_is_shown_can_be_sent_back(client, call):
    """Nothing is lost by it: secrets and hidden parts stay."""
    answer = call("PUT", "/alerts", json=WHOLE)
    before = stored(client)

    assert answer == call("PUT", "/alerts", json=sendable(answer))
    assert before == stored(client)
    without_ids = sendable(answer)
    for each in without_ids["webhooks"]:
        del each["id"]
    call("PUT", "/alerts", json=without_ids)
    assert before == stored(client)


def test_secrets_can_be_replaced_and_removed(client, call):
    """By sending them."""
    answer = call("PUT", "/alerts", json=WHOLE)
    body = sendable(answer)
    body["webhooks"][0]["secret"] = "new-secret"
    call("PUT", "/alerts", json=body)
    assert "new-secret" == stored(client).webhooks[0].secret
    body["webhooks"][0]["secret"] = None
    call("PUT", "/alerts", json=body)
    assert stored(client).webhooks[0].secret is None
    body["smtp_url"] = "smtp://gateway:other@mail.example.org"
    call("PUT", "/alerts", json=body)
    assert "smtp://gateway:other@mail.example.org" == stored(client).smtp_url


def test_secrets_do_not_go_to_another_server(client, call):
    """Somebody who can change the address could read them there."""
    body = sendable(call("PUT", "/alerts", json=WHOLE))
    body["webhooks"][0]["url"] = "https://evil.example.org/hook"
    body["smtp_url"] = "smtp://gateway@evil.example.org"
    refused = call("PUT", "/alerts", json=body, status=422)
    assert "another server" in refused["error"]["errors"]["webhooks"]["0"]["secret"][0]

    del body["webhooks"]
    assert not call("PUT", "/alerts", json=body)["has_smtp_password"]
    assert "smtp://gateway@evil.example.org" == stored(client).smtp_url


def test_nothing_ends_all_alerts(client, call):
    """Also the document in the store is gone."""
    call("PUT", "/alerts", json=WHOLE)

    assert NOTHING == call("PUT", "/alerts", json={})
    assert "alerts" not in client.application.extensions[EXTENSION].policy.stored().documents


def test_everything_that_is_wrong_is_told_at_once(call):
    """By field, with the remedy; nothing is stored."""
    body = {
        "smtp_url": "http://mail.example.org",
        "emails": ["ada@example.org", "no address", "x@example.org\r\nBcc: y@example.org"],
        "webhooks": [{"url": "http://169.254.169.254/"}, {"format": "xml"}, {"url": "ftp://x", "secret": "a\nb"}],
        "thresholds": [0, 101, 50.5, "80"],
        "events": ["budget", "weather"],
        "unknown": 1,
    }
    first = call("PUT", "/alerts", json=body, status=422)["error"]["errors"]
    assert {"emails", "webhooks", "thresholds", "events", "unknown"} <= first.keys()
    assert {"1", "2"} == first["emails"].keys()
    assert {"0", "1", "2", "3"} == first["thresholds"].keys()
    assert {"1", "2"} <= first["webhooks"].keys()

    body = {
        "smtp_url": "http://mail.example.org",
        "emails": ["ada@example.org"],
        "webhooks": [
            {"url": "http://169.254.169.254/"},
            {"url": "ftp://x"},
            {"url": "https://x/***"},
            {"url": "ftp://x"},
        ],
    }
    second = call("PUT", "/alerts", json=body, status=422)["error"]["errors"]
    assert {"smtp_url", "from", "webhooks"} == second.keys()
    assert {"0", "1", "2", "3"} == second["webhooks"].keys()
    assert NOTHING == call("GET", "/alerts")


@pytest.mark.parametrize(
    "body",
    [
        {"emails": ["ada@example.org"]},
        {"emails": ["ada@example.org"], "smtp_url": "smtp://h"},
        {"emails": ["ada@example.org"] * 2, "smtp_url": "smtp://h", "from": "a@example.org"},
        {"thresholds": [50, 50]},
        {"thresholds": list(range(1, 12))},
        {"webhooks": [{"url": f"https://example.org/{number}"} for number in range(21)]},
        {"webhooks": [{"url": "https://example.org/"}, {"url": "https://example.org/"}]},
        {"webhooks": [{"url": "https://example.org/", "id": "hook_unknown"}]},
        {"from": "a@example.org\nBcc: b@example.org"},
        {"webhooks": [{"url": "https://example.org/", "secret": "x" * 501}]},
        {"webhooks": {}},
        {"emails": None},
    ],
    ids=lambda body: str(body)[:60],
)
def test_what_cannot_work_is_refused(call, body):
    """Before anybody waits for a warning that never comes."""
    call("PUT", "/alerts", json=body, status=422)

    assert NOTHING == call("GET", "/alerts")


def test_a_test_says_what_happened_at_each_target(call):
    """In the order of the settings."""
    with webhook_sink() as good, webhook_sink() as bad, mail_sink(refuses={"no@example.org"}) as mails:
        bad.answer = 404
        body = {
            "webhooks": [{"url": good.url}, {"url": bad.url}, {"url": f"http://127.0.0.1:{free_port()}/"}],
            "emails": ["ada@example.org", "no@example.org"],
            "smtp_url": mails.url,
            "from": "g@example.org",
        }
        ids = [each["id"] for each in call("PUT", "/alerts", json=body)["webhooks"]]
        targets = call("POST", "/alerts/test")["targets"]

    assert [*ids, "ada@example.org", "no@example.org"] == [each["target"] for each in targets]
    assert [(True, 200), (False, 404), (False, None), (True, 250), (False, 550)] == [
        (each["delivered"], each["status"]) for each in targets
    ]
    assert all((each["reason"] is None) == (each["remedy"] is None) == each["delivered"] for each in targets)
    assert ("test", "organisation") == (good.posts[0].json()["event"], good.posts[0].json()["scope"])
    assert "private" not in words_of(targets)
    assert 1 == len(mails.mails)


def test_a_test_without_a_target(call):
    """Nobody was told."""
    assert {"targets": []} == call("POST", "/alerts/test")


def test_shows_the_last_alerts_and_what_failed(client, call, clock):
    """With the remedy, for each target that did not get its last one."""
    alerts = client.application.extensions[EXTENSION].alerts
    with webhook_sink() as good, webhook_sink() as bad:
        bad.answer = 500
        call("PUT", "/alerts", json={"webhooks": [{"url": good.url}, {"url": bad.url}]})
        call("PUT", "/limits", json={"budget": {"amount": 0.000001, "unit": "usd", "period": "month"}})
        append(client.application.extensions[EXTENSION].usage_log, [usage(1, cost_usd=1.0)])
        clock.advance(5)
        alerts.turn()

        got = call("GET", "/alerts")
        (alert,) = got["alerts"]
        assert ("budget", "organisation", 100) == (alert["event"], alert["scope"], alert["threshold"])
        assert ["delivered", "waiting"] == [each["state"] for each in alert["deliveries"]]
        (problem,) = got["problems"]
        assert problem.startswith(f"{got['webhooks'][1]['id']}: The server answered 500")

        bad.answer = 200
        clock.advance(60)
        alerts.turn()
        got = call("GET", "/alerts")
        assert [] == got["problems"]
        assert ["delivered"] * 2 == [each["state"] for each in got["alerts"][0]["deliveries"]]


def test_lists_what_was_announced_page_by_page(client, call):
    """Newest first, as ``GET /alerts`` shows them; what is no cursor is refused."""
    store = client.application.extensions[EXTENSION].alerts.store
    for number in (1, 2, 3):
        store.add(alert(number))

    first = call("GET", "/alerts/fired?limit=2")
    assert ["alert-0003", "alert-0002"] == [each["id"] for each in first["items"]]
    assert call("GET", "/alerts")["alerts"][:2] == first["items"]
    second = call("GET", f"/alerts/fired?limit=2&cursor={first['next']}")
    assert (["alert-0001"], None) == ([each["id"] for each in second["items"]], second["next"])
    assert "cursor" in call("GET", "/alerts/fired?cursor=alert-0001", status=422)["error"]["errors"]


def test_needs_the_admin_key(client):
    """As everything under /admin."""
    for method, path in (("GET", "/alerts"), ("PUT", "/alerts"), ("POST", "/alerts/test")):
        assert 401 == client.open(f"/admin{path}", method=method, json={}).status_code
