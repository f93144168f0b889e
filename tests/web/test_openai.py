"""What users call, as OpenAI's clients expect it."""

from __future__ import annotations

import uuid

import pytest

from llmgateway.simulator import Script
from llmgateway.usage.answered_models import AnsweredModels
from llmgateway.web.context import EXTENSION

CHAT = "/v1/chat/completions"
HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(autouse=True)
def fresh(azure):
    azure.reset()


def test_passes_azures_answer_through(client, azure, user):
    """Bytes, status and type are Azure's; the identifier joins Azure's log and ours."""
    answer = client.post(CHAT, json=HELLO, headers=user)

    (served,) = azure.served
    assert (200, served.body_sent, "application/json") == (answer.status_code, answer.data, answer.content_type)
    assert served.client_request_id == answer.headers["x-request-id"]
    assert 7 == uuid.UUID(served.client_request_id).version


def test_streams(client, azure, user):
    """Events as they come, with the headers that keep proxies from holding them back."""
    answer = client.post(CHAT, json=HELLO | {"stream": True}, headers=user)

    assert answer.data.endswith(b"data: [DONE]\n\n")
    assert ("text/event-stream", "no") == (answer.mimetype, answer.headers["X-Accel-Buffering"])
    assert "Content-Length" not in answer.headers


def test_an_unread_stream_is_closed(client, azure, user):
    """A server that closes an answer without reading it frees everything."""
    azure.script(Script(stall_after_events=2))
    answer = client.post(CHAT, json=HELLO | {"stream": True}, headers=user, buffered=False)
    slots = client.application.extensions[EXTENSION].gateway.concurrency
    assert 1 == slots.taken

    answer.close()

    assert 0 == slots.taken
    azure.wait_for(lambda served: served[0].peer_left)


@pytest.mark.parametrize(
    "spelling",
    [
        {"Authorization": "Bearer {}"},
        {"Authorization": "bearer  {} "},
        {"api-key": "{}"},
        {"Api-Key": "{}"},
        {"Authorization": "Basic eDp5", "api-key": "{}"},
        {"Authorization": "Bearer ", "api-key": "{}"},
    ],
)
def test_takes_the_key_as_clients_send_it(client, new_key, spelling):
    """OpenAI's clients and AzureOpenAI's have different headers for it."""
    key = new_key()["key"]

    answer = client.post(CHAT, json=HELLO, headers={name: text.format(key) for name, text in spelling.items()})

    assert 200 == answer.status_code


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic eDp5"}, {"Authorization": "x"}, {"api-key": ""}])
def test_refuses_without_a_key(client, azure, headers):
    """Every address of users' needs one; Azure is not asked."""
    for method, path in [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/models/gpt-4o"), ("GET", "/v1/me")]:
        answer = client.open(path, method=method, json=HELLO if method == "POST" else None, headers=headers)
        assert (401, "invalid_api_key") == (answer.status_code, answer.json["error"]["code"])

    assert [] == azure.served


def test_the_users_headers_stay_here(client, azure, user):
    """Cookies, the user's key and whatever proxies add are none of Azure's business."""
    client.post(CHAT, json=HELLO, headers=user | {"Cookie": "a=b", "X-Forwarded-For": "10.0.0.1", "x-custom": "y"})

    headers = azure.served[0].headers
    assert not {"cookie", "x-forwarded-for", "x-custom", "authorization"} & headers.keys()
    assert user["Authorization"].split()[1] not in str(headers)


def test_azures_wish_to_wait_is_passed_on(client, azure, user):
    """Official clients wait as long as Azure asks them to."""
    azure.script(Script(fault="token_rate_limit", retry_after=7))

    answer = client.post(CHAT, json=HELLO, headers=user)

    assert (429, "7", "7000") == (answer.status_code, answer.headers["retry-after"], answer.headers["retry-after-ms"])


def test_lists_models(client, new_key):
    """Those on offer that the key may use, in OpenAI's shape."""
    headers = {"Authorization": f"Bearer {new_key(models=['gpt-4o', 'o3'])['key']}"}

    listed = client.get("/v1/models", headers=headers).json
    assert ("list", ["gpt-4o"]) == (listed["object"], [model["id"] for model in listed["data"]])
    assert listed["data"][0] == client.get("/v1/models/gpt-4o", headers=headers).json
    assert 404 == client.get("/v1/models/gpt-4o-mini", headers=headers).status_code


def test_lists_the_models_that_have_answered(make_app, azure, admin):
    """With the v1 form of Azure's address and no list of the admin, chat shows which models there are."""
    app = make_app(LLMGATEWAY_MODELS="")
    client = app.test_client()
    key = client.post("/admin/keys", json={"user": "ada"}, headers=admin).json["key"]
    headers = {"Authorization": f"Bearer {key}"}
    assert [] == client.get("/v1/models", headers=headers).json["data"]
    assert 200 == client.get("/v1/models/gpt-4o-mini", headers=headers).status_code

    assert 200 == client.post(CHAT, json=HELLO, headers=headers).status_code
    assert 404 == client.post(CHAT, json=HELLO | {"model": "no-such"}, headers=headers).status_code

    assert ["gpt-4o-mini"] == [model["id"] for model in client.get("/v1/models", headers=headers).json["data"]]
    assert 404 == client.get("/v1/models/no-such", headers=headers).status_code
    assert 404 == client.get(f"/v1/models/{'x' * 300}", headers=headers).status_code
    services = app.extensions[EXTENSION]
    services.journal.flush()
    assert ["gpt-4o-mini"] == AnsweredModels(services.usage_log.report, clock=services.clock).names()


def test_tells_whose_key_it_is_and_what_it_used(client, new_key, clock):
    """Sums of today, of the month and of all time, both of UTC's calendar; never the key."""
    made = new_key(user="ada", group="physics")
    headers = {"Authorization": f"Bearer {made['key']}"}
    for days in (0, 20, 20, 0):  # the 1st, the 21st, then twice the 10th of the next month
        clock.advance(days * 86_400)
        assert 200 == client.post(CHAT, json=HELLO, headers=headers).status_code
    assert client.application.extensions[EXTENSION].journal.flush()

    me = client.get("/v1/me", headers=headers)

    assert (made["id"], "ada", "physics") == (me.json["id"], me.json["user"], me.json["group"])
    assert {"today": 2, "month": 2, "total": 4} == {
        period: sums["requests"] for period, sums in me.json["usage"].items()
    }
    assert made["key"] not in me.text


def test_a_bug_is_an_error_like_any_other(client, user, monkeypatch, caplog):
    """What nobody foresaw is a 500 in OpenAI's shape that says where the admin finds more, and nothing of the bug."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(client.application.extensions[EXTENSION].gateway, "complete", fail)

    answer = client.post(CHAT, json=HELLO, headers=user)

    assert (500, "internal_error") == (answer.status_code, answer.json["error"]["code"])
    assert "secret detail" not in answer.text
    assert answer.headers["x-request-id"] in answer.json["error"]["message"]
    assert "ZeroDivisionError: secret detail" in caplog.text
