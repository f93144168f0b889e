"""Limits as users and admins meet them: over HTTP, with several processes, with the official client."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier
from urllib.parse import quote

import openai
import pytest
import redis

from llmgateway.ratelimit.reservations import CounterRequest, Kind
from llmgateway.simulator import Script
from llmgateway.stores.sqlite import COUNTERS, SQLiteCounters, SQLiteDatabase
from tests.servers import wait_until

HELLO = [{"role": "user", "content": "Hello"}]


def group_of(gateway, **fields) -> str:
    name = f"group-{secrets.token_hex(4)}"
    assert 200 == gateway.admin("PUT", f"/admin/groups/{name}", json=fields).status
    return name


LIMITS_OF_TEN = {
    "requests_per_minute": {"requests_per_minute": 10},
    "tokens_per_minute": {"tokens_per_minute": 1070},  # 10 times 7 for "Hello" and 100 for the answer
    "parallel_requests": {"parallel_requests": 10},
    "budget in requests": {"budget": {"amount": 10, "unit": "requests", "period": "month"}},
    "budget in tokens": {"budget": {"amount": 1070, "unit": "tokens", "period": "day"}},
    "budget in dollars": {"budget": {"amount": 0.107, "unit": "usd", "period": "total"}},
}


def test_a_limit_of_ten_lets_ten_of_fifty_in(start_gateway, azure):
    """Fifty at once over four processes: exactly ten are admitted, whatever the limit is counted in, and whosever."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES="4", LLMGATEWAY_THREADS="64")
    prices = {"prompt": 100, "cached": 100, "completion": 100}
    assert 200 == gateway.admin("PUT", "/admin/models/gpt-4o-mini", json={"prices": prices}).status

    admitted = {name: crowd(gateway, azure, [gateway.key(limits=limits)]) for name, limits in LIMITS_OF_TEN.items()}
    admitted["member"] = crowd(gateway, azure, keys_of_a_member(gateway))
    admitted["person"] = crowd(gateway, azure, keys_of_a_person(gateway))

    gateway.admin("DELETE", "/admin/models/gpt-4o-mini")
    assert {name: {200: 10, 429: 40} for name in (*LIMITS_OF_TEN, "member", "person")} == admitted


def keys_of_a_member(gateway) -> list[str]:
    """Five keys of one person in a group. Ten is the smallest of the limits that hold for them."""
    user = f"Zoë {secrets.token_hex(4)}"
    limits = LIMITS_OF_TEN["budget in tokens"] | {"requests_per_minute": 40}
    group = group_of(gateway, member_limits=limits, limits={"parallel_requests": 45})
    return [gateway.key(user=user, group=group) for _ in range(5)]


def keys_of_a_person(gateway) -> list[str]:
    """Five keys of one person, in two groups and in none. Ten is the smallest of the limits that hold for them."""
    user = f"Ada {secrets.token_hex(4)}"
    limits = LIMITS_OF_TEN["budget in tokens"] | {"requests_per_minute": 60}
    assert 200 == gateway.admin("PUT", f"/admin/users/{quote(user)}", json={"limits": limits}).status
    groups = [group_of(gateway, member_limits={"requests_per_minute": 30}) for _ in range(2)]
    return [gateway.key(user=user, group=group) for group in (*groups, *groups, None)]


def crowd(gateway, azure, keys: list[str]) -> Counter[int]:
    """How many of fifty are admitted while none of them ends; each comes over a connection of its own."""
    azure.reset()
    azure.script(Script(stall_after_events=0), times=None)
    ready = Barrier(50)

    def ask(number: int) -> int:
        key = keys[number % len(keys)]
        with closing(gateway.connect(timeout=60)) as connection:
            connection.connect()
            ready.wait()
            return gateway.chat(key, max_tokens=100, connection=connection).status

    with ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(ask, number) for number in range(50)]
        wait_until(lambda: sum(one.done() for one in asked) + len(azure.served) >= 50, seconds=30)
        azure.release()
        return Counter(one.result() for one in asked)


