"""``--env-file`` and SIGHUP: what comes into force at once, what is only named, and what changes nothing."""

from __future__ import annotations

import os
import signal
from contextlib import closing

import pytest

from llmgateway.simulator import Script
from tests.gateway_process import ADMIN_KEY, GatewayProcess
from tests.servers import wait_until

ORIGIN = "https://app.example.org"


@pytest.fixture(params=["1", "2"])
def gateway(request, azure, azure_environ, tmp_path):
    """A gateway with one process, or with several, whose settings are in a file."""
    file = tmp_path / "gateway.env"
    given = azure_environ | {"LLMGATEWAY_PROCESSES": request.param}

    def write(**settings):
        lines = {"LLM_API_KEY": given["LLM_API_KEY"], **settings}
        file.write_text("# settings\n" + "".join(f'{name}="{text}"\n' for name, text in lines.items()))

    write()
    environ = {name: text for name, text in given.items() if name != "LLM_API_KEY"}
    with GatewayProcess(environ | {"LLMGATEWAY_ENV_FILE": "gateway.env"}, folder=tmp_path) as gateway:
        gateway.write = write
        yield gateway
        gateway.stop()


def reload(gateway, *says: str) -> None:
    """Send SIGHUP to the first process, and wait for what it has to say."""
    before = len(gateway.output)
    gateway.signal(signal.SIGHUP)
    wait_until(lambda: all(words in gateway.output[before:] for words in says), what=str(says))


def everywhere(gateway, condition) -> None:
    """Wait until *condition* is true of each process that serves."""

    def is_true_of(worker):
        with closing(gateway.connect() if worker is None else gateway.connect_to(worker)) as connection:
            return condition(connection)

    for worker in gateway.workers() or [None]:
        wait_until(lambda: is_true_of(worker), what=f"the change in {worker}")  # noqa: B023


def test_puts_into_force_what_it_can(gateway, azure):
    """Models, origins, time-outs, the trusted proxy and the log level, in every process; the rest is named."""
    key = gateway.key()
    assert 200 == gateway.chat(key).status
    gateway.write(
        LLMGATEWAY_MODELS="o9",
        LLMGATEWAY_CORS_ORIGINS=ORIGIN,
        LLMGATEWAY_FIRST_BYTE_TIMEOUT="0.2",
        LLMGATEWAY_TRUSTED_PROXY="127.0.0.1",
        LLMGATEWAY_METRICS="open",
        LLMGATEWAY_THREADS="64",
        LLMGATEWAY_NONSENSE="1",
    )

    reload(
        gateway,
        "LLMGATEWAY_MODELS, LLMGATEWAY_FIRST_BYTE_TIMEOUT, LLMGATEWAY_TRUSTED_PROXY, LLMGATEWAY_CORS_ORIGINS, "
        "LLMGATEWAY_METRICS.\n",
        "These settings have changed, and need a restart: LLMGATEWAY_THREADS.",
        "LLMGATEWAY_NONSENSE is not a setting",
    )

    def serves_anew(connection):
        allowed = gateway.request("GET", "/livez", headers={"Origin": ORIGIN}, connection=connection)
        refused = gateway.chat(key, connection=connection)
        numbers = gateway.request("GET", "/metrics", connection=connection)
        return (ORIGIN, 404, 200) == (allowed.header("access-control-allow-origin"), refused.status, numbers.status)

    everywhere(gateway, serves_anew)
    azure.script(Script(delay=2))
    answer = gateway.chat(key, model="o9")
    assert (504, "upstream_timeout") == (answer.status, answer.error["code"])
    assert 128 == gateway.admin("GET", "/admin/status").json()["process"]["threads"]
    assert 1 == gateway.output.count("need a restart")


def test_replaces_the_first_owner(gateway):
    """The new admin key is right in every process from then on, the old one wrong; nothing else is interrupted."""
    key, new_key = gateway.key(), "another-admin-key-of-this-test"
    assert 200 == gateway.admin("POST", "/admin/setllmkey", json={"key": "azure-key-of-the-functional-tests"}).status
    del gateway.environ["ADMIN_KEY"]
    gateway.write(ADMIN_KEY=ADMIN_KEY)
    gateway.restart()
    gateway.write(ADMIN_KEY=new_key)

    reload(gateway, "ADMIN_KEY.\n", "Set SECRET_KEY to it before the next restart")

    def knows(connection):
        statuses = [
            gateway.request("GET", "/admin/audit", headers={"AdminKey": sent}, connection=connection).status
            for sent in (new_key, ADMIN_KEY)
        ]
        return statuses == [200, 401] and 200 == gateway.chat(key, connection=connection).status

    everywhere(gateway, knows)
    if workers := gateway.workers():  # one that starts afterwards can still read Azure's key
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: len({*gateway.workers()} - {*workers}) == 1, what="another worker")
        everywhere(gateway, knows)
    assert new_key not in gateway.output
    gateway.write(ADMIN_KEY=new_key, SECRET_KEY=ADMIN_KEY)
    before = gateway.output.count("Set SECRET_KEY to it")
    reload(gateway, "nothing has changed")
    assert before == gateway.output.count("Set SECRET_KEY to it")
    gateway.restart()
    assert 200 == gateway.chat(key).status


