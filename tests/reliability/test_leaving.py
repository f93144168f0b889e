"""A client that leaves: nobody goes on paying for it, or it is read on for its count; it is never free."""

from __future__ import annotations

import time

import pytest

from llmgateway.simulator import Script
from llmgateway.usage.booking import ON_ITS_WAY_SECONDS
from llmgateway.usage.observed import FASTEST
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
    for one, (stream, _, _) in zip(served, SILENCES.values(), strict=True):
        record = records[one.client_request_id]
        source = "estimated" if stream else "bound"
        assert ("client_closed", source) == (record["outcome"], record["usage_source"])
        assert record["completion_tokens"] >= FASTEST * ON_ITS_WAY_SECONDS
        assert_right_tokens(one, record)


def left_while_it_speaks(gateway, site):
    """Leave a long stream in its middle, and return what the simulator and the books know of it."""
    site.azure.script(Script(tokens=3000, gap=0.01))
    call = Call(gateway, gateway.key(), stream=True)
    call.read_events(10)

    began = time.monotonic()
    call.leave()
    [served] = site.azure.wait_for(lambda served: served[0].peer_left)

    assert time.monotonic() - began < A_SECOND + A_LITTLE
    record = site.records_of([served])[served.client_request_id]
    return served, record


def test_azure_is_left_within_a_second_while_it_speaks(gateway, site):
    """Between two events of a stream that goes on."""
    served, record = left_while_it_speaks(gateway, site)
    assert "client_closed" == record["outcome"]
    assert served.events_sent - 2 <= record["completion_tokens"] < 3000
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
    site.azure.script(Script(tokens=10, delay=0.5), times=2)
    middle = Call(draining, key, stream=True)
    middle.read_events(5)
    middle.leave()
    before = Call(draining, key, stream=True)
    site.azure.wait_for(lambda served: len(served) == 2)
    before.leave(reset=True)
    site.azure.wait_for(lambda served: all(one.finished for one in served))
    plain = Call(draining, key)
    site.azure.wait_for(lambda served: len(served) == 3)
    plain.leave()

    served = site.azure.wait_for(lambda served: all(one.finished for one in served))

    records = site.records_of(served)
    for one in served:
        record = records[one.client_request_id]
        assert "upstream" == record["usage_source"]
        assert {name: getattr(one.usage, name) for name in TOKENS} == {name: record[name] for name in TOKENS}
    assert {"client_closed"} == {record["outcome"] for record in records.values()}


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
    source = "estimated" if stream else "bound"
    assert ("client_closed", source) == (record["outcome"], record["usage_source"])


@pytest.mark.parametrize(
    ("stream", "script"),
    [(True, Script(tokens=3000, gap=0.02)), (True, Script(delay=30)), (False, Script(delay=30))],
    ids=["speaking", "silent", "plain"],
)
def test_draining_takes_only_so_many_at_once(draining, site, stream, script):
    """With two drained already, the answers that others leave are ended at once, also those that are silent."""
    key = draining.key()
    site.azure.script(script, times=None)
    calls = [Call(draining, key, stream=stream) for _ in range(4)]
    site.azure.wait_for(lambda served: len(served) == 4)
    for call in calls:
        call.read_events(0 if script.delay else 4)

    for call in calls:
        call.leave()

    site.azure.wait_for(lambda served: sum(one.peer_left for one in served) == 2, timeout=A_SECOND + A_LITTLE)
    assert 2 == len(site.azure.in_progress)
    site.azure.wait_for(lambda served: all(one.peer_left for one in served), timeout=8)
    assert {"client_closed"} == {record["outcome"] for record in site.records_of(site.azure.served).values()}


# The default: models that think unseen


THINKER = "gpt-5-mini"
READ_ON = 2.0
THOUGHTS = Script(stall_after_events=2)
"""A stream of whose thoughts nobody sees anything."""


@pytest.fixture(scope="module")
def _reading_on(start_shared_gateway):
    """A gateway with 16 slots: it reads on for two seconds at most, two answers at once (an eighth)."""
    return start_shared_gateway(LLMGATEWAY_READ_ON_SECONDS=str(READ_ON), LLMGATEWAY_THREADS="20")


@pytest.fixture
def reading_on(_reading_on, site):
    return _reading_on


