"""Budgets under many parallel requests whose answers nothing limits, on every counter store."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from threading import Barrier
from typing import Any

import pytest

from llmgateway.simulator import Script, Simulator
from tests.functional.conftest import redis_environ
from tests.gateway_process import GatewayProcess
from tests.servers import RedisServer, wait_until

ANSWER = 20_000
"""Tokens of one answer. The model thinks for most of them, which costs the simulator nothing."""
TOKENS = 5000
DOLLARS = 0.05
"""Less than one answer of gpt-4o costs: 20,000 tokens at 10 USD per million."""
CROWDS = (30, 100, 300)
HELD, SPENT = "rate_limit_exceeded", "insufficient_quota"

Answered = Counter[int | str]
"""How many requests were answered with this status, or with this code of an error."""


def budget(amount: float, unit: str) -> dict[str, Any]:
    return {"budget": {"amount": amount, "unit": unit, "period": "day"}}


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def gateway(request: pytest.FixtureRequest, start_alone: Callable[..., GatewayProcess]) -> GatewayProcess:
    """A gateway that counts there, and has room for everybody."""
    alone = {"LLMGATEWAY_KEY_SHARE": "1"}  # one key takes all of the slots
    if request.param == "memory":
        return start_alone(LLMGATEWAY_PROCESSES="1", LLMGATEWAY_THREADS=str(max(CROWDS) + 8), **alone)
    settings = {"LLMGATEWAY_PROCESSES": "4", "LLMGATEWAY_THREADS": "128", **alone}
    if request.param == "redis":
        settings |= redis_environ(request.getfixturevalue("redis_server"))
    return start_alone(**settings)


def asked(gateway: GatewayProcess, key: str, connection: HTTPConnection, **fields: Any) -> int | str:
    """The status of the answer, or the code of the error."""
    answer = gateway.chat(key, connection=connection, **{"model": "gpt-4o", **fields})
    return answer.status if answer.status == 200 else str(answer.error["code"])


def ask_with_all(gateway: GatewayProcess, key: str, ready: Barrier, **fields: Any) -> int | str:
    with closing(gateway.connect(timeout=60)) as connection:
        connection.connect()
        ready.wait()
        return asked(gateway, key, connection, **fields)


def crowd(gateway: GatewayProcess, azure: Simulator, keys: Sequence[str], **fields: Any) -> Answered:
    """Let all of *keys* ask at once, and end no answer before everybody else was refused."""
    azure.reset()
    azure.script(Script(reasoning_tokens=ANSWER, stall_after_events=0), times=None)
    ready = Barrier(len(keys))
    with ThreadPoolExecutor(len(keys)) as pool:
        requests = [pool.submit(ask_with_all, gateway, key, ready, **fields) for key in keys]
        try:
            wait_until(lambda: sum(one.done() for one in requests) + len(azure.served) >= len(keys), seconds=60)
        finally:
            azure.release()
        return Counter(one.result() for one in requests)


def used(azure: Simulator) -> int:
    return sum(one.usage.total_tokens for one in azure.served if one.usage)


def test_a_budget_is_exceeded_by_one_answer_at_most(gateway, azure):
    """However many ask at once, one of them is answered; the others wait, and then find the budget spent."""
    for unit, amount in (("tokens", TOKENS), ("usd", DOLLARS)):
        for parallel in CROWDS:
            key = gateway.key(limits=budget(amount, unit))

            assert {200: 1, HELD: parallel - 1} == crowd(gateway, azure, [key] * parallel)

            assert ANSWER < used(azure) < ANSWER + 100
            assert {SPENT: 3} == crowd(gateway, azure, [key] * 3)


def test_a_budget_of_requests_is_never_exceeded(gateway, azure):
    """A request is one request, whatever its answer is."""
    for parallel in CROWDS:
        key = gateway.key(limits=budget(10, "requests"))

        assert {200: 10, HELD: parallel - 10} == crowd(gateway, azure, [key] * parallel)


def test_choices_and_absurd_limits_are_held_too(gateway, azure):
    """A request for 128 answers, or for more than the model can write, is no way around a budget."""
    for fields in ({"n": 2}, {"max_tokens": 10**9}, {"max_completion_tokens": 5000}, {"max_tokens": None}):
        key = gateway.key(limits=budget(TOKENS, "tokens"))

        assert {200: 1, HELD: 29} == crowd(gateway, azure, [key] * 30, **fields)


def test_max_tokens_lets_more_run_at_once(gateway, azure):
    """As the refusal says."""
    key = gateway.key(limits=budget(TOKENS, "tokens"))

    assert {200: 9, HELD: 21} == crowd(gateway, azure, [key] * 30, max_tokens=500)

    assert used(azure) <= TOKENS


def group_keys(gateway: GatewayProcess, amount: int) -> list[str]:
    """Thirty keys that share a budget of so many tokens."""
    group = f"group-{secrets.token_hex(4)}"
    assert 200 == gateway.admin("PUT", f"/admin/groups/{group}", json={"limits": budget(amount, "tokens")}).status
    return [gateway.key(group=group) for _ in range(30)]


def test_a_shared_budget_lets_several_in(gateway, azure):
    """Of a deployment that is new, two answers are let in by a budget of 5,000 tokens; then the budget is spent."""
    for parallel, model in zip(CROWDS, ("gpt-4o", "gpt-4o-mini", "o4-mini"), strict=True):
        keys = group_keys(gateway, TOKENS)

        assert {200: 2, HELD: parallel - 2} == crowd(gateway, azure, (keys * 10)[:parallel], model=model)

        assert {SPENT: 3} == crowd(gateway, azure, keys[:3], model=model)


def test_a_shared_budget_lets_fewer_in_when_answers_are_known_to_be_long(start_alone, azure):
    """At first 48 requests share 100,000 tokens; later six, each with the longest answer of gpt-4o."""
    gateway = start_alone(LLMGATEWAY_THREADS="128")

    for admitted in (48, 6):
        keys = group_keys(gateway, 100_000) * 4

        assert {200: admitted, HELD: 100 - admitted} == crowd(gateway, azure, keys[:100])


def test_tokens_per_minute_are_exceeded_by_answers_that_nobody_expected(gateway, azure):
    """The first requests of a key are estimated as short: about 260 tokens of 5,000 each, so some 19 are let in."""
    for parallel in CROWDS:
        key = gateway.key(limits={"tokens_per_minute": TOKENS})

        answered = crowd(gateway, azure, [key] * parallel)

        assert 17 <= answered[200] <= 19
        assert {200: answered[200], HELD: parallel - answered[200]} == answered


@pytest.mark.parametrize(("amount", "answer"), [(TOKENS, 700), (60_000, 16_000)])
def test_clients_that_try_again_use_a_budget_up_and_no_more(gateway, azure, amount, answer):
    """Thirty clients that never give up get answers until the rest is too little, and exceed it by one at most."""
    azure.reset()
    azure.script(Script(reasoning_tokens=answer, delay=0.02), times=None)
    key = gateway.key(limits=budget(amount, "tokens"))
    ready = Barrier(30)

    def insist() -> Answered:
        answered: Answered = Counter()
        while not answered[SPENT]:
            with closing(gateway.connect(timeout=60)) as connection:
                connection.connect()
                if not answered:
                    ready.wait()
                answered[asked(gateway, key, connection)] += 1
        return answered

    with ThreadPoolExecutor(30) as pool:
        answered = sum((one.result() for one in [pool.submit(insist) for _ in range(30)]), Counter())

    assert {200, HELD, SPENT} == answered.keys()
    assert len(azure.served) == answered[200]
    assert amount - 300 < used(azure) < amount + answer + 100
