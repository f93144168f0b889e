"""What a client is told when its request, its gateway or Azure is not well: always OpenAI's error object."""

from __future__ import annotations

import http.client
import json
import socket
import time
from contextlib import ExitStack, closing

import openai
import pytest

from llmgateway.simulator import Script
from llmgateway.simulator.scripts import Raw
from llmgateway.web.error_docs import REFUSALS
from tests.functional.conftest import AZURE_KEY
from tests.gateway_process import HTTPAnswer, dump
from tests.parts import in_openais_dialect
from tests.servers import free_port, wait_until

HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"", None, "no body"),
        (b"{", None, "not valid JSON at byte"),
        (b'{"messages": [NaN]}', None, "not valid JSON"),
        (b'{"messages": [1e999]}', None, "not valid JSON"),
        (b'{"messages": "\xff"}', None, "not valid JSON"),
        (b"[" * 100_000, None, "nested"),
        (b"[]", None, "JSON object"),
        (b'"text"', None, "JSON object"),
        (b"null", None, "JSON object"),
        (b'{"model": "gpt-4o-mini"}', "messages", "missing"),
        (dump(HELLO | {"messages": "Hello"}), "messages", "list"),
        (dump(HELLO | {"messages": None}), "messages", "list"),
        (dump(HELLO | {"messages": {}}), "messages", "list"),
        (dump(HELLO | {"messages": [{"role": "user"}, "Hello"]}), "messages[1]", "object"),
        (dump(HELLO | {"model": 4}), "model", "string"),
        (dump(HELLO | {"model": None}), "model", "missing"),
        (dump({"messages": [{}]}), "model", "missing"),
        (dump(HELLO | {"messages": []}), "messages", "empty"),
        (dump(HELLO | {"max_tokens": "20000"}), "max_tokens", "whole number"),
        (dump(HELLO)[:-1] + b', "model": "gpt-4o"}', "model", "twice"),
        (dump(HELLO | {"MESSAGES": []}), "messages", "upper and lower case"),
        (dump(HELLO | {"stream": "yes"}), "stream", "true or false"),
        (dump(HELLO | {"stream": 1}), "stream", "true or false"),
        (dump(HELLO | {"stream": True, "stream_options": []}), "stream_options", "object"),
    ],
)
def test_says_what_is_wrong_with_a_body_and_where(gateway, key, azure, body, param, says):
    """The answer is 400 invalid_request_error with the parameter, and Azure is not asked."""
    answer = gateway.request("POST", CHAT, key=key, body=body)

    error = answer.error
    assert (400, "invalid_request_error", "invalid_request_error") == (answer.status, error["type"], error["code"])
    assert param == error["param"]
    assert says in error["message"]
    assert [] == azure.served


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
)
def test_refuses_what_is_compressed_or_not_json(gateway, key, azure, headers):
    """The answer is 415."""
    answer = gateway.request("POST", CHAT, key=key, body=dump(HELLO), headers=headers)

    assert (415, "unsupported_media_type") == (answer.status, answer.error["code"])
    assert [] == azure.served


@pytest.mark.parametrize("kind", [None, "application/json", "application/json; charset=utf-8", "application/x+json"])
def test_takes_json_by_any_of_its_names(gateway, key, kind):
    """No Content-Type at all is taken as JSON."""
    connection = gateway.connect()
    body = dump(HELLO)
    connection.putrequest("POST", CHAT)
    connection.putheader("Authorization", f"Bearer {key}")
    connection.putheader("Content-Length", str(len(body)))
    if kind is not None:
        connection.putheader("Content-Type", kind)
    connection.endheaders(body)

    assert 200 == connection.getresponse().status
    connection.close()


def test_takes_a_body_of_exactly_the_limit(gateway, key, azure):
    """The limit itself is allowed, one byte more is 413."""
    body = dump(HELLO | {"padding": ""})
    body = body.replace(b'""', b'"%b"' % (b"x" * (150_000 - len(body))))

    assert 200 == gateway.request("POST", CHAT, key=key, body=body).status
    answer = gateway.request("POST", CHAT, key=key, body=body + b" ")
    assert (413, "body_too_large") == (answer.status, answer.error["code"])
    assert 1 == len(azure.served)


