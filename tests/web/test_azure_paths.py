"""The addresses of Azure OpenAI, for clients that are written for it."""

from __future__ import annotations

import json

import pytest

from llmgateway.simulator import Script

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
DEPLOYMENT = "/openai/deployments/gpt-4o/chat/completions"


@pytest.fixture(autouse=True)
def fresh(azure):
    azure.reset()


@pytest.mark.parametrize("query", ["", "?api-version=2023-05-15", "?api-version=preview", "?api-version=nonsense"])
def test_the_path_names_the_model(client, user, azure, query):
    """As in Azure's classic form, whatever the body says. Azure gets the api-version of the settings."""
    answer = client.post(DEPLOYMENT + query, json=HELLO | {"model": "gpt-4o-mini"}, headers=user)

    assert (200, "chat.completion") == (answer.status_code, answer.json["object"])
    (served,) = azure.served
    assert ("gpt-4o", {}) == (json.loads(served.body)["model"], served.query)


def test_the_body_names_the_model(client, user, azure):
    """As in Azure's v1 form."""
    answer = client.post("/openai/v1/chat/completions", json=HELLO | {"model": "gpt-4o-mini"}, headers=user)

    assert 200 == answer.status_code
    assert "gpt-4o-mini" == json.loads(azure.served[0].body)["model"]


@pytest.mark.parametrize("path", [DEPLOYMENT, "/openai/v1/chat/completions"])
def test_streams_have_every_event_of_azures(client, user, azure, path):
    """OpenAI's dialect withholds the event with the results of the prompt filter; Azure's does not."""
    body = HELLO | {"model": "gpt-4o", "stream": True}
    streams = []
    for each in (path, "/v1/chat/completions"):
        azure.script(Script(tokens=2))
        streams.append(client.post(each, json=body, headers=user).data)

    assert [True, False] == [b"prompt_filter_results" in stream for stream in streams]


def test_models_are_checked_as_everywhere(client, admin, new_key):
    """A key without the model in the path is refused."""
    key = new_key(models=["gpt-4o-mini"])["key"]

    answer = client.post(DEPLOYMENT, json=HELLO, headers={"api-key": key})

    assert (403, "model_not_allowed") == (answer.status_code, answer.json["error"]["code"])


@pytest.mark.parametrize("path", ["/openai/models", "/openai/v1/models"])
def test_lists_models(client, new_key, path):
    key = {"api-key": new_key(models=["gpt-4o"])["key"]}

    listed = client.get(f"{path}?api-version=2024-10-21", headers=key).json
    assert ["gpt-4o"] == [model["id"] for model in listed["data"]]
    assert "gpt-4o" == client.get(f"{path}/gpt-4o", headers=key).json["id"]
    assert 404 == client.get(f"{path}/other", headers=key).status_code


def test_lists_deployments_as_azure_did(client, new_key):
    """Programs of 2023 find the name of the deployment beside the name of its model."""
    key = {"api-key": new_key(models=["gpt-4o"])["key"]}

    listed = client.get("/openai/deployments?api-version=2023-03-15-preview", headers=key).json

    assert [("gpt-4o", "gpt-4o", "deployment")] == [
        (each["id"], each["model"], each["object"]) for each in listed["data"]
    ]


@pytest.mark.parametrize("path", [DEPLOYMENT, "/openai/models", "/openai/deployments"])
def test_need_a_key(client, path):
    """Without one the answer is OpenAI's error, which Azure's clients read as well."""
    method = client.post if path == DEPLOYMENT else client.get

    answer = method(path)

    assert (401, "invalid_api_key", "no-store") == (
        answer.status_code,
        answer.json["error"]["code"],
        answer.headers["Cache-Control"],
    )


@pytest.mark.parametrize("header", ["x-ms-service-tier", "x-ms-oai-image-generation-deployment", "aoai-evals"])
def test_headers_that_cost_money_stay_here(client, user, azure, header):
    """Azure would serve a dearer tier, or a second deployment."""
    client.post(DEPLOYMENT, json=HELLO, headers=user | {header: "priority"})

    assert header not in azure.served[0].headers
