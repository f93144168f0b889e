"""Two and three regions behind one gateway: no client sees an error that another region could have answered."""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from llmgateway.simulator import Raw, Script, Served, Simulator
from tests.functional.conftest import Start
from tests.gateway_process import GatewayProcess, HTTPAnswer
from tests.servers import free_port, wait_until

MODEL = "assistant"
NAMES = ("sweden", "france", "poland")
DEPLOYMENTS = ("gpt-4o-mini", "gpt-4o")
AT_ONCE, REQUESTS = 8, 24


class Regions:
    """Simulators with different keys, which one gateway knows as deployments of one model."""

    def __init__(self, gateway: GatewayProcess, simulators: list[Simulator]) -> None:
        self.gateway = gateway
        self.simulators = simulators
        self.by_name = dict(zip(NAMES, simulators, strict=False))
        self.user = gateway.key(user="ada")

    def register(self, **fields: Any) -> None:
        deployments = [self.deployment(name, priority=number) for number, name in enumerate(self.by_name, 1)]
        answer = self.gateway.admin("PUT", f"/admin/models/{MODEL}", json={"deployments": deployments, **fields})
        assert 200 == answer.status, answer.body

    def deployment(self, name: str, **fields: Any) -> dict[str, Any]:
        return {
            "name": name,
            "base_url": f"{self.by_name[name].url}/openai/v1",
            "deployment": "gpt-4o-mini",
            "key": f"key-of-{name}",
            **fields,
        }

    def chat(self, text: str = "Hello", **fields: Any) -> HTTPAnswer:
        return self.gateway.chat(self.user, text, **{"model": MODEL, **fields})

    @property
    def served(self) -> list[tuple[str, Served]]:
        return [(name, each) for name, azure in self.by_name.items() for each in azure.served]

    def records(self, count: int) -> list[dict[str, Any]]:
        """Return the records when there are as many."""
        wait_until(lambda: len(self._records()) >= count, what=f"{count} records of {len(self._records())}")
        return self._records()

    def _records(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.gateway.instance / "gateway.sqlite")) as database:
            database.row_factory = sqlite3.Row
            rows = [dict(row) for row in database.execute("SELECT * FROM logs ORDER BY id")]
        return [{**row, "attempts": json.loads(row["attempts"] or "[]")} for row in rows]

    def balance(self, count: int) -> list[dict[str, Any]]:
        """Check that the records say what the regions have seen and bill, and return them.

        Where a region did not count, the record is an estimate, which is never below the bill.
        """
        records = self.records(count)
        assert count == len(records)
        seen = Counter(each.client_request_id for _, each in self.served)
        names = {each.client_request_id: name for name, each in self.served}
        for record in records:
            ids = [record["id"] + (f"-{number + 1}" if number else "") for number in range(len(record["attempts"]))]
            assert [each["deployment"] for each in record["attempts"]] == [names[each] for each in ids]
            assert all(seen.pop(each) == 1 for each in ids)
            for kind in ("prompt_tokens", "completion_tokens", "cost_usd"):
                total = sum(each[kind] or 0 for each in record["attempts"])
                assert record[kind] == (pytest.approx(total) if kind == "cost_usd" else total)
        assert not seen, "calls that are in no record"
        billed = sum(each.billed.total_tokens for _, each in self.served if each.billed is not None)
        booked = sum(record["total_tokens"] for record in records)
        if all(record["usage_source"] in ("upstream", "none") for record in records):
            assert billed == booked
        else:
            assert billed <= booked
        return records


Make = Callable[..., Regions]


@pytest.fixture
def make(start_alone: Start) -> Iterator[Make]:
    """Start a gateway with some regions."""
    with ExitStack() as stack:

        def make(count: int = 2, **settings: str) -> Regions:
            simulators = [
                stack.enter_context(Simulator(key=f"key-of-{name}", deployments=DEPLOYMENTS)) for name in NAMES[:count]
            ]
            regions = Regions(start_alone(LLMGATEWAY_THREADS="24", **settings), simulators)
            regions.register()
            return regions

        yield make


