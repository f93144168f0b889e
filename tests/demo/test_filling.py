"""The made-up organisation: what the dashboard needs is there, and adds up."""

from __future__ import annotations

import pytest

from llmgateway.app import create_app
from llmgateway.demo import fill
from llmgateway.settings import Settings
from llmgateway.web.context import EXTENSION

ADMIN_KEY = "demo-tests-admin-key"
NOON = 1_795_953_600.0  # 2026-11-29T12:00:00Z


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A gateway with some weeks of traffic; what was made, and how to ask it."""
    environ = {
        "ADMIN_KEY": ADMIN_KEY,
        "LLM_BASE_URL": "http://127.0.0.1:9/openai/v1",
        "LLM_API_KEY": "demo-tests-azure-key",
        "LLMGATEWAY_INSTANCE": str(tmp_path_factory.mktemp("demo")),
    }
    settings = Settings.from_env(environ)
    filled = fill(settings, now=NOON, requests=60, days=40)
    app = create_app(settings, clock=lambda: NOON)
    client = app.test_client()

    def ask(path):
        answer = client.get(f"/admin/{path}", headers={"AdminKey": ADMIN_KEY})
        assert 200 == answer.status_code, answer.text
        return answer.json

    yield filled, ask
    app.extensions[EXTENSION].journal.close()
    app.extensions[EXTENSION].refusals.close()


def test_every_record_is_counted(demo):
    """In sums, at prices that are known; no request lies in the future."""
    filled, ask = demo
    total = ask("usage")["total"]

    assert filled.records == total["requests"] > 500
    assert 0 == total["unpriced_requests"]
    assert 0 < total["errors"] < total["requests"] / 10
    assert ask("logs?limit=1")["items"][0]["timestamp"] <= "2026-11-29T12:00:00"
    assert 5 == len(ask("usage?by=model")["rows"])


def test_weekends_are_quiet(demo):
    """As in the pictures."""
    _, ask = demo
    days = {row["day"]: row["requests"] for row in ask("usage?by=day&start=2026-11-16&end=2026-11-22")["rows"]}

    assert 2 * max(days["2026-11-21"], days["2026-11-22"]) < min(days[f"2026-11-{day}"] for day in range(16, 21))


def test_keys_are_in_every_state(demo):
    """Blocked, raised, about to end, not valid yet; some spend much of their budget."""
    filled, ask = demo
    keys = ask("keys?limit=200&include=remaining")["items"]

    assert filled.keys + 1 == len(keys)
    assert 3 == sum(not key["active"] for key in keys)
    assert 2 == sum((key["expires_at"] or "9") < "2026-12-10" for key in keys)
    assert any(key["raise"] for key in keys)
    assert any((key["starts_at"] or "") > "2026-11-29" for key in keys)
    assert 3 == len({key["group"] for key in keys if key["user"] == "Ada Lovelace"})


def test_admins_have_a_history(demo):
    """By name, with prompts in versions, refusals, warnings, and requests that another deployment answered."""
    filled, ask = demo
    audit = ask("audit?limit=200")["items"]

    assert {"Grace Lindqvist", "Tomás Weber"} <= {entry["admin"]["name"] for entry in audit}
    assert 3 == len(ask("prompt/versions")["items"])
    assert filled.refusals > 5
    assert 4 == len(ask("alerts/fired")["items"])
    assert any(2 == len(record["attempts"]) for record in ask("logs?model=gpt-4o&limit=200")["items"])


def test_no_key_is_printed(demo):
    """The admins' keys are for tests."""
    filled, _ = demo

    assert 4 == len(filled.admin_keys)
    assert not any(key in repr(filled) for key in filled.admin_keys.values())
