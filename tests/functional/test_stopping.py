"""Ending well, ending badly, and beginning while others are not there yet."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from llmgateway.simulator import Script
from tests.functional.conftest import mongo_environ, redis_environ
from tests.gateway_process import GatewayProcess, dump
from tests.servers import MongoServer, RedisServer, wait_until

# One process stops by itself, several are stopped by the first: that has nothing to do with which stores there are. But
# only those on the embedded store share a file.
each_way_to_serve = pytest.mark.parametrize(
    ("stores", "processes"),
    [
        pytest.param("sqlite", "1"),
        pytest.param("sqlite", "2"),
        pytest.param("redis+sqlite", "2"),
        pytest.param("mongo", "1"),
        pytest.param("redis+mongo", "2"),
    ],
    indirect=["stores"],
)
HELLO = dump({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "stream": True})


@pytest.fixture
def stream():
    """Begin a streamed completion; returns its response when the first event has come."""
    with ExitStack() as opened:

        def begin(gateway, key):
            connection = opened.enter_context(closing(gateway.connect()))
            connection.request("POST", "/v1/chat/completions", HELLO, {"Authorization": f"Bearer {key}"})
            response = opened.enter_context(connection.getresponse())
            assert response.readline().startswith(b"data:")
            return response

        yield begin


def refuses_connections(gateway):
    try:
        socket.create_connection(("127.0.0.1", gateway.port), 1).close()
    except OSError:
        return True
    return False


@each_way_to_serve
def test_lets_a_running_stream_end(start_gateway, azure, stream, records, processes):
    """Nobody new gets in, the stream comes to its [DONE], its record is kept, and the exit status is 0."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES=processes, warm=False)
    key = gateway.key()
    azure.script(Script(stall_after_events=3))
    response = stream(gateway, key)

    gateway.signal(signal.SIGTERM)
    wait_until(lambda: refuses_connections(gateway), what="a closed door")
    assert gateway.running
    azure.release()

    assert response.read().endswith(b"data: [DONE]\n\n")
    assert 0 == gateway.wait()
    gateway.start()
    assert [("ok", "upstream")] == [(r["outcome"], r["usage_source"]) for r in records(gateway, key)]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_is_gentle_to_sigquit(start_alone, azure, stream, processes):
    """SIGQUIT, which some supervisors send, stops like SIGTERM, and the log says so."""
    gateway = start_alone(LLMGATEWAY_PROCESSES=processes)
    azure.script(Script(stall_after_events=3))
    response = stream(gateway, gateway.key())

    gateway.signal(signal.SIGQUIT)
    wait_until(lambda: refuses_connections(gateway), what="a closed door")
    wait_until(lambda: "Stopping: running answers get 30 s to end." in gateway.output, what="a line about it")
    assert "has stopped" not in gateway.output
    azure.release()

    assert response.read().endswith(b"data: [DONE]\n\n")
    assert 0 == gateway.wait()
    assert 1 == gateway.output.count("Stopping:")
    assert gateway.output.endswith("LLMGateway has stopped.\n")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_is_gentle_to_one_press_of_ctrl_c(start_alone, azure, stream, processes):
    """A terminal tells every process of the group; that is one signal all the same."""
    gateway = start_alone(LLMGATEWAY_PROCESSES=processes)
    azure.script(Script(stall_after_events=3))
    response = stream(gateway, gateway.key())

    os.killpg(gateway.pid, signal.SIGINT)
    wait_until(lambda: refuses_connections(gateway), what="a closed door")
    azure.release()

    assert response.read().endswith(b"data: [DONE]\n\n")
    assert 0 == gateway.wait()


