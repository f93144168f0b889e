"""More than a gateway can do at once, and clients that keep it from its work."""

from __future__ import annotations

import json
import os
import signal
import socket
import time

import pytest

from llmgateway.simulator import Raw, Script
from tests.gateway_process import dump
from tests.servers import wait_until

SLOTS = 4
PATIENCE = 1.0
A_BUSY_MACHINE = 10.0

EVENT = (
    b"data: " + json.dumps({"choices": [{"delta": {"content": "x" * 4000}}]}, separators=(",", ":")).encode() + b"\n\n"
)
LONG_STREAM = EVENT * 8000 + b"data: [DONE]\n\n"
"""Some 32 MB: more than all the buffers between Azure and a client can hold."""


@pytest.fixture
def gateway(start_alone):
    # These tests are about all places, which one key may not take otherwise.
    return start_alone(LLMGATEWAY_THREADS="8", LLMGATEWAY_CLIENT_TIMEOUT=str(PATIENCE), LLMGATEWAY_KEY_SHARE="1")


STREAM = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}], "stream": True}


def status(gateway):
    return gateway.admin("GET", "/admin/status").json()


def outcomes(gateway):
    return [record["outcome"] for record in gateway.admin("GET", "/admin/logs").json()["items"]]


def call(gateway, key, **fields):
    """Send a request for a stream, and leave the answer where it is."""
    body = json.dumps(STREAM | fields)
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    wire.connect(("127.0.0.1", gateway.port))
    fields = f"Host: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    wire.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{fields}\r\n\r\n{body}".encode())
    return wire


def test_full_it_says_so_at_once_and_stays_reachable(gateway, azure):
    """With every slot taken the next are refused without waiting; health and admin answer, and nothing is sent."""
    key = gateway.key()
    azure.script(Script(stall_after_events=1), times=None)
    busy = [call(gateway, key) for _ in range(SLOTS)]
    azure.wait_for(lambda served: len(served) == SLOTS)

    began = time.monotonic()
    refused = [gateway.chat(key) for _ in range(20)]
    reached = [gateway.request("GET", "/livez"), gateway.request("GET", "/readyz"), gateway.admin("GET", "/admin/keys")]
    slots = status(gateway)["slots"]
    elapsed = time.monotonic() - began

    assert {(503, "overloaded", "1")} == {(one.status, one.error["code"], one.header("Retry-After")) for one in refused}
    assert [200, 200, 200] == [one.status for one in reached]
    assert {"capacity": SLOTS, "taken": SLOTS, "streams": SLOTS, "refused": 20} == slots
    assert elapsed < A_BUSY_MACHINE
    assert SLOTS == len(azure.served)
    metrics = gateway.admin("GET", "/metrics").body.decode()
    assert 'llmgateway_refused_total{code="overloaded"} 20.0' in metrics
    assert f"llmgateway_slots {SLOTS}.0" in metrics

    azure.release()
    for wire in busy:
        wire.close()
    wait_until(lambda: 0 == status(gateway)["slots"]["taken"], what="free slots")
    assert 200 == gateway.chat(key).status


@pytest.mark.parametrize("taking", [0, 300], ids=["nothing", "a little now and then"])
def test_a_client_that_does_not_take_the_answer_is_cut_off(gateway, azure, taking):
    """A stalled reader's slot is free again after a while, Azure is left, and the record is written."""
    key = gateway.key()
    azure.script(Script(raw=Raw(200, {"Content-Type": "text/event-stream"}, LONG_STREAM)), times=SLOTS)
    stalled = [call(gateway, key) for _ in range(SLOTS)]
    azure.wait_for(lambda served: len(served) == SLOTS)
    assert SLOTS == status(gateway)["slots"]["taken"]

    def all_free():
        for wire in stalled:
            wire.recv(taking) if taking else None
        return status(gateway)["slots"]["taken"] == 0

    wait_until(all_free, seconds=PATIENCE + A_BUSY_MACHINE, what="free slots")

    wait_until(lambda: ["client_closed"] * SLOTS == outcomes(gateway), what="the records")
    assert 200 == gateway.chat(key).status
    for wire in stalled:
        wire.close()


def test_a_client_that_reads_slowly_gets_everything(gateway, azure):
    """The time-out is for those who take nothing, not for those who take long."""
    key = gateway.key()
    azure.script(Script(raw=Raw(200, {"Content-Type": "text/event-stream"}, EVENT * 600 + b"data: [DONE]\n\n")))
    got = 0
    began = time.monotonic()
    with call(gateway, key) as wire:
        while chunk := wire.recv(65536):
            got += len(chunk)
            if time.monotonic() - began < 3 * PATIENCE:
                time.sleep(0.02)
            if chunk.endswith(b"0\r\n\r\n"):
                break

    assert got > 600 * len(EVENT)
    assert time.monotonic() - began > 2 * PATIENCE
    wait_until(lambda: ["ok"] == outcomes(gateway), what="the record")


