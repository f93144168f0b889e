"""However an exchange ends, on either side: one record, the right outcome, Azure's tokens, a free slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llmgateway.simulator import FAULTS, REFUSALS_OF_STREAM_OPTIONS, Raw, Script, Served
from llmgateway.usage.booking import ON_ITS_WAY_SECONDS
from llmgateway.usage.observed import FASTEST
from tests.servers import wait_until

from .calls import Call, Reading
from .site import CLOSE_WAIT, ESTABLISHED, assert_right_tokens, connections_to, unseen_at_most

pytestmark = pytest.mark.slow

THREADS = 20
SLOTS = THREADS - 4
PATIENCE = 1.0
"""Seconds that the gateway waits for Azure; more than a busy machine takes to do nothing."""

TOKENS = 8
SENT_BEFORE_USAGE = 2 + TOKENS + 1
"""Events of a stream of so many tokens that reach the client: filter results, role, text, finish."""

TEXT_EVENT = 'data: {"choices":[{"delta":{"content":"é"},"finish_reason":"stop","index":0}]}\n\n'.encode()
USAGE_EVENT = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}\n\n'
SHORT_STREAM = TEXT_EVENT + USAGE_EVENT + b"data: [DONE]\n\n"

LONGEST = 6000
"""Bytes; a little more than such a stream has."""


@dataclass(frozen=True)
class Leaving:
    """When a client leaves, and how."""

    events: int | None = None
    read: int | None = None
    reset: bool = False


@dataclass(frozen=True)
class Plan:
    """One exchange: what Azure does, and the client."""

    script: Script
    stream: bool
    leaving: Leaving | None = None


framings = st.sampled_from([None, "chunked", "length", "close"])
splits = st.none() | st.integers(1, 400) | st.lists(st.integers(1, LONGEST), max_size=5).map(tuple)

ordinary = st.builds(
    Script,
    tokens=st.integers(0, 30),
    reasoning_tokens=st.sampled_from([None, 0, 64]),
    cached_tokens=st.sampled_from([0, 3]),
    split=splits,
    framing=framings,
    delay=st.sampled_from([0.0, 0.05]),
)
cut_anywhere = st.builds(
    Script,
    tokens=st.just(TOKENS),
    cut_after_bytes=st.integers(0, LONGEST),
    reset=st.booleans(),
    split=splits,
    framing=framings,
)
cut_between_events = st.builds(
    Script, tokens=st.just(TOKENS), cut_after_events=st.integers(0, 14), reset=st.booleans(), framing=framings
)
silent = st.builds(Script, tokens=st.just(TOKENS), stall_after_events=st.integers(0, 14)) | st.just(Script(delay=30))
error_event = st.builds(Script, tokens=st.just(TOKENS), error_event_after=st.integers(0, 12), split=splits)
oversized = st.builds(Script, tokens=st.just(3), oversized_line=st.integers(1000, 300_000))
no_answer = st.builds(Script, refuse=st.just(True), reset=st.booleans())
# What names stream_options makes the gateway ask again, see tests/functional/test_stream_options.py.
faults = st.builds(Script, fault=st.sampled_from(sorted(FAULTS.keys() - REFUSALS_OF_STREAM_OPTIONS.keys())))
garbage = st.builds(
    lambda body, headers, framing: Script(raw=Raw(200, headers, body), framing=framing),
    st.binary(max_size=3000) | st.just(b'{"choices":[') | st.just(b"data: {\n\ndata: [DONE\n\n"),
    st.sampled_from(
        [
            {"content-type": "application/json"},
            {"content-type": "text/event-stream"},
            {"content-type": "text/html", "transfer-encoding": "chunked"},
            {"content-type": "text/event-stream", "transfer-encoding": "chunked"},
            {"content-type": "application/json", "content-length": "10"},
            {"content-type": "application/json", "content-length": "5000"},
            {"content-type": "text/event-stream", "content-length": "5000"},
            {"content-type": "application/json", "content-length": "garbage"},
        ]
    ),
    st.just("close"),
)


def stays(scripts: st.SearchStrategy[Script]) -> st.SearchStrategy[Plan]:
    """The client reads the answer to its end."""
    plans = st.builds(Plan, scripts, st.booleans())
    # Silent behind a plain answer's last byte: its connection is used again, and leads nowhere.
    return plans.filter(lambda plan: plan.stream or not plan.script.stall_after_events)


# Azure says nothing more than what the client has read, so that nothing but its leaving can end it.
leaves_a_silence = st.builds(
    lambda events, reset: Plan(
        Script(tokens=TOKENS, stall_after_events=events), stream=True, leaving=Leaving(events=events, reset=reset)
    ),
    st.integers(0, SENT_BEFORE_USAGE),
    st.booleans(),
)
leaves_before_the_head = st.builds(
    lambda stream, reset: Plan(Script(delay=30), stream, Leaving(read=0, reset=reset)), st.booleans(), st.booleans()
)
leaves_anywhere = st.builds(
    lambda stream, read, reset, gap: Plan(Script(tokens=TOKENS, gap=gap), stream, Leaving(read=read, reset=reset)),
    st.booleans(),
    st.integers(0, LONGEST),
    st.booleans(),
    st.sampled_from([0.0, 0.01]),
)
# One of every kind at once, in any order: left to choose, most of them would be of one kind.
one_of_each = st.tuples(
    stays(ordinary),
    stays(cut_anywhere),
    stays(cut_between_events),
    stays(silent),
    stays(error_event),
    stays(oversized),
    stays(no_answer),
    stays(faults),
    stays(garbage),
    leaves_a_silence,
    leaves_before_the_head,
    leaves_anywhere,
).flatmap(st.permutations)


def test_every_ending_is_booked_once_and_right(site, start_gateway):
    """Whatever Azure and the clients do, the books are Azure's, and afterwards every slot is free."""
    gateway = start_gateway(
        LLMGATEWAY_THREADS=str(THREADS),
        LLMGATEWAY_FIRST_BYTE_TIMEOUT=str(PATIENCE),
        LLMGATEWAY_BETWEEN_BYTES_TIMEOUT=str(PATIENCE),
    )
    key = gateway.key()

    @settings(
        max_examples=20,
        deadline=None,
        database=None,
        print_blob=True,
        # Looking for a smaller example takes a second for each, and minutes in all.
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(one_of_each)
    def books_balance(plans: list[Plan]) -> None:
        site.azure.reset()
        started = [start(plan, rank) for rank, plan in enumerate(plans)]
        readings = [None if plan.leaving else call.reading() for plan, call in zip(plans, started, strict=True)]
        wait_until(lambda: not site.azure.in_progress, seconds=5, what="an Azure at rest")
        served = site.azure.served
        records = site.records_of(served)
        assert len(plans) == len(served) == len(records)
        for plan, one, reading in zip(plans, served, readings, strict=True):
            judge(plan, one, reading, records[one.client_request_id])

    def start(plan: Plan, rank: int) -> Call:
        # One after the other, so that each meets its own script; they run side by side after that.
        site.azure.script(plan.script)
        call = Call(gateway, key, stream=plan.stream)
        served = site.azure.wait_for(lambda served: len(served) > rank)[rank]
        if plan.leaving:
            leave(call, plan.leaving)
            site.azure.wait_for(lambda _: served.peer_left or served.finished, timeout=2)
        return call

    books_balance()

    booked = site.records()
    wait_until(
        lambda: len(booked) == gateway.admin("GET", "/admin/usage").json()["total"]["requests"], what="a true report"
    )
    assert_every_place_is_free(site, gateway, key)
    states = connections_to(site.azure.port)
    assert states[ESTABLISHED] <= SLOTS
    assert 0 == states[CLOSE_WAIT], "a connection that Azure has closed is still held"
    gateway.stop()
    assert 0 == connections_to(site.azure.port)[ESTABLISHED]


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
def test_a_client_may_leave_at_any_event(site, start_gateway, reset):
    """From the head to the last event before the bill: one record each, with the text that had come."""
    gateway = start_gateway(LLMGATEWAY_THREADS=str(THREADS))
    key = gateway.key()
    calls = []
    for events in range(SENT_BEFORE_USAGE + 1):
        site.azure.script(Script(tokens=TOKENS, stall_after_events=events))
        calls.append(Call(gateway, key, stream=True))
        site.azure.wait_for(lambda served, rank=events: len(served) > rank)

    for events, call in enumerate(calls):
        leave(call, Leaving(events=events, reset=reset))

    served = site.azure.wait_for(lambda served: all(one.peer_left for one in served))
    records = site.assert_books_balance(gateway)
    found = [records[one.client_request_id] for one in served]
    assert {("client_closed", "estimated")} == {(one["outcome"], one["usage_source"]) for one in found}
    for events, record in enumerate(found):
        text = min(max(0, events - 2), TOKENS)  # filter results and role come first
        on_its_way = record["completion_tokens"] - text
        assert FASTEST * ON_ITS_WAY_SECONDS <= on_its_way <= unseen_at_most(record)
    assert_every_place_is_free(site, gateway, key)
    gateway.stop()


# Where the end of the connection is the end of the body, [DONE] without its blank line is all there has to be.
@pytest.mark.parametrize(("framing", "missing"), [("chunked", 0), ("close", len("\n\n"))])
def test_azure_may_break_off_at_any_byte(site, start_gateway, framing, missing):
    """One record each, with Azure's own count where that had come; the client is told, unless it has everything."""
    gateway = start_gateway(LLMGATEWAY_LOG_LEVEL="ERROR")
    key = gateway.key()
    raw = Raw(200, {"content-type": "text/event-stream"}, SHORT_STREAM)
    told = []
    for cut in range(len(SHORT_STREAM)):
        site.azure.script(Script(raw=raw, cut_after_bytes=cut, framing=framing))
        told.append(b'data: {"error"' in Call(gateway, key, stream=True).reading().body)

    served = site.azure.served
    records = site.records_of(served)
    assert len(SHORT_STREAM) == len(served) == len(site.records())
    found = [records[one.client_request_id] for one in served]
    incomplete = len(SHORT_STREAM) - missing
    assert [True] * incomplete + [False] * missing == told
    assert ["broken"] * incomplete + ["ok"] * missing == [record["outcome"] for record in found]
    # A line that lacks nothing but its end may be counted or not.
    bill = len(TEXT_EVENT + USAGE_EVENT)
    sources = [record["usage_source"] for record in found]
    assert {"estimated"} == {*sources[: bill - 2]}
    assert {"upstream"} == {*sources[bill:]}
    for record in found[: bill - 2]:
        assert 1 < FASTEST * ON_ITS_WAY_SECONDS <= record["completion_tokens"] <= 1 + unseen_at_most(record)
    assert {1} == {record["completion_tokens"] for record in found[bill:]}
    gateway.stop()


def leave(call: Call, leaving: Leaving) -> None:
    try:
        if leaving.events is not None:
            call.read_events(leaving.events)
        if leaving.read is not None:
            call.read_bytes(leaving.read)
    finally:
        call.leave(reset=leaving.reset)


def judge(plan: Plan, served: Served, reading: Reading | None, record: dict[str, Any]) -> None:
    """Hold a record against what really happened."""
    assert plan.stream == record["stream"]
    assert_right_tokens(served, record)
    if reading is None:
        judge_the_left(served, record)
    elif plan.script.raw is not None:
        assert record["outcome"] in ("ok", "broken")
        # An answer with reasoning has taught the gateway that this deployment thinks.
        assert record["usage_source"] in ("estimated", "bound")
    else:
        assert expected_outcome(plan, served, reading) == record["outcome"]
        judge_the_tokens(plan, served, record)
    if record["outcome"] in ("ok", "upstream_error"):
        assert served.status == record["status"]


def judge_the_left(served: Served, record: dict[str, Any]) -> None:
    if not served.finished:
        assert served.peer_left
        assert "client_closed" == record["outcome"]
    else:  # Azure was quicker than the news
        assert record["outcome"] in ("client_closed", "ok")


def expected_outcome(plan: Plan, served: Served, reading: Reading) -> str:
    """What a client that stayed, and Azure, have seen happen."""
    script = plan.script
    if script.fault is not None:
        return "upstream_error"
    if plan.stream and b'data: {"error"' in served.body_sent:
        return "upstream_error"
    if served.finished:
        return "ok"
    if reading.status == 200 and (b"[DONE]" in reading.body if plan.stream else reading.complete):
        # Cut or silent behind the answer's own end. A plain one has such an end only if it tells its length, or
        # if the end of the connection is its end: then nobody can say that it was cut.
        assert reading.done if plan.stream else script.framing in (None, "length", "close")
        return "ok"
    return "timeout" if script.stall_after_events is not None or script.delay else "broken"


def judge_the_tokens(plan: Plan, served: Served, record: dict[str, Any]) -> None:
    """What Azure has reported, and the network delivered, is not estimated."""
    if not plan.stream or plan.script.reset:
        return  # half a plain answer says nothing; a reset may take with it what was under way
    _, reported, rest = served.body_sent.partition(b'"total_tokens"')
    if reported and b"\n\n" in rest:
        assert "upstream" == record["usage_source"]


def assert_every_place_is_free(site, gateway, key):
    """As many requests as there are slots find one, and the next is refused."""
    site.azure.reset()
    site.azure.script(Script(stall_after_events=1), times=None)
    calls = [Call(gateway, key, stream=True) for _ in range(SLOTS)]
    served = site.azure.wait_for(lambda served: len(served) == SLOTS)
    assert 503 == gateway.chat(key).status
    site.azure.release()
    assert [True] * SLOTS == [call.reading().done for call in calls]
    assert {"ok"} == {record["outcome"] for record in site.records_of(served).values()}
