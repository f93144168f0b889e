"""Stopping under load: what runs may end, what is booked arrives, and whoever is in a hurry loses nothing either."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from llmgateway.simulator import Script
from tests.servers import wait_until

from .calls import Call

pytestmark = pytest.mark.slow

STREAMS = 8


@pytest.fixture
def gateway(start_gateway):
    return start_gateway(LLMGATEWAY_PROCESSES="2", LLMGATEWAY_DRAIN_SECONDS="15")


@pytest.fixture
def calls(gateway, site):
    """Streams in the middle, and plain calls for which Azure is still thinking."""
    key = gateway.key()
    site.azure.script(Script(tokens=20, stall_after_events=6), times=STREAMS)
    site.azure.script(Script(delay=1.5), times=STREAMS)
    streams = [Call(gateway, key, stream=True) for _ in range(STREAMS)]
    for call in streams:
        call.read_events(6)
    plain = [Call(gateway, key) for _ in range(STREAMS)]
    site.azure.wait_for(lambda served: len(served) == 2 * STREAMS)
    return streams, plain


def closes_its_door(gateway):
    def refused():
        try:
            socket.create_connection(("127.0.0.1", gateway.port), 1).close()
        except OSError:
            return True
        return False

    wait_until(refused, what="a closed door")


def test_everything_that_runs_comes_to_its_end(gateway, calls, site):
    """SIGTERM in the middle: each answer is complete, the books are shipped before the exit, and the status is 0."""
    streams, plain = calls

    gateway.signal(signal.SIGTERM)
    closes_its_door(gateway)
    site.azure.release()

    assert [(200, True)] * STREAMS == [(reading.status, reading.complete) for reading in map(Call.reading, plain)]
    for call in streams:
        assert call.read_bytes(100_000).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        call.leave()
    assert 0 == gateway.wait()
    records = site.records()  # nothing was started again
    assert {one.client_request_id for one in site.azure.served} == records.keys()
    assert {("ok", "upstream")} == {(one["outcome"], one["usage_source"]) for one in records.values()}
    assert [] == [*(gateway.instance / "journal").iterdir()]


def test_what_cannot_be_shipped_waits_for_the_next_start(gateway, calls, site):
    """With MongoDB away it still ends in time with status 0, and the next start ships."""
    streams, plain = calls
    site.mongo.kill()

    gateway.signal(signal.SIGTERM)
    closes_its_door(gateway)
    site.azure.release()
    assert {200} == {call.reading().status for call in plain}
    for call in streams:
        call.read_bytes(100_000)
        call.leave()
    assert 0 == gateway.wait()

    site.mongo.start()
    gateway.start()
    records = site.assert_books_balance(gateway)
    assert {"ok"} == {record["outcome"] for record in records.values()}
    gateway.stop()


def test_a_second_signal_ends_it_at_once_and_loses_nothing(gateway, calls, site):
    """Nobody is waited for; what Azure was doing is booked by the next start."""
    streams, plain = calls

    gateway.signal(signal.SIGTERM)
    closes_its_door(gateway)
    began = time.monotonic()
    gateway.signal(signal.SIGTERM)
    assert 0 == gateway.wait()

    assert time.monotonic() - began < 5
    for call in streams + plain:
        call.leave()
    gateway.start()
    records = site.assert_books_balance(gateway)
    assert 2 * STREAMS == len(records)
    # A thread may still see how its own exchange ends before the process does.
    assert {record["outcome"] for record in records.values()} <= {"interrupted", "client_closed", "ok"}
    assert "interrupted" in {record["outcome"] for record in records.values()}
    gateway.stop()