FAILURES: dict[str, Script] = {
    "429 with retry-after": Script(fault="token_rate_limit", retry_after=1),
    "429 with retry-after-ms": Script(
        raw=Raw(429, {"retry-after-ms": "300", "Content-Type": "application/json"}, b'{"error":{"code":"429"}}')
    ),
    "429 without": Script(raw=Raw(429, {"Content-Type": "application/json"}, b'{"error":{"code":"429"}}')),
    "500": Script(fault="server_error"),
    "502": Script(raw=Raw(502, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>")),
    "503": Script(fault="unavailable"),
    "504": Script(raw=Raw(504, {}, b"")),
    "time-out": Script(delay=30),
    "no answer": Script(refuse=True),
    "reset": Script(refuse=True, reset=True),
    "broken before the first byte": Script(cut_after_bytes=0),
    "silent before the first byte": Script(stall_after_events=0),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_no_client_sees_what_another_region_can_answer(make, failure, stream):
    """Under load, with the first region failing in one way after the other. The books balance."""
    regions = make(LLMGATEWAY_FIRST_BYTE_TIMEOUT="0.7", LLMGATEWAY_BETWEEN_BYTES_TIMEOUT="0.7")
    first = regions.simulators[0]
    first.script(FAILURES[failure], times=None)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda number: regions.chat(f"Hello {number}", stream=stream), range(REQUESTS)))

    assert {200} == {each.status for each in answers}, [each.body for each in answers if each.status != 200]
    for each in answers:
        assert (b"[DONE]" in each.body) is stream
        assert b'"error"' not in each.body
    records = regions.balance(REQUESTS)
    assert {("ok", "sweden", "france")} >= {(each["outcome"], *names(each)) for each in records if len(names(each)) > 1}
    assert {"france"} == {names(each)[-1] for each in records}
    assert 0 < len(first.served) <= REQUESTS
    if failure.startswith(("429", "5")):
        refused = [each["attempts"][0] for each in records if len(each["attempts"]) > 1]
        assert {(0, 0, 0)} == {(each["prompt_tokens"], each["completion_tokens"], each["cost_usd"]) for each in refused}


def names(record: dict[str, Any]) -> list[str]:
    return [each["deployment"] for each in record["attempts"]]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_region_that_cannot_be_reached_leaves_no_trace(make, stream):
    """Azure has received nothing, so nothing is booked, and the one that answers gets the identifier of the record."""
    regions = make(2)
    dead = regions.deployment("sweden", base_url=f"http://127.0.0.1:{free_port()}/openai/v1")
    alive = regions.deployment("france", priority=2)
    regions.gateway.admin("PUT", f"/admin/models/{MODEL}", json={"deployments": [dead, alive]})

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: regions.chat(stream=stream), range(REQUESTS)))

    assert {200} == {each.status for each in answers}
    assert {("france",)} == {tuple(names(each)) for each in regions.balance(REQUESTS)}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_three_regions_that_fail_in_turns(make, stream):
    """Each fails half of its requests, in every way; only where all three fail does a client see it."""
    regions = make(3, LLMGATEWAY_FIRST_BYTE_TIMEOUT="0.7", LLMGATEWAY_BETWEEN_BYTES_TIMEOUT="0.7")
    for azure in regions.simulators[:2]:
        for script in FAILURES.values():
            azure.script(script)
            azure.script(Script())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda number: regions.chat(f"Hello {number}", stream=stream), range(3 * REQUESTS)))

    assert {200} == {each.status for each in answers}
    regions.balance(3 * REQUESTS)


ERROR = b'data: {"error":{"message":"Too many","type":"%s","code":"%s"}}\n\n'


@pytest.mark.parametrize("code", [b"rate_limit_exceeded", b"429", b"server_error", b"InternalServerError", b"503"])
def test_a_stream_that_begins_with_a_failure_is_answered_by_another(make, code):
    """Status 200, and then an event with an error: nothing has gone to the client yet."""
    regions = make()
    regions.simulators[0].script(Script(raw=Raw(200, {"Content-Type": "text/event-stream"}, ERROR % (b"", code))))

    answer = regions.chat(stream=True)

    assert answer.body.endswith(b"data: [DONE]\n\n")
    (record,) = regions.records(1)
    assert ["sweden", "france"] == names(record)


def test_a_stream_that_begins_with_another_error_is_passed_on(make):
    """It says something about the request."""
    regions = make()
    event = ERROR % (b"invalid_request_error", b"content_filter")
    regions.simulators[0].script(Script(raw=Raw(200, {"Content-Type": "text/event-stream"}, event)))

    assert event == regions.chat(stream=True).body
    assert not regions.simulators[1].served


