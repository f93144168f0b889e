"""The organisation's prompt: in front of every conversation, from the next request on, everywhere."""

from __future__ import annotations

import json

import pytest


def first_messages(azure):
    return [json.loads(served.body)["messages"][0] for served in azure.served]


def system(text):
    return {"role": "system", "content": text}


@pytest.fixture
def sessions(pair):
    """A connection to each of two serving processes."""
    connections = [pair.connect_to(worker) for worker in pair.workers()]
    assert 2 == len(connections)
    yield connections
    for connection in connections:
        connection.close()


@pytest.fixture
def no_prompt_afterwards(pair):
    yield
    pair.admin("POST", "/admin/setprompt", json={"prompt": ""})


def test_comes_first(gateway, key, azure, prompt):
    """It stands before the client's own messages, a system message of its own among them."""
    prompt("Be brief.")
    own = [system("Be verbose."), {"role": "user", "content": "Hello"}]

    gateway.chat(key, messages=own)
    gateway.chat(key, messages=own, stream=True)

    assert [[system("Be brief."), *own]] * 2 == [json.loads(served.body)["messages"] for served in azure.served]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["user"], "system"),
        (["developer", "user"], "developer"),
        (["user", "developer"], "developer"),
        (["system", "developer", "user"], "system"),
        (["Developer", "user"], "system"),
    ],
)
def test_has_the_role_that_the_client_uses(gateway, key, azure, prompt, roles, expected):
    """Reasoning models take one of system and developer, not both."""
    prompt("Be brief.")
    own = [{"role": role, "content": "Hello"} for role in roles]

    gateway.chat(key, messages=own)

    sent = json.loads(azure.served[0].body)["messages"]
    assert [{"role": expected, "content": "Be brief."}, *own] == sent


@pytest.mark.usefixtures("no_prompt_afterwards")
@pytest.mark.parametrize(("method", "path"), [("POST", "/admin/setprompt"), ("PUT", "/admin/prompt")])
def test_holds_from_the_next_request_on_in_every_process(pair, sessions, azure, method, path):
    """Whichever process takes the change, each process' next request has it; empty removes it."""
    key = pair.key()
    user = {"role": "user", "content": "Hello"}
    expected = []
    for number, text in enumerate(["one", "two", "", "three", ""]):
        answer = pair.admin(method, path, json={"prompt": text}, connection=sessions[number % 2])
        assert (200, text) == (answer.status, answer.json()["prompt"])
        for session in sessions:
            pair.chat(key, connection=session)
            expected.append(system(text) if text else user)

    assert expected == first_messages(azure)


@pytest.mark.usefixtures("no_prompt_afterwards")
def test_is_told_by_every_process(pair, sessions):
    """Reading it and its versions gives the same everywhere, newest first."""
    for number, text in enumerate(["one", "two"]):
        pair.admin("PUT", "/admin/prompt", json={"prompt": text}, connection=sessions[number])

    read = [pair.admin("GET", "/admin/prompt", connection=session).json() for session in sessions]
    assert read[0] == read[1]
    assert "two" == read[0]["prompt"]
    listed = [pair.admin("GET", "/admin/prompt/versions", connection=session).json() for session in sessions]
    assert listed[0] == listed[1]
    assert ["two", "one"] == [version["prompt"] for version in listed[0]["items"][:2]]
    # Those of groups and keys have numbers of the same count.
    versions = [version["version"] for version in listed[0]["items"]]
    assert sorted(versions, reverse=True) == versions
    assert len({*versions}) == len(versions)


def test_survives_a_restart(start_gateway, azure):
    """It is kept, not remembered."""
    gateway = start_gateway()
    gateway.admin("PUT", "/admin/prompt", json={"prompt": "Be brief."})
    key = gateway.key()

    gateway.restart()
    gateway.chat(key)
    gateway.admin("PUT", "/admin/prompt", json={"prompt": ""})
    gateway.restart()
    gateway.chat(key)

    assert [system("Be brief."), {"role": "user", "content": "Hello"}] == first_messages(azure)


def test_is_named_in_the_usage_record(gateway, key, prompt, records):
    """A record says which version of the prompt was in front."""
    version = prompt("Be brief.")["version"]

    gateway.chat(key)

    assert [version] == [record["prompt_version"] for record in records(gateway, key)]


@pytest.mark.parametrize("body", [{}, {"prompt": None}, {"prompt": 3}, {"prompt": "x" * 100_001}, {"text": "x"}])
def test_refuses_what_is_no_prompt(gateway, body):
    """A body without a usable prompt is 422 and changes nothing."""
    before = gateway.admin("GET", "/admin/prompt").json()

    answer = gateway.admin("PUT", "/admin/prompt", json=body)

    assert (422, "invalid_fields") == (answer.status, answer.error["code"])
    assert answer.error["errors"]
    assert before == gateway.admin("GET", "/admin/prompt").json()
