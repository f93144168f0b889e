"""What Azure says is what the client gets, and what the client says is what Azure gets, byte by byte."""

from __future__ import annotations

import json

import pytest

from llmgateway.simulator import Raw, Script

USAGE_EVENT = b'data: {"choices":[],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
SHORT_STREAM = (
    'data: {"choices":[{"delta":{"content":"é\\n\\n€"},"index":0}]}\n\n'.encode() + USAGE_EVENT + b"data: [DONE]\n\n"
)
FRAMINGS = ("chunked", "length", "close")


def without_usage_event(stream):
    """The events of a stream but for the one that only the gateway had asked for."""
    kept = [event for event in stream.split(b"\n\n") if b'"usage":{' not in event]
    return b"\n\n".join(kept)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("split", [None, 1, 7, 100, 1000, (1, 2, 500, 501)])
def test_gives_every_event_as_it_came(gateway, key, azure, framing, split):
    """However Azure frames a stream and cuts it into packets, the client gets the same bytes."""
    azure.script(Script(framing=framing, split=split, tokens=12), times=2)

    asked = gateway.chat(key, stream=True, stream_options={"include_usage": True})
    unasked = gateway.chat(key, stream=True)

    first, second = azure.served
    assert first.body_sent == asked.body
    assert without_usage_event(second.body_sent) == unasked.body
    assert len(unasked.body) < len(second.body_sent)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_bears_a_cut_at_every_byte(start_alone, azure, framing):
    """There is no place where a packet's end changes what arrives."""
    gateway = start_alone(LLMGATEWAY_LOG_LEVEL="WARNING")
    key = gateway.key()
    raw = Raw(200, {"content-type": "text/event-stream"}, SHORT_STREAM)
    connection = gateway.connect()

    for offset in range(1, len(SHORT_STREAM)):
        azure.script(Script(raw=raw, framing=framing, split=(offset,)))
        answer = gateway.chat(key, stream=True, connection=connection)
        assert SHORT_STREAM.replace(USAGE_EVENT, b"") == answer.body, f"cut at {offset}"

    connection.close()


def test_passes_events_on_as_they_come(gateway, key, azure):
    """Each event reaches the client while Azure still holds the next one back."""
    azure.script(Script(stall_after_events=3))
    connection = gateway.connect()
    connection.request(
        "POST",
        "/v1/chat/completions",
        body=b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a b c"}],"stream":true}',
        headers={"Authorization": f"Bearer {key}"},
    )
    response = connection.getresponse()

    first_three = b"".join(response.readline() for _ in range(6))
    assert azure.served[0].body_sent == first_three
    assert not azure.served[0].finished

    azure.release()
    rest = response.read()
    assert without_usage_event(azure.served[0].body_sent) == first_three + rest
    connection.close()


def test_passes_an_oversized_event_on(gateway, key, azure):
    """An event larger than any buffer of the gateway's is no reason to change or to hold it."""
    azure.script(Script(oversized_line=300_000, tokens=3))

    answer = gateway.chat(key, stream=True)

    assert without_usage_event(azure.served[0].body_sent) == answer.body


@pytest.mark.parametrize("split", [None, 1, 100])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_gives_a_plain_answer_as_it_came(gateway, key, azure, framing, split):
    """A completion in one piece is byte-equal."""
    azure.script(Script(framing=framing, split=split))

    answer = gateway.chat(key)

    assert azure.served[0].body_sent == answer.body
    assert "application/json" == answer.header("content-type")


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (400, "application/json", b'{ "error" :\n{"code":"x", "message": "\xc3\xa9 \\ud800", "n": 1e999}}\n'),
        (404, "text/html; charset=iso-8859-1", b"<h1>Not f\xf6und</h1>"),
        (409, "application/json", b""),
        (422, "application/json", b'{"detail":[1,2]}'),
        (429, "text/plain", b"slow down"),
        (500, "application/octet-stream", bytes(range(256))),
        (503, "application/json", b'{"statusCode":503}'),
        (200, "application/json", b"not json at all"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_gives_an_error_as_it_came(gateway, key, azure, status, kind, body, stream):
    """Azure's status, type and body are passed on, whatever they are."""
    azure.script(Script(raw=Raw(status, {"content-type": kind}, body)))

    answer = gateway.chat(key, stream=stream)

    assert (status, kind, body) == (answer.status, answer.header("content-type"), answer.body)


ODD_BODY = (
    b'{ "seed":123456789012345678901234567890 ,"x":"\\ud800\\u00e9\xc3\xa9",\n\t"messages":'
    b'[ {"content":"half \\udc00","role":"user"} ],"temperature":1.10, "model":"gpt-4o-mini"%b} '
)


@pytest.mark.parametrize(
    "body",
    [
        ODD_BODY % b"",
        ODD_BODY % b', "stream" : false',
        ODD_BODY % b', "stream":true ,"stream_options":{"include_usage":true, "x":-0.0}',
    ],
)
def test_forwards_the_clients_own_bytes(gateway, key, azure, body):
    """Where nothing has to change, white space, order, large integers and half surrogates stay."""
    gateway.request("POST", "/v1/chat/completions", key=key, body=body)

    assert body == azure.served[0].body


def test_changes_nothing_but_the_option_it_needs(gateway, key, azure):
    """A stream that did not ask for usage gets the option, and every other value and the order stay."""
    body = ODD_BODY % b', "stream":true'

    gateway.request("POST", "/v1/chat/completions", key=key, body=body)

    sent = json.loads(azure.served[0].body)
    assert [*json.loads(body), "stream_options"] == list(sent)
    assert json.loads(body) | {"stream_options": {"include_usage": True}} == sent


@pytest.mark.parametrize("body", [ODD_BODY % b"", b'{"messages":[],"model":"gpt-4o-mini"}'])
def test_changes_nothing_but_the_messages_for_a_prompt(gateway, key, azure, body, prompt):
    """The organisation's prompt becomes the first message, and nothing else is touched."""
    prompt("Sei bitte kürzer. 日本")

    gateway.request("POST", "/v1/chat/completions", key=key, body=body)

    before, sent = json.loads(body), json.loads(azure.served[0].body)
    assert list(before) == list(sent)
    system = {"role": "system", "content": "Sei bitte kürzer. 日本"}
    assert before | {"messages": [system, *before["messages"]]} == sent


def test_sends_no_usage_option_for_a_plain_answer(gateway, key, azure, prompt):
    """Azure refuses stream_options without stream."""
    prompt("Be brief.")

    gateway.chat(key)
    gateway.chat(key, stream=False)

    assert [None, None] == [json.loads(served.body).get("stream_options") for served in azure.served]


def test_takes_a_body_in_chunks(gateway, key, azure):
    """A body without a length reaches Azure whole."""
    body = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"%b"}]}' % (b"x" * 90_000)
    connection = gateway.connect()
    pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
    connection.request(
        "POST",
        "/v1/chat/completions",
        body=pieces,
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        encode_chunked=True,
    )

    assert 200 == connection.getresponse().status
    assert body == azure.served[0].body
    connection.close()
