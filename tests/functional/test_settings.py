"""Starting: all that is wrong with the settings at once, in words, with exit status 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from llmgateway.simulator import Simulator
from tests.gateway_process import ADMIN_KEY, GatewayProcess

AZURE_KEY = "functional-tests-azure-key"
FINE = {"LLM_BASE_URL": "https://name.openai.azure.com/openai/v1", "LLM_API_KEY": "azure-key"}


def refusal(tmp_path, environ):
    """Start a gateway that must not start; return what it says."""
    gateway = GatewayProcess(environ, folder=tmp_path, warm=False)
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
        "LLM_ON_DISCONNECT must be one of auto, close, drain",
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


@pytest.mark.parametrize("processes", ["1", "2"])
def test_starts_with_nothing_but_an_admin_key(tmp_path, processes):
    """The address is set while it runs, for all processes at once; it is kept."""
    with GatewayProcess({"LLM_BASE_URL": "", "LLMGATEWAY_PROCESSES": processes}, folder=tmp_path) as gateway:
        assert "degraded" == gateway.request("GET", "/readyz").json()["status"]
        with Simulator(key=AZURE_KEY) as azure:
            sent = gateway.admin("PUT", "/admin/settings", json={"base_url": f"{azure.url}/openai/v1"})
            assert (200, f"{azure.url}/openai/v1") == (sent.status, sent.json()["base_url"])
            trial = gateway.admin("POST", "/admin/setllmkey", json={"key": AZURE_KEY}).json()["azure"]
            assert "Azure accepts the key." == trial["message"]
            key = gateway.key()
            assert [200] * 8 == [gateway.chat(key).status for _ in range(8)]
            gateway.stop()
            gateway.start()
            assert 200 == gateway.chat(key).status

    assert "Upstream: the address that an admin has set" in gateway.output
    assert AZURE_KEY not in gateway.output


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        (FINE | {"MONGOUSER": "ada"}, "MONGOUSER is set without MONGOHOST"),
        (FINE | {"MONGOHOST": "db", "MONGOPASSWORD": "x"}, "MONGOPASSWORD is set without MONGOUSER"),
        (FINE | {"LLM_BASE_URL": "https://n.openai.azure.com/openai/deployments/d"}, "LLM_API_VERSION"),
        (FINE | {"LLM_BASE_URL": "https://ada:pw@n.openai.azure.com"}, "must not contain a user or a password"),
        (FINE | {"LLMGATEWAY_INSTANCE": "/proc/nowhere"}, "LLMGATEWAY_INSTANCE: the folder /proc/nowhere"),
        (FINE | {"REQUESTS_CA_BUNDLE": "/no/ca.pem"}, "REQUESTS_CA_BUNDLE names /no/ca.pem, which does not exist"),
        (FINE | {"HTTPS_PROXY": "socks5h://proxy.example:1080"}, "HTTPS_PROXY names a SOCKS proxy"),
        (FINE | {"MONGO_URL": "mongodb://h/?tls=true&tlsCAFile=/no/ca.pem"}, "MONGO_URL names with tlsCAFile a file"),
        ({"LLM_BASE_URL": "https://n.services.ai.azure.com/api/projects/p"}, "the address of a Foundry project"),
        (FINE | {"ADMIN_KEY": "ключ-от-всех-дверей"}, "ADMIN_KEY has characters that a header cannot carry"),
    ],
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_says_what_is_wrong(tmp_path, environ, says, processes):
    """With one process and with several."""
    output = refusal(tmp_path, {**environ, "LLMGATEWAY_PROCESSES": processes})

    assert 1 == output.count(says)
    assert "listens on" not in output
    assert "Traceback" not in output


def checked(tmp_path, environ):
    """Check the settings without serving; returns the exit status and what is said."""
    done = subprocess.run(
        [sys.executable, "-m", "llmgateway", "serve", "--check"],
        env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        | {"ADMIN_KEY": ADMIN_KEY, "LLMGATEWAY_INSTANCE": str(tmp_path / "instance"), **environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_checks_its_settings_and_does_nothing_else(tmp_path):
    """Right ones: status 0, and no folder is made."""
    assert (0, "The settings are right.\n") == checked(tmp_path, FINE)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        (FINE | {"LLMGATEWAY_THREAD": "9"}, ["LLMGATEWAY_THREAD is not a setting", "LLMGATEWAY_THREADS?"]),
        ({"LLMGATEWAY_THREAD": "9"}, ["LLM_BASE_URL is missing", "LLMGATEWAY_THREAD is not a setting"]),
        (
            FINE | {"LLMGATEWAY_INSTANCE": "/dev/null/x", "REQUESTS_CA_BUNDLE": "/no/ca.pem", "LLMGATEWAY_X": "1"},
            ["/dev/null is not a writable folder", "/no/ca.pem, which does not exist", "LLMGATEWAY_X is not a setting"],
        ),
    ],
)
def test_checks_all_of_it(tmp_path, environ, says):
    """Wrong or unknown ones: status 2, and everything that is wrong."""
    status, output = checked(tmp_path, environ)

    assert 2 == status
    for words in says:
        assert 1 == output.count(words), words


def test_warns_of_a_setting_that_it_does_not_know(tmp_path):
    """At start and in the status; it serves all the same. What Kubernetes sets is no setting."""
    kubernetes = {"LLMGATEWAY_SERVICE_HOST": "10.0.0.1", "LLMGATEWAY_PORT_8080_TCP": "tcp://10.0.0.1:8080"}
    with GatewayProcess(FINE | kubernetes | {"LLMGATEWAY_THREAD": "9"}, folder=tmp_path) as gateway:
        (warning,) = gateway.admin("GET", "/admin/status").json()["warnings"]
        gateway.stop()

    assert warning.startswith("LLMGATEWAY_THREAD is not a setting")
    assert 1 == gateway.output.count("WARNING:")
    assert f"WARNING: {warning}" in gateway.output


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
    with GatewayProcess(FINE | {"LLMGATEWAY_PROCESSES": "3"}, folder=tmp_path, warm=False) as gateway:
        assert 3 == len(gateway.workers())
        assert f"listens on {gateway.url} - API pages: {gateway.url}/docs" in gateway.output
        gateway.stop()


def test_writes_nothing_but_its_instance_folder(tmp_path):
    """Beside the test's own file with the output there is only that folder."""
    with GatewayProcess(FINE, folder=tmp_path, warm=False) as gateway:
        gateway.key()
        gateway.stop()

    assert {"instance", "output"} == {path.name for path in tmp_path.iterdir()}
    assert {"gateway.sqlite", "counters.sqlite", "journal", "wrong-admin-keys"} >= {
        path.name.removesuffix("-wal").removesuffix("-shm") for path in gateway.instance.iterdir()
    }


def test_serves_from_a_database_that_is_read_only(azure_environ, tmp_path):
    """Keys are looked up, and everything that an operator looks at says that nothing is stored."""
    # The superuser may write to every file.
    like_others = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override") if os.geteuid() == 0 else ()
    with GatewayProcess(azure_environ, folder=tmp_path) as gateway:
        key = gateway.key()
        gateway.stop()
    (tmp_path / "instance" / "gateway.sqlite").chmod(0o444)

    with GatewayProcess(azure_environ, folder=tmp_path, launcher=like_others) as gateway:
        ready = gateway.request("GET", "/readyz")
        problem = ready.json()["checks"]["sqlite"]
        assert (200, "degraded") == (ready.status, ready.json()["status"])
        assert "read-only" in problem
        assert problem == gateway.admin("GET", "/admin/status").json()["stores"]["sqlite"]
        assert 200 == gateway.chat(key).status
        assert 503 == gateway.admin("POST", "/admin/keys", json={"user": "ada"}).status
        assert "gateway.sqlite does not serve: the file is read-only" in gateway.output
        gateway.stop()
