"""A client that leaves: nobody goes on paying for it, or, where the admin wants it so, it is counted to the end."""

from __future__ import annotations

import time

import pytest

from llmgateway.simulator import Script
from tests.servers import wait_until

from .calls import Call
from .site import TOKENS, assert_right_tokens

pytestmark = pytest.mark.slow

A_SECOND = 1.0
A_LITTLE = 0.5  # for a busy machine

SILENCES = {
    "plain, before the head": (False, Script(delay=30), 0),
    "plain, before the body": (False, Script(stall_after_events=0), 0),
    "stream, before the head": (True, Script(delay=30), 0),
    "stream, before the first event": (True, Script(stall_after_events=0), 0),
    "stream, before the first text": (True, Script(stall_after_events=2), 2),
    "stream, in the middle": (True, Script(tokens=20, stall_after_events=9), 9),
}


@pytest.fixture(scope="module")
def _gateway(start_shared_gateway):
    return start_shared_gateway()


@pytest.fixture
def gateway(_gateway, site):
    return _gateway


@pytest.fixture(scope="module")
def _draining(start_shared_gateway):
    """A gateway that reads on, for two seconds at most, two answers at once (a quarter of its threads)."""
    return start_shared_gateway(
        LLM_ON_DISCONNECT="drain", LLMGATEWAY_DISCONNECT_DRAIN_SECONDS="2", LLMGATEWAY_THREADS="8"
    )


@pytest.fixture
def draining(_draining, site):
    return _draining


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_azure_is_left_within_a_second_while_it_is_silent(gateway, site, reset):
    """Wherever it is silent: before the head, before the body, in the middle of a stream."""
    key = gateway.key()
    calls = []
    for rank, (stream, script, events) in enumerate(SILENCES.values()):
        site.azure.script(script)
        call = Call(gateway, key, stream=stream)
        site.azure.wait_for(lambda served, rank=rank: len(served) > rank)
        call.read_events(events)
        calls.append(call)
    served = site.azure.served
    assert not any(one.peer_left for one in served)

    began = time.monotonic()
    for call in calls:
        call.leave(reset=reset)
    site.azure.wait_for(lambda served: all(one.peer_left for one in served))

    assert time.monotonic() - began < A_SECOND + A_LITTLE
    records = site.records_of(served)
    for one in served:
        record = records[one.client_request_id]
        assert ("client_closed", "estimated") == (record["outcome"], record["usage_source"])
        assert_right_tokens(one, record)
    assert 7 == records[served[-1].client_request_id]["completion_tokens"]


def test_azure_is_left_within_a_second_while_it_speaks(gateway, site):
    """Between two events of a stream that goes on."""
    site.azure.script(Script(tokens=3000, gap=0.01))
    call = Call(gateway, gateway.key(), stream=True)
    call.read_events(10)

    began = time.monotonic()
    call.leave()
    [served] = site.azure.wait_for(lambda served: served[0].peer_left)

    assert time.monotonic() - began < A_SECOND + A_LITTLE
    record = site.records_of([served])[served.client_request_id]
    assert "client_closed" == record["outcome"]
    assert 8 <= record["completion_tokens"] <= served.events_sent < 3000
    assert_right_tokens(served, record)


def test_clients_that_leave_at_once_are_booked_too(start_gateway, site):
    """Whatever of their requests reaches Azure has its record, and what does not has none."""
    gateway = start_gateway()
    key = gateway.key()
    site.azure.script(Script(delay=0.2), times=None)
    for number in range(24):
        Call(gateway, key, stream=number % 2 == 0).leave(reset=number % 3 == 0)
    assert 200 == Call(gateway, key).reading().status

    wait_until(lambda: not site.azure.in_progress, what="an Azure at rest")
    records = site.assert_books_balance(gateway)
    assert records.keys() == {one.client_request_id for one in site.azure.served}
    assert {"ok", "client_closed"} >= {record["outcome"] for record in records.values()}