@each_way_to_serve
def test_ends_at_once_at_a_second_signal(start_gateway, azure, stream, records, processes):
    """The stream is cut, and what it cost is booked as interrupted by the next start, once."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES=processes)
    key = gateway.key()
    azure.script(Script(stall_after_events=3))
    stream(gateway, key)

    gateway.signal(signal.SIGTERM)
    wait_until(lambda: refuses_connections(gateway), what="a closed door")
    began = time.monotonic()
    gateway.signal(signal.SIGTERM)
    assert 0 == gateway.wait()
    assert time.monotonic() - began < 10

    gateway.start()
    [record] = records(gateway, key)
    assert record["outcome"] in ("interrupted", "client_closed", "broken")
    assert record["usage_source"] in ("estimated", "bound")  # bound if the process could not end it itself
    assert record["completion_tokens"] > 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_cuts_what_takes_too_long(start_alone, azure, stream, processes):
    """LLMGATEWAY_DRAIN_SECONDS is the most that a stop waits; then the client is told, and what it got is booked."""
    gateway = start_alone(LLMGATEWAY_DRAIN_SECONDS="0.3", LLMGATEWAY_PROCESSES=processes)
    key = gateway.key()
    azure.script(Script(stall_after_events=6))
    answer = stream(gateway, key)

    began = time.monotonic()
    gateway.stop()

    assert 0.3 <= time.monotonic() - began < 10
    *_, last = answer.read().strip().split(b"\n\n")
    assert "overloaded" == json.loads(last.removeprefix(b"data: "))["error"]["code"]
    assert not list((gateway.instance / "journal").glob("*/*.sealed")) + list(gateway.instance.glob("journal/*/*.open"))
    gateway.start()
    [record] = gateway.admin("GET", "/admin/logs").json()["items"]
    assert ("interrupted", "estimated") == (record["outcome"], record["usage_source"])
    assert record["completion_tokens"] > 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_is_not_ended_by_a_terminal_that_is_closed(start_alone, azure, stream, processes):
    """SIGHUP ends neither the gateway nor a running stream."""
    gateway = start_alone(LLMGATEWAY_PROCESSES=processes)
    azure.script(Script(stall_after_events=3))
    answer = stream(gateway, gateway.key())

    for pid in (gateway.pid, *gateway.workers()):
        os.kill(pid, signal.SIGHUP)
    azure.release()

    assert answer.read().endswith(b"data: [DONE]\n\n")
    assert 200 == gateway.request("GET", "/livez").status
    gateway.stop()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_outlives_the_shell_that_has_started_it(azure_environ, tmp_path, processes):
    """A script that starts it in the background and ends, or a person who logs out."""
    in_background = ("sh", "-c", '"$@" & wait', "sh")
    environ = azure_environ | {"LLMGATEWAY_PROCESSES": processes}
    with GatewayProcess(environ, folder=tmp_path, launcher=in_background) as shell:
        (gateway,) = shell.workers()
        shell.signal(signal.SIGKILL)
        shell.wait()
        try:
            # The server looks around between any two of them.
            assert {200} == {shell.request("GET", "/livez").status for _ in range(20)}
        finally:
            os.kill(gateway, signal.SIGTERM)
            wait_until(lambda: refuses_connections(shell), seconds=20, what="the end")


def test_waits_for_no_idle_connection(start_alone):
    """A client that keeps its connection open does not hold the stop up."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="2")
    connection = gateway.connect()
    gateway.request("GET", "/livez", connection=connection)

    began = time.monotonic()
    gateway.stop()

    assert time.monotonic() - began < 10
    connection.close()


