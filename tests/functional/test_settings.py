"""Starting: all that is wrong with the settings at once, in words, with exit status 2."""

from __future__ import annotations

import socket

import pytest

from tests.gateway_process import GatewayProcess

FINE = {"LLM_BASE_URL": "https://name.openai.azure.com/openai/v1", "LLM_API_KEY": "azure-key"}


def refusal(tmp_path, environ):
    """Start a gateway that must not start; return what it says."""
    gateway = GatewayProcess(environ, folder=tmp_path)
    try:
        gateway.launch()
        assert 2 == gateway.wait()
    finally:
        gateway.kill()
    return gateway.output


def test_names_every_problem_at_once(tmp_path):
    """Each has a line of its own, with the variable and the remedy; no value of a secret is repeated."""
    output = refusal(
        tmp_path,
        {
            "ADMIN_KEY": "",
            "LLM_BASE_URL": "name.openai.azure.com",
            "LLM_KEY_HEADER": "X-Key",
            "LLM_ON_DISCONNECT": "stop",
            "MONGOHOST": "mongodb://ada:secret-password@db/",
            "MONGO_URL": "mongodb://ada:secret-password@db:port/",
            "REDISPORT": "six",
            "REDISPASSWORD": "secret-password",
            "LLMGATEWAY_PROCESSES": "0",
            "LLMGATEWAY_THREADS": "7",
            "LLMGATEWAY_FIRST_BYTE_TIMEOUT": "soon",
            "LLMGATEWAY_LOG_LEVEL": "LOUD",
        },
    )

    for variable in (
        "ADMIN_KEY is missing",
        "LLM_BASE_URL must be",
        "LLM_KEY_HEADER must be one of",
        "LLM_ON_DISCONNECT must be one of close, drain",
        "MONGOHOST must be",
        "MONGO_URL has a host or a port that is not valid",
        "REDISPORT must be",
        "REDISPASSWORD is set without REDISHOST",
        "LLMGATEWAY_PROCESSES must be",
        "LLMGATEWAY_THREADS must be a whole number from 8",
        "LLMGATEWAY_FIRST_BYTE_TIMEOUT must be",
        "LLMGATEWAY_LOG_LEVEL must be",
    ):
        assert 1 == output.count(f"llmgateway: {variable}"), variable
    assert "secret-password" not in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "LLM_BASE_URL is missing"),
        (FINE | {"MONGOUSER": "ada"}, "MONGOUSER is set without MONGOHOST"),
        (FINE | {"MONGOHOST": "db", "MONGOPASSWORD": "x"}, "MONGOPASSWORD is set without MONGOUSER"),
        (FINE | {"LLM_BASE_URL": "https://n.openai.azure.com/openai/deployments/d"}, "LLM_API_VERSION"),
        (FINE | {"LLM_BASE_URL": "https://ada:pw@n.openai.azure.com"}, "must not contain a user or a password"),
        (FINE | {"LLMGATEWAY_INSTANCE": "/proc/nowhere"}, "LLMGATEWAY_INSTANCE: the folder /proc/nowhere"),
    ],
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_says_what_is_wrong(tmp_path, environ, says, processes):
    """With one process and with several."""
    output = refusal(tmp_path, {**environ, "LLMGATEWAY_PROCESSES": processes})

    assert 1 == output.count(says)
    assert "listens on" not in output
    assert "Traceback" not in output


def test_says_that_its_port_is_taken(tmp_path):
    """The address is named, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = GatewayProcess(FINE, folder=tmp_path)
        gateway.port = taken.getsockname()[1]
        gateway.launch()
        assert 2 == gateway.wait()

    assert f"Cannot listen on 127.0.0.1:{gateway.port}" in gateway.output
    assert "LLMGATEWAY_HOST and _PORT" in gateway.output


def test_warns_of_what_should_not_stay_so(tmp_path):
    """A short admin key and an unencrypted Azure work, with a warning each."""
    environ = FINE | {"ADMIN_KEY": "short", "LLM_BASE_URL": "http://azure.example/openai/v1"}
    with GatewayProcess(environ, folder=tmp_path) as gateway:
        gateway.stop()

    assert "WARNING: ADMIN_KEY IS TOO SHORT" in gateway.output
    assert "WARNING: LLM_BASE_URL is not https" in gateway.output
    assert "short" not in gateway.output.replace("SHORT", "")


def test_serves_with_as_many_processes_as_it_is_told(tmp_path):
    """LLMGATEWAY_PROCESSES workers beside the first; it listens where it says."""
    with GatewayProcess(FINE | {"LLMGATEWAY_PROCESSES": "3"}, folder=tmp_path) as gateway:
        assert 3 == len(gateway.workers())
        assert f"listens on {gateway.url} - API pages: {gateway.url}/docs" in gateway.output
        gateway.stop()


def test_writes_nothing_but_its_instance_folder(tmp_path):
    """Beside the test's own file with the output there is only that folder."""
    with GatewayProcess(FINE, folder=tmp_path) as gateway:
        gateway.key()
        gateway.stop()

    assert {"instance", "output"} == {path.name for path in tmp_path.iterdir()}
    assert {"gateway.sqlite", "counters.sqlite", "journal"} >= {
        path.name.removesuffix("-wal").removesuffix("-shm") for path in gateway.instance.iterdir()
    }
