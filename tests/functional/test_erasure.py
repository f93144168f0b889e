"""An erased person: searched for in every store, every file and the log, while the gateway runs and after it died."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing, suppress
from urllib.parse import quote

import pytest

from llmgateway.simulator import Script
from tests.functional.test_secrets import everything_stored
from tests.servers import wait_until

HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
NAME, ADDRESS = "Quixote Marker-Ä", "203.0.113.77"
CANARIES = ("Quixote Marker", "quixote@example.org", ADDRESS, "quixotes laptop", "room 4711 of quixote")
PERSON = {"user": NAME, "email": CANARIES[1], "name": CANARIES[3], "note": CANARIES[4]}

each_kind_of_store = pytest.mark.parametrize("stores", ["sqlite", "redis+mongo"], indirect=True)


def leaks(stores, gateway, canaries=CANARIES):
    """Where a canary is; not in Redis' append-only file, of which nothing is promised."""
    places = [
        *((where, content) for where, content in everything_stored(stores, gateway) if where != "redis' file"),
        ("output", gateway.output.encode()),
    ]
    return [(canary, where) for canary in canaries for where, content in places if canary.encode() in content]


def ask(gateway, key, path="/v1/chat/completions", status=200, **body):
    headers = {"X-Forwarded-For": ADDRESS}
    answer = gateway.request("POST", path, key=key, json=HELLO | body, headers=headers)
    assert status == answer.status, answer.body
    return answer


def stream(gateway, key):
    """Begin a streamed answer that goes on for ever; return the connection and the response."""
    connection = gateway.connect()
    headers = {"Authorization": f"Bearer {key}", "X-Forwarded-For": ADDRESS}
    connection.request("POST", "/v1/chat/completions", json.dumps(HELLO | {"stream": True}), headers)
    response = connection.getresponse()
    assert response.readline().startswith(b"data:")
    return connection, response


def erase(gateway, user=NAME, **body):
    return gateway.admin("POST", f"/admin/users/{quote(user)}/erase", json=body)


def cost_of_group(gateway):
    rows = gateway.admin("GET", "/admin/usage?by=group").json()["rows"]
    return sum(row["cost_usd"] for row in rows if row["group"] == "windmills")


@each_kind_of_store
@pytest.mark.parametrize("processes", ["1", "2"])
def test_nothing_remains_of_an_erased_person(start_gateway, stores, azure, processes):
    """With a stream that runs meanwhile; what it has cost stays to the cent, and a namesake is somebody else."""
    gateway = start_gateway(
        LLMGATEWAY_PROCESSES=processes, LLMGATEWAY_TRUSTED_PROXY="127.0.0.1", LLMGATEWAY_LOG_LEVEL="DEBUG"
    )
    before = cost_of_group(gateway)  # of other tests on these stores
    made = gateway.new_key(**PERSON, group="windmills")
    other = gateway.new_key(user="sancho", group="windmills")
    gateway.admin("PUT", f"/admin/users/{quote(NAME)}", json={"limits": {"requests_per_minute": 1000}})
    gateway.admin("PUT", f"/admin/prompt?key={made['id']}", json={"prompt": f"You talk to {NAME}."})
    for _ in range(3):
        ask(gateway, made["key"])
        assert 200 == gateway.chat(other["key"]).status  # from another address
    answer = gateway.request("POST", "/v1/responses", key=made["key"], json={"model": "gpt-4o-mini", "input": "Hello"})
    response = answer.json()
    gateway.admin("PATCH", f"/admin/keys/{made['id']}", json={"models": ["gpt-4o-mini"]})
    ask(gateway, made["key"], status=403, model="gpt-4o")
    azure.script(Script(stall_after_events=4))
    connection, running = stream(gateway, made["key"])
    with closing(connection):
        wait_until(
            lambda: {canary for canary, _ in leaks(stores, gateway)} == {*CANARIES}, what="everything in the stores"
        )

        told = erase(gateway).json()

        assert (True, []) == (told["complete"], told["pending"]), told
        assert b"[DONE]" not in running.read()
    wait_until(lambda: not leaks(stores, gateway), what=f"nothing of the person: {leaks(stores, gateway)[:3]}")

    logs = gateway.admin("GET", "/admin/logs?limit=100").json()["items"]
    mine = [one for one in logs if one["key_id"] == made["id"] and one.get("kind") != "refusal"]
    assert 5 == len(mine)
    assert {told["erased_as"]} == {one["user"] for one in mine}
    costs = sum(one["cost_usd"] for one in logs if one["key_id"] in (made["id"], other["id"]))
    assert cost_of_group(gateway) - before == pytest.approx(costs, abs=1e-12)
    users = {row["user"] for row in gateway.admin("GET", "/admin/usage?by=user").json()["rows"]}
    assert {"sancho", told["erased_as"]} <= users
    assert NAME not in users
    assert 404 == erase(gateway).status

    namesake = gateway.new_key(user=NAME)
    assert 200 == gateway.chat(namesake["key"]).status
    assert 404 == gateway.request("GET", f"/v1/responses/{response['id']}", key=namesake["key"]).status
    wait_until(
        lambda: 1 == len(gateway.admin("GET", f"/admin/logs?user={quote(NAME)}").json()["items"]),
        what="the record of the namesake",
    )
    export = gateway.admin("GET", f"/admin/users/{quote(NAME)}/export").json()
    assert [namesake["id"]] == export["key_ids"]
    assert erase(gateway).json()["complete"]  # for the tests after this one