def test_keeps_its_settings_if_the_new_ones_are_wrong(gateway):
    """One line says why; a file that is missing, too; and the next right one counts."""
    key = gateway.key()
    gateway.write(LLMGATEWAY_MODELS="o9", LLMGATEWAY_FIRST_BYTE_TIMEOUT="soon")
    reload(gateway, "The settings stay as they are", "LLMGATEWAY_FIRST_BYTE_TIMEOUT must be")
    os.unlink(gateway.folder / "gateway.env")
    reload(gateway, "gateway.env cannot be read: No such file or directory.")

    everywhere(gateway, lambda connection: 200 == gateway.chat(key, connection=connection).status)

    assert 2 == gateway.output.count("The settings stay as they are")
    gateway.write(LLMGATEWAY_MODELS="o9")
    reload(gateway, "LLMGATEWAY_MODELS.\n")
    everywhere(gateway, lambda connection: 404 == gateway.chat(key, connection=connection).status)


def test_survives_signals_to_every_process(gateway):
    """Also many at once, and a worker that is started afterwards has the new settings."""
    key = gateway.key()
    gateway.write(LLMGATEWAY_MODELS="o9")
    for _ in range(20):
        for pid in (*gateway.workers(), gateway.pid):
            os.kill(pid, signal.SIGHUP)
    everywhere(gateway, lambda connection: 404 == gateway.chat(key, connection=connection).status)

    if workers := gateway.workers():
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: len({*gateway.workers()} - {*workers}) == 1, what="another worker")
        everywhere(gateway, lambda connection: 404 == gateway.chat(key, connection=connection).status)


def test_says_what_it_starts_with(gateway):
    """A line each about stores, folder, upstream, Azure's key and places; no secret."""
    for line in (
        "Stores: SQLite in the instance folder, no Redis\n",
        f"Instance folder: {gateway.instance}\n",
        f"Upstream: {gateway.environ['LLM_BASE_URL']}\n",
        "Request slots: ",
    ):
        assert 1 == gateway.output.count(line), line
    wait_until(lambda: "Azure's key: present.\n" in gateway.output, what="a line about Azure's key")
    assert ADMIN_KEY not in gateway.output
    assert "azure-key" not in gateway.output


def test_says_that_azures_key_is_missing(azure_environ, tmp_path):
    """And how to set it; one that is stored is found at the next start."""
    environ = azure_environ | {"LLM_API_KEY": ""}
    with GatewayProcess(environ, folder=tmp_path) as gateway:
        missing = "Azure's key: missing or unreadable: set it with POST /admin/setllmkey."
        wait_until(lambda: missing in gateway.output, what="a warning")
        assert 200 == gateway.admin("POST", "/admin/setllmkey", json={"key": "stored"}).status
        gateway.restart()
        wait_until(lambda: "Azure's key: present.\n" in gateway.output, what="a line about Azure's key")
        gateway.stop()


def test_says_that_no_key_is_needed_without_an_address(azure_environ, tmp_path):
    """A gateway that was started with an ``ADMIN_KEY`` alone does not say that it has a key for Azure."""
    with GatewayProcess(azure_environ | {"LLM_BASE_URL": "", "LLM_API_KEY": ""}, folder=tmp_path) as gateway:
        wait_until(lambda: "Azure's key: not needed yet" in gateway.output, what="a line about Azure's key")


def test_does_not_wait_for_a_pipe(gateway):
    """The shell's ``--env-file <(command)`` can be read once: it would be empty, or would block everything."""
    file = gateway.folder / "gateway.env"
    file.unlink()
    os.mkfifo(file)

    reload(gateway, f"{file} is no file on disk, and cannot be read again.")

    assert 200 == gateway.request("GET", "/livez").status
