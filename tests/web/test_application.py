"""What extensions of Flask rely on works for chat completions, too."""

from __future__ import annotations

import flask
import pytest
from flask import Flask, got_request_exception, request_finished, request_started, request_tearing_down
from werkzeug.exceptions import HTTPException

from llmgateway.proxy.relay import Reply
from llmgateway.web.application import Application
from llmgateway.web.context import EXTENSION
from tests.web.test_completions import ask, environ_of

EVENT = b"data: [DONE]\n\n"


class Stream:
    """A body that counts how often it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self):
        yield EVENT

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def stream():
    return Stream()


@pytest.fixture(params=["plain", "stream"])
def app(request, make_app, stream, monkeypatch):
    """The application, in which each completion is answered at once."""
    made = make_app()
    reply = Reply(status=200, headers=[], body=EVENT if request.param == "plain" else stream)
    monkeypatch.setattr(made.extensions[EXTENSION].gateway, "complete", lambda _: reply)
    return made


def test_hooks_run_around_a_completion(app):
    """Of the application and of its blueprint, in Flask's order; what they do to the answer reaches the client."""
    ran = []
    app.before_request(lambda: ran.append("before"))
    app.teardown_request(lambda error: ran.append(("teardown", error)))

    @app.after_request
    def after(response):
        ran.append(("after", flask.request.endpoint, response.status_code))
        response.headers["Server-Timing"] = "app;dur=1"
        response.status_code = 202
        return response

    status, headers, body = ask(app, environ_of())

    assert ["before", ("after", "users.create_chat_completion", 200), ("teardown", None)] == ran
    assert ("202 ACCEPTED", "app;dur=1", EVENT) == (status, dict(headers)["Server-Timing"], body)


def test_a_hook_may_answer_itself(app):
    """As a page for maintenance would."""
    app.before_request(lambda: ("closed today", 503))

    status, headers, body = ask(app, environ_of())

    assert ("503 SERVICE UNAVAILABLE", b"closed today") == (status, body)
    assert dict(headers)["x-request-id"]


def test_hooks_may_be_asynchronous(app, monkeypatch):
    """Flask turns them into functions, where it has what that needs."""
    monkeypatch.setattr(app, "async_to_sync", lambda func: lambda: ran.append(func))
    ran = []

    @app.before_request
    async def before() -> None: ...

    ask(app, environ_of())

    assert [before] == ran


def test_signals_are_sent(app):
    """Sentry's support of Flask listens to them."""
    sent = []
    listeners = [
        (signal, lambda _sender, signal=signal, **_: sent.append(signal))
        for signal in (request_started, request_finished, request_tearing_down, got_request_exception)
    ]
    for signal, listener in listeners:
        signal.connect(listener, app)

    ask(app, environ_of())

    assert [request_started, request_finished, request_tearing_down] == sent


def test_middleware_sees_a_completion(app):
    """OpenTelemetry's support of Flask wraps the application and what starts the response."""
    seen = []
    inner = app.wsgi_app

    def middleware(environ, start_response):
        def start(status, headers):
            seen.append((environ["PATH_INFO"], status))
            return start_response(status, headers)

        return inner(environ, start)

    app.wsgi_app = middleware

    ask(app, environ_of())

    assert [("/v1/chat/completions", "200 OK")] == seen


@pytest.mark.parametrize("read", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("app", ["stream"], indirect=True)
def test_a_stream_is_closed_once(app, stream, read):
    """By the server, whether it was read or not."""
    body = app(environ_of(), lambda *_: None)
    assert body is stream
    if read:
        assert [EVENT] == list(body)
    assert 0 == stream.closed

    body.close()

    assert 1 == stream.closed


@pytest.mark.parametrize("app", ["stream"], indirect=True)
def test_what_a_hook_wants_done_at_the_end_of_a_stream_is_done_once(app, stream):
    """After the last byte, and after the stream is closed, once."""
    done = []

    @app.after_request
    def after(response):
        response.call_on_close(lambda: done.append(stream.closed))
        return response

    body = app(environ_of(), lambda *_: None)
    assert EVENT == b"".join(body)
    assert [] == done
    body.close()

    assert [1] == done
    assert 1 == stream.closed


ADDRESSES = [
    {},
    {"HTTP_HOST": "Gateway.Example:8080"},
    {"HTTP_HOST": "gateway.example:443", "wsgi.url_scheme": "https"},
    {"HTTP_HOST": "[::1]:8080"},
    {"HTTP_HOST": "büro.example".encode().decode("latin-1")},
    {"HTTP_HOST": "not a host"},
    {"HTTP_HOST": "x" * 300},
    {"HTTP_HOST": None},
    {"SCRIPT_NAME": "/llm/gateway"},
    {"SCRIPT_NAME": "/"},
    {"PATH_INFO": ""},
    {"PATH_INFO": "/v1/models/a b"},
    {"PATH_INFO": "/v1/models/\xc3\xbc"},
    {"PATH_INFO": "/v2/chat/completions/"},
    {"QUERY_STRING": "a=b&c=%20d"},
    {"REQUEST_METHOD": "HEAD"},
]


@pytest.mark.parametrize("changes", ADDRESSES, ids=repr)
def test_finds_views_as_flask_does(changes):
    """The short way to them leaves nothing out that matters here."""

    def found(kind: type[Flask]):
        app = kind("test", static_folder=None)
        for rule in ("/", "/v1/models/<path:model>", "/v1/chat/completions"):
            app.add_url_rule(rule, rule, lambda **_: "", methods=["GET", "POST"])
        context = app.request_context(environ_of(**changes))
        with context:
            request = context.request
            matched = request.routing_exception or (request.url_rule.endpoint, request.view_args)
            adapter = context.url_adapter
        if isinstance(matched, HTTPException):
            matched = type(matched)
        return matched, adapter and {
            name: value for name, value in vars(adapter).items() if name not in ("map", "path_info")
        }

    assert found(Flask) == found(Application)


def test_names_of_the_own_host_are_checked_if_flask_is_told_to():
    """As its documentation says of TRUSTED_HOSTS."""
    app = Application("test", static_folder=None)
    app.config["TRUSTED_HOSTS"] = ["gateway.example"]

    assert 400 == app.test_client().get("/", headers={"Host": "evil.example"}).status_code
