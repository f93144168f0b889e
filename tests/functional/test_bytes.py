"""What Azure says is what the client gets, and what the client says is what Azure gets, byte by byte."""

from __future__ import annotations

import json

import pytest

from llmgateway.simulator import Raw, Script
from tests.parts import in_openais_dialect

USAGE_EVENT = b'data: {"choices":[],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
SHORT_STREAM = (
    'data: {"choices":[{"delta":{"content":"é\\n\\n€"},"index":0}]}\n\n'.encode() + USAGE_EVENT + b"data: [DONE]\n\n"
)
FRAMINGS = ("chunked", "length", "close")


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("split", [None, 1, 7, 100, 1000, (1, 2, 500, 501)])
def test_gives_every_event_as_it_came(gateway, key, azure, framing, split):
    """However Azure frames a stream and cuts it into packets, the client gets the same bytes."""
    azure.script(Script(framing=framing, split=split, tokens=12), times=2)

    asked = gateway.chat(key, stream=True, stream_options={"include_usage": True})
    unasked = gateway.chat(key, stream=True)

    first, second = azure.served
    assert in_openais_dialect(first.body_sent, usage=True) == asked.body
    assert in_openais_dialect(second.body_sent) == unasked.body
    assert b'"total_tokens"' in asked.body
    assert b'"total_tokens"' not in unasked.body


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


def stream_of(connection, key):
    """Ask for a stream, and return the response as soon as its head is here."""
    connection.request(
        "POST",
        "/v1/chat/completions",
        body=b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a b c"}],"stream":true}',
        headers={"Authorization": f"Bearer {key}"},
    )
    return connection.getresponse()


def test_passes_events_on_as_they_come(gateway, key, azure):
    """Each event reaches the client while Azure still holds the next one back."""
    azure.script(Script(stall_after_events=3))
    connection = gateway.connect()
    response = stream_of(connection, key)

    first_two = b"".join(response.readline() for _ in range(4))
    assert in_openais_dialect(azure.served[0].body_sent) == first_two
    assert not azure.served[0].finished

    azure.release()
    rest = response.read()
    assert in_openais_dialect(azure.served[0].body_sent) == first_two + rest
    connection.close()


@pytest.mark.parametrize("annotations", [False, True])
@pytest.mark.parametrize("kind", [None, "asynchronous", "late_block", "completion", "outage"])
def test_passes_azures_events_on_if_the_admin_wants_them(start_gateway, azure, kind, annotations):
    """With LLMGATEWAY_AZURE_EVENTS=pass, every byte is Azure's."""
    gateway = start_gateway(LLMGATEWAY_AZURE_EVENTS="pass")
    key = gateway.key()
    script = Script(filter=kind, prompt_annotations=annotations)

    azure.script(script, times=2)
    asked = gateway.chat(key, stream=True, stream_options={"include_usage": True})
    unasked = gateway.chat(key, stream=True)

    first, second = azure.served
    assert first.body_sent == asked.body
    usage_event = next(event for event in second.body_sent.split(b"\n\n") if b'"usage":{' in event)
    assert second.body_sent.replace(usage_event + b"\n\n", b"") == unasked.body


def test_the_head_does_not_wait_for_the_first_text(gateway, key, azure):
    """Azure's first event is withheld. Status and headers arrive with it, and not minutes later with the first text."""
    azure.script(Script(stall_after_events=1))
    connection = gateway.connect()
    response = stream_of(connection, key)

    assert "text/event-stream; charset=utf-8" == response.headers["content-type"]
    assert not azure.served[0].finished
    azure.release()
    body = response.read()
    assert in_openais_dialect(azure.served[0].body_sent) == body
    connection.close()


def test_passes_an_oversized_event_on(gateway, key, azure):
    """An event larger than any buffer of the gateway's is no reason to change or to hold it."""
    azure.script(Script(oversized_line=300_000, tokens=3))

    answer = gateway.chat(key, stream=True)

    assert in_openais_dialect(azure.served[0].body_sent) == answer.body


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


@pytest.mark.parametrize("body", [ODD_BODY % b"", b'{"messages":[{"role":"user"}],"model":"gpt-4o-mini"}'])
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