def test_a_model_that_thinks_is_read_on_for_its_count(reading_on, site):
    """Left in the middle of a stream, or before an answer began: its end tells what Azure bills."""
    key = reading_on.key()
    site.azure.script(Script(tokens=40, gap=0.02, reasoning_tokens=700))
    site.azure.script(Script(tokens=10, delay=0.6, reasoning_tokens=700))
    stream = Call(reading_on, key, stream=True, model=THINKER)
    stream.read_events(5)
    plain = Call(reading_on, key, model=THINKER)
    site.azure.wait_for(lambda served: len(served) == 2)

    stream.leave()
    plain.leave(reset=True)

    served = site.azure.wait_for(lambda served: all(one.finished for one in served))
    records = site.records_of(served)
    for one in served:
        record = records[one.client_request_id]
        assert ("upstream", 700) == (record["usage_source"], record["reasoning_tokens"])
        assert_right_tokens(one, record)


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_thinks_for_too_long_is_booked_at_the_bound(reading_on, site, stream):
    """It is stopped after LLMGATEWAY_READ_ON_SECONDS, and costs what it can have written in the whole time."""
    site.azure.script(THOUGHTS if stream else Script(delay=30))
    began = time.monotonic()
    call = Call(reading_on, reading_on.key(), stream=stream, model=THINKER)
    site.azure.wait_for(lambda served: served)
    call.read_events(2 if stream else 0)
    head = time.monotonic()
    time.sleep(0.5)  # it thinks

    call.leave()
    left = time.monotonic()
    [served] = site.azure.wait_for(lambda served: served[0].peer_left, timeout=READ_ON + 3)
    ended = time.monotonic()

    assert READ_ON - 0.1 < ended - left < READ_ON + A_SECOND + A_LITTLE
    record = site.records_of([served])[served.client_request_id]
    assert ("client_closed", "bound") == (record["outcome"], record["usage_source"])
    least, most = ended - (head if stream else began) - A_LITTLE, ended - began + ON_ITS_WAY_SECONDS + A_LITTLE
    assert least * FASTEST < record["completion_tokens"] < most * FASTEST


def test_a_limit_of_the_client_caps_the_bound(reading_on, site):
    """No model writes more than max_completion_tokens for each choice."""
    site.azure.script(THOUGHTS)
    call = Call(reading_on, reading_on.key(), stream=True, model=THINKER, max_completion_tokens=50, n=2)
    call.read_events(2)

    call.leave()

    [served] = site.azure.wait_for(lambda served: served[0].peer_left, timeout=READ_ON + 3)
    record = site.records_of([served])[served.client_request_id]
    assert ("bound", 100) == (record["usage_source"], record["completion_tokens"])


@pytest.mark.parametrize("stream", [False, True])
def test_only_some_are_read_on_at_once(reading_on, site, stream):
    """An eighth of the slots; the others are stopped within a second and booked at the bound. Slots stay free."""
    key = reading_on.key()
    site.azure.script(THOUGHTS if stream else Script(delay=30), times=12)
    calls = [Call(reading_on, key, stream=stream, model=THINKER) for _ in range(12)]
    site.azure.wait_for(lambda served: len(served) == 12)
    for call in calls:
        call.read_events(2 if stream else 0)

    for call in calls:
        call.leave()

    site.azure.wait_for(lambda served: sum(one.peer_left for one in served) == 10, timeout=A_SECOND + A_LITTLE)
    assert 2 == len(site.azure.in_progress)
    site.azure.wait_for(lambda served: all(one.peer_left for one in served), timeout=READ_ON + 3)
    records = site.records_of(site.azure.served)
    assert {("client_closed", "bound")} == {(one["outcome"], one["usage_source"]) for one in records.values()}
    assert all(one["completion_tokens"] >= FASTEST * ON_ITS_WAY_SECONDS for one in records.values())
    # The places are given back: another two are read on.
    site.azure.script(Script(tokens=10, delay=0.5))
    again = Call(reading_on, key, model=THINKER)
    site.azure.wait_for(lambda served: len(served) == 13)
    again.leave()
    served = site.azure.wait_for(lambda served: served[12].finished)[12]
    assert "upstream" == site.records_of([served])[served.client_request_id]["usage_source"]


def test_a_model_that_does_not_think_is_left_at_once(reading_on, site):
    """What it has written was seen, but for what is on its way."""
    served, record = left_while_it_speaks(reading_on, site)
    assert ("client_closed", "estimated") == (record["outcome"], record["usage_source"])
    assert_right_tokens(served, record)
