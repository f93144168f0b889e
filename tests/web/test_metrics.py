"""``/metrics``: what Prometheus reads."""

from __future__ import annotations

import dataclasses

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmgateway import create_app
from llmgateway.proxy.read_on import ReadOn
from llmgateway.settings import Settings
from llmgateway.simulator import Script, Simulator
from llmgateway.stores.health import StoreHealth
from llmgateway.usage.metrics import Metrics
from llmgateway.web.context import EXTENSION

ADMIN_KEY = "an-admin-key-for-tests"
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def azure():
    with Simulator(key="azure-key") as azure:
        yield azure


@pytest.fixture
def settings(azure, tmp_path):
    return Settings(
        admin_key=ADMIN_KEY, base_url=f"{azure.url}/openai/v1", api_key="azure-key", instance=tmp_path, metrics="open"
    )


@pytest.fixture
def app(settings):
    app = create_app(settings)
    yield app
    app.extensions[EXTENSION].journal.close()


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def user(app):
    _, key = app.extensions[EXTENSION].keys.create(user="ada", name="x")
    return {"Authorization": f"Bearer {key}"}


def numbers(client):
    """Every sample by its name and labels."""
    text = client.get("/metrics").text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counts_what_reached_azure(azure, client, user):
    """Requests by their ending, tokens by kind, cost and durations, for plain answers and streams."""
    azure.script(Script(tokens=7, cached_tokens=4))
    assert client.post("/v1/chat/completions", json=CHAT, headers=user).status_code == 200
    azure.script(Script(tokens=5))
    assert client.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=user).data
    azure.script(Script(fault="server_error"))
    assert client.post("/v1/chat/completions", json=CHAT, headers=user).status_code == 500

    found = numbers(client)

    assert found["llmgateway_requests_total", "false", "ok"] == 1
    assert found["llmgateway_requests_total", "ok", "true"] == 1
    assert found["llmgateway_requests_total", "false", "upstream_error"] == 1
    assert found["llmgateway_tokens_total", "completion"] == 12
    assert found["llmgateway_tokens_total", "cached"] == 4
    assert found["llmgateway_cost_usd_total",] > 0
    assert found["llmgateway_duration_seconds_count", "false"] == 2
    assert found["llmgateway_first_text_seconds_count",] == 1
    assert found["llmgateway_requests_in_flight",] == 0


def test_counts_what_azure_did_not_count(azure, client, user):
    """The tokens of estimates and of bounds, and the answers that are read on."""
    azure.script(Script(tokens=5, cut_after_events=4))
    assert client.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=user).data
    azure.script(Script(refuse=True))
    assert client.post("/v1/chat/completions", json=CHAT, headers=user).status_code == 502

    found = numbers(client)

    assert found["llmgateway_uncounted_tokens_total", "estimated"] > 150
    assert found["llmgateway_uncounted_tokens_total", "bound"] > 150
    assert found["llmgateway_requests_read_on",] == 0


def test_counts_the_answers_that_are_read_on():
    """While they are."""
    metrics, permits = Metrics(), ReadOn(seconds=20, at_once=2)
    permits.on_change = metrics.reads_on
    text = []
    for change in (lambda: permits.take(thinks=True),) * 3, (permits.free,):
        for one in change:
            one()
        text.append(metrics.exposition(StoreHealth([]), azure_key_ok=True).decode())

    assert "llmgateway_requests_read_on 2.0" in text[0]
    assert "llmgateway_requests_read_on 1.0" in text[1]


def test_counts_what_was_refused(client, user):
    """The gateway's own errors by their code; they leave no usage record, so this is where they show."""
    client.post("/v1/chat/completions", json=CHAT)
    client.post("/v1/chat/completions", data=b"{", headers=user)

    found = numbers(client)

    assert found["llmgateway_refused_total", "invalid_api_key"] == 1
    assert found["llmgateway_refused_total", "invalid_request_error"] == 1
    assert 0 == sum(number for name, number in found.items() if name[0] == "llmgateway_requests_total")


def test_a_request_that_did_not_reach_azure_is_in_flight_no_more(azure, client, user):
    """Where nothing was sent, nothing is counted but the refusal."""
    azure.stop()

    assert client.post("/v1/chat/completions", json=CHAT, headers=user).status_code == 502

    found = numbers(client)
    assert found["llmgateway_requests_in_flight",] == 0
    assert found["llmgateway_refused_total", "upstream_unreachable"] == 1
    assert 0 == sum(number for name, number in found.items() if name[0] == "llmgateway_requests_total")


def test_names_the_state(client):
    """The stores, the degradation level and Azure's key are metrics with the value 0 or 1."""
    found = numbers(client)

    assert found["llmgateway_store_up", "sqlite"] == 1
    assert found["llmgateway_rung", "normal"] == 1
    assert found["llmgateway_rung", "memory_only"] == 0
    assert found["llmgateway_azure_key_ok",] == 1


@pytest.mark.parametrize(
    ("access", "headers", "status"),
    [
        ("admin", {}, 401),
        ("admin", {"AdminKey": "wrong"}, 401),
        ("admin", {"AdminKey": ADMIN_KEY}, 200),
        ("admin", {"Authorization": f"Bearer {ADMIN_KEY}"}, 200),
        ("open", {}, 200),
        ("off", {"AdminKey": ADMIN_KEY}, 404),
    ],
)
def test_is_read_by_whom_the_settings_name(settings, access, headers, status):
    """By admins alone unless an operator chose otherwise; Prometheus can send the key as a Bearer."""
    app = create_app(dataclasses.replace(settings, metrics=access))

    assert app.test_client().get("/metrics", headers=headers).status_code == status