def test_limits_change_with_the_next_request(pair):
    """What an admin sets or removes holds at once in every process."""
    made = pair.new_key(limits={"requests_per_minute": 1})
    assert [200, 429, 429] == [pair.chat(made["key"]).status for _ in range(3)]

    pair.admin("PATCH", f"/admin/keys/{made['id']}", json={"limits": {"requests_per_minute": None}})
    assert [200] * 4 == [pair.chat(made["key"]).status for _ in range(4)]

    pair.admin("PATCH", f"/admin/keys/{made['id']}", json={"limits": {"requests_per_minute": 2}})
    # The window still has the first one; what was asked while nobody counted is not held against the user.
    assert [200, 429, 429] == [pair.chat(made["key"]).status for _ in range(3)]


def test_a_group_has_its_limits_together(pair):
    """Three members, a limit of two: the third is told that it was the group's."""
    group = group_of(pair, limits={"requests_per_minute": 2})
    keys = [pair.key(group=group) for _ in range(3)]

    first, second, third = (pair.chat(key) for key in keys)

    assert (200, 200, 429) == (first.status, second.status, third.status)
    assert "group.requests_per_minute" == third.header("x-llmgateway-limit")
    assert group in third.error["message"]


def test_limits_of_a_person_change_with_the_next_request(pair):
    """Set, raised, lowered again and lifted: every process goes by it at once."""
    user = f"Grace {secrets.token_hex(4)}"
    keys = [pair.key(user=user) for _ in range(2)]
    path = f"/admin/users/{quote(user)}"

    def statuses() -> list[int]:
        return [pair.chat(key).status for key in keys * 2]

    assert [200] * 4 == statuses()
    assert 200 == pair.admin("PUT", path, json={"limits": {"requests_per_minute": 1}}).status
    assert [200, 429, 429, 429] == statuses()
    raised = {"limits": {"requests_per_minute": 3}, "until": "2099-01-01"}
    assert 200 == pair.admin("POST", f"{path}/raise", json=raised).status
    assert [200, 200, 429, 429] == statuses()
    assert 204 == pair.admin("DELETE", f"{path}/raise").status
    assert [429] * 4 == statuses()
    assert 204 == pair.admin("DELETE", path).status
    assert [200] * 4 == statuses()


def test_the_organisation_has_limits(gateway):
    """Everybody together, whoever it is."""
    gateway.admin("PUT", "/admin/limits", json={"budget": {"amount": 0.0000001, "unit": "usd", "period": "total"}})
    try:
        answers = [gateway.chat(gateway.key()) for _ in range(2)]
    finally:
        gateway.admin("PUT", "/admin/limits", json={"budget": None})

    assert 429 == answers[-1].status
    assert ("insufficient_quota", "organisation.budget") == (
        answers[-1].error["code"],
        answers[-1].header("x-llmgateway-limit"),
    )
    assert 200 == gateway.chat(gateway.key()).status


def test_a_stream_is_committed_before_its_end_is_seen(gateway):
    """A client that asks again as soon as it has read [DONE] is not refused for the request that has just ended."""
    key = gateway.key(limits={"parallel_requests": 1, "tokens_per_minute": 100_000})

    for _ in range(20):
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
            for _ in range(3):
                assert [*client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True)]


def test_a_users_own_view(gateway):
    """Who asks sees the limits, what is left, and what was used; of the group too."""
    group = group_of(gateway, limits={"tokens_per_minute": 5000})
    limits = {
        "requests_per_minute": 5,
        "tokens_per_minute": None,
        "parallel_requests": 2,
        "budget": {"amount": 3.0, "unit": "requests", "period": "month"},
    }
    key = gateway.key(group=group, limits=limits)
    answer = gateway.chat(key)
    tokens = answer.json()["usage"]["total_tokens"]

    wait_until(lambda: gateway.request("GET", "/v1/me", key=key).json()["usage"]["total"]["requests"] == 1)
    me = gateway.request("GET", "/v1/me", key=key).json()

    assert limits == me["limits"]
    assert {"requests_per_minute": 4, "tokens_per_minute": None, "parallel_requests": 2, "budget": 2} == me["remaining"]
    assert 5000 - tokens == me["shared"]["group"]["remaining"]["tokens_per_minute"]
    assert me["shared"]["organisation"] is None
    assert ("5", "4") == (
        answer.header("x-ratelimit-limit-requests"),
        answer.header("x-ratelimit-remaining-requests"),
    )


