"""Chat completions at a WSGI server."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from llmgateway.proxy.operations.chat import CHAT_COMPLETIONS
from llmgateway.proxy.relay import Reply
from llmgateway.proxy.request import CompletionRequest
from llmgateway.proxy.stream import EventStream
from llmgateway.records import RecordQuery
from llmgateway.simulator import Raw, Script
from llmgateway.usage.metrics import Metrics
from llmgateway.web import context
from llmgateway.web.context import EXTENSION

from .conftest import MAX_BODY_BYTES

HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = HELLO | {"stream": True}
PATH = "/v1/chat/completions"
ORIGIN = "https://app.example"
REQUEST_ID = "01890000-0000-7000-8000-000000000000"

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Answered = tuple[str, list[tuple[str, str]], bytes]


def environ_of(body: bytes = b"", **changes: Any) -> dict[str, Any]:
    """A request as PEP 3333 wants it; a change to None leaves a variable out."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": PATH,
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
    }
    setup_testing_defaults(environ)
    return {name: value for name, value in (environ | changes).items() if value is not None}


def ask(application: Application, environ: dict[str, Any]) -> Answered:
    """What a WSGI server would send: status, headers and body."""
    begun: list[Any] = []
    body = application(environ, lambda *head: begun.extend(head))
    try:
        data = b"".join(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    status, headers = begun
    return status, headers, data


@pytest.fixture(autouse=True)
def fresh(azure, monkeypatch):
    azure.reset()
    monkeypatch.setattr(context, "new_request_id", lambda _now: REQUEST_ID)


@pytest.fixture
def app(client):
    return client.application


@pytest.fixture
def key(user) -> dict[str, str]:
    """The header of a user's request, as WSGI names it."""
    return {"HTTP_AUTHORIZATION": user["Authorization"]}


def dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()


AZURES = {"content-type": "application/json", "apim-request-id": "azures"}
FINE = Script(raw=Raw(200, AZURES | {"x-request-id": "azures"}, b'{"choices": []}'))
EVENTS = Raw(200, {"content-type": "text/event-stream", "x-request-id": "azures"}, b"data: {}\n\ndata: [DONE]\n\n")
TYPE = "CONTENT_TYPE"
REQUESTS: dict[str, tuple[int, Script | None, bytes, dict[str, Any]]] = {
    "a plain answer": (200, FINE, dump(HELLO), {}),
    "one without an id of Azure's": (200, Script(raw=Raw(200, AZURES, b"{}")), dump(HELLO), {}),
    "one that is empty": (200, Script(raw=Raw(200, AZURES, b"")), dump(HELLO), {}),
    "one without a type": (200, Script(raw=Raw(200, {}, b"{}")), dump(HELLO), {}),
    "one that never has a body": (204, Script(raw=Raw(204, {"x-request-id": "azures"}, b"")), dump(HELLO), {}),
    "a status that nobody knows": (299, Script(raw=Raw(299, AZURES, b"{}")), dump(HELLO), {}),
    "a stream": (200, Script(raw=EVENTS), dump(STREAM), {}),
    "a stream that breaks off": (200, Script(raw=EVENTS, cut_after_bytes=12), dump(STREAM), {}),
    "Azure's refusal": (429, Script(raw=Raw(429, AZURES | {"retry-after": "7"}, b'{"error": {}}')), dump(HELLO), {}),
    "Azure's refusal of us": (502, Script(raw=Raw(401, AZURES, b"{}")), dump(HELLO), {}),
    "Azure's silence": (502, Script(refuse=True), dump(HELLO), {}),
    "a body in pieces": (200, FINE, dump(HELLO), {"CONTENT_LENGTH": None, "wsgi.input_terminated": True}),
    "a type with more to it": (200, FINE, dump(HELLO), {TYPE: "Application/JSON ; charset=utf-8"}),
    "a type of its own": (200, FINE, dump(HELLO), {TYPE: "application/problem+json"}),
    "no type": (200, FINE, dump(HELLO), {TYPE: None}),
    "another type": (415, None, dump(HELLO), {TYPE: "text/plain"}),
    "a compressed body": (415, None, dump(HELLO), {"HTTP_CONTENT_ENCODING": "gzip"}),
    "a body that says it is not": (200, FINE, dump(HELLO), {"HTTP_CONTENT_ENCODING": "Identity"}),
    "no key": (401, None, dump(HELLO), {"HTTP_AUTHORIZATION": None}),
    "no Bearer": (401, None, dump(HELLO), {"HTTP_AUTHORIZATION": "Basic eDp5"}),
    "nobody's key": (401, None, dump(HELLO), {"HTTP_AUTHORIZATION": "Bearer nobody's"}),
    "Azure's header with nobody's key": (401, None, dump(HELLO), {"HTTP_AUTHORIZATION": None, "HTTP_API_KEY": "x"}),
    "no body": (400, None, b"", {}),
    "half a body": (400, None, dump(HELLO)[:-9], {"CONTENT_LENGTH": str(len(dump(HELLO)))}),
    "no JSON": (400, None, b"{", {}),
    "a model that is not there": (404, None, dump(HELLO | {"model": "gpt-9"}), {}),
    "half a character": (404, None, b'{"model": "\\ud800", "messages": [{}]}', {}),
    "too large a body": (413, None, b" " * (MAX_BODY_BYTES + 1), {}),
    "one that turns out to be": (
        413,
        None,
        b" " * (MAX_BODY_BYTES + 1),
        {"CONTENT_LENGTH": None, "wsgi.input_terminated": True},
    ),
    "a path in front": (200, FINE, dump(HELLO), {"SCRIPT_NAME": "/llm"}),
    "a query": (200, FINE, dump(HELLO), {"QUERY_STRING": "api-version=2024-10-21"}),
}


class TestTheView:
    """Every request goes through Flask."""

    @pytest.mark.parametrize("name", REQUESTS)
    def test_answers_with_the_right_status(self, app, azure, key, name):
        """Whatever Azure does, and whatever is wrong with the request."""
        status, script, body, changes = REQUESTS[name]
        if script is not None:
            azure.script(script)

        answer = ask(app, environ_of(body, **{**key, **changes}))

        assert status == int(answer[0].split()[0])
        assert (0 if script is None else 1) == len(azure.served)

    def test_refuses_when_a_limit_is_reached(self, app, azure, new_key):
        """With what is left of the limits, and when to come back."""
        key = {"HTTP_AUTHORIZATION": f"Bearer {new_key(limits={'requests_per_minute': 1})['key']}"}
        azure.script(FINE)
        assert "200 OK" == ask(app, environ_of(dump(HELLO), **key))[0]

        status, headers, _ = ask(app, environ_of(dump(HELLO), **key))

        assert ("429 TOO MANY REQUESTS", "60") == (status, dict(headers)["Retry-After"])
        assert "0" == dict(headers)["x-ratelimit-remaining-requests"]

    def test_refuses_at_capacity(self, app, key):
        """Where every slot is taken."""
        slots = app.extensions[EXTENSION].gateway.concurrency
        for _ in range(slots.capacity):
            slots.take()

        assert ask(app, environ_of(dump(HELLO), **key))[0].startswith("503")

    def test_says_that_a_bug_is_one(self, app, key, monkeypatch, caplog):
        """The client gets the identifier, the log has the rest under it, once."""

        def fail(*_: object) -> None:
            raise ZeroDivisionError("a detail")

        monkeypatch.setattr(app.extensions[EXTENSION].gateway, "complete", fail)
        status, headers, _ = ask(app, environ_of(dump(HELLO), **key))

        assert status.startswith("500")
        assert "ZeroDivisionError: a detail" in caplog.text
        assert [True] == [REQUEST_ID in record.getMessage() for record in caplog.records]
        assert REQUEST_ID == dict(headers)["x-request-id"]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            (
                "a plain answer",
                {
                    ("content-type", "application/json"),
                    ("apim-request-id", "azures"),
                    ("x-upstream-request-id", "azures"),
                    ("x-request-id", REQUEST_ID),
                    ("Cache-Control", "no-store"),
                    ("Content-Length", "15"),
                },
            ),
            (
                "a stream",
                {
                    ("content-type", "text/event-stream"),
                    ("x-upstream-request-id", "azures"),
                    ("x-request-id", REQUEST_ID),
                    ("X-Accel-Buffering", "no"),
                    ("Cache-Control", "no-cache"),
                },
            ),
            (
                "one without a type",
                {
                    ("x-request-id", REQUEST_ID),
                    ("Cache-Control", "no-store"),
                    ("Content-Length", "2"),
                },
            ),
            (
                "no key",
                {
                    ("Content-Type", "application/json"),
                    ("Content-Length", "157"),
                    ("Cache-Control", "no-store"),
                    ("x-request-id", REQUEST_ID),
                },
            ),
        ],
    )
    def test_send_these_headers_once_and_no_others(self, app, azure, key, name, expected):
        """Azure's that pass, and ours; nothing that the framework would like to add."""
        _, script, body, changes = REQUESTS[name]
        azure.script(script or FINE)

        _, headers, _ = ask(app, environ_of(body, **{**key, **changes}))

        assert sorted(expected) == sorted(headers)

    def test_hand_on_what_the_server_knows(self, app, monkeypatch):
        """The key, however it was sent; the body; who the client is, and whether it is still there."""
        asked = []
        monkeypatch.setattr(
            app.extensions[EXTENSION].gateway,
            "complete",
            lambda request: asked.append(request) or Reply(status=200, headers=[], body=b""),
        )
        for header in ({"HTTP_AUTHORIZATION": "bearer  a key "}, {"HTTP_API_KEY": "a key"}):
            environ = environ_of(b"a body", **header, **{"waitress.client_disconnected": bool})
            assert "200 OK" == ask(app, environ)[0]

        for request in asked:
            body = request.body
            expected = CompletionRequest(
                id=REQUEST_ID,
                key="a key",
                operation=CHAT_COMPLETIONS,
                body=body,
                body_bytes=6,
                endpoint=PATH,
                client_address="192.0.2.1",
                client_gone=bool,
            )
            assert (expected, b"a body") == (request, body())
        assert 2 == len(asked)

    def test_count_a_refusal_once(self, app, monkeypatch):
        """Under its code."""
        counted: list[str | None] = []
        monkeypatch.setattr(Metrics, "refused", lambda _self, code: counted.append(code))

        ask(app, environ_of(dump(HELLO)))

        assert ["invalid_api_key"] == counted

    def test_hand_a_stream_over_as_it_is(self, app, azure, key):
        """The server closes the very stream; one that nobody has begun to read is freed, too."""
        slots = app.extensions[EXTENSION].gateway.concurrency
        azure.script(Script(stall_after_events=1))
        body = app(environ_of(dump(STREAM), **key), lambda *_: None)
        assert isinstance(body, EventStream)
        assert 1 == slots.taken

        body.close()

        assert 0 == slots.taken

    @pytest.mark.parametrize("name", ["a plain answer", "a stream", "no key", "a bug"])
    def test_keep_to_wsgi(self, app, azure, key, name, monkeypatch):
        """What PEP 3333 asks of an application, as the standard library checks it."""
        _, script, body, changes = REQUESTS.get(name, REQUESTS["a plain answer"])
        azure.script(script or FINE)
        if name == "a bug":
            monkeypatch.setattr(app.extensions[EXTENSION].gateway, "complete", None)
        ask(validator(app), environ_of(body, **{**key, **changes}))

    @pytest.mark.parametrize("proxy", ["", "*"])
    def test_knows_the_client_from_a_trusted_proxy(self, make_app, azure, admin, proxy):
        """It is behind what takes the proxy's word, and the record has the address."""
        app = make_app(LLMGATEWAY_TRUSTED_PROXY=proxy)
        made = app.test_client().post("/admin/keys", json={"user": "ada"}, headers=admin).json
        azure.script(FINE)
        environ = environ_of(
            dump(HELLO), HTTP_AUTHORIZATION=f"Bearer {made['key']}", HTTP_X_FORWARDED_FOR="198.51.100.7"
        )

        assert "200 OK" == ask(app, environ)[0]

        assert app.extensions[EXTENSION].journal.flush()
        [record] = app.extensions[EXTENSION].usage_log.records(RecordQuery(key_id=made["id"], limit=10))
        assert ("198.51.100.7" if proxy else "192.0.2.1") == record.client_address


