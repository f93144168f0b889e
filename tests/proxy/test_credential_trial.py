"""Azure's key is tried over a real socket, with a call that is not billed, and within some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import pytest

from llmgateway.azure.client import AzureClient
from llmgateway.azure.endpoint import Endpoint
from llmgateway.proxy.credential_trial import CredentialTrial, try_credential
from llmgateway.simulator import Raw, Script, Simulator
from tests.proxy.requests import target
from tests.servers import free_port

KEY = "azure-key-of-the-trial"


@pytest.fixture
def azure():
    with Simulator(key=KEY) as azure:
        yield azure


@pytest.fixture
def try_key(azure) -> Callable[..., CredentialTrial]:
    def try_key(
        credential: str = KEY,
        *,
        url: str = f"{azure.url}/openai/v1",
        deployment: str = "gpt-4o-mini",
        **arguments: object,
    ) -> CredentialTrial:
        asked = target(Endpoint.parse(url, "2024-10-21"), deployment, key=credential)
        client = AzureClient(
            connect_timeout=5.0,
            first_byte_timeout=10.0,
            between_bytes_timeout=10.0,
            connections=1,
        )
        with closing(client):
            return try_credential(client, asked, **{"request_id": "req"} | arguments)

    return try_key


@pytest.mark.parametrize("path", ["/openai/v1", "/openai/deployments/gpt-4o-mini", "/openai/deployments/{model}"])
@pytest.mark.parametrize("deployment", ["gpt-4o-mini", "no-such"])
def test_a_right_key_is_accepted_and_costs_nothing(azure, try_key, path, deployment):
    """In all forms of Azure's address, also if the deployment does not exist."""
    trial = try_key(url=azure.url + path, deployment=deployment)

    assert "Azure accepts the key." == trial.message
    assert trial.status in (400, 404)
    assert [None] == [served.billed for served in azure.served]


@pytest.mark.parametrize("deployment", ["gpt-4o-mini", "no-such"])
def test_a_wrong_key_is_refused(try_key, deployment):
    """Azure checks the key before anything else. The message does not repeat it."""
    trial = try_key("wrong-key-of-the-trial", deployment=deployment)

    assert (401, True) == (trial.status, trial.message.startswith("Azure refuses the key (401"))
    assert "wrong-key" not in trial.message


@pytest.mark.parametrize(
    ("fault", "status", "begins"),
    [
        ("unauthorized", 401, "Azure refuses the key"),
        ("permission_denied", 401, "Azure refuses the key"),
        ("network_denied", 403, "Azure refuses the call"),
        ("blocked", 403, "Azure refuses the call"),
    ],
)
def test_says_what_azure_answered(azure, try_key, fault, status, begins):
    """A network rule is not the key's fault."""
    azure.script(Script(fault=fault))

    trial = try_key()

    assert (status, True) == (trial.status, trial.message.startswith(begins))


def head(status: int, body: str, **headers: str) -> Raw:
    return Raw(status, {"Content-Type": "application/json", **headers}, body.encode())


@pytest.mark.parametrize(
    ("answer", "status", "says"),
    [
        (
            head(404, '{"error":{"code":"404","message":"Resource not found"}}'),
            404,
            "nothing at this address",
        ),
        (head(404, '{"statusCode":404,"message":"Resource not found"}'), 404, "nothing at this address"),
        (head(404, '{"error":{"code":"model_not_found"}}'), 404, "accepts the key"),
        (head(302, "", Location="https://login.example/"), 302, "another address"),
        (head(503, "<html>"), 503, "Azure failed"),
        (head(429, "{}"), 429, "accepts the key"),
    ],
)
def test_says_when_nothing_is_known_of_the_key(azure, try_key, answer, status, says):
    """An answer that comes before the key was checked says nothing about it."""
    azure.script(Script(raw=answer))

    trial = try_key()

    assert status == trial.status
    assert says in trial.message


def test_repeats_nothing_of_the_answer(azure, try_key):
    """OpenAI's own service repeats a part of a wrong key."""
    body = '{"error":{"message":"Incorrect API key provided: ' + KEY + '","code":"bad \\u001b ' + KEY + '"}}'
    azure.script(Script(raw=head(401, body)))

    trial = try_key()

    assert 401 == trial.status
    assert KEY not in trial.message
    assert trial.message.isprintable()


def test_is_over_in_time(azure, try_key):
    """A service that says nothing does not keep the admin waiting."""
    azure.script(Script(delay=30))
    began = time.monotonic()

    trial = try_key(seconds=0.3)

    assert (None, "The key could not be tried: there was no answer from Azure within 0.3 s.") == (
        trial.status,
        trial.message,
    )
    assert time.monotonic() - began < 5


def test_says_that_azure_cannot_be_reached(try_key):
    """The key may be right all the same."""
    trial = try_key(url=f"http://127.0.0.1:{free_port()}/openai/v1")

    assert trial.status is None
    assert trial.message.startswith("The key could not be tried, because Azure cannot be reached.")
    assert "LLM_BASE_URL" in trial.message
