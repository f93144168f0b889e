"""Revoking a key ends what is running for it, in every process and on every host."""

from __future__ import annotations

import json
import stat
import time
from contextlib import closing

import openai
import pytest

from llmgateway.simulator import Script
from tests.functional.test_stopping import each_way_to_serve
from tests.servers import wait_until

ON_THE_HOST, ELSEWHERE, A_BUSY_MACHINE = 2.0, 5.0, 2.0


def remove(gateway, key_id):
    return gateway.admin("DELETE", f"/admin/keys/{key_id}")


def block(gateway, key_id):
    return gateway.admin("PATCH", f"/admin/keys/{key_id}", json={"active": False})


def replace(gateway, key_id):
    return gateway.admin("POST", f"/admin/keys/{key_id}/rotate", json={})


def revoke_group(gateway, _):
    return gateway.admin("POST", "/admin/groups/course/revoke")


def close_group(gateway, _):
    return gateway.admin("POST", "/admin/groups/course/close", json={"keys": "remove"})


def block_by_filter(gateway, _):
    body = {"filter": {"group": "course"}, "action": "block"}
    token = gateway.admin("POST", "/admin/keys/bulk", json=body).json()["token"]
    return gateway.admin("POST", "/admin/keys/bulk", json=body | {"token": token})


def add_key(gateway):
    told = gateway.new_key(user="ada", group="course")
    return told["id"], told["key"]


def stream(gateway, key):
    """Begin a streamed answer; return the connection and the response."""
    connection = gateway.connect()
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    assert response.readline().startswith(b"data:")
    return connection, response


def assert_ends(response, began, seconds):
    rest = response.read()
    assert time.monotonic() - began < seconds + A_BUSY_MACHINE
    error = json.loads(rest.rpartition(b"data: ")[2])["error"]
    assert ("invalid_api_key", "invalid_request_error") == (error["code"], error["type"])
    assert b"[DONE]" not in rest


@each_way_to_serve
def test_revoking_ends_running_streams(start_gateway, azure, processes):
    """However a key is revoked: the stream ends with an error event, and its record has the outcome ``revoked``."""
    gateway = start_gateway(LLMGATEWAY_PROCESSES=processes)
    for revoke in (remove, block, replace, revoke_group, block_by_filter, close_group):
        azure.script(Script(stall_after_events=4))
        key_id, key = add_key(gateway)
        connection, response = stream(gateway, key)
        with closing(connection):
            began = time.monotonic()
            assert revoke(gateway, key_id).status in (200, 204)

            assert_ends(response, began, ON_THE_HOST)
    wait_until(
        lambda: (
            ["revoked"] * 6 == [one["outcome"] for one in gateway.admin("GET", "/admin/logs?user=ada").json()["items"]]
        ),
        what="the records",
    )
    for record in gateway.admin("GET", "/admin/logs?outcome=revoked").json()["items"]:
        assert "estimated" == record["usage_source"]
        assert record["completion_tokens"] > 0
    assert 200 == gateway.chat(gateway.key()).status


@pytest.mark.parametrize("stores", ["mongo", "redis+mongo"], indirect=True)
def test_revoking_ends_streams_on_another_host(start_gateway, azure):
    """A host notices what the admin does on another one."""
    here, there = start_gateway(), start_gateway()
    azure.script(Script(stall_after_events=4))
    key_id, key = add_key(here)
    connection, response = stream(there, key)
    with closing(connection):
        began = time.monotonic()
        block(here, key_id)

        assert_ends(response, began, ELSEWHERE)


def test_the_official_client_raises_an_error(start_alone, azure):
    """In the middle of a stream it is an APIError; a plain answer is an AuthenticationError."""
    gateway = start_alone()
    azure.script(Script(stall_after_events=4))
    key_id, key = add_key(gateway)
    messages = [{"role": "user", "content": "Hello"}]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)
        next(iter(answer))
        block(gateway, key_id)
        with pytest.raises(openai.APIError, match="revoked"):
            list(answer)
        with pytest.raises(openai.AuthenticationError, match="revoked"):
            client.chat.completions.create(model="gpt-4o-mini", messages=messages)


def test_other_changes_and_the_setting_off_end_nothing(start_alone, azure):
    """An expiry date, a rotation with an overlap and a new limit let running answers end; so does ``off``."""
    gateway = start_alone()
    azure.script(Script(tokens=40, gap=0.1))
    key_id, key = add_key(gateway)
    connection, response = stream(gateway, key)
    with closing(connection):
        gateway.admin("PATCH", f"/admin/keys/{key_id}", json={"expires_at": "2020-01-01", "note": "over"})
        gateway.admin("POST", f"/admin/keys/{key_id}/rotate", json={"overlap_seconds": 1})
        assert response.read().endswith(b"data: [DONE]\n\n")

    lenient = start_alone(LLMGATEWAY_END_STREAMS_ON_REVOKE="off")
    azure.script(Script(tokens=30, gap=0.1))
    key_id, key = add_key(lenient)
    connection, response = stream(lenient, key)
    with closing(connection):
        remove(lenient, key_id)
        assert response.read().endswith(b"data: [DONE]\n\n")


def test_folders_are_private(start_alone):
    """Nobody else on the machine can look into the instance folder and the journals."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="2")
    assert 200 == gateway.chat(gateway.key()).status

    folders = [gateway.instance, *(one for one in gateway.instance.rglob("*") if one.is_dir())]
    assert len(folders) > 2
    assert {0o700} == {stat.S_IMODE(one.stat().st_mode) for one in folders}
