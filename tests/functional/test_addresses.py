"""Clients whose ``base_url`` is misspelt, over a real socket: each one adds the rest of the address in its own way."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.gateway_process import GatewayProcess
from tests.programs import needed

PROGRAM = Path(__file__).with_name("read_addresses.mjs")
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
SUFFIXES = [
    "",
    "/",
    "//",
    "/v1",
    "/v1/",
    "/v1//",
    "/V1",
    "/v1/v1",
    "/v1/chat/completions",
    "/v1/chat/completions/",
    "/v1?api-version=2024-10-21",
    "?api-version=2024-10-21",
    "/v1 ",
    '/v1"',
    "/v1'",
    "/v1\u201d",
    "/v1\u00a0",
    "/v1,",
    "/docs",
]


@pytest.fixture(scope="module")
def gateway(azure_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One process on the embedded store: addresses do not depend on the stores."""
    with GatewayProcess(azure_environ, folder=tmp_path_factory.mktemp("addresses")) as process:
        yield process
        process.stop()


def test_openai_python_finds_the_endpoints(gateway, key, azure):
    """Plain, streamed and the list, without a redirect."""
    for suffix in SUFFIXES:
        with openai.OpenAI(base_url=gateway.url + suffix, api_key=key, max_retries=0) as client:
            assert "chat.completion" == client.chat.completions.create(**BODY).object, suffix
            assert list(client.chat.completions.create(**BODY, stream=True)), suffix
            assert client.models.list().object == "list", suffix
            assert "gpt-4o" == client.models.retrieve("gpt-4o").id, suffix

    assert 2 * len(SUFFIXES) == len(azure.served)


@pytest.mark.parametrize("kind", ["node", "fetch"])
def test_node_finds_the_endpoints(gateway, key, azure, kind, node_modules, tmp_path):
    """OpenAI's client for JavaScript, and nothing but fetch."""
    node = needed("node", package="nodejs")
    program = shutil.copy(PROGRAM, tmp_path)
    if kind == "node":
        (tmp_path / "node_modules").symlink_to(node_modules)
    task = {"kind": kind, "key": key, "bases": [gateway.url + suffix for suffix in SUFFIXES], "body": BODY}

    done = subprocess.run([node, program], input=json.dumps(task), capture_output=True, text=True, timeout=120)

    assert 0 == done.returncode, done.stderr
    told = dict(zip(SUFFIXES, json.loads(done.stdout), strict=True))
    assert {suffix: ["chat.completion", "list"] for suffix in SUFFIXES} == told


def test_clients_show_what_is_not_served(gateway, key):
    """The exception that people see has the reason and the remedy."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        for call in (
            lambda: client.conversations.create(),
            lambda: client.files.list(),
            lambda: client.vector_stores.list(),
        ):
            with pytest.raises(openai.NotFoundError, match=r"does not serve OpenAI's .*/v1/chat/completions"):
                call()


@pytest.mark.parametrize("target", ["//metrics", "//admin/keys", "/v1/../admin/keys", "/V1/admin/keys", "/metrics%20"])
def test_other_endpoints_have_one_spelling(gateway, target):
    """Whatever the server makes of the first line of the request."""
    answer = gateway.admin("GET", target)

    assert 404 == answer.status
