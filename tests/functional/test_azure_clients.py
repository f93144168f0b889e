"""Clients that are written for Azure, unmodified, with the address of the gateway in place of Azure's."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.gateway_process import GatewayProcess
from tests.programs import needed

PROGRAM = Path(__file__).with_name("call_azure.mjs")
HELLO = [{"role": "user", "content": "Hello"}]
VERSION = "2024-10-21"


@pytest.fixture(scope="module")
def gateway(azure_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One process on the embedded store: addresses do not depend on the stores."""
    with GatewayProcess(azure_environ, folder=tmp_path_factory.mktemp("azure-clients")) as process:
        yield process
        process.stop()


@pytest.fixture(params=["", "/", "/v1", "/openai"])
def endpoint(gateway, request) -> str:
    """What people set as the address, of which the first two are right."""
    return gateway.url + request.param


def test_azure_openai(endpoint, key, azure):
    """The model is a deployment in the path; the key goes into another header."""
    with openai.AzureOpenAI(azure_endpoint=endpoint, api_key=key, api_version=VERSION, max_retries=0) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=HELLO)
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True))

    assert "chat.completion" == answer.object
    # Azure's first event says what the filter has found in the prompt, and has no choices.
    assert [[], True] == [chunks[0].choices, bool(chunks[0].prompt_filter_results)]
    assert {"gpt-4o"} == {json.loads(served.body)["model"] for served in azure.served}


def test_responses(endpoint, key, azure):
    """They have no deployment in the path, with AzureOpenAI either; a response can be read and deleted."""
    with openai.AzureOpenAI(azure_endpoint=endpoint, api_key=key, api_version=VERSION, max_retries=0) as client:
        made = client.responses.create(model="gpt-4o", input="Hello")
        events = list(client.responses.create(model="gpt-4o", input="And?", previous_response_id=made.id, stream=True))
        assert made.output == client.responses.retrieve(made.id).output
        client.responses.delete(made.id)

    assert "response.completed" == events[-1].type
    assert made.id == events[-1].response.previous_response_id
    assert ["POST", "POST", "GET", "DELETE"] == [served.method for served in azure.served]


def test_embeddings(endpoint, key, azure):
    """The client asks for base64, and makes numbers of it."""
    with openai.AzureOpenAI(azure_endpoint=endpoint, api_key=key, api_version=VERSION, max_retries=0) as client:
        made = client.embeddings.create(model="text-embedding-3-small", input=["one", "two"])

    assert [1536, 1536] == [len(entry.embedding) for entry in made.data]
    assert ["base64"] == [json.loads(served.body)["encoding_format"] for served in azure.served]


def test_azure_openai_of_one_deployment(endpoint, key):
    """All calls go to the deployment that the client was made with, and the list of models comes from beside it."""
    with openai.AzureOpenAI(
        azure_endpoint=endpoint, azure_deployment="gpt-4o", api_key=key, api_version=VERSION, max_retries=0
    ) as client:
        assert "chat.completion" == client.chat.completions.create(model="ignored", messages=HELLO).object


def test_azure_openai_with_a_token(endpoint, key):
    """Programs that sign in at Entra ID send Bearer, here with the key of the gateway."""
    with openai.AzureOpenAI(
        azure_endpoint=endpoint, azure_ad_token_provider=lambda: key, api_version=VERSION, max_retries=0
    ) as client:
        assert "chat.completion" == client.chat.completions.create(model="gpt-4o", messages=HELLO).object
        assert "list" == client.models.list().object


def test_async_azure_openai(endpoint, key):
    async def ask() -> str:
        async with openai.AsyncAzureOpenAI(
            azure_endpoint=endpoint, api_key=key, api_version=VERSION, max_retries=0
        ) as client:
            stream = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert asyncio.run(ask())


def test_azures_v1_form(gateway, key):
    """The class OpenAI with Azure's v1 address."""
    with openai.OpenAI(base_url=f"{gateway.url}/openai/v1/", api_key=key, max_retries=0) as client:
        assert "chat.completion" == client.chat.completions.create(model="gpt-4o", messages=HELLO).object
        assert "list" == client.models.list().object


def test_azure_openai_of_node(gateway, key, node_modules, tmp_path):
    """AzureOpenAI of OpenAI's client for JavaScript: chat, a response, an embedding, and the list of models."""
    node = needed("node", package="nodejs")
    program = shutil.copy(PROGRAM, tmp_path)
    (tmp_path / "node_modules").symlink_to(node_modules)
    task = {"endpoint": gateway.url, "key": key, "version": VERSION, "model": "gpt-4o"}

    done = subprocess.run([node, program], input=json.dumps(task), capture_output=True, text=True, timeout=120)

    assert 0 == done.returncode, done.stderr
    expected = {
        "plain": "chat.completion",
        "streamed": True,
        "response": "completed",
        "embedding": 1536,
        "models": "list",
    }
    assert expected == json.loads(done.stdout)