def raw_answer(connection):
    """Read one HTTP answer from a socket."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        headers = [(name.lower(), value) for name, value in response.getheaders()]
        return HTTPAnswer(response.status, headers, response.read())


@pytest.mark.parametrize("origin", ["https://app.example.org", "https://other.example.org"])
def test_a_page_can_read_that_its_body_is_too_large(start_alone, origin):
    """A page of an allowed origin; the server refuses before the application has the request."""
    gateway = start_alone(LLMGATEWAY_CORS_ORIGINS="https://app.example.org", LLMGATEWAY_MAX_BODY_BYTES="2000")

    answer = gateway.request("POST", CHAT, key="k", body=b"x" * 2001, headers={"Origin": origin})

    assert (413, "body_too_large") == (answer.status, answer.error["code"])
    allowed = "https://app.example.org" if origin == "https://app.example.org" else None
    assert allowed == answer.header("access-control-allow-origin")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_refuses_a_large_body_while_it_is_still_being_sent(gateway, key, azure, framing):
    """A client that goes on sending reads 413 in OpenAI's shape, and no reset."""
    size = 5_000_000
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {size}\r\n\r\n" if framing == "length" else "Transfer-Encoding: chunked\r\n\r\n"
    piece = b"x" * 10_000
    if framing == "chunked":
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(head.encode())
        try:
            for _ in range(size // 10_000):
                connection.sendall(piece)
        except OSError:
            pass  # it may have stopped listening, but has to have said why
        answer = raw_answer(connection)

    assert (413, "body_too_large") == (answer.status, answer.error["code"])
    assert [] == azure.served


@pytest.mark.parametrize(
    "request_line",
    [
        b"GARBAGE\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n",
        b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_answers_what_is_no_http_in_the_same_shape(gateway, request_line):
    """Even what the server itself cannot read gets OpenAI's error object."""
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(request_line)
        answer = raw_answer(connection)

    assert 400 == answer.status
    assert "invalid_request_error" == answer.error["type"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("POST", "/v1/chat/completion", 404, "not_found"),
        ("POST", "/v1/chat/completions/", 400, "invalid_request_error"),
        ("POST", "/chat/completions", 400, "invalid_request_error"),
        ("GET", "/v1/../admin/keys", 404, "not_found"),
        ("GET", "/docs/assets/../../../setup.py", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/livez", 405, "method_not_allowed"),
    ],
)
def test_knows_what_there_is_and_what_not(gateway, key, method, path, status, code):
    """A wrong path is 404, a wrong method 405 with those that are right."""
    answer = gateway.request(method, path, key=key)

    assert (status, code) == (answer.status, answer.error["code"])
    assert (status == 405) == (answer.header("allow") is not None)


def test_says_that_azure_is_unreachable(start_alone, azure):
    """A closed port is 502 upstream_unreachable with Retry-After; nothing is booked."""
    gateway = start_alone(LLM_BASE_URL=f"http://127.0.0.1:{free_port()}/openai/v1")
    key = gateway.key()

    for stream in (False, True):
        answer = gateway.chat(key, stream=stream)
        assert (502, "upstream_unreachable") == (answer.status, answer.error["code"])
        assert answer.header("retry-after")
    assert 0 == gateway.request("GET", "/v1/me", key=key).json()["usage"]["total"]["requests"]


@pytest.mark.parametrize("reset", [False, True])
def test_says_that_azure_hung_up(gateway, key, azure, records, reset):
    """A connection that ends before an answer is 502, and is booked: Azure may have worked."""
    azure.script(Script(refuse=True, reset=reset), times=None)

    answer = gateway.chat(key)

    assert (502, "upstream_unreachable") == (answer.status, answer.error["code"])
    [record] = records(gateway, key)
    assert ("broken", "bound", None) == (record["outcome"], record["usage_source"], record["status"])
    assert 1 == len(azure.served)


@pytest.mark.parametrize("cut", [{"cut_after_bytes": 100}, {"cut_after_bytes": 100, "reset": True}])
def test_says_that_a_plain_answer_broke(gateway, key, azure, records, cut):
    """A half answer is no answer: 502 instead of broken JSON."""
    azure.script(Script(**cut))

    answer = gateway.chat(key)

    assert (502, "upstream_unreachable") == (answer.status, answer.error["code"])
    assert ["broken"] == [record["outcome"] for record in records(gateway, key)]


@pytest.mark.parametrize("status", [301, 304, 307, 308])
@pytest.mark.parametrize("stream", [False, True])
def test_says_that_azure_has_moved(gateway, key, azure, records, status, stream):
    """A redirect is 502 upstream_moved, not followed and not shown; nothing is booked."""
    azure.script(Script(raw=Raw(status, {"Location": f"{azure.url}/elsewhere?secret"})))

    answer = gateway.chat(key, stream=stream)

    example = REFUSALS["UpstreamUnusable"].examples["moved"]
    assert (502, example.as_json()) == (answer.status, answer.json())
    assert answer.header("location") is None
    assert 1 == len(azure.served)
    [record] = records(gateway, key)
    assert ("upstream_error", "none", 0, status) == (
        record["outcome"],
        record["usage_source"],
        record["total_tokens"],
        record["status"],
    )


@pytest.mark.parametrize("status", [204, 205])
def test_passes_an_answer_without_content_on(gateway, key, azure, records, status):
    """It is no completion, so nothing is booked."""
    azure.script(Script(raw=Raw(status, {})))

    answer = gateway.chat(key)

    assert (status, b"") == (answer.status, answer.body)
    [record] = records(gateway, key)
    assert ("upstream_error", "none", 0) == (record["outcome"], record["usage_source"], record["total_tokens"])


@pytest.mark.parametrize("fault", ["unauthorized", "permission_denied", "network_denied", "unauthorized_apim"])
def test_says_that_azure_refused_the_gateway(gateway, key, azure, fault):
    """Azure's 401 and 403 concern our credential: 502 upstream_credentials, and /readyz says so."""
    azure.script(Script(fault=fault))

    answer = gateway.chat(key, stream=True)

    assert (502, "upstream_credentials") == (answer.status, answer.error["code"])
    assert azure.served[0].body_sent not in answer.body
    ready = gateway.request("GET", "/readyz")
    assert (200, "degraded") == (ready.status, ready.json()["status"])
    assert "refused" in ready.json()["checks"]["azure_key"]
    assert 200 == gateway.chat(key).status
    assert "ok" == gateway.request("GET", "/readyz").json()["status"]


def test_says_that_there_is_no_credential(start_alone, azure):
    """Without any Azure key it starts, says so in /readyz, and answers 502 until one is set."""
    gateway = start_alone(LLM_API_KEY=None)
    key = gateway.key()

    answer = gateway.chat(key)
    assert (502, "upstream_credentials") == (answer.status, answer.error["code"])
    assert "missing" in gateway.request("GET", "/readyz").json()["checks"]["azure_key"]
    gateway.admin("POST", "/admin/setllmkey", json={"key": AZURE_KEY})
    assert 200 == gateway.chat(key).status


@pytest.mark.parametrize("stream", [False, True])
def test_says_that_azure_was_silent(hasty, azure, records, stream):
    """No head within the time-out is 504 upstream_timeout, booked as one."""
    azure.script(Script(delay=30))
    key = hasty.key()

    answer = hasty.chat(key, stream=stream)

    assert (504, "upstream_timeout") == (answer.status, answer.error["code"])
    azure.wait_for(lambda served: served[0].peer_left)
    assert ["timeout"] == [record["outcome"] for record in records(hasty, key)]


def test_says_that_a_plain_answer_stalled(hasty, azure, records):
    """A head without a body is 504, too."""
    azure.script(Script(stall_after_events=0))
    key = hasty.key()

    answer = hasty.chat(key)

    assert (504, "upstream_timeout") == (answer.status, answer.error["code"])
    assert ["timeout"] == [record["outcome"] for record in records(hasty, key)]


def test_waits_long_for_the_first_byte_and_not_between_bytes(start_alone, azure):
    """A model that thinks for a while is no broken connection; one that falls silent in the middle is."""
    gateway = start_alone(LLMGATEWAY_FIRST_BYTE_TIMEOUT="60", LLMGATEWAY_BETWEEN_BYTES_TIMEOUT="0.3")
    key = gateway.key()
    azure.script(Script(delay=0.6))
    azure.script(Script(stall_after_events=5))

    assert gateway.chat(key, stream=True).body.endswith(b"data: [DONE]\n\n")
    began = time.monotonic()
    assert b"upstream_timeout" in gateway.chat(key, stream=True).body

    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("script", "code", "outcome"),
    [
        (Script(stall_after_events=5), "upstream_timeout", "timeout"),
        (Script(cut_after_events=5), "upstream_unreachable", "broken"),
        (Script(cut_after_events=5, reset=True), "upstream_unreachable", "broken"),
        (Script(cut_after_events=5, framing="close"), "upstream_unreachable", "broken"),
        (Script(cut_after_events=5, framing="length"), "upstream_unreachable", "broken"),
        (Script(cut_after_bytes=2000), "upstream_unreachable", "broken"),
        (Script(cut_after_events=0), "upstream_unreachable", "broken"),
    ],
)
def test_ends_a_broken_stream_with_an_error_event(hasty, azure, records, script, code, outcome):
    """Whole events until then, then one error event, no [DONE], the connection closed."""
    azure.script(script)
    key = hasty.key()

    answer = hasty.chat(key, stream=True)

    assert 200 == answer.status
    *events, last, rest = answer.body.split(b"\n\n")
    assert b"" == rest
    assert code == json.loads(last.removeprefix(b"data: "))["error"]["code"]
    assert in_openais_dialect(azure.served[0].body_sent) == b"".join(event + b"\n\n" for event in events)
    assert b"[DONE]" not in answer.body
    assert [outcome] == [record["outcome"] for record in records(hasty, key)]


def test_makes_the_official_client_raise_in_the_middle(hasty, azure):
    """The error event is an APIError there, after the pieces that came."""
    azure.script(Script(cut_after_events=6))
    pieces = []

    def read(client):
        for event in client.chat.completions.create(**HELLO, stream=True):
            pieces.extend(choice.delta.content for choice in event.choices)

    with (
        openai.OpenAI(base_url=f"{hasty.url}/v1", api_key=hasty.key(), max_retries=0) as client,
        pytest.raises(openai.APIError),
    ):
        read(client)

    assert 5 == len(pieces)


def test_passes_azures_own_error_event_on(gateway, key, azure, records):
    """An error in the middle that Azure itself sends is the last event, once."""
    azure.script(Script(error_event_after=4))

    answer = gateway.chat(key, stream=True)

    assert in_openais_dialect(azure.served[0].body_sent) == answer.body
    assert 1 == answer.body.count(b'"error"')
    assert ["upstream_error"] == [record["outcome"] for record in records(gateway, key)]


def test_refuses_at_once_when_every_place_is_busy(start_alone, azure):
    """With eight threads four requests are relayed; a fifth is 503, while health and admin answer."""
    gateway = start_alone(LLMGATEWAY_THREADS="8", LLMGATEWAY_KEY_SHARE="1")
    key = gateway.key()
    azure.script(Script(stall_after_events=2), times=4)
    busy = [gateway.connect() for _ in range(4)]
    for connection in busy:
        connection.request("POST", CHAT, dump(HELLO | {"stream": True}), {"Authorization": f"Bearer {key}"})
    responses = [connection.getresponse() for connection in busy]

    for _ in range(8):
        answer = gateway.chat(key)
        assert (503, "overloaded") == (answer.status, answer.error["code"])
        assert "1" == answer.header("retry-after")
    assert [200] * 4 == [
        gateway.request("GET", "/livez").status,
        gateway.request("GET", "/readyz").status,
        gateway.admin("GET", "/admin/listkeys").status,
        gateway.request("GET", "/v1/me", key=key).status,
    ]
    assert 4 == len(azure.served)

    azure.release()
    for response in responses:
        with response:
            assert response.read().endswith(b"data: [DONE]\n\n")
    for connection in busy:
        connection.close()
    wait_until(lambda: gateway.chat(key).status == 200, what="a free slot")


@pytest.mark.parametrize("left", ["client", "failure", "refusal"])
def test_gives_every_place_back(hasty, azure, left):
    """However requests end, none takes its slot along."""
    key = hasty.key()
    for _ in range(6):
        if left == "client":
            azure.reset()
            azure.script(Script(tokens=1000, gap=0.01))
            connection = hasty.connect()
            connection.request("POST", CHAT, dump(HELLO | {"stream": True}), {"Authorization": f"Bearer {key}"})
            connection.getresponse().close()
            connection.close()
            azure.wait_for(lambda served: served and served[0].peer_left)
        elif left == "failure":
            azure.script(Script(cut_after_bytes=50))
            assert 502 == hasty.chat(key).status
        else:
            assert 400 == hasty.chat(key, messages=None).status
    azure.reset()

    wait_until(lambda: hasty.chat(key).status == 200, what="a free slot")


def test_refuses_a_wrong_admin_key(start_alone):
    """Missing or wrong, everywhere below /admin, it is 401 invalid_admin_key."""
    gateway = start_alone()
    answers = [
        gateway.request(method, path, json={} if method == "POST" else None)
        for method, path in [("GET", "/admin/listkeys"), ("POST", "/admin/setprompt"), ("DELETE", "/admin/keys/x")]
    ]
    answers += [
        gateway.request("GET", "/admin/listkeys", headers={"AdminKey": wrong})
        for wrong in ("", "wrong", gateway.admin_key[:-1], f"{gateway.admin_key}0", gateway.admin_key.upper())
    ]

    assert [(401, "invalid_admin_key")] * 8 == [(answer.status, answer.error["code"]) for answer in answers]
    assert 200 == gateway.admin("GET", "/admin/listkeys").status


def test_slows_down_who_guesses_the_admin_key(start_alone, azure):
    """After ten wrong ones the next has to wait, whichever process it meets; the right one and users do not."""
    gateway = start_alone(LLMGATEWAY_PROCESSES="2")
    key = gateway.key()

    statuses = []
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(gateway.connect_to(worker))) for worker in gateway.workers()]
        for number in range(12):
            wrong = {"AdminKey": f"guess-{number}"}
            answer = gateway.request("GET", "/admin/keys", headers=wrong, connection=connections[number % 2])
            statuses.append(answer.status)
    answer = gateway.request("GET", "/admin/keys", headers={"AdminKey": "guess"})

    assert [401] * 10 + [429] * 2 == statuses
    assert (429, "too_many_attempts") == (answer.status, answer.error["code"])
    assert 0 < int(answer.header("retry-after")) <= 61
    assert 200 == gateway.admin("GET", "/admin/keys").status
    assert 200 == gateway.chat(key).status


def test_warns_of_a_proxy_that_is_not_trusted(start_alone):
    """Behind it all clients would be one address; the line in the log says what to set."""
    gateway = start_alone()
    for _ in range(2):
        assert 200 == gateway.request("GET", "/livez", headers={"X-Forwarded-For": "192.0.2.1"}).status

    assert 1 == gateway.output.count("LLMGATEWAY_TRUSTED_PROXY is not set")
    assert "If 127.0.0.1 is your proxy" in gateway.output


def test_takes_no_users_key_for_an_admins(gateway, key):
    """And no admin's for a user's."""
    assert 401 == gateway.request("GET", "/admin/keys", headers={"AdminKey": key}).status
    assert 401 == gateway.request("GET", "/admin/keys", key=gateway.admin_key).status
    assert 401 == gateway.request("GET", "/v1/me", key=gateway.admin_key).status