class TestPagesOfOtherOrigins:
    @pytest.mark.parametrize(
        ("allowed", "origin", "header"),
        [
            ("https://a.example.org", "https://xa.example.org", None),
            ("https://a.example.org", "https://aXexample.org", None),
            ("https://a.example.org", "https://a.example.org.evil.com", None),
            ("https://a.example.org", "https://a.example.org:8443", None),
            ("https://a.example.org", "http://a.example.org", None),
            ("http://[::1]:3000", "http://[::1]:3000", "http://[::1]:3000"),
            ("http://[::1]:3000", "http://1:3000", None),
            ("http://[::1]:3000", "http://[::1]:30001", None),
            ("app://obsidian.md,null", "app://obsidian.md", "app://obsidian.md"),
            ("app://obsidian.md,null", "app://obsidianXmd", None),
            ("app://obsidian.md,null", "null", "null"),
            ("https://a.example.org", "null", None),
            ("chrome-extension://abcdef,moz-extension://1-2", "moz-extension://1-2", "moz-extension://1-2"),
            ("*", "https://xexample.org.evil.com", "https://xexample.org.evil.com"),
        ],
    )
    def test_only_whole_origins_are_allowed(self, make_app, allowed, origin, header):
        """No part of a name stands for another one; other schemes are allowed when they are named."""
        answer = make_app(LLMGATEWAY_CORS_ORIGINS=allowed).test_client().get("/livez", headers={"Origin": origin})

        assert header == answer.headers.get("Access-Control-Allow-Origin")

    """A page in a browser names its origin, and Flask answers it with what Flask-CORS has to say."""

    @pytest.mark.parametrize(
        ("allowed", "origin", "header"),
        [("", ORIGIN, None), (ORIGIN, ORIGIN, ORIGIN), (ORIGIN, "https://evil.example", None), (ORIGIN, None, None)],
    )
    @pytest.mark.parametrize("name", ["a plain answer", "a stream", "no key"])
    def test_get_the_same_answer_with_the_browsers_headers(self, make_app, admin, azure, allowed, origin, header, name):
        """Only allowed origins get the headers, also with errors. A request without an origin gets none."""
        app = make_app(LLMGATEWAY_CORS_ORIGINS=allowed)
        key = app.test_client().post("/admin/keys", json={"user": "ada"}, headers=admin).json["key"]
        status, script, body, changes = REQUESTS[name]
        azure.script(script or FINE, times=2)
        environ = {"HTTP_AUTHORIZATION": f"Bearer {key}", **changes}

        plain = ask(app, environ_of(body, **environ))
        answer = ask(app, environ_of(body, **environ, HTTP_ORIGIN=origin))

        assert status == int(answer[0].split()[0])
        assert header == dict(answer[1]).get("Access-Control-Allow-Origin")
        assert plain == (answer[0], [field for field in answer[1] if "Access-Control" not in field[0]], answer[2])


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", None])
def test_a_file_is_sent_in_a_form(client, user, kind):
    """415 says so, before anything is read."""
    answer = client.post("/v1/audio/transcriptions", data=b"{}", content_type=kind, headers=user)

    assert (415, "unsupported_media_type") == (answer.status_code, answer.json["error"]["code"])
    assert "multipart/form-data" in answer.json["error"]["message"]


def test_a_form_without_a_boundary_is_explained(client, user):
    """People set the header themselves."""
    answer = client.post("/v1/images/edits", data=b"--B--", content_type="multipart/form-data", headers=user)

    assert (400, "invalid_request_error") == (answer.status_code, answer.json["error"]["code"])
    assert "do not set it yourself" in answer.json["error"]["message"]
