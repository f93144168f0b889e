"""The doctor tries every deployment, and says what to change for each usual mistake."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

from llmgateway.simulator import REFUSALS_OF_STREAM_OPTIONS, Script
from llmgateway.web.context import EXTENSION
from tests.servers import free_port, listening
from tests.web.conftest import ADMIN_KEY, AZURE_KEY

ADMIN = {"AdminKey": ADMIN_KEY}


@pytest.fixture
def app(make_app, azure):
    azure.reset()
    return make_app(LLM_BASE_URL="none")


@pytest.fixture
def client(app):
    return app.test_client()


def deploy(client, *, model="gpt-4o", endpoints=("chat/completions",), **fields):
    deployment = {"name": "east", "deployment": "gpt-4o", "key": AZURE_KEY} | fields
    body = {"deployments": [deployment], "endpoints": [*endpoints]}
    answer = client.put(f"/admin/models/{model}", json=body, headers=ADMIN)
    assert 200 == answer.status_code, answer.text


def examine(client, **body):
    answer = client.post("/admin/doctor", json=body, headers=ADMIN)
    assert 200 == answer.status_code, answer.text
    return answer.json


def only(client):
    found = examine(client)
    (item,) = found["items"]
    assert found["ok"] == item["ok"]
    return item


def test_a_deployment_that_works_tells_all_about_itself(client, azure):
    """Where it is asked, how, and what Azure says; no key, and at most one token that is billed."""
    deploy(client, base_url=f"{azure.url}/openai/v1")
    item = only(client)

    assert item["ok"]
    assert f"{azure.url}/openai/v1/chat/completions" == item["url"]
    assert ("api-key", False, None, True) == (
        item["header"],
        item["identity"],
        item["api_version"],
        item["stream_options"],
    )
    assert item["quota"]["limit_tokens"] > item["quota"]["remaining_tokens"] > 0
    assert item["region"]
    assert item["latency_ms"] > 0
    assert AZURE_KEY not in json.dumps(item)
    assert [0, 1] == [served.billed.completion_tokens if served.billed else 0 for served in azure.served]


def test_the_classic_address_has_its_version(client, azure):
    """As it is sent."""
    deploy(client, base_url=f"{azure.url}/openai/deployments/gpt-4o", api_version="2024-10-21")
    item = only(client)

    assert (True, "2024-10-21", "api-key") == (item["ok"], item["api_version"], item["header"])
    assert item["url"].endswith("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21")


@pytest.mark.parametrize("fault", sorted(REFUSALS_OF_STREAM_OPTIONS))
def test_a_deployment_without_stream_options_works(client, azure, fault):
    """Its tokens are estimated; the doctor says so."""
    azure.script(Script(fault=fault, fault_if=("stream_options",)), times=None)
    deploy(client, base_url=f"{azure.url}/openai/v1")

    assert (True, False) == tuple(only(client)[name] for name in ("ok", "stream_options"))


@pytest.mark.parametrize(
    ("fault", "status", "problem", "remedy"),
    [
        ("unauthorized", 401, "refuses the key", "Keys and Endpoint"),
        ("unauthorized_apim", 401, "refuses the key", "Ocp-Apim-Subscription-Key"),
        ("permission_denied", 401, "lacks the right", "Cognitive Services OpenAI User"),
        ("network_denied", 403, "network rules", "Networking"),
        ("blocked", 403, "has blocked the resource", "support"),
        ("deployment_not_found", 404, "There is no deployment 'gpt-4o'", "need not be that of its model"),
        ("model_not_found", 404, "There is no deployment 'gpt-4o'", "need not be that of its model"),
        ("not_found", 404, "has nothing at this address", "/openai/v1"),
        ("operation_not_supported", 400, "does not serve /v1/chat/completions", "endpoints"),
        ("token_rate_limit", 429, "is at a limit (rate_limit_tokens)", "quotaincrease"),
        ("call_rate_limit", 429, "is at a limit (rate_limit_requests)", "spread them"),
        ("capacity", 429, "is at a limit (capacity)", "not your quota"),
        ("moved", 308, "points to another address", "the portal shows"),
        ("server_error", 500, "Azure is not well", "Try again"),
        ("unavailable", 503, "Azure is not well", "Try again"),
    ],
)
def test_each_mistake_has_a_remedy(client, azure, fault, status, problem, remedy):
    """In words that say what to change."""
    azure.script(Script(fault=fault), times=None)
    deploy(client, base_url=f"{azure.url}/openai/v1")
    item = only(client)
    azure.reset()

    assert (False, status) == (item["ok"], item["status"])
    assert problem in item["problem"]
    assert remedy in item["remedy"]


def test_a_key_of_another_resource_is_refused(client, azure):
    """Without a script: the simulator accepts one key."""
    deploy(client, base_url=f"{azure.url}/openai/v1", key="the-key-of-another-resource")
    item = only(client)

    assert (False, 401) == (item["ok"], item["status"])
    assert "keys of other resources, regions and clouds" in item["remedy"]
    assert "the-key-of-another-resource" not in json.dumps(item)


def test_a_missing_version_is_named(client, azure):
    """Behind API Management nobody can know it before."""
    deploy(client, base_url=f"{azure.url}/openai/deployments/gpt-4o")
    item = only(client)

    assert (False, 404) == (item["ok"], item["status"])
    assert "The api-version is missing" in item["remedy"]


def answering(data):
    def talk(connection):
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(data)

    return listening(talk)


PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<!DOCTYPE html>"


@pytest.mark.parametrize("status", [b"200 OK", b"403 Forbidden", b"404 Not Found"])
def test_a_page_is_no_api(client, status):
    """A portal, or the sign-in of a network."""
    with answering(PAGE.replace(b"200 OK", status)) as port:
        deploy(client, base_url=f"http://127.0.0.1:{port}/openai/v1")
        item = only(client)

    assert "A page answers" in item["problem"]


@pytest.mark.parametrize(
    ("scheme", "data", "problem"),
    [("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS"), ("http", b"", "breaks")],
)
def test_what_is_no_http_is_told(client, scheme, data, problem):
    """TLS at a plain port, and a server that hangs up."""
    with answering(data) as port:
        deploy(client, base_url=f"{scheme}://127.0.0.1:{port}/openai/v1")
        item = only(client)

    assert problem in item["problem"]


def test_a_host_that_is_not_there_is_told(client):
    """By its name or by its port, with the other clouds if it may be there."""
    deploy(client, base_url="https://no-such-name-at-all.invalid/openai/v1")
    assert "There is no host no-such-name-at-all.invalid" == only(client)["problem"]
    deploy(client, base_url=f"http://127.0.0.1:{free_port()}/openai/v1")
    assert "127.0.0.1 refuses connections" == only(client)["problem"]


def test_models_without_endpoints_are_asked_what_they_can(client, azure):
    """The first endpoint that is not refused as the wrong one."""
    body = {
        "deployments": [{"name": "e", "deployment": "gpt-4o", "key": AZURE_KEY, "base_url": f"{azure.url}/openai/v1"}]
    }
    assert 200 == client.put("/admin/models/some", json=body, headers=ADMIN).status_code

    assert ["chat/completions"] == [item["endpoint"] for item in examine(client)["items"]]


def test_one_model_can_be_examined_alone(client, azure):
    """Of several."""
    deploy(client, base_url=f"{azure.url}/openai/v1")
    deploy(client, model="other", base_url=f"{azure.url}/openai/v1", deployment="nothing")

    assert [("gpt-4o", True), ("other", False)] == [(item["model"], item["ok"]) for item in examine(client)["items"]]
    assert examine(client, model="gpt-4o")["ok"]
    assert not examine(client, model="none-of-them")["ok"]


def test_the_deployments_of_the_base_url_are_examined(make_app, azure):
    """Those on offer; and if nobody has named any, the address and the key are."""
    azure.reset()
    offered = make_app(LLMGATEWAY_MODELS="gpt-4o,nothing").test_client()
    unnamed = make_app(LLMGATEWAY_MODELS="").test_client()

    assert [("gpt-4o", True), ("nothing", False)] == [
        (item["deployment"], item["ok"]) for item in examine(offered)["items"]
    ]
    assert examine(unnamed)["ok"]


def test_a_deployment_without_any_key_is_not_called(make_app):
    """It says what is missing."""
    client = make_app(LLM_BASE_URL="none", LLM_API_KEY="").test_client()
    keyless = {"name": "e", "deployment": "d", "base_url": "https://n.openai.azure.com/openai/v1"}
    assert 200 == client.put("/admin/models/gpt-4o", json={"deployments": [keyless]}, headers=ADMIN).status_code

    assert "there is no key" in only(client)["remedy"]


def test_only_one_runs_at_a_time(client, app, monkeypatch):
    """The second is told to wait, and takes no thread."""
    answers = []
    doctor = app.extensions[EXTENSION].doctor

    def examine_again(**_):
        answers.append(client.post("/admin/doctor", json={}, headers=ADMIN))
        return []

    monkeypatch.setattr(type(doctor), "examine", lambda _self, **fields: examine_again(**fields))
    client.post("/admin/doctor", json={}, headers=ADMIN)

    assert [(409, "already_running")] == [(each.status_code, each.json["error"]["code"]) for each in answers]
