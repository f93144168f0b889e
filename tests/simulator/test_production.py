"""The model works unseen, and Azure bills what it has done."""

from __future__ import annotations

import time

import pytest

from llmgateway.records import Usage
from llmgateway.simulator import Deployment, Script, Simulator
from llmgateway.simulator.production import Production, Work
from tests.conftest import Clock

from .calls import CHAT, HELLO, STREAM, call, connect, message, receive_all, receive_until

PROMPT = Usage(prompt_tokens=8, total_tokens=8)
RATE = 400.0
THINKING = Script(reasoning_tokens=80, tokens=20, tokens_per_second=RATE)
"""0.2 seconds of silence and 0.05 of text."""


def work(**fields):
    return Work(prompt=PROMPT, **{"reasoning": 10, "written": (5,), **fields})


def test_thoughts_are_produced_first():
    """The bill grows by the reasoning, then by the text; it ends with the whole answer."""
    bills = [work().at(position) for position in (0, 4, 12, 15, 99)]

    assert [(bill.completion_tokens, bill.reasoning_tokens) for bill in bills] == [
        (0, 0),
        (4, 4),
        (12, 10),
        (15, 10),
        (15, 10),
    ]
    assert {bill.total_tokens - bill.completion_tokens for bill in bills} == {8}


def test_choices_are_produced_side_by_side():
    """Each one thinks for itself; a short one has ended when a long one goes on."""
    two = work(written=(5, 1))

    assert (two.at(4).completion_tokens, two.at(4).reasoning_tokens) == (8, 8)
    assert two.at(13).completion_tokens == 13 + 11
    assert two.whole.completion_tokens == 15 + 11


def test_a_bill_grows_with_the_seconds(clock: Clock):
    """From the beginning of the work to its end, never more than the whole answer."""
    production = Production(work(rate=4.0), clock=clock)
    assert production.billed == PROMPT
    production.begin()
    clock.advance(2)
    assert production.billed.completion_tokens == 8
    clock.advance(1.9)
    production.stop()
    clock.advance(60)

    assert production.billed == work().at(15)


def test_a_bill_without_a_rate_grows_with_the_events(clock: Clock):
    """The model works at no time, and no further than it is asked to."""
    production = Production(work(), clock=clock)
    production.begin()
    clock.advance(60)
    assert production.billed == PROMPT
    production.reach(12)

    assert production.billed.completion_tokens == 12


def test_a_stream_is_silent_while_the_model_thinks(azure):
    """Its head and the first filter event come at once, the text when it has been produced."""
    azure.script(THINKING)
    began = time.monotonic()
    with connect(azure.url) as peer:
        peer.sendall(message(STREAM))
        first = receive_until(peer, b"}\n\n\r\n")
        early = time.monotonic() - began
        receive_until(peer, b"0\r\n\r\n")
        late = time.monotonic() - began

    assert b'"choices":[]' in first
    assert first.count(b"data: ") == 1
    assert early < 0.1
    assert 0.25 <= late < 1
    [served] = azure.served
    assert served.billed == served.usage
    assert served.usage.completion_tokens == 100


def test_a_plain_answer_comes_at_its_end(azure):
    """Not even the head is sent before."""
    azure.script(THINKING)
    began = time.monotonic()
    with connect(azure.url) as peer:
        peer.sendall(message(CHAT))
        peer.recv(1)

        assert time.monotonic() - began >= 0.25
        peer.recv(65536)
    [served] = azure.wait_for(lambda served: served[0].finished)
    assert served.billed == served.usage


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
def test_a_client_that_leaves_pays_for_the_thoughts_so_far(azure, body):
    """It is noticed at once, in the middle of the silence."""
    azure.script(Script(reasoning_tokens=100_000, tokens_per_second=1000.0))
    began = time.monotonic()
    with connect(azure.url) as peer:
        peer.sendall(message(body))
        azure.wait_for(lambda served: served and served[0].billed and served[0].billed.completion_tokens >= 50)
    left = time.monotonic()
    [served] = azure.wait_for(lambda served: served[0].peer_left)
    noticed = time.monotonic()
    bill = served.billed

    assert noticed - left < 0.5
    assert 50 <= bill.completion_tokens <= 1000 * (noticed - began)
    assert bill.reasoning_tokens == bill.completion_tokens
    assert served.billed == bill, "it stopped working"
    assert served.usage.completion_tokens == 100_000 + 4