def test_a_client_that_stays_is_not_taken_for_one_that_left(gateway, site):
    """Half a second of silence and a connection that stays open end nothing."""
    site.azure.script(Script(delay=0.6))
    site.azure.script(Script(stall_after_events=4))
    key = gateway.key()
    plain = Call(gateway, key).reading()
    stream = Call(gateway, key, stream=True)
    stream.read_events(4)
    time.sleep(0.6)  # several looks of the watch
    site.azure.release()

    assert (200, True) == (plain.status, plain.complete)
    assert stream.read_bytes(100_000).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    stream.leave()
    assert {"ok"} == {record["outcome"] for record in site.records_of(site.azure.served).values()}


def test_draining_counts_an_abandoned_answer_exactly(draining, site):
    """Left in the middle of a stream, or before it began, Azure is read to the end and its own count is booked."""
    key = draining.key()
    site.azure.script(Script(tokens=40, gap=0.02))
    site.azure.script(Script(tokens=10, delay=0.5))
    site.azure.script(Script(tokens=10, delay=0.5))
    middle = Call(draining, key, stream=True)
    middle.read_events(5)
    middle.leave()
    before = Call(draining, key, stream=True)
    site.azure.wait_for(lambda served: len(served) == 2)
    before.leave(reset=True)
    plain = Call(draining, key)
    site.azure.wait_for(lambda served: len(served) == 3)
    plain.leave()

    served = site.azure.wait_for(lambda served: all(one.finished for one in served))

    records = site.records_of(served)
    for one in served:
        record = records[one.client_request_id]
        assert "upstream" == record["usage_source"]
        assert {name: getattr(one.usage, name) for name in TOKENS} == {name: record[name] for name in TOKENS}
    assert ["client_closed"] * 2 == [records[one.client_request_id]["outcome"] for one in served[:2]]


def test_draining_ends_when_its_time_is_up(draining, site):
    """LLMGATEWAY_DISCONNECT_DRAIN_SECONDS after the client has left Azure is left, and the answer estimated."""
    site.azure.script(Script(tokens=3000, gap=0.02))
    call = Call(draining, draining.key(), stream=True)
    call.read_events(5)

    began = time.monotonic()
    call.leave()
    [served] = site.azure.wait_for(lambda served: served[0].peer_left, timeout=8)

    assert 1.5 < time.monotonic() - began < 2 + A_SECOND + A_LITTLE
    record = site.records_of([served])[served.client_request_id]
    assert ("client_closed", "estimated") == (record["outcome"], record["usage_source"])


@pytest.mark.parametrize(
    ("stream", "script", "events"),
    [
        (False, Script(delay=30), 0),
        (True, Script(delay=30), 0),
        (True, Script(stall_after_events=5), 5),
        (True, Script(tokens=20, gap=0.02, stall_after_events=12), 5),
    ],
    ids=["plain", "no-head", "silent-when-left", "silent-later"],
)
def test_draining_ends_a_silent_answer_too(draining, site, stream, script, events):
    """The time is up even if nothing comes, from the client's leaving on."""
    site.azure.script(script)
    call = Call(draining, draining.key(), stream=stream)
    site.azure.wait_for(lambda served: served)
    call.read_events(events)

    began = time.monotonic()
    call.leave()
    [served] = site.azure.wait_for(lambda served: served[0].peer_left, timeout=10)

    assert 1.5 < time.monotonic() - began < 2 + A_SECOND + A_LITTLE
    record = site.records_of([served])[served.client_request_id]
    assert ("client_closed", "estimated") == (record["outcome"], record["usage_source"])


def test_draining_takes_only_so_many_at_once(draining, site):
    """With two drained already, the answers that others leave are ended at once."""
    key = draining.key()
    site.azure.script(Script(tokens=3000, gap=0.02), times=None)
    calls = [Call(draining, key, stream=True) for _ in range(4)]
    for call in calls:
        call.read_events(4)

    for call in calls:
        call.leave()

    site.azure.wait_for(lambda served: sum(one.peer_left for one in served) == 2, timeout=A_SECOND + A_LITTLE)
    assert 2 == len(site.azure.in_progress)
    site.azure.wait_for(lambda served: all(one.peer_left for one in served), timeout=8)
    assert {"client_closed"} == {record["outcome"] for record in site.records_of(site.azure.served).values()}
