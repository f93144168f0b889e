"""What stays here and what goes on, in both directions."""

from __future__ import annotations

import pytest

from llmgateway.simulator import Raw, Script
from tests.functional.conftest import AZURE_KEY
from tests.gateway_process import ADMIN_KEY

# What any HTTP client has to send, and what Azure needs.
TO_AZURE = {
    "host",
    "connection",
    "accept",
    "accept-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "api-key",
    "x-ms-client-request-id",
}
CLIENTS_OWN = {
    "Cookie": "session=clients-own",
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Host": "clients-own.example",
    "X-Forwarded-Proto": "https",
    "Forwarded": "for=198.51.100.7",
    "X-Real-IP": "198.51.100.7",
    "X-Ms-Client-Request-Id": "clients-own",
    "X-Request-Id": "clients-own",
    "OpenAI-Organization": "clients-own",
    "X-Stainless-Lang": "clients-own",
    "User-Agent": "clients-own/1.0",
    "Accept-Language": "clients-own",
    "Traceparent": "00-clients-own",
    "Referer": "https://clients-own.example/",
    "Origin": "https://clients-own.example",
    "AdminKey": ADMIN_KEY,
    "Proxy-Authorization": "Basic clients-own",
    "Ocp-Apim-Subscription-Key": "clients-own",
    "TE": "trailers",
    "X-Anything": "clients-own",
}
TO_CLIENT = {
    "apim-request-id",
    "azureml-model-session",
    "content-length",
    "content-type",
    "date",
    "server",
    "x-ms-region",
    "x-request-id",
    "x-upstream-ratelimit-abusepenalty-active",
    "x-upstream-request-id",
    *(
        f"x-upstream-ratelimit-{what}-{unit}"
        for what in ("limit", "remaining", "renewalperiod", "reset")
        for unit in ("requests", "tokens")
    ),
}
AZURES_OWN = {
    "Set-Cookie": "ARRAffinity=azures-own",
    "Server": "azures-own",
    "X-Powered-By": "azures-own",
    "Via": "1.1 azures-own",
    "X-Envoy-Upstream-Service-Time": "12",
    "x-ms-deployment-name": "azures-own",
    "skip-error-remapping": "true",
    "Alt-Svc": "azures-own",
    "Trailer": "azures-own",
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("carrier", ["Authorization", "api-key"])
def test_sends_azure_what_it_needs_and_no_more(gateway, key, azure, stream, carrier):
    """None of the client's own headers goes on, its key least of all."""
    credential = f"Bearer {key}" if carrier == "Authorization" else key
    document = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "stream": stream}

    answer = gateway.request(
        "POST", "/v1/chat/completions", json=document, headers={**CLIENTS_OWN, carrier: credential}
    )

    assert 200 == answer.status
    [served] = azure.served
    assert served.headers.keys() <= TO_AZURE
    assert AZURE_KEY == served.headers["api-key"]
    everything = repr(served.headers) + repr(served.query) + served.body.decode()
    for foreign in (key, ADMIN_KEY, "clients-own", "198.51.100.7"):
        assert foreign not in everything


@pytest.mark.parametrize(
    ("name", "header", "value"),
    [
        ("api-key", "api-key", AZURE_KEY),
        ("Authorization", "authorization", f"Bearer {AZURE_KEY}"),
        ("Ocp-Apim-Subscription-Key", "ocp-apim-subscription-key", AZURE_KEY),
    ],
)
def test_carries_azures_key_as_configured(start_alone, azure, name, header, value):
    """Exactly one header has it: api-key, a Bearer token, or that of API Management."""
    base = f"{azure.url}/management" if name.startswith("Ocp") else f"{azure.url}/openai"
    gateway = start_alone(
        LLM_KEY_HEADER=name,
        LLM_BASE_URL=f"{base}/deployments/{{model}}?api-version=2024-10-21"
        if name != "Authorization"
        else f"{azure.url}/openai/v1/",
    )

    assert 200 == gateway.chat(gateway.key()).status

    [served] = azure.served
    assert {header: value} == {name: value for name, value in served.headers.items() if AZURE_KEY in value}