def test_a_client_that_leaves_after_some_words_pays_for_all_thoughts(azure):
    """What it has read, and what it has not seen."""
    azure.script(Script(reasoning_tokens=200, tokens=100_000, tokens_per_second=4000.0))
    with connect(azure.url) as peer:
        peer.sendall(message(STREAM))
        received = b""
        while received.count(b'"delta":{"content":"') < 10:
            received += peer.recv(4096)
    [served] = azure.wait_for(lambda served: served[0].peer_left)

    assert served.billed.reasoning_tokens == 200
    assert 209 <= served.billed.completion_tokens < 100_000


def test_an_answer_that_breaks_off_is_billed_up_to_there(azure):
    """Without a rate: what the events had."""
    azure.script(Script(tokens=30, reasoning_tokens=5, cut_after_events=12))
    call(azure, STREAM)
    azure.script(Script(tokens=30, error_event_after=12))
    call(azure, STREAM)
    cut, broken = azure.wait_for(lambda served: len(served) == 2 and not azure.in_progress)

    assert cut.billed.completion_tokens == 5 + 10
    assert broken.billed.completion_tokens == 10
    assert (cut.usage.completion_tokens, broken.usage.completion_tokens) == (35, 30)


def test_a_model_that_breaks_down_produces_no_more(azure):
    """Its error event ends the work, however long the client then stays."""
    azure.script(Script(tokens=300, tokens_per_second=2000.0, error_event_after=12))
    with connect(azure.url) as peer:
        peer.sendall(message(STREAM))
        receive_until(peer, b"0\r\n\r\n")
        time.sleep(0.02)  # in which the model would have gone on
    [served] = azure.served

    assert served.billed.completion_tokens == 10
    assert served.usage.completion_tokens == 300


def test_a_deployment_ends_long_answers(azure):
    """Its maximum holds with and without a bound of the client, reasoning included."""
    with Simulator(deployments=[Deployment("small", max_output_tokens=20)]) as small:
        small.script(Script(reasoning_tokens=15, tokens=50), times=2)
        free = call(small, {**CHAT, "model": "small"}).json
        bound = call(small, {**CHAT, "model": "small", "max_completion_tokens": 18}).json

    assert [answer["choices"][0]["finish_reason"] for answer in (free, bound)] == ["length", "length"]
    assert [answer["usage"]["completion_tokens"] for answer in (free, bound)] == [20, 18]


def test_a_long_name_of_a_function_is_part_of_the_bound(azure):
    """Nothing that is billed exceeds what the client allowed."""
    azure.script(Script(tool_call="a_name_of_many_tokens_in_all"))
    answer = call(azure, {**CHAT, "max_completion_tokens": 3}).json

    assert answer["usage"]["completion_tokens"] == 3


def test_a_client_that_leaves_before_the_work_began_pays_for_the_prompt(azure):
    """During the delay nothing is produced."""
    azure.script(Script(delay=20, tokens_per_second=RATE))
    with connect(azure.url) as peer:
        peer.sendall(message({**CHAT, "messages": HELLO}))
        azure.wait_for(lambda served: served and served[0].billed)
    [served] = azure.wait_for(lambda served: served[0].peer_left)

    assert served.billed == PROMPT


def test_many_events_at_a_rate_come_in_order(azure):
    """The pieces of a hundred thinking streams are each complete."""
    azure.script(Script(tokens=50, tokens_per_second=1000.0), times=None)
    peers = [connect(azure.url) for _ in range(30)]
    for peer in peers:
        peer.sendall(
            message({**CHAT, "stream": True}, headers={"api-key": "simulated-azure-key", "Connection": "close"})
        )
    bodies = [receive_all(peer) for peer in peers]
    for peer in peers:
        peer.close()

    assert all(body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") for body in bodies)
    assert {served.billed.completion_tokens for served in azure.served} == {50}