@pytest.mark.parametrize(
    "script",
    [Script(cut_after_events=3), Script(error_event_after=3), Script(stall_after_events=3)],
    ids=["cut", "error", "silent"],
)
def test_nothing_is_asked_again_after_the_first_byte(make, script):
    """The client has a part of the answer, so it gets an error event."""
    regions = make(LLMGATEWAY_BETWEEN_BYTES_TIMEOUT="0.5")
    regions.simulators[0].script(script)

    answer = regions.chat(stream=True)

    assert b'"error"' in answer.body
    assert b"[DONE]" not in answer.body
    assert not regions.simulators[1].served
    regions.balance(1)


@pytest.mark.parametrize(
    ("fault", "status"), [("content_filter", 400), ("deployment_not_found", 404), ("operation_not_supported", 400)]
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_what_is_wrong_with_the_request_is_not_hidden(make, fault, status, stream):
    """A 400 or 404 goes to the client as it is, and no other region is asked."""
    regions = make()
    regions.simulators[0].script(Script(fault=fault))

    answer = regions.chat(stream=stream)

    assert (status, regions.simulators[0].served[0].body_sent) == (answer.status, answer.body)
    assert not regions.simulators[1].served
    regions.balance(1)


@pytest.mark.parametrize("fault", ["unauthorized", "network_denied"])
def test_a_refused_key_is_named_and_marks_no_other(make, fault):
    """Neither the other deployments nor the key of the base URL. Log and status name the deployment."""
    regions = make()
    regions.simulators[0].script(Script(fault=fault), times=None)

    error = regions.chat().error

    assert "upstream_credentials" == error["code"]
    assert not regions.simulators[1].served
    output = regions.gateway.output
    assert f"'sweden' of the model '{MODEL}'" in output
    assert f"PUT /admin/models/{MODEL}" in output
    assert "key-of-" not in output
    status = regions.gateway.admin("GET", "/admin/status").json()
    sweden, france = status["deployments"]
    assert ("sweden", "ok") == (sweden["name"], status["azure_key"])
    assert "refused" in sweden["problem"]
    assert france["problem"] is None
    ready = regions.gateway.request("GET", "/readyz").json()
    assert ("degraded", "1 cannot be called: see /admin/status") == (ready["status"], ready["checks"]["deployments"])
    regions.balance(1)

    regions.gateway.admin(
        "PUT",
        f"/admin/models/{MODEL}",
        json={"deployments": [regions.deployment("sweden", active=False), regions.deployment("france")]},
    )
    assert 200 == regions.chat().status
    assert "ok" == regions.gateway.request("GET", "/readyz").json()["status"]


def test_all_at_their_limits(make):
    """The client gets a 429 with the earliest time, then one of the gateway's own, and nothing more goes to Azure."""
    regions = make()
    regions.simulators[0].script(Script(fault="token_rate_limit", retry_after=30), times=None)
    regions.simulators[1].script(Script(fault="token_rate_limit", retry_after=3), times=None)

    first, second = regions.chat(), regions.chat()

    assert (429, regions.simulators[1].served[0].body_sent) == (first.status, first.body)
    for answer in (first, second):
        assert 429 == answer.status
        assert int(answer.header("retry-after")) <= 3
        assert 0 < int(answer.header("retry-after-ms")) <= 3000
    assert "rate_limit_exceeded" == second.error["code"]
    assert [1, 1] == [len(azure.served) for azure in regions.simulators]
    states = {each["name"]: each for each in regions.gateway.admin("GET", "/admin/status").json()["deployments"]}
    assert {"limited"} == {each["rests_because"] for each in states.values()}
    assert states["france"]["rests_until"] < states["sweden"]["rests_until"]
    regions.balance(1)


def test_the_earlier_one_is_asked_when_its_time_has_come(make):
    """No longer than Azure has said."""
    regions = make()
    for azure in regions.simulators:
        azure.script(Script(fault="token_rate_limit", retry_after=1))
    assert 429 == regions.chat().status

    wait_until(lambda: regions.chat().status == 200, what="an answer", seconds=3)


def test_a_conversation_stays_where_it_is(make):
    """Its beginning is in the cache there; many conversations are spread by weight."""
    regions = make()
    deployments = [regions.deployment(name, priority=1) for name in regions.by_name]
    regions.gateway.admin("PUT", f"/admin/models/{MODEL}", json={"deployments": deployments})
    beginning = "You are helpful. " * 100
    for _ in range(5):
        regions.chat(beginning)

    assert [0, 5] == sorted(len(azure.served) for azure in regions.simulators)
    for number in range(60):
        regions.chat(f"{number} {beginning}")
    assert all(15 <= len(azure.served) for azure in regions.simulators)


def test_one_budget_of_time_holds_for_all(make):
    """Each silent region takes a part of it, and the client waits no longer."""
    regions = make(3, LLMGATEWAY_FAILOVER_SECONDS="4")
    for azure in regions.simulators:
        azure.script(Script(delay=30), times=None)

    began = time.monotonic()
    answer = regions.chat()

    assert 504 == answer.status
    assert 3 < time.monotonic() - began < 6
    assert [1, 1, 1] == [len(azure.served) for azure in regions.simulators]
    (record,) = regions.balance(1)
    assert "timeout" == record["outcome"]


def test_the_reservation_and_the_limits_are_those_of_one_request(make):
    """However often it was sent."""
    regions = make()
    regions.user = regions.gateway.key(user="eve", limits={"requests_per_minute": 2, "parallel_requests": 1})
    regions.simulators[0].script(Script(fault="server_error"), times=None)

    assert [200, 200, 429] == [regions.chat().status for _ in range(3)]
    regions.balance(2)


def leave(regions: Regions, *, stream: bool = False) -> http.client.HTTPConnection:
    """Send a request, and return its connection without reading."""
    connection = regions.gateway.connect()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
    headers = {"Authorization": f"Bearer {regions.user}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body=json.dumps(body), headers=headers)
    return connection


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_client_that_leaves_during_the_second_attempt(make, stream):
    """The second region is told within a second, and no third one is asked."""
    regions = make(3)
    first, second, third = regions.simulators
    first.script(Script(fault="server_error"))
    second.script(Script(delay=5))
    connection = leave(regions, stream=stream)
    second.wait_for(lambda served: served)

    connection.close()

    (record,) = regions.records(1)
    assert ("client_closed", ["sweden", "france"]) == (record["outcome"], names(record))
    assert record["duration_ms"] < 3000
    assert not third.served


def test_a_client_that_has_left_is_not_asked_for_again(make):
    """Also where its answer would have been read on."""
    regions = make(LLM_ON_DISCONNECT="drain")
    first, second = regions.simulators
    first.script(Script(fault="server_error", delay=2.5))
    connection = leave(regions)
    first.wait_for(lambda served: served)
    connection.close()

    (record,) = regions.records(1)
    assert ["sweden"] == names(record)
    assert not second.served


def test_a_revoked_key_ends_the_second_attempt(make):
    """As it ends the first one."""
    regions = make()
    key = regions.gateway.new_key(user="mallory")
    regions.user = key["key"]
    regions.simulators[0].script(Script(fault="server_error"))
    regions.simulators[1].script(Script(delay=10))
    with closing(leave(regions)) as connection:
        regions.simulators[1].wait_for(lambda served: served)
        assert 200 == regions.gateway.admin("POST", "/admin/removeapikey", json={"id": key["id"]}).status
        assert 401 == connection.getresponse().status

    (record,) = regions.records(1)
    assert ("revoked", ["sweden", "france"]) == (record["outcome"], names(record))


def test_a_gateway_that_dies_in_the_second_attempt_has_booked_the_first(make):
    """The time-out may have been billed, and the second attempt may be, too."""
    regions = make(LLMGATEWAY_FIRST_BYTE_TIMEOUT="1")
    regions.simulators[0].script(Script(delay=5))
    regions.simulators[1].script(Script(delay=5))
    with closing(leave(regions)):
        regions.simulators[1].wait_for(lambda served: served)
        regions.gateway.kill()
    regions.gateway.start()

    (record,) = regions.records(1)
    assert ("interrupted", "bound", ["sweden", "france"]) == (
        record["outcome"],
        record["usage_source"],
        names(record),
    )
    first, second = record["attempts"]
    assert first["prompt_tokens"] == second["prompt_tokens"] > 0
    assert first["completion_tokens"] > 0
    for kind in ("prompt_tokens", "completion_tokens", "cost_usd"):
        assert record[kind] == pytest.approx(first[kind] + second[kind])


def test_reports_count_each_attempt_at_its_deployment(make):
    """The tokens of the time-out are where Azure bills them, so that a comparison with its bill finds them there."""
    regions = make(LLMGATEWAY_FIRST_BYTE_TIMEOUT="1")
    deployments = [regions.deployment("sweden"), regions.deployment("france", deployment="gpt-4o", priority=2)]
    regions.gateway.admin("PUT", f"/admin/models/{MODEL}", json={"deployments": deployments})
    regions.simulators[0].script(Script(delay=5))

    assert 200 == regions.chat().status

    (record,) = regions.records(1)
    first, second = record["attempts"]
    assert [("gpt-4o-mini", regions.simulators[0].url), ("gpt-4o", regions.simulators[1].url)] == [
        (each["azure_deployment"], each["resource"]) for each in (first, second)
    ]
    report = regions.gateway.admin("GET", "/admin/usage?by=deployment&tz=utc").json()
    by_deployment = {row["deployment"]: row for row in report["rows"]}
    assert (0, 1) == tuple(by_deployment[name]["requests"] for name in ("gpt-4o-mini", "gpt-4o"))
    for kind in ("prompt_tokens", "completion_tokens", "cost_usd"):
        assert first[kind] > 0
        assert first[kind] == pytest.approx(by_deployment["gpt-4o-mini"][kind])
        assert second[kind] == pytest.approx(by_deployment["gpt-4o"][kind])
        assert record[kind] == pytest.approx(report["total"][kind])


def test_stopping_ends_the_second_attempt(make):
    """The gateway stops gently, and the record tells what was sent."""
    regions = make(LLMGATEWAY_DRAIN_SECONDS="1")
    regions.simulators[0].script(Script(fault="server_error"))
    regions.simulators[1].script(Script(delay=20))
    with closing(leave(regions)):
        regions.simulators[1].wait_for(lambda served: served)
        regions.gateway.stop()
    regions.gateway.start()

    (record,) = regions.records(1)
    assert ("interrupted", ["sweden", "france"]) == (record["outcome"], names(record))


def test_the_record_names_the_deployment_that_answered(make):
    """Its name at Azure, and its region; the attempts have the names that the admin has chosen."""
    regions = make()
    deployments = [regions.deployment("sweden"), regions.deployment("france", deployment="gpt-4o", priority=2)]
    regions.gateway.admin("PUT", f"/admin/models/{MODEL}", json={"deployments": deployments})
    regions.simulators[0].script(Script(fault="unavailable"))

    answer = regions.chat()

    (record,) = regions.balance(1)
    assert (MODEL, "gpt-4o", 200) == (record["model"], record["deployment"], record["status"])
    assert [503, 200] == [each["status"] for each in record["attempts"]]
    assert answer.header("apim-request-id") == record["upstream_request_id"]
    assert b'"model":"gpt-4o"' in regions.simulators[1].served[0].body.replace(b" ", b"")
    (shown,) = regions.gateway.admin("GET", "/admin/logs").json()["items"]
    assert ["sweden", "france"] == [each["deployment"] for each in shown["attempts"]]


def test_processes_share_what_they_know_through_redis(make, functional_redis):
    """One has seen the 429; the other does not ask the region again, two seconds later."""
    regions = make(LLMGATEWAY_PROCESSES="2", REDIS_URL=functional_redis.url)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    one, other = regions.gateway.workers()

    def ask(worker: int) -> int:
        with closing(regions.gateway.connect_to(worker)) as connection:
            path = "/v1/chat/completions"
            return regions.gateway.request("POST", path, key=regions.user, json=body, connection=connection).status

    first, second = regions.simulators
    assert 200 == ask(one)  # and it has read in Redis that nothing is left alone
    first.script(Script(fault="token_rate_limit", retry_after=60), times=None)
    assert 200 == ask(other)
    time.sleep(1.1)  # a process reads once in a second

    assert 200 == ask(one)
    assert (2, 2) == (len(first.served), len(second.served))


def test_a_refused_option_is_an_attempt_of_its_own(make):
    """Azure has seen two requests; the first one, without a bill, is no reason to ask another region."""
    regions = make()
    regions.simulators[0].script(Script(fault="unknown_parameter"))

    assert regions.chat(stream=True).body.endswith(b"data: [DONE]\n\n")

    (record,) = regions.balance(1)
    assert [("sweden", 400), ("sweden", 200)] == [(each["deployment"], each["status"]) for each in record["attempts"]]