def test_an_error_of_azures_brings_the_users_headers(gateway, azure):
    """x-ratelimit-* are the key's own, also where Azure says no; Azure's are renamed."""
    key = gateway.key(limits={"requests_per_minute": 5, "tokens_per_minute": 1000})
    azure.script(Script(fault="token_rate_limit"))

    answer = gateway.chat(key)

    assert 429 == answer.status
    assert ("5", "1000") == (
        answer.header("x-ratelimit-limit-requests"),
        answer.header("x-ratelimit-remaining-tokens") and answer.header("x-ratelimit-limit-tokens"),
    )
    remaining = gateway.request("GET", "/v1/me", key=key).json()["remaining"]
    assert {"requests_per_minute": 4, "tokens_per_minute": 1000} == {
        name: remaining[name] for name in ("requests_per_minute", "tokens_per_minute")
    }


def test_redis_flushed_in_the_middle(stores, gateway, azure):
    """Keys still work, and a budget is what the usage log says."""
    if stores.redis is None:
        pytest.skip("this combination has no Redis to flush")
    key = gateway.key(limits={"budget": {"amount": 3, "unit": "requests", "period": "month"}})
    assert [200, 200] == [gateway.chat(key).status for _ in range(2)]
    with redis.Redis.from_url(stores.redis.url) as client:
        client.flushall()

    assert [200, 429] == [gateway.chat(key).status for _ in range(2)]


class Attempts(openai.DefaultHttpxClient):
    """The official client's own transport, which counts."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[float] = []

    def send(self, request, **arguments):
        self.sent.append(time.monotonic())
        return super().send(request, **arguments)


def test_the_official_client_waits_out_a_rate_limit(start_alone):
    """Its own retry logic reads how long to wait, comes back once, and succeeds."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="2")  # one process would count in its memory
    made = gateway.new_key(limits={"requests_per_minute": 1})
    used_before(gateway, made["id"], seconds=58)

    with Attempts() as transport:
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=made["key"], http_client=transport)
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)

    first, second = transport.sent
    assert "You said: Hello" in answer.choices[0].message.content
    assert 1 < second - first < 10  # not the half a second of a client that was told nothing


def used_before(gateway, key_id: str, *, seconds: float) -> None:
    """Let the key have made a request *seconds* ago."""
    counter_request = CounterRequest(counter=f"key:{key_id}:requests", kind=Kind.WINDOW, amount=1, limit=1)
    with closing(SQLiteDatabase(gateway.instance / "counters.sqlite", migrations=COUNTERS)) as database:
        counters = SQLiteCounters(database, clock=lambda: time.time() - seconds)
        assert counters.reserve("earlier", [counter_request], lease=60).admitted


def test_the_official_client_does_not_hammer_on_a_spent_budget(start_alone):
    """One request, one refusal, and the exception that says that money is the matter."""
    gateway = start_alone()
    key = gateway.key(limits={"budget": {"amount": 1, "unit": "requests", "period": "total"}})
    gateway.chat(key)

    with Attempts() as transport:
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, http_client=transport)
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)

    assert 1 == len(transport.sent)
    assert "insufficient_quota" == refused.value.code
    assert "does not renew" in refused.value.message


def test_what_was_used_survives_a_restart(start_alone):
    """Also the last moment before it, in a process that counts alone."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="1")
    key = gateway.key(limits={"requests_per_minute": 2})
    assert [200, 200] == [gateway.chat(key).status for _ in range(2)]

    gateway.restart()

    assert 429 == gateway.chat(key).status