@pytest.mark.parametrize("stores", ["redis+mongo"], indirect=True)
def test_what_a_dead_host_ships_later_is_replaced(start_gateway, stores, azure, tmp_path):
    """Its journal has a stream that nobody has ended; the person is erased on another host before it returns."""
    dead = start_gateway(LLMGATEWAY_TRUSTED_PROXY="127.0.0.1")
    made = dead.new_key(**PERSON)
    azure.script(Script(stall_after_events=4))
    connection, _ = stream(dead, made["key"])
    with closing(connection):
        dead.kill()
    alive = start_gateway(LLMGATEWAY_INSTANCE=str(tmp_path / "another host"))
    told = erase(alive).json()
    assert told["complete"]
    assert not leaks(stores, alive)

    dead.start()

    wait_until(
        lambda: alive.admin("GET", f"/admin/logs?key={made['id']}").json()["items"], what="the record", seconds=30
    )
    assert [told["erased_as"]] == [
        one["user"] for one in alive.admin("GET", f"/admin/logs?key={made['id']}").json()["items"]
    ]
    wait_until(lambda: not leaks(stores, dead), what="an empty journal", seconds=30)


@each_kind_of_store
def test_a_crash_in_between_can_be_repeated(start_gateway, stores, azure):
    """The gateway is killed at any moment of an erasure; the next call does the rest."""
    gateway = start_gateway(LLMGATEWAY_TRUSTED_PROXY="127.0.0.1")
    for number, delay in enumerate((0.0, 0.02, 0.05, 0.1, 0.2)):
        person = {name: f"{value}-{number}x" for name, value in PERSON.items() if name != "email"}
        made = gateway.new_key(**person, email=f"quixote-{number}x@example.org")
        canaries = [value for name, value in person.items() if name != "user"] + [f"-{number}x@", f"Ä-{number}x"]
        ask(gateway, made["key"])
        wait_until(
            lambda made=made: gateway.admin("GET", f"/admin/logs?key={made['id']}").json()["items"], what="the record"
        )

        def begin(person=person):
            with suppress(Exception):
                erase(gateway, person["user"])

        thread = threading.Thread(target=begin)
        thread.start()
        time.sleep(delay)
        gateway.kill()
        thread.join()
        gateway.start()

        assert erase(gateway, person["user"]).status in (200, 404)
        assert 401 == gateway.chat(made["key"]).status
        wait_until(
            lambda canaries=canaries: not leaks(stores, gateway, canaries), what="nothing of the person", seconds=30
        )
        [user] = {one["user"] for one in gateway.admin("GET", f"/admin/logs?key={made['id']}").json()["items"]}
        assert user.startswith("erased-")
