"""Spoken answers that Azure keeps for a conversation belong to the user who got them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from llmgateway.simulator import Raw, Script
from tests.gateway_process import GatewayProcess

SPOKEN = {"id": "audio_6f1", "data": "UklGRg==", "expires_at": 1_900_000_000, "transcript": "Seven."}
USAGE = {"prompt_tokens": 9, "completion_tokens": 30, "total_tokens": 39}


@pytest.fixture(scope="module")
def gateway(azure_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One process on the embedded store."""
    with GatewayProcess(azure_environ, folder=tmp_path_factory.mktemp("spoken")) as process:
        yield process
        process.stop()


def answer(kind: str) -> Raw:
    """What Azure says, streamed or not."""
    head: dict[str, Any] = {"id": "chatcmpl-1", "model": "gpt-4o-audio-preview"}
    if kind == "plain":
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "audio": SPOKEN}}
        body = json.dumps(head | {"object": "chat.completion", "choices": [choice], "usage": USAGE})
        return Raw(200, {"Content-Type": "application/json"}, body.encode())
    deltas = [{"role": "assistant", "audio": {"id": SPOKEN["id"], "transcript": "Se"}}, {"audio": {"data": "UklG"}}, {}]
    events = [
        head | {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in zip(deltas, (None, None, "stop"), strict=True)
    ]
    lines = [json.dumps(each) for each in (*events, head | {"choices": [], "usage": USAGE})]
    body = "".join(f"data: {line}\n\n" for line in (*lines, "[DONE]"))
    return Raw(200, {"Content-Type": "text/event-stream"}, body.encode())


@pytest.mark.parametrize("kind", ["plain", "streamed"])
def test_nobody_else_can_go_on_from_a_spoken_answer(gateway, azure, kind):
    """To others it does not exist, and nothing is sent to Azure; also after a restart."""
    ada, eve = gateway.key(user="ada"), gateway.key(user="eve")
    azure.script(Script(raw=answer(kind)))
    speaks = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
    assert 200 == gateway.chat(ada, stream=kind == "streamed", **speaks).status
    messages = [
        {"role": "user", "content": "Which number?"},
        {"role": "assistant", "audio": {"id": SPOKEN["id"]}},
        {"role": "user", "content": "And the next?"},
    ]
    if kind == "plain":
        gateway.stop()
        gateway.start()
    asked = len(azure.served)

    refused = gateway.chat(eve, messages=messages)
    assert (404, "messages") == (refused.status, refused.error["param"])
    assert f"Audio with id '{SPOKEN['id']}' not found." == refused.error["message"]
    assert asked == len(azure.served)
    assert 200 == gateway.chat(ada, messages=messages).status


@pytest.mark.parametrize("name", [5, ["audio_6f1"], {"id": "audio_6f1"}, True])
def test_a_name_that_is_none_is_refused(gateway, azure, name):
    """What the gateway does not read as a name, Azure might."""
    messages = [{"role": "assistant", "audio": {"id": name}}, {"role": "user", "content": "Hello"}]

    refused = gateway.chat(gateway.key(user="ada"), messages=messages)

    assert (400, "messages") == (refused.status, refused.error["param"])
    assert [] == azure.served


def test_a_message_without_a_name_goes_on(gateway):
    """Clients send null where a message was not spoken."""
    for audio in (None, {"id": None}):
        messages = [{"role": "assistant", "content": "Hi", "audio": audio}, {"role": "user", "content": "Hello"}]
        assert 200 == gateway.chat(gateway.key(user="ada"), messages=messages).status