def test_gives_azure_the_records_own_id(gateway, key, azure, records):
    """Azure's logs and ours can be joined: x-ms-client-request-id is the record's identifier."""
    answer = gateway.chat(key)

    [record] = records(gateway, key)
    assert record["id"] == azure.served[0].client_request_id == answer.header("x-request-id")


def test_gives_every_request_an_id_of_its_own(gateway, key, azure):
    """No two requests share an identifier."""
    for _ in range(5):
        gateway.chat(key)

    assert 5 == len({served.client_request_id for served in azure.served})


@pytest.mark.parametrize("stream", [False, True])
def test_gives_the_client_what_it_can_use_and_no_more(gateway, key, azure, stream):
    """Azure's cookies, servers and affairs stay here; its rate limits are named as its own."""
    azure.script(Script(headers=AZURES_OWN))

    answer = gateway.chat(key, stream=stream)

    names = {name for name, _ in answer.headers}
    assert TO_CLIENT - {"content-length"} <= names
    assert names <= TO_CLIENT | {"transfer-encoding", "connection", "cache-control", "x-accel-buffering"}
    assert "azures-own" not in repr(answer.headers)
    assert "120" == answer.header("x-upstream-ratelimit-limit-requests")
    assert "East US 2" == answer.header("x-ms-region")


def test_keeps_azures_request_id(gateway, key, azure):
    """Under a name of its own, so that Azure's support can find the request."""
    azure.script(Script(headers={"x-request-id": "azures-id"}))

    assert "azures-id" == gateway.chat(key).header("x-upstream-request-id")


def test_always_has_a_request_id(gateway, key, azure):
    """Also where Azure gives none, and where Azure was never asked."""
    azure.script(Script(raw=Raw(200, {"content-type": "application/json"}, b"{}")))
    answers = [
        gateway.chat(key),
        gateway.chat("nobodys"),
        gateway.request("GET", "/livez"),
        gateway.request("GET", "/nowhere"),
        gateway.admin("GET", "/admin/keys"),
        gateway.request("GET", "/admin/keys"),
    ]

    ids = [answer.header("x-request-id") for answer in answers]
    assert all(ids)
    assert len(answers) == len(set(ids))


@pytest.mark.parametrize("fault", ["token_rate_limit", "call_rate_limit", "capacity", "token_rate_limit_newer"])
def test_passes_on_when_to_come_back(gateway, key, azure, fault):
    """retry-after and retry-after-ms are forwarded for every kind of 429."""
    azure.script(Script(fault=fault, retry_after=3))

    answer = gateway.chat(key, stream=True)

    assert (429, "3", "3000") == (answer.status, answer.header("retry-after"), answer.header("retry-after-ms"))
    assert None is answer.header("x-ratelimit-remaining-tokens")


def test_believes_nobodys_forwarded_address(gateway, key, records):
    """Without a trusted proxy the address in the record is the connection's."""
    document = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    gateway.request("POST", "/v1/chat/completions", key=key, json=document, headers=CLIENTS_OWN)

    [record] = records(gateway, key)
    assert "127.0.0.1" == record["client_address"]


def test_believes_the_trusted_proxy(start_gateway, records):
    """With one, the address is the one that the proxy saw."""
    gateway = start_gateway(LLMGATEWAY_TRUSTED_PROXY="127.0.0.1")
    key = gateway.key()
    document = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}
    gateway.request("POST", "/v1/chat/completions", key=key, json=document, headers=headers)

    [record] = records(gateway, key)
    assert "198.51.100.7" == record["client_address"]


def test_tells_proxies_not_to_buffer_a_stream(gateway, key):
    """nginx and its like pass events on at once."""
    answer = gateway.chat(key, stream=True)

    assert ("no", "no-cache") == (answer.header("x-accel-buffering"), answer.header("cache-control"))
    assert answer.header("content-type").startswith("text/event-stream")