@pytest.mark.parametrize(
    "beginning",
    [b"POST /v1/chat/comp", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n{"],
    ids=["head", "body"],
)
def test_a_client_that_does_not_finish_a_request_is_cut_off(gateway, beginning):
    """It never held a slot, and soon no connection either; also if a byte comes now and then."""
    wires = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(2 * SLOTS)]
    for wire in wires:
        wire.sendall(beginning)
        wire.settimeout(0.2)
    assert 0 == status(gateway)["slots"]["taken"]
    assert 200 == gateway.chat(gateway.key()).status

    open_ones = set(wires)
    deadline = time.monotonic() + PATIENCE + A_BUSY_MACHINE
    while open_ones:
        assert time.monotonic() < deadline
        for number, wire in enumerate(wires):
            if wire in open_ones and _is_closed(wire, trickle=number % 2 == 0):
                open_ones.remove(wire)
                wire.close()
    assert 200 == gateway.request("GET", "/livez").status


def _is_closed(wire, *, trickle):
    try:
        if trickle:
            wire.sendall(b"a")
        return wire.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.fixture
def two_workers(start_alone):
    """Two processes on one socket, each with as many slots as SLOTS; both serve already."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="2", LLMGATEWAY_THREADS="8", LLMGATEWAY_KEY_SHARE="1")
    for worker in gateway.workers():
        gateway.connect_to(worker).close()
    return gateway


def answers_of(wires):
    """The first lines of the answers that come over *wires*."""
    return [wire.recv(65536).split(b"\r\n")[0] for wire in wires]


def read_to_end(wires):
    for wire in wires:
        with wire:
            while wire.recv(65536):
                pass


def stalled_calls(wires, azure, count):
    """Let Azure say one event to each of *wires*, and no more."""
    azure.wait_for(lambda served: len(served) == count)
    assert [b"HTTP/1.1 200 OK"] * len(wires) == answers_of(wires)


def test_nobody_is_refused_while_a_worker_has_free_slots(two_workers, azure):
    """As many requests as there are slots are served, whichever worker is woken for them."""
    keys = [two_workers.key() for _ in range(2 * SLOTS)]
    for _ in range(5):
        azure.script(Script(stall_after_events=1), times=2 * SLOTS)
        wires = [call(two_workers, key) for key in keys]
        stalled_calls(wires, azure, 2 * SLOTS)

        refused = two_workers.chat(keys[0])

        assert (503, "overloaded", "1") == (refused.status, refused.error["code"], refused.header("Retry-After"))
        assert 200 == two_workers.request("GET", "/livez").status
        azure.release()
        read_to_end(wires)
        azure.reset()


def test_a_client_of_a_full_worker_is_sent_to_another(two_workers, azure):
    """A connection that stays open leads to the full one only; it closes it, if another one has free slots."""
    key = two_workers.key()
    full, _ = two_workers.workers()
    kept = [two_workers.connect_to(full) for _ in range(SLOTS + 3)]
    azure.script(Script(stall_after_events=1), times=2 * SLOTS)
    for connection in kept[:SLOTS]:
        connection.request("POST", "/v1/chat/completions", dump(STREAM), {"Authorization": f"Bearer {key}"})
    stalled_calls([connection.sock for connection in kept[:SLOTS]], azure, SLOTS)

    refused = two_workers.chat(key, connection=kept[SLOTS])
    assert (503, "overloaded") == (refused.status, refused.error["code"])
    assert ("close", "1") == (refused.header("Connection"), refused.header("Retry-After"))
    reached = two_workers.request("GET", "/livez", connection=kept[SLOTS + 1])
    assert (200, None) == (reached.status, reached.header("Connection"))

    wires = [call(two_workers, key) for _ in range(SLOTS)]  # as that client would, over a new connection
    stalled_calls(wires, azure, 2 * SLOTS)

    refused = two_workers.chat(key, connection=kept[SLOTS + 2])
    assert (503, "overloaded") == (refused.status, refused.error["code"])
    assert (None, "1") == (refused.header("Connection"), refused.header("Retry-After"))

    azure.release()
    read_to_end(wires)
    for connection in kept:
        connection.close()


def test_a_worker_that_dies_full_does_not_count(two_workers, azure):
    """The worker that replaces it has all its slots."""
    key = two_workers.key()
    full, _ = two_workers.workers()
    kept = [two_workers.connect_to(full) for _ in range(SLOTS)]
    azure.script(Script(stall_after_events=1), times=SLOTS)
    for connection in kept:
        connection.request("POST", "/v1/chat/completions", dump(STREAM), {"Authorization": f"Bearer {key}"})
    stalled_calls([connection.sock for connection in kept], azure, SLOTS)

    os.kill(full, signal.SIGKILL)
    wait_until(lambda: 2 == len(set(two_workers.workers()) - {full}), what="a new worker")
    for worker in two_workers.workers():
        two_workers.connect_to(worker).close()
    azure.reset()
    azure.script(Script(stall_after_events=1), times=2 * SLOTS)
    wires = [call(two_workers, key) for _ in range(2 * SLOTS)]
    stalled_calls(wires, azure, 2 * SLOTS)
    azure.release()
    read_to_end(wires)
    for connection in kept:
        connection.close()