@each_way_to_serve
def test_books_what_a_killed_gateway_was_doing(start_gateway, azure, stream, records, processes):
    """kill -9 in the middle of a stream loses no record: the next start books it, once."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES=processes)
    key = gateway.key()
    assert 200 == gateway.chat(key).status
    azure.script(Script(stall_after_events=3))
    stream(gateway, key)

    gateway.kill()
    gateway.start()

    booked = records(gateway, key, count=2)
    assert ["ok", "interrupted"] == [record["outcome"] for record in booked]
    assert {served.client_request_id for served in azure.served} == {record["id"] for record in booked}
    assert "bound" == booked[1]["usage_source"]
    # It lived for some seconds, in which 300 tokens can have been written in each.
    assert 300 < booked[1]["completion_tokens"] < 300 * 30


def test_replaces_a_worker_that_died(start_gateway, azure, stream, records):
    """The other one goes on serving, a new one comes, and what the dead one was doing is booked."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES="2")
    key = gateway.key()
    victim, survivor = gateway.workers()
    azure.script(Script(stall_after_events=3))
    connection = gateway.connect_to(victim)
    connection.request("POST", "/v1/chat/completions", HELLO, {"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()  # not closed yet: a client that leaves is another matter

    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in gateway.workers(), what="the end of the worker")
    assert 200 == gateway.chat(key).status
    wait_until(lambda: len(gateway.workers()) == 2, what="another worker")

    assert survivor in gateway.workers()
    booked = records(gateway, key, count=2)
    assert ["interrupted", "ok"] == [record["outcome"] for record in booked]
    replacement = gateway.connect_to(*({*gateway.workers()} - {survivor}))
    assert 200 == gateway.chat(key, connection=replacement).status
    for used in (answer, connection, replacement):
        used.close()
    gateway.stop()


def test_leaves_no_worker_without_a_parent(start_alone):
    """Workers whose first process was killed end by themselves, also if they had not begun to serve."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="2")
    for _ in range(2):
        workers = gateway.workers()
        gateway.signal(signal.SIGKILL)
        gateway.wait()
        wait_until(lambda: not [pid for pid in workers if Path(f"/proc/{pid}").exists()], what="the end of both")  # noqa: B023
        gateway.launch()
        wait_until(lambda: len(gateway.workers()) == 2, what="two workers")


def test_stops_while_it_is_starting(start_alone):
    """A signal that comes before the workers serve ends them all the same."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="2")
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
        gateway.kill()
        gateway.launch()
        wait_until(lambda: len(gateway.workers()) == 2, what="two workers")
        time.sleep(delay)  # to come at different moments of the start, not to wait for any
        gateway.signal(signal.SIGTERM)
        assert 0 == gateway.wait(10)


def test_stops_before_it_serves(start_alone):
    """One process that is told to stop as soon as it has said its address ends well, too."""
    gateway = start_alone()
    for delay in (0.0, 0.05, 0.2):
        gateway.kill()
        starts = gateway.output.count("listens on")
        gateway.launch()
        wait_until(lambda: gateway.output.count("listens on") > starts, what="its address")  # noqa: B023
        time.sleep(delay)  # to come at different moments of the start, not to wait for any
        gateway.signal(signal.SIGTERM)
        assert 0 == gateway.wait(10)


def environ_of(servers, azure_environ):
    environ = dict(azure_environ)
    for server in servers:
        environ |= redis_environ(server) if isinstance(server, RedisServer) else mongo_environ(server)
    return environ


@pytest.fixture
def away(request):
    """Servers that are not there yet."""
    servers = [kind() for kind in request.param]
    yield servers
    for server in servers:
        server.remove()


@pytest.mark.parametrize("away", [[MongoServer], [RedisServer, MongoServer]], indirect=True, ids=["mongo", "both"])
def test_starts_before_its_durable_store(away, azure, azure_environ, tmp_path):
    """Users get 503 and never 401, /readyz names what is missing, and all is well when it has come."""
    environ = environ_of(away, azure_environ) | {"LLMGATEWAY_STORE_TIMEOUT": "0.2"}
    with GatewayProcess(environ, folder=tmp_path) as gateway:
        answer = gateway.chat("some-key")
        assert (503, "store_unavailable") == (answer.status, answer.error["code"])
        assert answer.header("retry-after")
        ready = gateway.request("GET", "/readyz")
        assert (503, "unavailable") == (ready.status, ready.json()["status"])
        assert {"azure_key", "mongodb", *(["redis"] if len(away) == 2 else [])} == ready.json()["checks"].keys()
        refused = gateway.admin("POST", "/admin/keys", json={"user": "ada"})
        assert (503, "store_unavailable") == (refused.status, refused.error["code"])
        assert 200 == gateway.request("GET", "/livez").status

        for server in away:
            server.start()

        wait_until(lambda: gateway.request("GET", "/readyz").json()["status"] == "ok", what="a gateway that is ready")
        assert 200 == gateway.chat(gateway.key()).status
        assert (401, "invalid_api_key") == (
            gateway.chat("some-key").status,
            gateway.chat("some-key").error["code"],
        )
        gateway.stop()


@pytest.mark.parametrize("away", [[RedisServer]], indirect=True, ids=["redis"])
def test_serves_without_redis(away, azure, azure_environ, tmp_path):
    """It is only a cache: keys are looked up in the durable store until it comes, and changes hold after that."""
    with GatewayProcess(environ_of(away, azure_environ), folder=tmp_path) as gateway:
        made = gateway.new_key()
        assert 200 == gateway.chat(made["key"]).status
        ready = gateway.request("GET", "/readyz").json()
        assert ("degraded", "ok") == (ready["status"], ready["checks"]["sqlite"])

        [redis] = away
        redis.start()

        wait_until(lambda: gateway.request("GET", "/readyz").json()["status"] == "ok", what="a gateway that is ready")
        assert 200 == gateway.chat(made["key"]).status
        redis.stop()
        gateway.admin("PATCH", f"/admin/keys/{made['id']}", json={"active": False})
        assert 401 == gateway.chat(made["key"]).status
        redis.start()
        wait_until(lambda: gateway.request("GET", "/readyz").json()["status"] == "ok", what="a gateway that is ready")
        assert 401 == gateway.chat(made["key"]).status
        gateway.stop()


def test_keeps_records_for_a_store_that_is_away(own_mongo, azure, azure_environ, tmp_path):
    """Known keys are served while MongoDB is away with Redis in front, and the records arrive later, each once."""
    redis = RedisServer()
    try:
        redis.start()
        environ = environ_of([redis, own_mongo], azure_environ) | {"LLMGATEWAY_STORE_TIMEOUT": "0.5"}
        with GatewayProcess(environ, folder=tmp_path) as gateway:
            key = gateway.key(user="patient")
            assert 200 == gateway.chat(key).status
            own_mongo.kill()
            assert [200] * 3 == [gateway.chat(key).status for _ in range(3)]
            own_mongo.start()
            wait_until(lambda: requests_of(gateway, "patient") == 4, what="four records")
            gateway.stop()
    finally:
        redis.remove()


def requests_of(gateway, user):
    answer = gateway.admin("GET", "/admin/usage?by=user")
    if answer.status == 503:
        return None
    return next((row["requests"] for row in answer.json()["rows"] if row["user"] == user), 0)
