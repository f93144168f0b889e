"""An admin finds what a user has seen, on every combination of stores; a flood of refusals disturbs nobody."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

from llmgateway.simulator import Script
from tests.gateway_process import dump
from tests.servers import free_port, wait_until

HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"


def found(gateway, id_):
    answer = gateway.admin("GET", f"/admin/logs/{id_}")
    assert 200 == answer.status, answer.body
    return answer.json()


def refusals(gateway, query=""):
    return gateway.admin("GET", f"/admin/logs?kind=refusal&limit=1000{query}").json()["items"]


def metric(gateway, name):
    text = gateway.admin("GET", "/metrics").body.decode()
    (value,) = re.findall(rf"^{name}(?:_total)? (\S+)$", text, re.MULTILINE)
    return float(value)


def ask(gateway, key):
    return gateway.request("POST", CHAT, key=key, json=HELLO)


def test_every_kind_of_refusal_is_found_by_its_id(start_gateway, azure):
    """401, 403, 404, 413, 415, 429 and 400, on the way that real requests take; once it is stored as well."""
    # Of its own: refusals of other tests from this address would be counted with these.
    gateway = start_gateway(LLMGATEWAY_MAX_BODY_BYTES="150000")
    key = gateway.key(user="ada-refused", models=["gpt-4o-mini"], limits={"requests_per_minute": 50})
    limited = gateway.key(user="ada-limited", limits={"budget": {"amount": 1, "unit": "requests", "period": "day"}})
    assert 200 == ask(gateway, limited).status
    answers = [
        ask(gateway, "llmgw-nobody-has-this-one"),
        gateway.request("POST", CHAT, key=key, json=HELLO | {"model": "gpt-4o"}),
        gateway.request("GET", "/v1/models/gpt-9", key=key),
        gateway.request("POST", "/v1/chat", key=key, json=HELLO),
        gateway.request("POST", CHAT, key=key, body=b"x" * 150_001),
        gateway.request("POST", CHAT, key=key, json=HELLO, headers={"Content-Encoding": "gzip"}),
        ask(gateway, limited),
        gateway.request("POST", CHAT, key=key, body=b"{"),
        gateway.request("GET", "/admin/keys", headers={"AdminKey": "not the right one"}),
        gateway.request("GET", "/v1/me", headers={"Transfer-Encoding": "gzip, chunked"}),
    ]

    for turn in ("in memory", "stored"):
        if turn == "stored":
            last = answers[-1].header("x-request-id")
            wait_until(lambda last=last: last in {each["id"] for each in refusals(gateway)}, what="the last refusal")
        for answer in answers:
            refusal = found(gateway, answer.header("x-request-id"))
            assert ("refusal", answer.status) == (refusal["kind"], refusal["status"])
            assert (answer.error["code"], answer.error["message"]) == (refusal["code"], refusal["message"])
            assert refusal["what_to_do"]
    assert {401, 403, 404, 413, 415, 429, 400} <= {answer.status for answer in answers}
    assert {"key.budget"} == {each["limit"] for each in refusals(gateway, "&user=ada-limited")}
    assert {403, 404, 400} <= {each["status"] for each in refusals(gateway, "&user=ada-refused")}


def test_what_azure_got_is_found_by_both_ids(gateway, key, azure):
    answer = ask(gateway, key)
    ids = answer.header("x-request-id"), answer.header("apim-request-id") or answer.header("x-upstream-request-id")

    for id_ in ids:
        wait_until(lambda id_=id_: "stored" == found(gateway, id_)["state"], what="the record in the store")
        assert ("record", ids[0], None) == tuple(found(gateway, id_)[name] for name in ("kind", "id", "what_to_do"))


def test_a_request_that_runs_is_found(pair, azure):
    """By any process of this host, before Azure has ended its answer."""
    key = pair.key(user="waits")
    azure.script(Script(stall_after_events=2))
    connection = pair.connect()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", CHAT, dump(HELLO | {"stream": True}), headers)
    response = connection.getresponse()
    id_ = response.getheader("x-request-id")

    assert {("record", "running")} == {(each["kind"], each["state"]) for each in (found(pair, id_) for _ in range(6))}
    azure.release()
    response.read()
    connection.close()
    wait_until(lambda: "stored" == found(pair, id_)["state"], what="the record in the store")


def test_a_flood_disturbs_nobody_and_fills_nothing(start_gateway, stores):
    """Ten thousand refusals of one key and one address: a good request takes no longer, and few entries are kept.

    A fifth of it where other stores are behind: what keeps it from them is the same.
    """
    each_sends = 1250 if stores.redis is stores.mongo is None else 250
    gateway = start_gateway()
    good, bad = gateway.key(user="good"), gateway.key(user="flood", active=False)
    before = len(refusals(gateway))
    quiet = min(timed(gateway, good) for _ in range(10))

    def flood(number):
        connection = gateway.connect()
        for _ in range(each_sends):
            connection.request("GET", "/v1/me", headers={"Authorization": f"Bearer {bad if number % 2 else 'nobody'}"})
            connection.getresponse().read()
        connection.close()

    with ThreadPoolExecutor(8) as threads:
        floods = threads.map(flood, range(8))
        times = [timed(gateway, good) for _ in range(20)]
        list(floods)

    assert sorted(times)[len(times) // 2] < quiet + 1
    of_flood = lambda: refusals(gateway, "&code=invalid_api_key")  # noqa: E731
    wait_until(lambda: sum(each["count"] for each in of_flood()) >= 8 * each_sends, what="all refusals")
    assert len(refusals(gateway)) - before <= 10
    assert 0 == metric(gateway, "llmgateway_refusals_dropped")


def timed(gateway, key):
    began = time.perf_counter()
    assert 200 == ask(gateway, key).status
    return time.perf_counter() - began


def test_a_gentle_stop_loses_none(start_gateway):
    """What was refused in the last moment is there after a restart."""
    gateway = start_gateway()
    ids = [
        gateway.request("GET", "/v1/me", key=gateway.key(user=f"u{n}", active=False)).header("x-request-id")
        for n in range(20)
    ]

    gateway.restart()

    assert ids == [found(gateway, id_)["id"] for id_ in ids]


def test_while_the_store_is_away_requests_are_refused_as_ever(start_alone):
    """Nothing waits for it; what is too much is dropped and counted, and the rest can still be found."""
    gateway = start_alone(MONGOHOST=f"127.0.0.1:{free_port()}", LLMGATEWAY_STORE_TIMEOUT="0.2")

    def flood(number):
        return [
            gateway.request("GET", "/v1/" + "a" * (number + 1), headers={"AdminKey": f"wrong {n}"}) for n in range(5)
        ]

    with ThreadPoolExecutor(4) as threads:
        answers = [answer for some in threads.map(flood, range(4)) for answer in some]

    assert {404} == {answer.status for answer in answers}
    assert "refusal" == found(gateway, answers[0].header("x-request-id"))["kind"]
    assert 0 == metric(gateway, "llmgateway_refusals_dropped")
    unknown = gateway.admin("GET", "/admin/logs/019b3f2a-7c10-7d41-8d98-f00b2042a17e")
    assert (503, "store_unavailable") == (unknown.status, unknown.error["code"])


def test_lines_of_the_log_name_the_request(start_alone):
    """The id that the user has seen leads to the line, in the process as it is run."""
    gateway = start_alone()
    answer = gateway.request("GET", "/admin/keys", headers={"AdminKey": "not the right one"})

    (line,) = [line for line in gateway.output.splitlines() if "A wrong key came from" in line]
    assert line.endswith(f" [request={answer.header('x-request-id')}]")
