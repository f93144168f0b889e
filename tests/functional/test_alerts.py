"""Warnings of gateways that run: received by a real webhook and a real mail server, once from all processes."""

from __future__ import annotations

import hashlib
import hmac
import time

import pytest

from tests.alerts.sinks import mail_sink, webhook_sink
from tests.certificates import make_certificate
from tests.functional.conftest import fresh_stores, mongo_environ
from tests.servers import wait_until

SECRETS = ("hook-secret", "mail-password")
BUDGET = {"budget": {"amount": 2, "unit": "requests", "period": "day"}}
SECONDS = 40


@pytest.fixture
def sinks(tmp_path):
    """A webhook, and a mail server with STARTTLS, whose certificate gateways trust."""
    certificate = make_certificate(tmp_path)
    with webhook_sink() as hook, mail_sink(certificate=certificate, password="mail-password") as mails:
        yield hook, mails


def settings_for(hook, mails):
    return {
        "smtp_url": mails.url,
        "from": "LLMGateway <llmgateway@example.org>",
        "emails": ["admin@example.org"],
        "webhooks": [{"url": hook.url, "secret": "hook-secret"}],
        "thresholds": [50, 100],
    }


@pytest.fixture(params=["sqlite", "redis+mongo"])
def stores(request, tmp_path):
    with fresh_stores(request.param, tmp_path / "instance") as made:
        yield made


def test_a_budget_is_announced_once_by_all_processes_of_all_hosts(start_gateway, stores, sinks, tmp_path):
    """Half of it first, then all of it; signed, encrypted, and without a secret anywhere."""
    hook, mails = sinks
    common = {"LLMGATEWAY_PROCESSES": "2", "REQUESTS_CA_BUNDLE": str(mails.certificate)}
    hosts = [start_gateway(**common)]
    if stores.mongo is not None:
        hosts.append(start_gateway(**common, LLMGATEWAY_INSTANCE=str(tmp_path / "other-host")))
    first = hosts[0]
    assert 200 == first.admin("PUT", "/admin/groups/alerted", json={"limits": BUDGET}).status
    answer = first.admin("PUT", "/admin/alerts", json=settings_for(hook, mails))
    assert 200 == answer.status, answer.body
    key = first.key(user="ada", group="alerted")

    for number in (1, 2):
        assert 200 == first.chat(key).status
        wait_until(lambda number=number: len(hook.posts) == len(mails.mails) == number, seconds=SECONDS)
    # Whoever would have repeated something has had the time for it when this has come.
    raised = {"limits": {"budget": BUDGET["budget"] | {"amount": 3}}}
    assert 200 == first.admin("PATCH", "/admin/groups/alerted", json=raised).status
    wait_until(lambda: len(hook.posts) == len(mails.mails) == 3, seconds=SECONDS)

    assert [(50, 2), (100, 2), (50, 3)] == [(post.json()["threshold"], post.json()["limit"]) for post in hook.posts]
    post, mail = hook.posts[0], mails.mails[0]
    signature = hmac.new(b"hook-secret", post.body, hashlib.sha256).hexdigest()
    assert f"sha256={signature}" == post.headers["x-llmgateway-signature"]
    assert ("budget", "group:alerted", 1, 2) == tuple(post.json()[name] for name in ("event", "scope", "used", "limit"))
    assert mail.encrypted
    assert post.json()["text"] in mail.text
    for host in hosts:
        shown = host.admin("GET", "/admin/alerts").body.decode() + host.admin("GET", "/admin/audit").body.decode()
        host.stop()
        files = b"".join(path.read_bytes() for path in host.instance.rglob("*") if path.is_file())
        assert not any(secret in shown + host.output for secret in SECRETS)
        assert not any(secret.encode() in files for secret in SECRETS)


def test_a_refused_key_and_the_end_of_it(start_alone, sinks):
    """The admin hears of it before the users complain, and that it works again."""
    hook, mails = sinks
    gateway = start_alone(REQUESTS_CA_BUNDLE=str(mails.certificate))
    gateway.admin("PUT", "/admin/alerts", json=settings_for(hook, mails) | {"events": ["credential"]})
    gateway.admin("POST", "/admin/setllmkey", json={"key": "wrong-key-of-azure"})
    wait_until(lambda: len(hook.posts) == len(mails.mails) == 1, seconds=SECONDS)
    assert "refused by Azure" in hook.texts[0]
    assert "wrong-key-of-azure" not in hook.texts[0] + gateway.output

    gateway.admin("POST", "/admin/setllmkey", json={"key": gateway.environ["LLM_API_KEY"]})
    wait_until(lambda: len(hook.posts) == 2, seconds=90)
    assert "can be used again" in hook.texts[1]


def test_the_durable_store_is_announced_while_it_is_away(start_alone, own_mongo, sinks):
    """From the memory of one process, and once when it is back."""
    hook, _ = sinks
    gateway = start_alone(**mongo_environ(own_mongo), LLMGATEWAY_PROCESSES="2", LLMGATEWAY_STORE_TIMEOUT="1")
    only = {"webhooks": [{"url": hook.url}], "events": ["store"]}
    assert 200 == gateway.admin("PUT", "/admin/alerts", json=only).status
    time.sleep(7)  # until every process has read it: none of them says so
    own_mongo.kill()
    wait_until(lambda: hook.posts, seconds=60, what="the warning")
    assert "The store mongodb is away" in hook.texts[0]

    own_mongo.start()
    wait_until(lambda: len(hook.posts) == 2, seconds=90, what="the end of it")
    assert ["The store mongodb is back."] == hook.texts[1:]


def test_a_webhook_that_hangs_does_not_keep_a_gateway_from_stopping(start_alone, sinks):
    """What was not delivered is delivered after the next start."""
    hook, _ = sinks
    gateway = start_alone()
    gateway.admin("PUT", "/admin/limits", json=BUDGET)
    gateway.admin("PUT", "/admin/alerts", json={"webhooks": [{"url": hook.url}]})
    hook.hangs.set()
    assert 200 == gateway.chat(gateway.key()).status
    wait_until(lambda: hook.posts, seconds=SECONDS)

    began = time.monotonic()
    gateway.stop()
    assert time.monotonic() - began < 15
