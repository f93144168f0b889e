"""``llmgateway alerts`` in front of a gateway that runs."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from llmgateway.cli import main
from tests.alerts.sinks import mail_sink, webhook_sink
from tests.gateway_process import GatewayProcess

SLACK = "https://hooks.slack.com/services/T0/B0/slack-token"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    environ = {"LLM_BASE_URL": "http://127.0.0.1:9/openai/v1", "LLM_API_KEY": "azure-key-of-the-command-line"}
    with GatewayProcess(environ, folder=tmp_path_factory.mktemp("gateway")) as started:
        yield started


@pytest.fixture
def run(gateway):
    """Run a command; returns what went to standard output, and keeps the whole result."""

    def run(*arguments: str, status: int = 0, stdin: str = "") -> str:
        environ = {"ADMIN_KEY": gateway.admin_key, "LLMGATEWAY_URL": gateway.url}
        run.result = CliRunner().invoke(main, ["alerts", *arguments], input=stdin, env=environ)
        assert status == run.result.exit_code, run.result.output
        return run.result.stdout

    gateway.admin("PUT", "/admin/alerts", json={})
    return run


def told(run, *arguments: str, **options: str):
    return json.loads(run(*arguments, "--json", **options))


def test_parts_are_set_and_the_others_stay(run):
    """Secrets come from standard input, never from the command line, and are not shown."""
    with mail_sink(password="mail-password") as mails:
        stdin = f"{mails.url}\n{SLACK}\nhook-secret\n"
        first = run(
            "set",
            "--smtp",
            "--from",
            "g@example.org",
            "--email",
            "ada@example.org",
            "--add-webhook",
            "slack",
            stdin=stdin,
        )
        run("set", "--threshold", "90", "--threshold", "70", "--event", "budget", "--event", "store")
        answer = told(run, "show")

        assert ("g@example.org", ["ada@example.org"], [70, 90], ["budget", "store"]) == tuple(
            answer[name] for name in ("from", "emails", "thresholds", "events")
        )
        (webhook,) = answer["webhooks"]
        assert ("https://hooks.slack.com/services/***", True) == (webhook["url"], webhook["has_secret"])
        assert answer["has_smtp_password"]
        shown = first + run("show") + json.dumps(answer)
        assert not any(secret in shown for secret in ("mail-password", "slack-token", "hook-secret"))
        assert "https://hooks.slack.com/services/***" in run("show")

        run("set", "--remove-webhook", webhook["id"])
        assert [] == told(run, "show")["webhooks"]
        assert [
            {"target": "ada@example.org", "delivered": True, "status": 250, "reason": None, "remedy": None}
        ] == told(run, "test")
        assert "This is a test." in mails.mails[0].text


def test_a_test_that_fails_says_why(run):
    """With the exit status that scripts look at."""
    with webhook_sink() as hook:
        run("set", "--add-webhook", "json", stdin=f"{hook.url}\n\n")
        assert "yes" in run("test")
        hook.answer = 404
        output = run("test", status=1)

    assert "404" in output
    assert "new one" in output
    run("set", "--remove-webhook", told(run, "show")["webhooks"][0]["id"])
    run("test", status=1)
    assert "nowhere" in run.result.stderr


def test_a_file_replaces_everything(run, tmp_path):
    """As JSON; also from standard input."""
    file = tmp_path / "alerts.json"
    file.write_text(json.dumps({"webhooks": [{"url": "https://example.org/hook"}], "thresholds": [75]}))
    assert [75] == told(run, "set", "--file", str(file))["thresholds"]
    assert [50, 80, 100] == told(run, "set", "--file", "-", stdin="{}")["thresholds"]
    assert [] == told(run, "show")["webhooks"]


def test_what_is_wrong_is_told(run, tmp_path):
    """Every field, and what cannot be read; nothing changes."""
    run("set", "--email", "nobody", "--from", "nobody", status=1)
    assert "--email: Is no e-mail address" in run.result.stderr
    assert "--from: Must be an e-mail address" in run.result.stderr
    run("set", "--file", "-", status=1, stdin='{"emails": ["nobody"]}')
    assert "llmgateway: emails.0: Is no e-mail address" in run.result.stderr
    run("set", "--threshold", "101", status=2)
    run("set", "--remove-webhook", "hook_unknown", status=2)
    run("set", "--file", str(tmp_path / "missing.json"), status=2)
    run("set", "--file", "-", status=2, stdin="no json")
    run("set", "--file", "-", "--email", "a@example.org", status=2, stdin="{}")
    assert [] == told(run, "show")["emails"]
