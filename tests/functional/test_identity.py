"""A gateway without a key: the tokens that it sends instead, under load, while what issues them is slow or away."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.entra import CLIENT, TENANT, TokenServer, token_server
from tests.gateway_process import GatewayProcess
from tests.servers import wait_until

SECRET = "Abc8Q~the-secret-of-the-client"


@pytest.fixture
def platform() -> Iterator[TokenServer]:
    """What issues tokens for the managed identity, and the Azure that accepts them."""
    with token_server() as server:
        yield server


def environ(platform: TokenServer, **settings: str) -> dict[str, str]:
    return {"LLM_BASE_URL": f"{platform.url}/openai/v1", "LLM_IDENTITY": "managed", **platform.imds, **settings}


@dataclass(frozen=True)
class Sent:
    began: float
    """As :func:`time.time` counts."""
    seconds: float
    status: int


def load(gateway: GatewayProcess, key: str, *, until: float, clients: int = 4) -> list[Sent]:
    """Let *clients* send one request after the other, each over a new connection, until that time."""

    def send() -> list[Sent]:
        sent = []
        while (began := time.time()) < until:
            status = gateway.chat(key).status
            sent.append(Sent(began, time.time() - began, status))
        return sent

    with ThreadPoolExecutor(clients) as pool:
        return [one for sent in [pool.submit(send) for _ in range(clients)] for one in sent.result()]


def azure_key(gateway: GatewayProcess) -> str:
    return str(gateway.request("GET", "/readyz").json()["checks"]["azure_key"])


def test_tokens_end_in_the_middle_of_load(platform, tmp_path):
    """Two processes renew theirs; no request fails, and each process asks once for each token."""
    platform.seconds = 4
    with GatewayProcess(environ(platform, LLMGATEWAY_PROCESSES="2"), folder=tmp_path) as gateway:
        key = gateway.key()
        began = time.time()
        sent = load(gateway, key, until=began + 9)
        gateway.stop()

    assert {200} == {one.status for one in sent}
    assert [] == platform.refused
    assert max(one.seconds for one in sent) < 4
    # Each process asks every 1.5 to 2 s: the ends of tokens are whole seconds.
    assert 2 * 3 <= len(platform.asked) <= 2 * 9


@pytest.mark.parametrize("trouble", ["slow", "down", 400, 410, 429])
def test_renewal_that_fails(platform, tmp_path, trouble):
    """No request waits for it, and none fails before the old token has ended. It is told, and it heals by itself."""
    platform.seconds = 6
    with GatewayProcess(environ(platform), folder=tmp_path) as gateway:
        key = gateway.key()
        assert 200 == gateway.chat(key).status
        assert "ok" == azure_key(gateway)
        (ends,) = platform.ends.values()
        if trouble == "slow":
            platform.gate.clear()
        elif trouble == "down":
            platform.refuse(0)
        else:
            platform.refuse(trouble, error="invalid_request")
        sent = load(gateway, key, until=ends - 1.5)
        if trouble != "slow":
            wait_until(lambda: azure_key(gateway).startswith("renewal fails since"), seconds=1)
            assert "token valid until" in azure_key(gateway)
        wait_until(lambda: gateway.chat(key).status == 502, what="the end of the token")
        refused = gateway.chat(key)

        assert {200} == {one.status for one in sent}
        assert max(one.seconds for one in sent) < 4
        assert len(platform.asked) > 1
        assert [] == platform.refused, "a token was sent after its end"
        assert "upstream_credentials" == refused.error["code"]
        assert "Your own key is fine" in refused.error["message"]

        platform.status = 200
        platform.gate.set()
        wait_until(lambda: gateway.chat(key).status == 200, seconds=20)
        assert "ok" == azure_key(gateway)
        gateway.stop()
    if trouble != "slow":
        assert 1 == gateway.output.count("Azure credential: renewal")
    assert "token-1" not in gateway.output


def test_first_token_that_never_comes(platform, tmp_path):
    """The first requests wait for 5 s together, all others not at all."""
    platform.gate.clear()
    with GatewayProcess(environ(platform), folder=tmp_path) as gateway:
        key = gateway.key()
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(gateway.chat, key) for _ in range(8)]
            assert {502} == {answer.result(20).status for answer in answers}
        assert time.monotonic() - began < 7
        began = time.monotonic()
        assert 502 == gateway.chat(key).status
        assert time.monotonic() - began < 1
        assert 1 == len(platform.asked)

        assert [] == gateway.admin("GET", "/admin/logs").json()["items"], "nothing was sent to Azure"


def test_token_that_azure_refuses(platform, tmp_path):
    """A token of another scope: users are told that it is not their key, the admin what to do."""
    with GatewayProcess(environ(platform), folder=tmp_path) as gateway:
        key = gateway.key()
        assert 200 == gateway.chat(key).status
        platform.ends.clear()
        refused = gateway.chat(key)

        assert (502, "upstream_credentials") == (refused.status, refused.error["code"])
        assert "Cognitive Services OpenAI User" in azure_key(gateway)
        assert "LLM_IDENTITY_SCOPE" in gateway.admin("GET", "/admin/status").json()["azure_key"]
        assert "Azure's token cannot be used" in gateway.output


def test_key_that_is_not_used(platform, tmp_path):
    """Whoever sets a key hears that tokens are sent instead."""
    with GatewayProcess(environ(platform), folder=tmp_path) as gateway:
        answer = gateway.admin("POST", "/admin/setllmkey", json={"key": "another-key"})

        assert 200 == answer.status
        assert "LLM_IDENTITY is set" in answer.body.decode()
        assert 200 == gateway.chat(gateway.key()).status


@pytest.mark.parametrize("kind", ["secret", "workload"])
def test_over_tls(tmp_path, kind):
    """A secret, or the token of the platform, is exchanged at the authority that the environment names."""
    certificate = make_certificate(tmp_path)
    (tmp_path / "platform-token").write_text("of-the-platform")
    own = {
        "secret": {"AZURE_CLIENT_SECRET": SECRET},
        "workload": {"AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "platform-token")},
    }
    with token_server(certificate) as entra:
        settings = {
            "LLM_BASE_URL": f"{entra.url}/openai/v1",
            "LLM_IDENTITY": "auto",
            "LLM_IDENTITY_SCOPE": "https://ai.azure.com/.default",
            "AZURE_AUTHORITY_HOST": entra.url,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "REQUESTS_CA_BUNDLE": str(certificate),
            **own[kind],
        }
        with GatewayProcess(settings, folder=tmp_path / "gateway") as gateway:
            assert 200 == gateway.chat(gateway.key()).status
            repeated = own[kind].get("AZURE_CLIENT_SECRET", "")
            entra.refuse(401, error="invalid_client", error_description=f"AADSTS7000215: Invalid secret {repeated}.")
            gateway.restart()
            wait_until(lambda: "AADSTS7000215" in azure_key(gateway))
            gateway.stop()

    assert f"identity: {kind}" in gateway.output
    assert SECRET not in gateway.output
    assert "of-the-platform" not in gateway.output
    assert "https://ai.azure.com/.default" == entra.asked[0]["scope"]


def test_check_says_that_the_extra_is_not_installed(tmp_path):
    """``--check`` and ``serve`` end with status 2, and say how to install it."""
    # An environment without the library: the name cannot be found there.
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.modules['azure'] = None; "
        "from llmgateway.cli import main; main()"
    )
    settings = {
        "ADMIN_KEY": "functional-tests-admin-key",
        "LLM_BASE_URL": "https://name.openai.azure.com/openai/v1",
        "LLM_IDENTITY": "auto",
        "LLMGATEWAY_INSTANCE": str(tmp_path / "instance"),
    }
    for arguments in (["serve", "--check"], ["serve", "--port", "0"]):
        done = subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parents[2]), *arguments],
            env=settings,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (2, 1) == (done.returncode, done.stderr.count("pip install 'llmgateway[entra]'")), done.stderr
